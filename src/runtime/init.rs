//! The container's first process, from clone(2) to execve(2).
//!
//! It prepares everything that can fail, says so, and is held until the launcher lets it go: by then systemd watches it.

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use caps::CapsHashSet;
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::execve;
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Signal};

use super::builder::{self, Lost};
use super::controls::{Defence, without};
use super::deployment::Deployment;
use super::environment::Passed;
use super::hooks::{Runner, Stage};
use super::labels::Labels;
use super::namespaces::Namespaces;
use super::process::{self, Capable, NoProgram};
use super::session::Inside;
use super::{exit, one_line, schedule, seccomp, sys, unfit};

mod root;

/// Said on the report pipe when all is prepared; anything else there is an exit code and an error's text.
pub const PREPARED: u8 = b'+';
/// Said before it where hooks of the host come in between: the new root is there and not entered yet.
pub const BUILT: u8 = b'*';
/// config.json: the program speaks to systemd itself.
pub const NOTIFY: &str = "org.sysctr.notify";
/// config.json: set-user-ID and file capabilities of the image count.
pub const SETUID: &str = "org.sysctr.setuid";
/// Where the notification socket is in the container: /dev is ours in nearly every one.
pub const NOTIFY_PLACE: &str = "/dev/notify";

/// Everything init needs of the launcher.
pub struct Init {
    /// what to run
    pub deployment: Deployment,
    /// what systemd passed
    pub passed: Passed,
    /// what to join
    pub namespaces: Namespaces,
    /// all that the unit has to give
    pub bounding: CapsHashSet,
    /// the builder, which puts the root together where the container has users of its own
    pub builder: Option<OwnedFd>,
    /// the hooks of config.json
    pub hooks: Option<Runner>,
    /// the launcher reads here; closed by a successful exec
    pub report: File,
    /// the launcher writes one byte to let go, and closes it when it is done
    pub go: File,
    /// end with the launcher
    pub bound: bool,
    /// the signals that were blocked when the launcher was executed
    pub mask: SigSet,
    /// what an end here and now would be called
    pub stage: Cell<u8>,
    /// the streams of a program that somebody waits for
    pub session: Option<Inside>,
}

impl Init {
    /// Runs to the program's exec, or ends.
    pub fn main(mut self) -> ! {
        let failed = match self.prepare() {
            Ok(ready) => {
                if self.report.write_all(&[PREPARED]).is_err() || !self.let_go() {
                    std::process::exit(1); // the launcher is gone, and with it whoever wanted this container
                }
                self.stage.set(exit::EXEC);
                let Err(error) = ready.exec(&self.stage);
                error
            }
            Err(error) => error,
        };
        if let Some(Lost(code)) = failed.downcast_ref() {
            drop(self.report);
            let _ = self.go.read(&mut [0]);
            std::process::exit((*code).into());
        }
        // Nobody to tell is no reason to stay. The launcher speaks first, then we end: systemd then shows the cause.
        let code = if self.session.is_some() { NoProgram::code(&failed) } else { self.stage.get() };
        let text = [&[code], one_line(&failed).as_bytes()].concat();
        let _ = self.report.write_all(&text);
        drop(self.report);
        let _ = self.go.read(&mut [0]);
        std::process::exit(self.stage.get().into())
    }

    fn let_go(&self) -> bool {
        matches!((&self.go).read(&mut [0]), Ok(1))
    }

