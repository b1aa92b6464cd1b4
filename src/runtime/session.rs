//! The standard streams of a program that somebody waits for.
//!
//! No descriptor of the caller's goes into the container: the program gets pipes, or a terminal of the container's own, and the
//! launcher passes on what goes through them. The program's side makes them, as they are to belong to the container's users.
//!
//! ```text
//!            launcher (Outside)                    program (Inside)
//!                  ◀── ends of the program's side, over a socket
//!   stdin ──▶ ─────────────── pipe ──────────────▶ 0        without a terminal
//!  stdout ◀── ◀────────────── pipe ─────────────── 1
//!  stderr ◀── ◀────────────── pipe ─────────────── 2
//!     all ◀─▶ ◀───────────── terminal ───────────▶ 0 1 2    with one
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{Gid, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use super::console::Console;
use super::{passing, sys};

/// The launcher's side.
#[derive(Debug)]
pub struct Outside {
    /// what it writes for the program to read; none where the program reads nothing of ours
    pub input: Option<OwnedFd>,
    /// what the program writes, and to which descriptor of ours it goes
    pub outputs: Vec<(OwnedFd, i32)>,
    /// the program has a terminal
    pub terminal: bool,
    /// it reads what we read
    pub interactive: bool,
    socket: OwnedFd,
}

/// The program's side.
#[derive(Debug)]
pub struct Inside {
    /// it is to have a terminal
    pub terminal: bool,
    interactive: bool,
    size: Option<libc::winsize>,
    socket: OwnedFd,
}

/// Both sides. A terminal is as large as ours, and without ours as `size` says.
pub fn make(terminal: bool, interactive: bool, size: Option<libc::winsize>) -> Result<(Outside, Inside)> {
    let (ours, theirs) = passing::pair()?;
    let outside = Outside { input: None, outputs: Vec::new(), terminal, interactive, socket: ours };
    Ok((outside, Inside { terminal, interactive, size: own_size().or(size), socket: theirs }))
}

/// The size of the terminal that we were started on.
pub fn own_size() -> Option<libc::winsize> {
    let size = sys::window_size(io::stdin()).or_else(|_| sys::window_size(io::stdout()));
    size.or_else(|_| sys::window_size(io::stderr())).ok()
}

impl Outside {
    /// Takes what the program's side has sent by now.
    pub fn receive(&mut self) -> Result<()> {
        let sent = passing::receive(&self.socket).context("taking over the program's standard streams")?;
        let mut files = sent.map(|(_, files)| files).unwrap_or_default().into_iter();
        let mut next = || files.next().context("the program's standard streams did not come");
        let first = next()?;
        if self.terminal {
            self.input = if self.interactive { Some(first.try_clone()?) } else { None };
            self.outputs = vec![(first, libc::STDOUT_FILENO)];
        } else {
            self.outputs = vec![(first, libc::STDOUT_FILENO), (next()?, libc::STDERR_FILENO)];
            self.input = if self.interactive { Some(next()?) } else { None };
        }
        for end in self.outputs.iter().map(|(end, _)| end).chain(&self.input) {
            fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)?;
        }
        Ok(())
    }
}

impl Inside {
    /// Makes pipes and makes them the process's standard streams. They belong to the program's user, so that it can open /dev/stdout.
    pub fn place_pipes(&self, uid: u32) -> Result<()> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("making pipes");
        let ((stdin, input), (output, stdout), (error, stderr)) = (pipe()?, pipe()?, pipe()?);
        // Where there is nothing to read, the pipe is at its end: root in the container could change the host's /dev/null through
        // the descriptor, and the container's own may be anything.
        let sent = [&output, &error].into_iter().chain(self.interactive.then_some(&input)).collect::<Vec<_>>();
        passing::send(&self.socket, b"+", &sent).context("handing over the pipes")?;
        for (end, place) in [stdin, stdout, stderr].iter().zip(0..) {
            give(end, uid);
            sys::put_in_place(end, place)?;
        }
        Ok(())
    }

    /// Sends one end of a terminal out and makes the other the process's standard streams.
    pub fn place_console(&self, console: Console, uid: u32) -> Result<()> {
        let Console { master, slave } = console;
        if let Some(size) = &self.size {
            sys::set_window_size(&master, size).context("setting the terminal's size")?;
        }
        passing::send(&self.socket, b"+", &[&master]).context("handing over the terminal")?;
        give(&slave, uid);
        (0..=2).try_for_each(|place| sys::put_in_place(&slave, place))?;
        Ok(())
    }
}

/// Where it may not be ours to give, the program has it open all the same.
fn give(file: impl AsFd, uid: u32) {
    let _ = fchown(file, Some(Uid::from_raw(uid)), None::<Gid>);
}
