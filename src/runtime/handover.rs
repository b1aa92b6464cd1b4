//! Telling systemd: sd_notify(3) messages, and the barrier that says they were read.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libsystemd::daemon::{NotifyState, notify_with_fds};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

/// How long systemd may take to read a message. It answers in well under a millisecond; a machine that is busy booting may not.
const BARRIER_DEADLINE: Duration = Duration::from_secs(30);

/// Whether standard error goes to the journal, which then takes `<3>` in front of a line for its level (sd-daemon(3)).
pub fn stderr_is_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The manager that waits for this unit's messages.
#[derive(Debug)]
pub struct Manager(());

impl Manager {
    /// The manager named in NOTIFY_SOCKET.
    pub fn from_env() -> Option<Self> {
        std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(|_| Self(()))
    }

    /// Names the unit's main process. Once systemd has come to the barrier it watches that process, and not before.
    pub fn main_pid(&self, pid: i32) -> Result<Barrier> {
        send(&[NotifyState::Other(format!("MAINPID={pid}"))]).context("naming the main process to systemd")?;
        Barrier::after_what_was_sent()
    }

    /// Says that the service is up.
    pub fn ready(&self) -> Result<()> {
        send(&[NotifyState::Ready]).context("telling systemd that the service is ready")
    }

    /// Shows `text` in `systemctl status`.
    pub fn status(&self, text: &str) -> Result<()> {
        send(&[NotifyState::Status(text.replace('\n', " "))]).context("telling systemd the cause")
    }

    /// Returns once systemd has read all that was sent before. A sender that ends earlier cannot be told to belong to the unit.
    pub fn barrier(&self) -> Result<()> {
        Barrier::after_what_was_sent()?.wait()
    }
}

/// A place in the row of messages that systemd comes to some time.
#[derive(Debug)]
#[must_use]
pub struct Barrier(OwnedFd);

impl Barrier {
    fn after_what_was_sent() -> Result<Self> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        ensure!(notify_with_fds(false, &[NotifyState::Other("BARRIER=1".into())], &[theirs.as_raw_fd()])?, "no socket");
        Ok(Self(ours))
    }

    /// Returns once systemd has read all that was sent before.
    pub fn wait(self) -> Result<()> {
        let deadline = Timespec { tv_sec: BARRIER_DEADLINE.as_secs() as _, tv_nsec: 0 };
        let read = loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::empty())], Some(&deadline)) {
                Err(rustix::io::Errno::INTR) => continue,
                result => break result.map_err(io::Error::from)?,
            }
        };
        ensure!(read > 0, "systemd read no message for {} seconds", BARRIER_DEADLINE.as_secs());
        Ok(())
    }
}

fn send(state: &[NotifyState]) -> Result<()> {
    ensure!(notify_with_fds(false, state, &[])?, "NOTIFY_SOCKET is no usable path");
    Ok(())
}
