//! The container's first process, from clone(2) to execve(2).
//!
//! It prepares everything that can fail, says so, and is held until the launcher lets it go: by then systemd watches it.

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use caps::CapsHashSet;
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{execve, sethostname};
use oci_spec::runtime::{Linux, Mount, Process};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Signal};

use super::builder::{self, Builder, Lost};
use super::console::Console;
use super::controls::{Defence, without};
use super::credentials::Credentials;
use super::deployment::Deployment;
use super::environment::{Passed, Places};
use super::hooks::{Runner, Stage};
use super::labels::{self, Labels};
use super::mounts::{self, Detached};
use super::namespaces::Namespaces;
use super::process::{self, Capable, NoProgram};
use super::rootfs::{self, RootFs};
use super::session::Inside;
use super::users::{self, Users};
use super::{dev, exit, one_line, pressure, protect, schedule, seccomp, sys, sysctl, unfit};

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

    /// Everything that takes the host's rights: `builder` is who has them, and init's number, where init has not. Gives what lies
    /// elsewhere in the container than on the host, and the program's terminal.
    pub fn make(
        &self,
        process: &Process,
        linux: &Linux,
        umask: Mode,
        builder: Option<(&Builder, i32)>,
    ) -> Result<(Places, Option<Console>)> {
        let spec = &self.deployment.spec;
        self.stage.set(exit::OOM_ADJUST);
        if let Some(score) = process.oom_score_adj() {
            let init = builder.map_or("self".to_owned(), |(builder, _)| builder.init_on_host());
            process::set_oom_score(&init, score)?;
        }
        self.stage.set(exit::NAMESPACE);
        if let Some(name) = spec.hostname() {
            let setting = || format!("setting the hostname {name:?}: does the unit have ProtectHostname=yes?");
            sethostname(name).with_context(setting)?;
        }
        if let Some(name) = spec.domainname() {
            sys::set_domainname(name).with_context(|| format!("setting the domainname {name:?}"))?;
        }
        let init = builder.map_or_else(std::process::id, |(_, init)| init as u32);
        self.build_root(linux, umask, builder.map(|(builder, _)| &builder.users), init)
    }

    /// Puts the root together and enters it.
    fn build_root(
        &self,
        linux: &Linux,
        umask: Mode,
        users: Option<&Users>,
        init: u32,
    ) -> Result<(Places, Option<Console>)> {
        users.map_or(Ok(()), Users::own_new_files)?;
        let Deployment { dir, spec, .. } = &self.deployment;
        let path = spec.root().as_ref().map_or(Path::new("rootfs"), |root| root.path());
        let null = protect::null()?;
        let socket = match &self.passed.notify_socket {
            Some(path) if self.deployment.annotated(NOTIFY) => {
                Some((PathBuf::from(path), mounts::of_host(path.as_ref())?))
            }
            _ => None,
        };
        let user = spec.process().as_ref().map(Process::user).cloned().unwrap_or_default();
        let credentials = match &self.passed.credentials {
            Some(path) => {
                self.stage.set(exit::CREDENTIALS);
                Some(Credentials::of_host(path, &user, users).context("taking the unit's credentials")?)
            }
            None => None,
        };
        self.stage.set(exit::NAMESPACE);
        let label = labels::of_mounts(linux)?;
        let label = label.as_deref();
        let setuid = self.deployment.annotated(SETUID);
        let own = RootFs::detached(dir, path, setuid, users)?;
        let mut detached = Vec::new();
        let wanted = self.passed.directories.among(spec.mounts().as_deref().unwrap_or_default(), &own, users.is_some());
        let wanted = &wanted.map_err(|(code, error)| {
            self.stage.set(code);
            error
        })?;
        if !wanted.iter().any(|mount| mount.destination() == Path::new("/dev")) {
            detached.extend(mounts::make(&default_dev(), dir, &[], label, users)?);
        }
        let writable = mounts::writable_sources(wanted, dir);
        for mount in wanted.iter().filter(|_| !without(Defence::Destinations)) {
            detached.extend(mounts::make(mount, dir, &writable, label, users)?);
        }
        rootfs::cut_off()?;

        let mut root = RootFs::attached(own, dir, path)?;
        if spec.root().as_ref().and_then(|root| root.readonly()) != Some(true) {
            root.make_writable(setuid, label)?;
        }
        mounts::attach(&mut root, detached)?;
        for mount in wanted.iter().filter(|_| without(Defence::Destinations)) {
            mounts::attach(&mut root, mounts::make(mount, dir, &writable, label, users)?.into_iter().collect())?;
        }
        dev::fill(&root, linux.devices().as_deref().unwrap_or_default(), users)?;
        let terminal = self.session.as_ref().is_some_and(|session| session.terminal);
        let console = terminal.then(|| attach_console(&root).context("making the terminal")).transpose()?;
        if let Some(credentials) = credentials {
            self.stage.set(exit::CREDENTIALS);
            credentials.attach(&mut root)?;
            self.stage.set(exit::NAMESPACE);
        }
        let ids = users::owner(users, (user.uid(), user.gid()))?;
        let pressure = self.passed.pressure.as_ref().and_then(|file| pressure::watch(&root, file, ids));
        let notify = socket.map(|(path, mount)| attach_notify(&mut root, path, mount)).transpose()?;
        sysctl::set(linux, &root)?;
        protect::read_only(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
        protect::mask(&root, linux.masked_paths().as_deref().unwrap_or_default(), &null)?;
        self.run_hooks_before_entry(umask, init)?;
        root.enter(linux.rootfs_propagation().as_deref())?;
        Ok((Places { notify, pressure }, console))
    }

    fn run_hooks_before_entry(&self, umask: Mode, init: u32) -> Result<()> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        if hooks.any_before_entry() {
            (&self.report).write_all(&[BUILT])?;
            if !self.let_go() {
                std::process::exit(1); // the launcher is gone, or one of its hooks failed, and it has said so
            }
        }
        // What they make on the host is no more open than what the launcher's own hooks make.
        let none = rustix::process::umask(umask);
        hooks.run(Stage::CreateContainer, init, None)?;
        rustix::process::umask(none);
        Ok(())
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

fn default_dev() -> Mount {
    let options = ["nosuid", "strictatime", "mode=755", "size=65536k"].map(str::to_owned).to_vec();
    let mut mount = Mount::default();
    mount.set_destination("/dev".into()).set_typ(Some("tmpfs".into())).set_options(Some(options));
    mount
}

/// The program's terminal, which is /dev/console too.
fn attach_console(root: &RootFs) -> Result<Console> {
    let devpts = root.open(Path::new("/dev/pts"), OFlags::DIRECTORY).context("opening /dev/pts")?;
    let console = Console::open(&devpts)?;
    let place = root.mount_point(Path::new("/dev/console"), false)?;
    root.attach_over(&mounts::copy(console.file(&devpts)?)?, &place).context("mounting /dev/console")?;
    Ok(console)
}

fn attach_notify(root: &mut RootFs, path: PathBuf, mount: OwnedFd) -> Result<OsString> {
    let dev = root.open(Path::new("/dev"), OFlags::DIRECTORY)?;
    let destination = if root.is_ours(&dev)? { PathBuf::from(NOTIFY_PLACE) } else { path };
    let place = destination.clone().into_os_string();
    root.attach(Detached { mount, destination, ours: false, seal: false, copy_up: false })
        .context("mounting the notification socket")?;
    Ok(place)
}
