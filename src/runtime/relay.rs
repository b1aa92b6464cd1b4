//! Waits for a program: passes its standard streams and our signals on, and keeps our own terminal in order.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::session::{self, Outside};
use super::sys::{self, Child};

/// No more than a pipe takes without blocking once it can be written to.
const CHUNK: usize = 4096;
/// So much of what the program left unread is still passed on after its end: other processes may go on writing for ever.
const AFTERMATH: usize = 1 << 20;
/// What closes the input of a program that reads a terminal.
const END_OF_TRANSMISSION: u8 = 4;

/// Blocks the signals that are passed on: from here on they wait for [`wait`].
pub fn block_signals() -> Result<()> {
    sys::default_action(libc::SIGCHLD);
    Ok(signals().thread_block()?)
}

fn signals() -> SigSet {
    use Signal::*;
    SigSet::from_iter([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT])
}

/// Returns the program's exit code, or 128 and the signal that ended it.
pub fn wait(outside: Outside, child: &Child) -> Result<u8> {
    let raw = if outside.terminal && outside.interactive { Raw::set()? } else { None };
    Relay::new(outside, raw)?.run(child)
}

struct Relay {
    /// Ours to theirs first, then theirs to ours.
    input: Option<Stream>,
    outputs: Vec<Stream>,
    /// The container's terminal, to be told of a new size.
    master: Option<OwnedFd>,
    signals: SignalFd,
    raw: Option<Raw>,
}

impl Relay {
    fn new(outside: Outside, raw: Option<Raw>) -> Result<Self> {
        let terminal = outside.terminal;
        let master = match outside.outputs.first() {
            Some((output, _)) if terminal => Some(output.try_clone()?),
            _ => None,
        };
        let last = terminal.then_some(END_OF_TRANSMISSION);
        let input = outside.input.map(|input| Stream::new(End::Stdin(io::stdin()), End::Program(input), last));
        let outputs = outside.outputs.into_iter();
        let outputs = outputs.map(|(output, place)| Stream::new(End::Program(output), End::ours(place), None));
        let signals = SignalFd::with_flags(&signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { input, outputs: outputs.collect(), master, signals, raw })
    }

    fn run(mut self, child: &Child) -> Result<u8> {
        loop {
            let streams: Vec<&Stream> = self.input.iter().chain(&self.outputs).collect();
            let waits: Vec<_> = streams.iter().map(|stream| stream.waits_for()).collect();
            let mut ready = vec![
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
                PollFd::new(&child.pidfd, PollFlags::IN),
            ];
            ready.extend(waits.iter().flatten().map(|(file, flags)| PollFd::from_borrowed_fd(*file, *flags)));
            ready_within(&mut ready, None)?;
            let (signalled, ended) = (!ready[0].revents().is_empty(), !ready[1].revents().is_empty());
            let mut events = ready[2..].iter().map(|one| !one.revents().is_empty());
            let steps: Vec<bool> = waits.iter().map(|wait| wait.is_some() && events.next() == Some(true)).collect();
            drop(ready);

            if signalled {
                while let Some(signal) = self.next_signal()? {
                    self.pass_on(signal, child)?;
                }
            }
            if ended {
                break;
            }
            let mut steps = steps.into_iter();
            for stream in self.input.iter_mut().chain(&mut self.outputs) {
                if steps.next() == Some(true) {
                    stream.step();
                }
            }
            // Nobody looks at the program's terminal any more: it hangs up.
            if self.master.is_some() && self.outputs.iter().all(Stream::is_over) {
                (self.master, self.input) = (None, None);
            }
        }
        let code = match waitpid(Pid::from_raw(child.pid), None).context("waiting for the program")? {
            WaitStatus::Exited(_, code) => code as u8,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
            _ => 1,
        };
        self.finish()?;
        Ok(code)
    }

    /// What the program wrote before its end.
    fn finish(mut self) -> Result<()> {
        self.input = None;
        let mut left = AFTERMATH;
        loop {
            for stream in &mut self.outputs {
                while let Some((file, flags)) = stream.waits_for() {
                    let mut ready = [PollFd::from_borrowed_fd(file, flags)];
                    let now = Some(Timespec { tv_sec: 0, tv_nsec: 0 });
                    ready_within(&mut ready, now.as_ref())?;
                    if ready[0].revents().is_empty() {
                        break;
                    }
                    let taken = stream.step();
                    left = left.saturating_sub(taken);
                    if left == 0 {
                        return Ok(());
                    }
                }
            }
            // What was taken and not yet given: whoever reads it has time, but a signal ends the waiting.
            let unread: Vec<_> =
                self.outputs.iter().filter(|it| it.is_pending()).filter_map(Stream::waits_for).collect();
            if unread.is_empty() {
                return Ok(());
            }
            let mut ready = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
            ready.extend(unread.iter().map(|(file, flags)| PollFd::from_borrowed_fd(*file, *flags)));
            ready_within(&mut ready, None)?;
            if !ready[0].revents().is_empty() {
                let signal = self.next_signal()?;
                if signal.is_some_and(|signal| signal != Signal::SIGWINCH && signal != Signal::SIGCONT) {
                    return Ok(());
                }
            }
        }
    }

