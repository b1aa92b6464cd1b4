//! Words out: results on standard output, everything else on standard error.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use serde::Serialize;

use sysctr::model::fault::{Code, Fault};
pub use sysctr::model::text::one_line;

/// How this run talks.
#[derive(Clone, Copy)]
pub struct Output {
    pub json: bool,
    pub verbose: bool,
    pub quiet: bool,
    /// Nobody is asked anything, even where somebody is there.
    pub unattended: bool,
}

impl Output {
    /// Whether a progress bar may be drawn.
    pub fn progress(&self) -> bool {
        !self.quiet && !self.json && io::stderr().is_terminal()
    }

    /// A line about what was done, for people only.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.quiet && !self.json {
            println_or_leave(&one_line(line.as_ref()));
        }
    }

    /// A line that `--verbose` asks for.
    pub fn detail(&self, line: impl AsRef<str>) {
        if self.verbose {
            eprintln!("{}", one_line(line.as_ref()));
        }
    }

    /// What was done otherwise than somebody wrote it.
    pub fn note(&self, line: impl AsRef<str>) {
        if !self.quiet && !self.json {
            eprintln!("note: {}", one_line(line.as_ref()));
        }
    }

    /// A word of advice with what was done.
    pub fn hint(&self, line: impl AsRef<str>) {
        if !self.quiet && !self.json {
            eprintln!("hint: {}", one_line(line.as_ref()));
        }
    }

    /// Something that a person should know though nothing failed.
    pub fn warn(&self, line: impl AsRef<str>) {
        // With --json standard error is for the one document of a failure.
        if !self.json {
            eprintln!("warning: {}", one_line(line.as_ref()));
        }
    }

    /// The verb's result: one JSON document, or the text for people.
    pub fn result(&self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            println_or_leave(&serde_json::to_string_pretty(document).context("writing the JSON document")?);
        } else {
            // An image's label must not steer the terminal.
            let text: Vec<String> = text().trim_end().split('\n').map(one_line).collect();
            if text != [""] {
                println_or_leave(&text.join("\n"));
            }
        }
        Ok(())
    }

    /// Whether somebody is there to answer.
    pub fn can_ask(&self) -> bool {
        !self.json && !self.unattended && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks on the terminal; without one the answer is no.
    pub fn confirm(&self, question: &str) -> Result<bool> {
        if !self.can_ask() {
            return Ok(false);
        }
        eprint!("{question} [y/N] ");
        io::stderr().flush().context("asking")?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Lets a person choose one of several, by number; none where nothing fit.
    pub fn choose(&self, question: &str, choices: &[String]) -> Result<Option<usize>> {
        eprintln!("{}", one_line(question));
        for (number, choice) in (1..).zip(choices) {
            eprintln!("  {number}  {}", one_line(choice));
        }
        eprint!("Which one? [1-{}] ", choices.len());
        io::stderr().flush().context("asking")?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
        let number = answer.trim().parse::<usize>().ok();
        Ok(number.and_then(|number| number.checked_sub(1)).filter(|number| *number < choices.len()))
    }

    /// Prints the failure on one line, the hint below it, and gives the exit code.
    pub fn failure(&self, error: &anyhow::Error) -> ExitCode {
        self.failure_as(error, error.downcast_ref::<Fault>().map_or(Code::Failed, Fault::code))
    }

    /// The same of a verb that ends as a program does: only a refusal has a code of its own.
    pub fn failure_to_run(&self, error: &anyhow::Error) -> ExitCode {
        let refused = error.downcast_ref::<Fault>().is_some_and(|fault| fault.code() == Code::Refused);
        self.failure_as(error, if refused { Code::Refused } else { Code::NotRun })
    }

    fn failure_as(&self, error: &anyhow::Error, code: Code) -> ExitCode {
        let fault = error.downcast_ref::<Fault>();
        let unprivileged = !rustix::process::geteuid().is_root() && error.chain().any(is_denied);
        let hint = fault.and_then(Fault::way_out).or(unprivileged.then_some("sysctr works as root"));
        let message = one_line(&format!("{error:#}"));
        if self.json {
            eprintln!("{}", serde_json::json!({"error": message, "hint": hint, "code": code as u8}));
        } else {
            eprintln!("error: {message}");
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
        }
        ExitCode::from(code as u8)
    }
}

fn is_denied(cause: &(dyn std::error::Error + 'static)) -> bool {
    let errno = cause.downcast_ref::<rustix::io::Errno>();
    let io = cause.downcast_ref::<io::Error>();
    errno.is_some_and(|errno| matches!(*errno, rustix::io::Errno::ACCESS | rustix::io::Errno::PERM))
        || io.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Like println!, but a reader that left (`sysctr list | head -1`) is no failure.
fn println_or_leave(text: &str) {
    if writeln!(io::stdout().lock(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// A table for people: columns two spaces apart, no lines around them.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
