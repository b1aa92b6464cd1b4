//! The program that is cut: the shipped one, or one that something was taken out of.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::common::controls;

const SHIPPED: &str = env!("CARGO_BIN_EXE_sysctr");

/// A program, and what it is told beside its arguments.
pub struct Program {
    path: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Program {
    pub fn shipped() -> Program {
        Program { path: SHIPPED.into(), environment: Vec::new() }
    }

    /// One with controls, and one of its switches.
    pub fn with(switch: &'static str, value: &str) -> Program {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        let path = BUILT.get_or_init(|| controls::build(SHIPPED)).clone();
        Program { path, environment: vec![(switch, value.to_owned())] }
    }

    /// Whether something was taken out of it.
    pub fn lacks_something(&self) -> bool {
        !self.environment.is_empty()
    }

    /// Ready to run.
    pub fn command(&self, root: &Path, verb: &[String]) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(root).args(verb).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
