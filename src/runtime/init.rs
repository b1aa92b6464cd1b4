//! The container's first process, from clone(2) to execve(2).
//!
//! It prepares everything that can fail, says so, and is held until the launcher lets it go: by then systemd watches it.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::unistd::{execve, sethostname};
use oci_spec::runtime::{Linux, Mount, Process, User};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{DumpableBehavior, Signal};

use super::console::Console;
use super::credentials::Credentials;
use super::deployment::Deployment;
use super::environment::Passed;
use super::mounts::{self, Detached};
use super::namespaces::Namespaces;
use super::process::{self, Capable, NoProgram};
use super::rootfs::{self, RootFs};
use super::session::Inside;
use super::{dev, one_line, protect, seccomp, sys};

/// Said on the report pipe when all is prepared; anything else there is an exit code and an error's text.
pub const PREPARED: u8 = b'+';
/// Ends an init whose program could not be executed, as systemd's own EXIT_EXEC does.
const EXIT_EXEC: i32 = 203;
/// config.json: the program speaks to systemd itself.
pub const NOTIFY: &str = "org.sysctr.notify";
/// config.json: set-user-ID and file capabilities of the image count.
const SETUID: &str = "org.sysctr.setuid";
/// Where the notification socket is in the container: /dev is ours in nearly every one.
const NOTIFY_PLACE: &str = "/dev/notify";

