//! The `sysctr` program: words in, a verb, words out.

mod cli;
mod commands;
mod output;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use cli::{Cli, Verb};
use commands::Context;
use output::Output;
use sysctr::model::fault::{Code, Fault};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && std::env::args().any(|word| word == "--json") => {
            // Its first line says what is wrong; how to use it is for people.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let output = Output { json: true, verbose: false, quiet: false };
            return output.failure(&Fault::new(Code::Usage, line).hint("`sysctr help` shows how").into());
        }
        Err(error) => error.exit(),
    };
    let output = Output { json: cli.json, verbose: cli.verbose, quiet: cli.quiet };
    let context = Context { root: cli.root.unwrap_or_else(|| PathBuf::from("/")), output };
    match run(&context, cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.failure(&error),
    }
}

fn run(context: &Context, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Install(args) => commands::install::run(context, &args),
        Verb::Uninstall(args) => commands::uninstall::run(context, &args),
        Verb::List => commands::list::run(context),
        Verb::Show { name } => commands::show::run(context, &name),
        Verb::Completions { shell } => commands::man::completions(shell),
        Verb::Man { dir } => commands::man::run(dir.as_deref()),
        Verb::Recover => commands::recover::run(context),
        Verb::Pull { image } => commands::pull::run(context, &image),
        Verb::Images => commands::images::run(context),
        Verb::Remove { images } => commands::remove::run(context, &images),
        Verb::Inspect { image } => commands::inspect::run(context, &image),
        Verb::Verify { names } => commands::verify::run(context, &names),
        Verb::Prune { dry_run } => commands::prune::run(context, dry_run),
    }
}
