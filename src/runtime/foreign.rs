//! Another OCI runtime in this one's place, for one container (`sysctr install --runtime PATH`).
//!
//! That runtime makes the container, detached, and the launcher hands it over as it does its own, so that nothing stays and a
//! stop, a kill, a restart and the file descriptor store are systemd's own:
//!
//! ```text
//! systemd ── execs ──▶ launcher      bundle: config.json, and what systemd passed
//!                       │ RUNTIME create ─────────▶ init (once RUNTIME has ended, a child of systemd)
//!  MAINPID=, barrier ◀──│                            · held by RUNTIME
//!                       │ RUNTIME start ──────────▶ the program
//!    READY=, barrier ◀──│ exit
//! after the stop: RUNTIME delete --force
//! ```
//!
//! `RUNTIME run` in the foreground would stay for as long as the container does, would pass on no more than READY=1, and
//! would hide the container behind itself. The container gets a control group of its own below the unit's, as a runtime
//! takes none that others are in; the unit's limits hold above it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use super::bundle::{self, Bundle};
use super::credentials::Credentials;
use super::deployment::{self, Deployment};
use super::environment::Passed;
use super::handover::Manager;
use super::init::{NOTIFY, SETUID};
use super::rootfs::{self, RootFs};
use super::{cgroup, one_line};

/// State and bundle of each such container, root's alone like all of /run/sysctr.
const FOLDERS: &str = "/run/sysctr/foreign";
/// How often to look whether the runtime's init has become the program; there is no event for it.
const LOOK: Duration = Duration::from_millis(1);

/// `run-with RUNTIME DIR [--instance NAME]`; `prepare-with` and `delete-with` of the same, at install and after a stop.
#[derive(Debug)]
pub struct Foreign {
    program: PathBuf,
    dir: PathBuf,
    instance: Option<String>,
    /// what messages call it
    name: String,
    folder: PathBuf,
}

/// The commands that this file has; None for any other, which is then somebody else's.
pub fn command(mut args: impl Iterator<Item = OsString>) -> Option<u8> {
    let verb = args.next()?.into_string().ok()?;
    if !["prepare-with", "run-with", "delete-with"].contains(&verb.as_str()) {
        return None;
    }
    let (program, dir) = (args.next()?.into(), args.next()?.into());
    let instance = match (args.next(), args.next(), args.next()) {
        (None, ..) => None,
        (Some(option), Some(name), None) if option == "--instance" => Some(name.into_string().ok()?),
        _ => return None,
    };
    let manager = Manager::from_env().filter(|_| verb == "run-with");
    let done = Foreign::of(program, dir, instance).and_then(|foreign| match verb.as_str() {
        "prepare-with" => {
            Deployment::load(&foreign.dir).and_then(|deployment| bundle::check(&deployment.spec)).map(|()| 0)
        }
        "run-with" => foreign.run(manager.as_ref()).with_context(|| format!("starting {}", foreign.name)),
        _ => foreign.delete().map(|()| 0).with_context(|| format!("cleaning up after {}", foreign.name)),
    });
    Some(done.unwrap_or_else(|error| {
        let line = one_line(&error);
        eprintln!("error: {line}");
        if let Some(manager) = manager {
            // The message on standard error is what counts; systemd not hearing it must not hide that one.
            let _ = manager.status(&line).and_then(|()| manager.barrier());
        }
        1
    }))
}

impl Foreign {
    fn of(program: PathBuf, dir: PathBuf, instance: Option<String>) -> Result<Self> {
        let name = deployment::name_of(&dir, instance.as_deref())?;
        let folder = Path::new(FOLDERS).join(id(&name));
        Ok(Self { program, dir, instance, name, folder })
    }

    fn run(&self, manager: Option<&Manager>) -> Result<u8> {
        self.delete().context("cleaning up after an earlier start")?;
        let started = self.create(manager.is_none()).and_then(|(init, speaks_itself)| match manager {
            Some(manager) => self.hand_over(&init, manager, speaks_itself).map(|()| 0),
            None => self.wait_for(&init),
        });
        // What failed half-way is taken away by the unit's ExecStopPost=: that is after systemd has seen the cause.
        if started.is_ok() && manager.is_none() {
            self.delete()?;
        }
        started
    }

