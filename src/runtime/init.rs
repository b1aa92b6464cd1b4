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

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::SigSet;
use nix::unistd::{execve, sethostname};
use oci_spec::runtime::{Linux, Mount, Process};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{DumpableBehavior, Signal};

use super::credentials::Credentials;
use super::deployment::Deployment;
use super::environment::{Passed, Places};
use super::mounts::{self, Detached};
use super::namespaces::Namespaces;
use super::process::{self, Capable};
use super::rootfs::{self, RootFs};
use super::{dev, exit, one_line, pressure, protect, seccomp, sys, unfit};

/// Said on the report pipe when all is prepared; anything else there is an exit code and an error's text.
pub const PREPARED: u8 = b'+';
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
    /// the signals that were blocked when the launcher was executed
    pub mask: SigSet,
    /// what an end here and now would be called
    pub stage: Cell<u8>,
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
        // Nobody to tell is no reason to stay. The launcher speaks first, then we end: systemd then shows the cause.
        let text = [&[self.stage.get()], one_line(&failed).as_bytes()].concat();
        let _ = self.report.write_all(&text);
        drop(self.report);
        let _ = self.go.read(&mut [0]);
        std::process::exit(self.stage.get().into())
    }

    fn let_go(&mut self) -> bool {
        matches!(self.go.read(&mut [0]), Ok(1))
    }

    fn prepare(&self) -> Result<Ready> {
        // Nothing in the container's namespaces may look into this process while it is still ours.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        let _ = rustix::process::setsid(); // fails only where we lead a session already
        let umask = rustix::process::umask(Mode::empty());
        let spec = &self.deployment.spec;
        let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else { bail!("config.json is not whole") };
        self.stage.set(exit::NAMESPACE);
        self.namespaces.join()?;
        self.stage.set(exit::OOM_ADJUST);
        if let Some(score) = process.oom_score_adj() {
            let path = "/proc/self/oom_score_adj";
            std::fs::write(path, score.to_string()).with_context(|| format!("setting oomScoreAdj to {score}"))?;
        }
        self.stage.set(exit::SECCOMP);
        let filter =
            linux.seccomp().as_ref().map(|seccomp| seccomp::Filter::of(seccomp, &self.deployment.dir)).transpose()?;
        self.stage.set(exit::CAPABILITIES);
        let capable = Capable::of(process.capabilities().as_ref())?;
        self.stage.set(exit::APPARMOR);
        let profile = apparmor(process)?;
        self.stage.set(exit::NAMESPACE);
        let places = self.build_root(linux)?;

        if let Some(name) = spec.hostname() {
            sethostname(name).with_context(|| format!("setting the hostname {name:?}"))?;
        }
        if let Some(name) = spec.domainname() {
            sys::set_domainname(name).with_context(|| format!("setting the domainname {name:?}"))?;
        }
        self.stage.set(exit::CHDIR);
        process::enter_folder(process.cwd())?;
        self.stage.set(exit::LIMITS);
        process::limit(process.rlimits().as_deref().unwrap_or_default())?;
        self.stage.set(exit::APPARMOR);
        if let Some((mut file, profile)) = profile {
            file.write_all(format!("exec {profile}").as_bytes())
                .with_context(|| format!("setting the AppArmor profile {profile:?}"))?;
        }
        self.stage.set(exit::CAPABILITIES);
        capable.bound()?;
        self.stage.set(exit::NO_NEW_PRIVILEGES);
        let sealed = process.no_new_privileges() == Some(true);
        if sealed {
            rustix::thread::set_no_new_privs(true)?;
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
        self.passed.keep_descriptors()?;
        if self.bound {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        Ok(Ready {
            program,
            args: process.args().iter().flatten().map(|arg| CString::new(arg.as_str())).collect::<Result<_, _>>()?,
            env,
            filter: filter.filter(|_| sealed),
            mask: self.mask,
        })
    }

    /// Puts the root together and enters it. Gives what lies elsewhere in it than on the host.
    fn build_root(&self, linux: &Linux) -> Result<Places> {
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
                Some(Credentials::of_host(path, &user).context("taking the unit's credentials")?)
            }
            None => None,
        };
        self.stage.set(exit::NAMESPACE);
        let own = RootFs::detached(dir, path, self.deployment.annotated(SETUID))?;
        let mut detached = Vec::new();
        let wanted = self.passed.directories.among(spec.mounts().as_deref().unwrap_or_default(), &own);
        let wanted = &wanted.map_err(|(code, error)| {
            self.stage.set(code);
            error
        })?;
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
        if let Some(credentials) = credentials {
            self.stage.set(exit::CREDENTIALS);
            credentials.attach(&mut root)?;
            self.stage.set(exit::NAMESPACE);
        }
        let ids = (user.uid(), user.gid());
        let pressure = self.passed.pressure.as_ref().and_then(|file| pressure::watch(&root, file, ids));
        let notify = socket.map(|(path, mount)| attach_notify(&mut root, path, mount)).transpose()?;
        set_sysctls(linux)?;
        protect::read_only(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
        protect::mask(&root, linux.masked_paths().as_deref().unwrap_or_default(), &null)?;
        root.enter(linux.rootfs_propagation().as_deref())?;
        Ok(Places { notify, pressure })
    }
}

/// All that an exec needs.
struct Ready {
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    filter: Option<seccomp::Filter>,
    mask: SigSet,
}

impl Ready {
    fn exec(self, stage: &Cell<u8>) -> Result<Infallible> {
        // As systemd gave them: a plain program has SIGPIPE ignored unless its unit says IgnoreSIGPIPE=no.
        sys::restore_pipe_signal();
        self.mask.thread_set_mask()?;
        if let Some(filter) = &self.filter {
            stage.set(exit::SECCOMP);
            filter.load()?;
            stage.set(exit::EXEC);
        }
        let Err(error) = execve(&self.program, &self.args, &self.env);
        // The file itself was looked at before: what is missing is what its first line or its header names.
        Err(anyhow!("executing {:?}: {}", self.program, unfit::why(&self.program, error)))
    }
}

fn default_dev() -> Mount {
    let options = ["nosuid", "strictatime", "mode=755", "size=65536k"].map(str::to_owned).to_vec();
    let mut mount = Mount::default();
    mount.set_destination("/dev".into()).set_typ(Some("tmpfs".into())).set_options(Some(options));
    mount
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
fn apparmor(process: &Process) -> Result<Option<(File, String)>> {
    let Some(profile) = process.apparmor_profile().clone().filter(|profile| !profile.is_empty()) else {
        return Ok(None);
    };
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
    ensure!(enabled, "process.apparmorProfile is {profile:?}, but this kernel runs without AppArmor");
    let open = |path| File::options().write(true).open(path);
    let file = open("/proc/thread-self/attr/apparmor/exec").or_else(|_| open("/proc/thread-self/attr/exec"));
    Ok(Some((file.context("opening the process's AppArmor attribute")?, profile)))
}