/// Everything init needs of the launcher.
pub struct Init {
    /// what to run
    pub deployment: Deployment,
    /// what systemd passed
    pub passed: Passed,
    /// what to join
    pub namespaces: Namespaces,
    /// the launcher reads here; closed by a successful exec
    pub report: File,
    /// the launcher writes one byte to let go, and closes it when it is done
    pub go: File,
    /// end with the launcher
    pub bound: bool,
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
                let Err(error) = ready.exec();
                (error, EXIT_EXEC)
            }
            Err(error) => (error, 1),
        };
        // Nobody to tell is no reason to stay. The launcher speaks first, then we end: systemd then shows the cause.
        let text = [&[NoProgram::code(&failed.0)], one_line(&failed.0).as_bytes()].concat();
        let _ = self.report.write_all(&text);
        drop(self.report);
        let _ = self.go.read(&mut [0]);
        std::process::exit(failed.1)
    }

    fn let_go(&mut self) -> bool {
        matches!(self.go.read(&mut [0]), Ok(1))
    }

    fn prepare(&self) -> Result<Ready> {
        // Nothing in the container's namespaces may look into this process while it is still ours.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        let _ = rustix::process::setsid(); // fails only where we lead a session already
        rustix::process::umask(Mode::empty());
        let spec = &self.deployment.spec;
        let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else { bail!("config.json is not whole") };
        self.namespaces.join()?;
        if let Some(score) = process.oom_score_adj() {
            let path = "/proc/self/oom_score_adj";
            std::fs::write(path, score.to_string()).with_context(|| format!("setting oomScoreAdj to {score}"))?;
        }
        let filter =
            linux.seccomp().as_ref().map(|seccomp| seccomp::Filter::of(seccomp, &self.deployment.dir)).transpose()?;
        let capable = Capable::of(process.capabilities().as_ref())?;
        let profile = apparmor(process)?;
        let notify = self.build_root(linux)?;

        if let Some(name) = spec.hostname() {
            sethostname(name).with_context(|| format!("setting the hostname {name:?}"))?;
        }
        if let Some(name) = spec.domainname() {
            sys::set_domainname(name).with_context(|| format!("setting the domainname {name:?}"))?;
        }
        if let Some(session) = &self.session {
            session.place_pipes(process.user().uid())?;
            sys::leave_session_keyring();
        }
        process::enter_folder(process.cwd())?;
        process::limit(process.rlimits().as_deref().unwrap_or_default())?;
        if let Some((mut file, profile)) = profile {
            file.write_all(format!("exec {profile}").as_bytes())
                .with_context(|| format!("setting the AppArmor profile {profile:?}"))?;
        }
        capable.bound()?;
        let sealed = process.no_new_privileges() == Some(true);
        if sealed {
            rustix::thread::set_no_new_privs(true)?;
        } else if let Some(filter) = &filter {
            filter.load()?; // needs CAP_SYS_ADMIN, which goes next
        }
        process::become_user(process.user())?;
        capable.apply()?;
        let program = process::find_program(process)?;
        self.passed.keep_descriptors()?;
        if self.bound {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        let own = process.env().as_deref().unwrap_or_default();
        Ok(Ready {
            program,
            args: process.args().iter().flatten().map(|arg| CString::new(arg.as_str())).collect::<Result<_, _>>()?,
            env: self.passed.of_program(own, std::process::id(), notify.as_deref())?,
            filter: filter.filter(|_| sealed),
        })
    }

    /// Puts the root together and enters it. Gives the notification socket's path in it, where the program may have it.
    fn build_root(&self, linux: &Linux) -> Result<Option<OsString>> {
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
            Some(path) => Some(Credentials::of_host(path, &user).context("taking the unit's credentials")?),
            None => None,
        };
        let own = RootFs::detached(dir, path, self.deployment.annotated(SETUID))?;
        let mut detached = Vec::new();
        let wanted = spec.mounts().as_deref().unwrap_or_default();
        if !wanted.iter().any(|mount| mount.destination() == Path::new("/dev")) {
            detached.extend(mounts::make(&default_dev(), dir, &[])?);
        }
        let writable = mounts::writable_sources(wanted, dir);
        for mount in wanted {
            detached.extend(mounts::make(mount, dir, &writable)?);
        }
        rootfs::cut_off()?;

        let mut root = RootFs::attached(own, dir, path)?;
        mounts::attach(&mut root, detached)?;
        dev::fill(&root, linux.devices().as_deref().unwrap_or_default())?;
        if let Some(session @ Inside::Terminal(..)) = &self.session {
            attach_console(&root, session, &user).context("making the terminal")?;
        }
        if let Some(credentials) = credentials {
            credentials.attach(&mut root)?;
        }
        let notify = socket.map(|(path, mount)| attach_notify(&mut root, path, mount)).transpose()?;
        set_sysctls(linux)?;
        protect::read_only(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
        protect::mask(&root, linux.masked_paths().as_deref().unwrap_or_default(), &null)?;
        root.enter(linux.rootfs_propagation().as_deref())?;
        Ok(notify)
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
}

impl Ready {
    /// Becomes the program.
    pub fn exec(self) -> Result<Infallible> {
        sys::reset_signals();
        if let Some(filter) = &self.filter {
            filter.load()?;
        }
        let Err(error) = execve(&self.program, &self.args, &self.env);
        let executing = format!("executing {:?}", self.program);
        match error {
            // The file itself was looked at before: what is missing is what its first line or its header names.
            Errno::ENOENT => {
                bail!(NoProgram::Missing(format!("{executing}: the interpreter that it names is missing in the image")))
            }
            Errno::ENOEXEC => bail!(NoProgram::Unfit(format!("{executing}: it is no program for this machine"))),
            error => bail!(NoProgram::Unfit(format!("{executing}: {}", error.desc()))),
        }
    }
}

fn default_dev() -> Mount {
    let options = ["nosuid", "strictatime", "mode=755", "size=65536k"].map(str::to_owned).to_vec();
    let mut mount = Mount::default();
    mount.set_destination("/dev".into()).set_typ(Some("tmpfs".into())).set_options(Some(options));
    mount
}

/// The program's terminal, which is /dev/console too.
fn attach_console(root: &RootFs, session: &Inside, user: &User) -> Result<()> {
    let devpts = root.open(Path::new("/dev/pts"), OFlags::DIRECTORY).context("opening /dev/pts")?;
    let console = Console::open(&devpts)?;
    let place = root.mount_point(Path::new("/dev/console"), false)?;
    root.attach_over(&mounts::copy(console.file(&devpts)?)?, &place).context("mounting /dev/console")?;
    session.place_console(console, user.uid())?;
    sys::control_terminal(std::io::stdin()).context("taking the terminal")
}

fn attach_notify(root: &mut RootFs, path: PathBuf, mount: OwnedFd) -> Result<OsString> {
    let dev = root.open(Path::new("/dev"), OFlags::DIRECTORY)?;
    let destination = if root.is_ours(&dev)? { PathBuf::from(NOTIFY_PLACE) } else { path };
    let place = destination.clone().into_os_string();
    root.attach(Detached { mount, destination, ours: false, seal: false })
        .context("mounting the notification socket")?;
    Ok(place)
}

/// Writes them through a /proc of this process's own, which no image and no other mount can have changed.
fn set_sysctls(linux: &Linux) -> Result<()> {
    let Some(all) = linux.sysctl().as_ref().filter(|all| !all.is_empty()) else { return Ok(()) };
    let proc = mounts::fresh("proc", "proc", &[])?;
    for (key, value) in all {
        let path = format!("sys/{}", key.replace('.', "/"));
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat2(&proc, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS);
        let write = || -> Result<()> { Ok(File::from(file?).write_all(value.as_bytes())?) };
        write().with_context(|| format!("setting the sysctl {key} to {value:?}"))?;
    }
    Ok(())
}

/// The file to name the AppArmor profile in, opened while the host's /proc is there.
pub fn apparmor(process: &Process) -> Result<Option<(File, String)>> {
    let Some(profile) = process.apparmor_profile().clone().filter(|profile| !profile.is_empty()) else {
        return Ok(None);
    };
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
    ensure!(enabled, "process.apparmorProfile is {profile:?}, but this kernel runs without AppArmor");
    let open = |path| File::options().write(true).open(path);
    let file = open("/proc/thread-self/attr/apparmor/exec").or_else(|_| open("/proc/thread-self/attr/exec"));
    Ok(Some((file.context("opening the process's AppArmor attribute")?, profile)))
}
