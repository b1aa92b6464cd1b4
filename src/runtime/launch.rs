//! The launcher: starts init, hands it over to systemd, and ends.
//!
//! With NOTIFY_SOCKET, a unit of Type=notify, init becomes the unit's main process and the launcher goes. Without it (by hand,
//! Type=simple, Type=oneshot) systemd holds the process that it started for the main one and has no way to be told another:
//! then the launcher stays, passes signals on, and ends as the container does. `--wait` asks for that in any case.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::pidfd_send_signal;

use super::deployment::{self, Deployment};
use super::environment::Passed;
use super::exit::{self, Failed};
use super::handover::{self, Manager};
use super::hooks::{Runner, Stage};
use super::init::{BUILT, Init, NOTIFY, PREPARED};
use super::namespaces::Namespaces;
use super::sys::{self, Child};
use super::time::TimeNamespace;
use super::{given, one_line, seal};

/// How long an init that failed may take to end by itself.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// `run` on the command line.
#[derive(Debug)]
pub struct Run {
    /// the deployment's folder
    pub dir: PathBuf,
    /// the instance of a template unit
    pub instance: Option<String>,
    /// wait for the container even where it could be handed over
    pub wait: bool,
}

/// Starts the container; the exit code is its own where the launcher waits for it. Reports a failure itself, since init is
/// held until that is done: once init has ended, systemd may end the launcher too.
pub fn run(run: &Run) -> u8 {
    let manager = if run.wait { None } else { Manager::from_env() };
    let name = deployment::name_of(&run.dir, run.instance.as_deref());
    let name = match name {
        Ok(name) => name,
        Err(error) => return failed(&error, manager.as_ref()),
    };
    let starting = format!("starting {name}");
    let mut init = match clone(run, manager.is_some()).context(starting.clone()) {
        Ok(init) => init,
        Err(error) => return failed(&error, manager.as_ref()),
    };
    let code = match &manager {
        Some(manager) => init.hand_over(manager).map(|()| 0),
        None => init.wait_for(),
    };
    code.context(starting).unwrap_or_else(|error| {
        let code = failed(&error, manager.as_ref());
        init.end();
        code
    })
}

fn failed(error: &anyhow::Error, manager: Option<&Manager>) -> u8 {
    let line = one_line(error);
    let level = if handover::stderr_is_journal() { "<3>" } else { "" };
    eprintln!("{level}error: {line}");
    if let Some(manager) = manager {
        // The message on standard error is what counts; systemd not hearing it must not hide that one.
        let _ = manager.status(&line).and_then(|()| manager.barrier());
    }
    match given::by_systemd(|name| std::env::var_os(name)) {
        true => Failed::code_of(error),
        false => exit::FAILURE,
    }
}

/// Init as the launcher holds it.
struct Started {
    child: Child,
    report: File,
    go: Option<File>,
    speaks_itself: bool,
    hooks: Option<Runner>,
}

fn clone(run: &Run, sibling: bool) -> Result<Started> {
    seal::from_own_executable()?;
    let deployment = Deployment::load(&run.dir)?;
    let mut passed = Passed::from_env()?;
    passed.instance.clone_from(&run.instance);
    let linux = deployment.spec.linux().as_ref().context("linux is missing")?;
    let namespaces = Namespaces::of(linux);
    let name = deployment::name_of(&deployment.dir, run.instance.as_deref())?;
    let hooks = Runner::of(&deployment.spec, &name, &deployment.dir);
    let speaks_itself = deployment.annotated(NOTIFY);
    let (report, report_of_init) = pipe_with(PipeFlags::CLOEXEC)?;
    let (go_of_init, go) = pipe_with(PipeFlags::CLOEXEC)?;
    passed.directories.give(&deployment.spec)?;
    namespaces.join_for_children()?;
    let mut mask = SigSet::thread_get_mask()?;
    if !sibling {
        mask = forwarded().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        sys::default_action(libc::SIGCHLD);
    }
    let time = TimeNamespace::for_children(linux)?;
    match sys::clone(namespaces.new, sibling).context("making the container's namespaces")? {
        Some(child) => {
            time.map_or(Ok(()), TimeNamespace::leave)?;
            Ok(Started { child, report: report.into(), go: Some(go.into()), speaks_itself, hooks })
        }
        None => {
            drop((report, go));
            let (report, go) = (report_of_init.into(), go_of_init.into());
            let stage = Cell::new(exit::FAILURE);
            Init { deployment, passed, namespaces, hooks, report, go, bound: !sibling, mask, stage }.main()
        }
    }
}

