//! Lets the bundled runtime run one more program in a running container, as the container's own are confined.

use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
};

use anyhow::{Context, Result};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
};

use crate::model::{layout, process::Exec};

/// The command that runs the program and waits for it.
pub struct Entering {
    /// It ends as the program does, or with 125 to 127.
    pub command: Command,
    /// The command inherits them, so they have to be open when it is started.
    _inherited: [OwnedFd; 2],
}

/// Prepares it. Only one command is to be started while this is there: another one would inherit what is meant for this.
pub fn prepare(pidfd: &OwnedFd, request: &Exec) -> Result<Entering> {
    // Not on the command line: what is secret in an environment is nobody else's.
    let mut file = File::from(memfd_create("request", MemfdFlags::CLOEXEC).context("keeping the request")?);
    file.write_all(&serde_json::to_vec(request)?)?;
    file.rewind()?;
    let inherited = [pidfd.try_clone()?, file.into()];
    let mut command = Command::new(layout::RUNTIME);
    command.arg("exec");
    for fd in &inherited {
        fcntl_setfd(fd.as_fd(), FdFlags::empty())?;
        command.arg(fd.as_raw_fd().to_string());
    }
    Ok(Entering { command, _inherited: inherited })
}
