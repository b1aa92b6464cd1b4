//! The `sysctr` program: words in, a verb, words out.

mod cli;
mod commands;
mod output;

use std::{error::Error, num::ParseIntError, path::PathBuf, process::ExitCode};

use clap::{Parser, error::ErrorKind};

use cli::{Cli, Verb};
use commands::Context;
use output::Output;
use sysctr::model::fault::{Code, Fault};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Asked for, or nothing was said at all.
        Err(error) if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            error.exit()
        }
        Err(error) => {
            let json = std::env::args_os().any(|word| word == "--json");
            return Output { json, verbose: false, quiet: false, unattended: true }.failure(&usage(&error).into());
        }
    };
    let unattended = matches!(&cli.verb, Verb::Update(args) if args.auto);
    let output = Output { json: cli.json, verbose: cli.verbose, quiet: cli.quiet, unattended };
    let context = Context { root: cli.root.unwrap_or_else(|| PathBuf::from("/")), output, wait: cli.wait };
    let runs_a_program = matches!(cli.verb, Verb::Exec(_) | Verb::Run(_));
    match run(&context, cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if runs_a_program => output.failure_to_run(&error),
        Err(error) => output.failure(&error),
    }
}

/// A wrong command line in our own form: what is wrong, and in the hint how it is right.
fn usage(error: &clap::Error) -> Fault {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let first = first.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    // What our own types say of a value needs no words around it.
    let message = match error.source() {
        Some(cause) if error.kind() == ErrorKind::ValueValidation && !cause.is::<ParseIntError>() => cause.to_string(),
        _ => first,
    };
    let line = |start: &str| text.lines().map(str::trim).find_map(|line| line.strip_prefix(start));
    let usage = || line("Usage: ").map(|usage| format!("usage: {usage}"));
    let hint = line("tip: ").map(str::to_owned).or_else(usage);
    Fault::new(Code::Usage, message).hint(hint.unwrap_or_else(|| "`sysctr help` shows how".to_owned()))
}

fn run(context: &Context, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Install(args) => commands::install::run(context, &args),
        Verb::Update(args) => commands::update::run(context, &args),
        Verb::Rollback(args) => commands::rollback::run(context, &args),
        Verb::Uninstall(args) => commands::uninstall::run(context, &args),
        Verb::List => commands::list::run(context),
        Verb::Show { name } => commands::show::run(context, &name),
        Verb::Diff(args) => commands::diff::run(context, &args),
        Verb::Completions { shell } => commands::man::completions(shell),
        Verb::Man { dir } => commands::man::run(dir.as_deref()),
        Verb::Exec(args) => commands::exec::run(context, &args),
        Verb::Run(args) => commands::run::run(context, &args),
        Verb::Recover => commands::recover::run(context),
        Verb::Settle { failed } => commands::settle::run(context, failed.as_ref()),
        Verb::Pull { image } => commands::pull::run(context, &image),
        Verb::Images => commands::images::run(context),
        Verb::Remove { images } => commands::remove::run(context, &images),
        Verb::Inspect { image: Some(image), .. } => commands::inspect::run(context, &image),
        Verb::Inspect { image: None, .. } => commands::inspect::schema(context),
        Verb::Init(args) => commands::init::run(context, &args),
        Verb::Check(args) => commands::check::run(context, &args),
        Verb::Lint(args) => commands::lint::run(context, &args),
        Verb::Mount { image, dir } => commands::mount::run(context, &image, &dir),
        Verb::Unmount { dir } => commands::unmount::run(context, &dir),
        Verb::Verify(args) => commands::verify::run(context, &args),
        Verb::Prune { dry_run } => commands::prune::run(context, dry_run),
    }
}