    fn next_signal(&self) -> Result<Option<Signal>> {
        let Some(info) = self.signals.read_signal()? else { return Ok(None) };
        Ok(Signal::try_from(info.ssi_signo as i32).ok())
    }

    fn pass_on(&mut self, signal: Signal, child: &Child) -> Result<()> {
        match (signal, &self.master) {
            (Signal::SIGWINCH, Some(master)) => {
                if let Some(size) = session::own_size() {
                    sys::set_window_size(master, &size)?;
                }
            }
            // A shell that stopped us has set the terminal back.
            (Signal::SIGCONT, Some(_)) if self.raw.is_some() => self.raw.as_ref().map_or(Ok(()), Raw::again)?,
            // It may have ended a moment ago.
            _ => drop(nix::sys::signal::kill(Pid::from_raw(child.pid), signal)),
        }
        Ok(())
    }
}

fn ready_within(ready: &mut [PollFd], limit: Option<&Timespec>) -> Result<()> {
    loop {
        match poll(ready, limit) {
            Err(Errno::INTR) => continue,
            result => return result.map(drop).map_err(Into::into),
        }
    }
}

/// One of ours stays open, one of the program's is closed with its stream.
enum End {
    Stdin(io::Stdin),
    Stdout(io::Stdout),
    Stderr(io::Stderr),
    Program(OwnedFd),
}

impl End {
    fn ours(place: i32) -> Self {
        if place == libc::STDOUT_FILENO { End::Stdout(io::stdout()) } else { End::Stderr(io::stderr()) }
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            End::Stdin(file) => file.as_fd(),
            End::Stdout(file) => file.as_fd(),
            End::Stderr(file) => file.as_fd(),
            End::Program(file) => file.as_fd(),
        }
    }
}

/// Bytes on their way from one descriptor to another.
struct Stream {
    ends: Option<(End, End)>,
    pending: Vec<u8>,
    /// Said at the end of what is read.
    last: Option<u8>,
    closing: bool,
}

impl Stream {
    fn new(from: End, to: End, last: Option<u8>) -> Self {
        Self { ends: Some((from, to)), pending: Vec::new(), last, closing: false }
    }

    fn is_over(&self) -> bool {
        self.ends.is_none()
    }

    fn is_pending(&self) -> bool {
        self.ends.is_some() && !self.pending.is_empty()
    }

    fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let (from, to) = self.ends.as_ref()?;
        Some(if self.pending.is_empty() { (from.as_fd(), PollFlags::IN) } else { (to.as_fd(), PollFlags::OUT) })
    }

    /// Reads or writes once; gives how much was read.
    fn step(&mut self) -> usize {
        let Some((from, to)) = &self.ends else { return 0 };
        if !self.pending.is_empty() {
            match rustix::io::write(to, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Whoever was to read it has gone; the other side shall know.
                Err(_) => self.close(),
            }
            if self.closing && self.pending.is_empty() {
                self.close();
            }
            return 0;
        }
        let mut chunk = [0; CHUNK];
        match rustix::io::read(from, &mut chunk) {
            Ok(length) if length > 0 => {
                self.pending.extend(&chunk[..length]);
                length
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // The end; a terminal says EIO once nobody has its other end open.
            _ => {
                match self.last {
                    Some(last) => (self.pending, self.closing) = (vec![last], true),
                    None => self.close(),
                }
                0
            }
        }
    }

    fn close(&mut self) {
        self.ends = None;
        self.pending.clear();
    }
}

/// Our own terminal, passing every key on; as it was before once this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    /// None where our standard input is no terminal.
    fn set() -> Result<Option<Self>> {
        let Ok(before) = tcgetattr(io::stdin()) else { return Ok(None) };
        let raw = Self { before };
        raw.again()?;
        Ok(Some(raw))
    }

    fn again(&self) -> Result<()> {
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).context("setting the terminal")
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}
