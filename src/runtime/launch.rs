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

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use oci_spec::runtime::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::pidfd_send_signal;

use super::builder::{self, Born};
use super::deployment::{self, Deployment};
use super::environment::Passed;
use super::handover::{self, Manager};
use super::hooks::{Runner, Stage};
use super::init::{BUILT, Init, NOTIFY, PREPARED};
use super::namespaces::Namespaces;
use super::session::{self, Outside};
use super::sys::{self, Child};
use super::time::TimeNamespace;
use super::{cgroup, exit, given, lost, one_line, process, relay, seal};
use crate::model::idmap::IdMap;

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
    /// wait, and pass its standard streams on
    pub session: Option<Session>,
}

/// How `sysctr run` waits.
#[derive(Debug)]
pub struct Session {
    /// it reads what we read
    pub interactive: bool,
    /// the deployment goes with its container
    pub remove: bool,
}

/// A failure as a child of the launcher told it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failed {
    code: u8,
    text: String,
}

impl Failed {
    /// 125 to 127 where somebody waits, else systemd's code; and what went wrong.
    pub fn new(code: u8, text: &[u8]) -> Self {
        Self { code, text: String::from_utf8_lossy(text).into_owned() }
    }
}

/// The exit code of somebody who waits for a program that could not be run.
pub fn code_of(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Failed>().map_or(OWN_FAILURE, |failed| failed.code)
}

/// The size that config.json gives a terminal.
pub fn console_size(process: &Process) -> Option<libc::winsize> {
    let part = |length: u64| u16::try_from(length).unwrap_or(u16::MAX);
    let size = process.console_size()?;
    Some(libc::winsize { ws_row: part(size.height()), ws_col: part(size.width()), ws_xpixel: 0, ws_ypixel: 0 })
}

/// What podman and docker say where the failure is not the program's.
const OWN_FAILURE: u8 = 125;

/// Starts the container; the exit code is its own where the launcher waits for it.
pub fn run(run: &Run) -> u8 {
    let code = run_to_end(run);
    if run.session.as_ref().is_some_and(|session| session.remove) {
        // No unit has an ExecStopPost= for it. What could not be read was not started either.
        for error in after_stop(run).unwrap_or_default() {
            eprintln!("warning: {}", one_line(&error));
        }
        if let Err(error) = std::fs::remove_dir_all(&run.dir) {
            eprintln!("warning: removing {}: {error}", run.dir.display());
        }
    }
    code
}

/// Runs hooks.poststop, each of them whatever becomes of the others, and gives what failed.
pub fn after_stop(run: &Run) -> Result<Vec<anyhow::Error>> {
    let deployment = Deployment::load(&run.dir)?;
    let name = deployment::name_of(&deployment.dir, run.instance.as_deref())?;
    let hooks = Runner::of(&deployment.spec, &name, &deployment.dir);
    Ok(hooks.map(|hooks| hooks.after_stop()).unwrap_or_default())
}

/// Reports a failure itself, since init is held until that is done: once init has ended, systemd may end the launcher too.
fn run_to_end(run: &Run) -> u8 {
    let manager = if run.wait || run.session.is_some() { None } else { Manager::from_env() };
    let name = deployment::name_of(&run.dir, run.instance.as_deref());
    let name = match name {
        Ok(name) => name,
        Err(error) => return failed(run, &error, manager.as_ref()),
    };
    let starting = format!("starting {name}");
    let mut init = match clone(run, manager.is_some()).context(starting.clone()) {
        Ok(init) => init,
        Err(error) => return failed(run, &error, manager.as_ref()),
    };
    let code = match &manager {
        Some(manager) => init.hand_over(manager).map(|()| 0),
        None => init.wait_for(),
    };
    code.context(starting).unwrap_or_else(|error| {
        let code = failed(run, &error, manager.as_ref());
        init.end();
        code
    })
}

fn failed(run: &Run, error: &anyhow::Error, manager: Option<&Manager>) -> u8 {
    let line = one_line(error);
    let level = if handover::stderr_is_journal() { "<3>" } else { "" };
    eprintln!("{level}error: {line}");
    if let Some(manager) = manager {
        // The message on standard error is what counts; systemd not hearing it must not hide that one.
        let _ = manager.status(&line).and_then(|()| manager.barrier());
    }
    match &run.session {
        Some(_) => code_of(error),
        None if given::by_systemd(|name| std::env::var_os(name)) => {
            error.downcast_ref::<Failed>().map_or(exit::FAILURE, |failed| failed.code)
        }
        None => exit::FAILURE,
    }
}

