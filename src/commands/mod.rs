//! One verb a file: choose, apply, report.

use std::path::{Path, PathBuf};

use crate::output::Output;

/// What every verb needs to know about this run.
pub struct Context {
    /// `/`, or the folder given with `--root`.
    pub root: PathBuf,
    pub output: Output,
}

impl Context {
    /// Whether we work on a tree that is not the running system.
    pub fn offline(&self) -> bool {
        self.root != Path::new("/")
    }
}