    /// Lets the runtime make the container up to its program's exec. Gives its init, and whether the program reports itself.
    fn create(&self, stays: bool) -> Result<(Init, bool)> {
        let deployment = Deployment::load(&self.dir)?;
        let mut passed = Passed::from_env()?;
        passed.instance.clone_from(&self.instance);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.folder.join("state"))
            .with_context(|| format!("making {}", self.folder.display()))?;
        passed.directories.give(&deployment.spec)?;
        let credentials = self.own_mounts(&deployment, &passed)?;
        let speaks_itself = deployment.annotated(NOTIFY);
        let cgroup = cgroup::below_own()?;
        let bundle = Bundle { deployment: &deployment, passed: &passed, cgroup: &cgroup, credentials };
        fs::write(self.folder.join("config.json"), bundle.config()?).context("writing the runtime's config.json")?;
        if stays {
            // Init comes to us when the runtime ends, and its end is ours to report.
            forwarded().thread_block()?;
            nix::sys::prctl::set_child_subreaper(true)?;
        }
        let pid_file = self.folder.join("pid");
        let mut create = self.runtime();
        create.arg("create").arg("--bundle").arg(&self.folder).arg("--pid-file").arg(&pid_file);
        create.args((passed.sockets() > 0).then(|| format!("--preserve-fds={}", passed.sockets())));
        self.done(create.arg(self.id()))?;
        let pid = fs::read_to_string(&pid_file).context("reading the number of the container's init")?;
        let init = Init::of(pid.trim().parse().context("reading the number of the container's init")?, &cgroup)?;
        Ok((init, speaks_itself))
    }

    /// Makes what the runtime shall find in a mount namespace that goes with us: the image's files read-only, without devices and
    /// set-user-ID programs, as the bundled runtime mounts them; and the unit's credentials. Gives the latter's place.
    fn own_mounts(&self, deployment: &Deployment, passed: &Passed) -> Result<Option<PathBuf>> {
        let spec = &deployment.spec;
        let path = spec.root().as_ref().map_or(Path::new("rootfs"), |root| root.path());
        let user = spec.process().as_ref().map(|process| process.user().clone()).unwrap_or_default();
        let credentials = match &passed.credentials {
            Some(path) => Some(Credentials::of_host(path, &user, None).context("taking the unit's credentials")?),
            None => None,
        };
        unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
        rootfs::cut_off()?;
        let own = RootFs::detached(&deployment.dir, path, deployment.annotated(SETUID), None)?;
        RootFs::attached(own, &deployment.dir, path)?;
        let Some(credentials) = credentials else { return Ok(None) };
        let place = self.folder.join("credentials");
        fs::DirBuilder::new().mode(0o700).create(&place)?;
        credentials.attach_at(&place)?;
        Ok(Some(place))
    }

    fn hand_over(&self, init: &Init, manager: &Manager, speaks_itself: bool) -> Result<()> {
        manager.main_pid(init.pid)?.wait().context("waiting until systemd knows the main process")?;
        self.start(init)?;
        if !speaks_itself {
            manager.ready()?;
        }
        // The program runs and systemd knows it: what fails from here on is no failure of the start.
        let _ = manager.barrier();
        Ok(())
    }

    fn wait_for(&self, init: &Init) -> Result<u8> {
        self.start(init)?;
        let (pid, signals) = (Pid::from_raw(init.pid), forwarded());
        loop {
            match signals.wait()? {
                Signal::SIGCHLD => match waitpid(pid, Some(WaitPidFlag::WNOHANG))? {
                    WaitStatus::Exited(_, code) => return Ok(code as u8),
                    WaitStatus::Signaled(_, signal, _) => return Ok(128 + signal as u8),
                    _ => {}
                },
                // It may have ended a moment ago; the next signal is then SIGCHLD.
                signal => drop(kill(pid, signal)),
            }
        }
    }

    /// Lets init go and returns once it has become the program.
    fn start(&self, init: &Init) -> Result<()> {
        self.done(self.runtime().arg("start").arg(self.id()))?;
        while init.executable().context("the container's init ended before it became the program")? == init.before {
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends what is left of the container, and what the runtime and we know of it.
    fn delete(&self) -> Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        // It may never have come to be: what the runtime says of that matters to nobody.
        self.runtime().args(["delete", "--force"]).arg(self.id()).stderr(Stdio::null()).status()?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
    }

    fn id(&self) -> &OsStr {
        self.folder.file_name().unwrap_or_default()
    }

    fn runtime(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Of systemd's variables the program gets those in config.json, and the runtime none: it would take them for its own.
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg("--root").arg(self.folder.join("state"));
        command.arg("--log").arg(self.folder.join("log")).args(["--log-format", "json"]);
        command
    }

    fn done(&self, command: &mut Command) -> Result<()> {
        let status = command.status().with_context(|| format!("running {}", self.program.display()))?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let words = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?.get("msg")?.as_str()?.to_owned());
        let cause = log.lines().rev().find_map(words).unwrap_or_else(|| format!("it ended with {status}"));
        bail!("{}: {cause}", self.program.display())
    }
}

/// The container's init while the runtime holds it.
struct Init {
    pid: i32,
    /// what it runs as long as it is held
    before: (u64, u64),
}

impl Init {
    fn of(pid: i32, cgroup: &str) -> Result<Self> {
        let mut init = Self { pid, before: (0, 0) };
        init.before = init.executable().context("the container's init ended before it was prepared")?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let ours = groups.lines().any(|line| line.strip_prefix("0::").is_some_and(|group| group.starts_with(cgroup)));
        ensure!(ours, "the runtime put the container's init outside of {cgroup}");
        Ok(init)
    }

    /// Device and inode of what it runs.
    fn executable(&self) -> Result<(u64, u64)> {
        let file = fs::metadata(format!("/proc/{}/exe", self.pid)).map_err(|error| anyhow!(error))?;
        Ok((file.dev(), file.ino()))
    }
}

/// Runtimes take letters, digits and `_+-.` in the name of a container; a name of ours has no `+`.
fn id(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("+{byte:02x}") }).collect()
}

/// What the launcher passes on while it waits, and SIGCHLD.
fn forwarded() -> SigSet {
    use Signal::*;
    SigSet::from_iter([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT, SIGCHLD])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_understands_the_name_and_no_two_are_the_same() {
        assert_eq!(id("etcd-1.a_b"), "etcd-1.a_b");
        assert_eq!(id("etcd@a:b"), "etcd+40a+3ab");
    }
}