/// Init as the launcher holds it.
struct Started {
    child: Child,
    builder: Option<Child>,
    report: File,
    go: Option<File>,
    speaks_itself: bool,
    hooks: Option<Runner>,
    session: Option<Outside>,
}

fn clone(run: &Run, sibling: bool) -> Result<Started> {
    lost::none()?;
    seal::from_own_executable()?;
    let deployment = Deployment::load(&run.dir)?;
    let process = deployment.spec.process().as_ref().context("process is missing")?;
    let terminal = process.terminal() == Some(true);
    ensure!(!terminal || run.session.is_some(), "process.terminal must be false: a service has no terminal");
    let mut passed = Passed::from_env()?;
    passed.instance.clone_from(&run.instance);
    let linux = deployment.spec.linux().as_ref().context("linux is missing")?;
    let namespaces = Namespaces::of(linux);
    let name = deployment::name_of(&deployment.dir, run.instance.as_deref())?;
    let hooks = Runner::of(&deployment.spec, &name, &deployment.dir);
    let speaks_itself = deployment.annotated(NOTIFY);
    let (report, report_of_init) = pipe_with(PipeFlags::CLOEXEC)?;
    let (go_of_init, go) = pipe_with(PipeFlags::CLOEXEC)?;
    let session = run.session.as_ref();
    let session = session.map(|session| session::make(terminal, session.interactive, console_size(process)));
    let (outside, inside) = session.transpose()?.unzip();
    passed.directories.give(&deployment.spec)?;
    namespaces.join_for_children()?;
    let mask = SigSet::thread_get_mask()?;
    if outside.is_some() {
        relay::block_signals()?;
    } else if !sibling {
        forwarded().thread_block()?;
        sys::default_action(libc::SIGCHLD);
    }
    let time = TimeNamespace::for_children(linux)?;
    let bounding = process::bounding()?;
    let born = match IdMap::of(linux)? {
        None => sys::clone(namespaces.new, sibling).map_err(Into::into).map(|child| match child {
            Some(child) => Born::Launcher(child, None),
            None => Born::Init(None),
        }),
        Some(map) => builder::clone(&namespaces, map, sibling),
    };
    let (builder, build) = match born.context("making the container's namespaces")? {
        Born::Launcher(child, builder) => {
            time.map_or(Ok(()), TimeNamespace::leave)?;
            if run.session.is_none() {
                cgroup::mark(&deployment.dir);
            }
            let (report, go) = (report.into(), Some(go.into()));
            return Ok(Started { child, builder, report, go, speaks_itself, hooks, session: outside });
        }
        Born::Init(builder) => (builder, None),
        Born::Builder(build) => (None, Some(build)),
    };
    drop((report, go, outside));
    let (report, go) = (report_of_init.into(), go_of_init.into());
    let (stage, bound, session) = (Cell::new(exit::FAILURE), !sibling, inside);
    let init =
        Init { deployment, passed, namespaces, bounding, builder, hooks, report, go, bound, mask, stage, session };
    match build {
        Some(builder) => init.build(&builder),
        None => init.main(),
    }
}

impl Started {
    fn hand_over(&mut self, manager: &Manager) -> Result<()> {
        // systemd takes it in while init puts the root together.
        let told = manager.main_pid(self.child.pid)?;
        self.until_prepared()?;
        told.wait().context("waiting until systemd knows the main process")?;
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
        if let Some(session) = &mut self.session {
            session.receive()?;
        }
        self.until_executed()?;
        if let Some(session) = self.session.take() {
            return relay::wait(session, &self.child);
        }
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
            // Where there are two, the mounts are the builder's still.
            let process = self.builder.as_ref().unwrap_or(&self.child).pid as u32;
            hooks.run(Stage::Prestart, process, None)?;
            hooks.run(Stage::CreateRuntime, process, None)?;
            self.let_go()?;
        }
        self.until(PREPARED)?;
        self.end_builder();
        Ok(())
    }

    /// Sees to it that the builder, which has the host's rights, is gone: when init is prepared there is nothing left to do for it.
    fn end_builder(&mut self) {
        if let Some(builder) = self.builder.take() {
            let _ = pidfd_send_signal(&builder.pidfd, rustix::process::Signal::KILL);
            let _ = waitpid(Pid::from_raw(builder.pid), None);
        }
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
        self.end_builder(); // in the same pid namespace, it would keep init from its end
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
