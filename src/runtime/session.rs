//! The standard streams of a program that somebody waits for.
//!
//! No descriptor of the caller's goes into the container: the program gets pipes, or a terminal of the container's own, and the
//! launcher passes on what goes through them.
//!
//! ```text
//!            launcher (Outside)                    program (Inside)
//!   stdin ──▶ ─────────────── pipe ──────────────▶ 0        without a terminal
//!  stdout ◀── ◀────────────── pipe ─────────────── 1
//!  stderr ◀── ◀────────────── pipe ─────────────── 2
//!     all ◀─▶ ◀── master, sent over a socket ────▶ 0 1 2    with one
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
    socket: Option<OwnedFd>,
    interactive: bool,
}

/// The program's side.
#[derive(Debug)]
pub enum Inside {
    /// standard input, output and error
    Pipes([OwnedFd; 3]),
    /// where the terminal's other end is sent, and how large it is
    Terminal(OwnedFd, Option<libc::winsize>),
}

/// Both sides.
pub fn make(terminal: bool, interactive: bool, size: Option<libc::winsize>) -> Result<(Outside, Inside)> {
    if terminal {
        let (ours, theirs) = passing::pair()?;
        let outside = Outside { input: None, outputs: Vec::new(), socket: Some(ours), interactive };
        return Ok((outside, Inside::Terminal(theirs, own_size().or(size))));
    }
    let pipe = || -> Result<(OwnedFd, OwnedFd)> { Ok(pipe_with(PipeFlags::CLOEXEC)?) };
    // Where there is nothing to read, a pipe that is at its end: root in the container could change the host's /dev/null through
    // the descriptor, and the container's own may be anything.
    let (stdin, input) = pipe()?;
    let input = interactive.then_some(input);
    let ((output, stdout), (error, stderr)) = (pipe()?, pipe()?);
    for end in input.iter().chain([&output, &error]) {
        fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)?;
    }
    let outputs = vec![(output, libc::STDOUT_FILENO), (error, libc::STDERR_FILENO)];
    Ok((Outside { input, outputs, socket: None, interactive }, Inside::Pipes([stdin, stdout, stderr])))
}

/// The size of the terminal that we were started on.
pub fn own_size() -> Option<libc::winsize> {
    let size = sys::window_size(io::stdin()).or_else(|_| sys::window_size(io::stdout()));
    size.or_else(|_| sys::window_size(io::stderr())).ok()
}

impl Outside {
    /// True where the program has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.socket.is_some()
    }

    /// True where the program reads what we read.
    pub fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Takes the terminal that the program's side has sent by now.
    pub fn receive(&mut self) -> Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let sent = passing::receive(socket).context("taking over the container's terminal")?;
        let master = sent.and_then(|(_, master)| master).context("the container's terminal did not come")?;
        if self.interactive {
            self.input = Some(master.try_clone()?);
        }
        self.outputs.push((master, libc::STDOUT_FILENO));
        Ok(())
    }
}

impl Inside {
    /// Makes pipes the process's standard streams. They belong to the program's user, so that it can open /dev/stdout.
    pub fn place_pipes(&self, uid: u32) -> Result<()> {
        let Self::Pipes(pipes) = self else { return Ok(()) };
        for (pipe, place) in pipes.iter().zip(0..) {
            give(pipe, uid);
            sys::put_in_place(pipe, place)?;
        }
        Ok(())
    }

    /// Sends one end of a terminal out and makes the other the process's standard streams and its session's terminal.
    pub fn place_console(&self, console: Console, uid: u32) -> Result<()> {
        let Self::Terminal(socket, size) = self else { return Ok(()) };
        let Console { master, slave } = console;
        if let Some(size) = size {
            sys::set_window_size(&master, size).context("setting the terminal's size")?;
        }
        passing::send(socket, b"+", Some(&master)).context("handing over the terminal")?;
        give(&slave, uid);
        (0..=2).try_for_each(|place| sys::put_in_place(&slave, place))?;
        Ok(())
    }
}

/// In a user namespace it may not be ours to give; then the program has it open all the same.
fn give(file: impl AsFd, uid: u32) {
    let _ = fchown(file, Some(Uid::from_raw(uid)), None::<Gid>);
}
