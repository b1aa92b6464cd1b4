//! Failures that end the program with a code of their own, and the way out that we can offer.

use std::fmt;

/// What the exit status says; the numbers are part of the command line's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// It failed and nothing changed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// An update failed and was rolled back.
    RolledBack = 3,
    /// Policy refuses it, or a request of the image was not accepted.
    Refused = 4,
    /// No such container or image.
    NotFound = 5,
    /// It failed half-way and a person has to look.
    NeedsYou = 6,
    /// `exec` and `run`: it failed before the program ran, as podman says it.
    NotRun = 125,
}

/// A message with its exit code and, where there is a way out, a hint.
#[derive(Debug)]
pub struct Fault {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Fault {
    /// A failure without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into(), hint: None }
    }

    /// The same with the way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code it asks for.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The exit code that a failure asks for, where it does.
    pub fn code_of(error: &anyhow::Error) -> Option<Code> {
        error.chain().find_map(|cause| cause.downcast_ref::<Fault>()).map(Fault::code)
    }

    /// The way out, where there is one.
    pub fn way_out(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