impl Started {
    fn hand_over(&mut self, manager: &Manager) -> Result<()> {
        self.until_prepared()?;
        manager.main_pid(self.child.pid)?;
        self.until_executed()?;
        if !self.speaks_itself {
            manager.ready()?;
        }
        // The program runs and systemd knows it: what fails from here on is no failure of the start.
        let _ = manager.barrier();
        Ok(())
    }

    fn wait_for(&mut self) -> Result<u8> {
        self.until_prepared()?;
        self.until_executed()?;
        let signals = forwarded();
        loop {
            match signals.wait()? {
                Signal::SIGCHLD => match waitpid(Pid::from_raw(self.child.pid), Some(WaitPidFlag::WNOHANG))? {
                    WaitStatus::Exited(_, code) => return Ok(code as u8),
                    WaitStatus::Signaled(_, signal, _) => return Ok(128 + signal as u8),
                    _ => {}
                },
                // It may have ended a moment ago; the next signal is then SIGCHLD.
                signal => drop(nix::sys::signal::kill(Pid::from_raw(self.child.pid), signal)),
            }
        }
    }

    fn until_prepared(&mut self) -> Result<()> {
        if let Some(hooks) = self.hooks.clone().filter(Runner::any_before_entry) {
            self.until(BUILT)?;
            hooks.run(Stage::Prestart, self.child.pid as u32, None)?;
            hooks.run(Stage::CreateRuntime, self.child.pid as u32, None)?;
            self.let_go()?;
        }
        self.until(PREPARED)
    }

    /// Returns once init has said so.
    fn until(&mut self, word: u8) -> Result<()> {
        let mut first = [0];
        match self.report.read(&mut first).context("hearing from the container's init")? {
            0 => bail!("the container's init ended before it was prepared"),
            _ if first == [word] => Ok(()),
            _ => Err(self.cause(first)),
        }
    }

    /// Lets init go and returns once it has become the program: exec closes its end of the pipe.
    fn until_executed(&mut self) -> Result<()> {
        self.let_go()?;
        let mut first = [0];
        match self.report.read(&mut first).context("hearing from the container's init")? {
            0 => {}
            _ => return Err(self.cause(first)),
        }
        let Some(hooks) = &self.hooks else { return Ok(()) };
        hooks.run(Stage::Poststart, self.child.pid as u32, None).inspect_err(|_| {
            // The program runs: no pipe that closes would end it.
            let _ = pidfd_send_signal(&self.child.pidfd, rustix::process::Signal::KILL);
        })
    }

    fn let_go(&mut self) -> Result<()> {
        let go = self.go.as_mut().context("init was let go before")?;
        go.write_all(b"+").context("letting the container's init go")
    }

    fn cause(&mut self, first: [u8; 1]) -> anyhow::Error {
        let mut text = Vec::new();
        match self.report.read_to_end(&mut text) {
            Ok(_) => Failed::new(first[0], &text).into(),
            Err(error) => anyhow!(error).context("hearing why the container's init failed"),
        }
    }

    /// Sees to it that init is gone.
    fn end(mut self) {
        drop(self.go.take());
        let limit = Timespec { tv_sec: END_DEADLINE.as_secs() as _, tv_nsec: 0 };
        let mut ended = [PollFd::new(&self.child.pidfd, PollFlags::IN)];
        loop {
            match poll(&mut ended, Some(&limit)) {
                Err(Errno::INTR) => continue,
                Ok(0) => drop(pidfd_send_signal(&self.child.pidfd, rustix::process::Signal::KILL)),
                _ => {}
            }
            return;
        }
    }
}

/// What the launcher passes on while it waits, and SIGCHLD.
fn forwarded() -> SigSet {
    use Signal::*;
    SigSet::from_iter([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT, SIGCHLD])
}
