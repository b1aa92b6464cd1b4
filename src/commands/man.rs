//! `sysctr man` and `sysctr completions`: made from the definitions of the command line, so that they cannot lag behind.

use std::{io::Write, path::Path};

use anyhow::{Context as _, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints sysctr(1), or writes one page for each verb into a folder.
pub fn run(dir: Option<&Path>) -> Result<()> {
    let command = Cli::command();
    match dir {
        Some(dir) => {
            clap_mangen::generate_to(command, dir).with_context(|| format!("writing manual pages to {}", dir.display()))
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command.disable_help_subcommand(true))
                .render(&mut page)
                .context("making the manual page")?;
            // A pager that was left early is no failure.
            let _ = std::io::stdout().write_all(&page);
            Ok(())
        }
    }
}

/// Prints the completion script of a shell.
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sysctr", &mut script);
    let _ = std::io::stdout().write_all(&script);
    Ok(())
}
