//! Standard input, output and error, as far as they are not simply handed on.

use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, makedev, openat2};

use super::controls::{Defence, without};

/// Takes the container's own /dev/null for each standard stream that is the host's: a root in the container owns that file, and
/// could change its mode and owner for the whole host through the descriptor.
pub fn own_null() -> Result<()> {
    if without(Defence::Streams) {
        return Ok(());
    }
    let is_null = |file: BorrowedFd<'_>| {
        fstat(file).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3)
        })
    };
    let own = |access: OFlags| -> Result<OwnedFd> {
        let flags = access | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat2(CWD, "/dev/null", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .context("opening the container's /dev/null for a standard stream")?;
        ensure!(is_null(file.as_fd()), "the container's /dev/null is another file");
        Ok(file)
    };
    let (input, output, error) = (stdin(), stdout(), stderr());
    if is_null(input.as_fd()) {
        dup2_stdin(own(OFlags::RDONLY)?)?;
    }
    if is_null(output.as_fd()) {
        dup2_stdout(own(OFlags::WRONLY)?)?;
    }
    if is_null(error.as_fd()) {
        dup2_stderr(own(OFlags::WRONLY)?)?;
    }
    Ok(())
}