    fn prepare(&self) -> Result<Ready> {
        if let Some(builder) = &self.builder {
            builder::greet(builder)?;
        }
        // Nothing in the container's namespaces may look into this process while it is still ours.
        if !without(Defence::Dumpable) {
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        }
        let _ = rustix::process::setsid(); // fails only where we lead a session already
        if !without(Defence::Keyring) {
            leave_keyring()?;
        }
        let umask = rustix::process::umask(Mode::empty());
        let spec = &self.deployment.spec;
        let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else { bail!("config.json is not whole") };
        if self.builder.is_none() {
            self.stage.set(exit::NAMESPACE);
            self.namespaces.join()?;
        }
        self.stage.set(exit::SECCOMP);
        let filter =
            linux.seccomp().as_ref().map(|seccomp| seccomp::Filter::of(seccomp, &self.deployment.dir)).transpose()?;
        self.stage.set(exit::CAPABILITIES);
        let capable = Capable::of(process.capabilities().as_ref(), &self.bounding)?;
        self.stage.set(exit::APPARMOR);
        let labels = Labels::of(process)?;
        self.stage.set(exit::NAMESPACE);
        let (places, console) = match &self.builder {
            None => self.make(process, linux, umask, None)?,
            Some(builder) => builder::take_over(builder)?,
        };
        match (&self.session, console) {
            (Some(session), Some(console)) => {
                session.place_console(console, process.user().uid())?;
                sys::control_terminal(std::io::stdin()).context("taking the terminal")?;
            }
            (Some(session), None) => session.place_pipes(process.user().uid())?,
            (None, _) => {}
        }

        self.stage.set(exit::CHDIR);
        process::enter_folder(process.cwd())?;
        self.stage.set(exit::LIMITS);
        if self.builder.is_none() {
            process::limit(None, process.rlimits().as_deref().unwrap_or_default())?;
            schedule::apply(0, process.scheduler().as_ref(), process.io_priority().as_ref())?;
        }
        schedule::personality(linux.personality().as_ref())?;
        self.stage.set(exit::APPARMOR);
        labels.apply()?;
        self.stage.set(exit::CAPABILITIES);
        capable.bound()?;
        self.stage.set(exit::FAILURE);
        super::streams::own_null()?;
        self.stage.set(exit::FAILURE);
        // Before the filter, which need not allow it.
        self.passed.keep_descriptors()?;
        self.stage.set(exit::NO_NEW_PRIVILEGES);
        let sealed = process.no_new_privileges() == Some(true);
        if sealed {
            if !without(Defence::NoNewPrivileges) {
                rustix::thread::set_no_new_privs(true)?;
            }
        } else if let Some(filter) = &filter {
            self.stage.set(exit::SECCOMP);
            filter.load()?; // needs CAP_SYS_ADMIN, which goes next
        }
        self.stage.set(exit::USER);
        process::become_user(process.user(), umask)?;
        self.stage.set(exit::CAPABILITIES);
        capable.apply()?;
        self.stage.set(exit::EXEC);
        let own = process.env().as_deref().unwrap_or_default();
        let env = self.passed.of_program(own, std::process::id(), &places)?;
        let program = process::find_program(process, &env)?;
        self.stage.set(exit::FAILURE);
        if self.bound {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        Ok(Ready {
            program,
            args: process.args().iter().flatten().map(|arg| CString::new(arg.as_str())).collect::<Result<_, _>>()?,
            env,
            filter: filter.filter(|_| sealed),
            hooks: self.hooks.clone(),
            mask: Some(self.mask).filter(|_| self.session.is_none()),
        })
    }
}

/// A session keyring of the container's own: the launcher's holds what its user keeps there.
pub fn leave_keyring() -> Result<()> {
    match sys::new_session_keyring() {
        // Where the kernel has no keyrings, or a filter over us forbids them, the container has none either.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES)) => Ok(()),
        made => made.context("making a session keyring"),
    }
}

/// All that an exec needs.
pub struct Ready {
    /// its path
    pub program: CString,
    /// with its name
    pub args: Vec<CString>,
    /// `KEY=VALUE`
    pub env: Vec<CString>,
    /// not yet in force
    pub filter: Option<seccomp::Filter>,
    /// of a container's first process
    pub hooks: Option<Runner>,
    /// the signals to block, and all the rest as the launcher was given them; none where every signal is to be as by default
    pub mask: Option<SigSet>,
}

impl Ready {
    /// Becomes the program. `stage` is what a failure is called.
    pub fn exec(self, stage: &Cell<u8>) -> Result<Infallible> {
        if let Some(hooks) = &self.hooks {
            hooks.run(Stage::StartContainer, std::process::id(), self.filter.as_ref())?;
        }
        // As systemd gave them: a plain program has SIGPIPE ignored unless its unit says IgnoreSIGPIPE=no.
        match self.mask {
            Some(mask) => {
                sys::restore_pipe_signal();
                mask.thread_set_mask()?;
            }
            None => sys::reset_signals(),
        }
        if let Some(filter) = &self.filter {
            stage.set(exit::SECCOMP);
            filter.load()?;
            stage.set(exit::EXEC);
        }
        let Err(error) = execve(&self.program, &self.args, &self.env);
        // The file itself was looked at before: what is missing is what its first line or its header names.
        let text = format!("executing {:?}: {}", self.program, unfit::why(&self.program, error));
        bail!(if error == Errno::ENOENT { NoProgram::Missing(text) } else { NoProgram::Unfit(text) })
    }
}
