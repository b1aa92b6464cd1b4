//! A container with users of its own is made by two processes, so that the one that becomes the program never has the host's rights:
//!
//! ```text
//! launcher ── clone ──▶ init: born in new namespaces, which belong to its user namespace
//!    │ maps its users       │ its number ─▶ builder
//!    │ ── clone ────────────│──────────────▶ builder: the host's root, in init's namespaces and a mount namespace of its own
//!    │                      │                  │ puts the root together and enters it
//!    │                      │                  │ its mounts as a mount namespace of the user namespace: attributes and masks are
//!    │                      │                  │ locked, whatever capabilities the program has
//!    │                      │ ◀── that one ─── │ ends
//!    │ ◀── ready ────────── │ enters it, and goes on as any init
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{DumpableBehavior, Pid, Signal};

use super::console::Console;
use super::environment::Places;
use super::init::Init;
use super::namespaces::Namespaces;
use super::process::NoProgram;
use super::sys::{self, Child};
use super::users::{self, Users};
use super::{exit, one_line, passing, process, rootfs, schedule};
use crate::model::idmap::IdMap;

/// Lets init go on: more than one byte, so that no exit code looks like it.
const GO: &[u8] = b"go";

/// Who a process is, after the clone.
pub enum Born {
    /// the launcher, with init and, where there is one, the builder
    Launcher(Child, Option<Child>),
    /// init; with a builder's socket, where there is one
    Init(Option<OwnedFd>),
    /// the builder
    Builder(Box<Builder>),
}

/// What the builder has.
#[derive(Debug)]
pub struct Builder {
    /// the container's users
    pub users: Users,
    init: Child,
    socket: OwnedFd,
}

/// Makes both processes. The caller must have one thread, and has its own namespaces again afterwards.
pub fn clone(namespaces: &Namespaces, map: IdMap, sibling: bool) -> Result<Born> {
    let (of_builder, of_init) = passing::pair()?;
    let mounts = libc::CLONE_NEWNS as u64;
    let back = namespaces.visit()?;
    let Some(init) = sys::clone(namespaces.new & !mounts, sibling).map_err(no_namespace)? else {
        drop(of_builder);
        return Ok(Born::Init(Some(of_init)));
    };
    back.leave()?;
    drop(of_init);
    let users = users::of_child(&init, map)?;
    // Its /proc has to be that of init's processes; the launcher's next children are to be on the host again.
    let own = File::open("/proc/self/ns/pid")?;
    let pids = CloneFlags::CLONE_NEWPID;
    if namespaces.new & pids.bits() as u64 != 0 {
        setns(&init.pidfd, pids).context("joining the container's processes")?;
    }
    sys::default_action(libc::SIGCHLD);
    match sys::clone(mounts, false).context("making the container's builder")? {
        None => Ok(Born::Builder(Box::new(Builder { users, init, socket: of_builder }))),
        Some(builder) => {
            if namespaces.new & pids.bits() as u64 != 0 {
                setns(own, pids).context("leaving the container's processes")?;
            }
            Ok(Born::Launcher(init, Some(builder)))
        }
    }
}

impl Builder {
    /// Goes where init is. Gives init's number there.
    fn join(&self) -> Result<i32> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        let all = CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP;
        setns(&self.init.pidfd, all).context("joining the container's namespaces")?;
        let (number, _) = passing::receive(&self.socket)?.context("the container's init ended")?;
        let number = i32::from_ne_bytes(number.try_into().ok().context("init did not say its number")?);
        // Now nobody needs to look into it any more.
        passing::send(&self.socket, GO, &[]).context("letting the container's init go")?;
        Ok(number)
    }

    /// Tells init that nothing comes of it.
    fn fail(&self, code: u8) {
        let _ = passing::send(&self.socket, &[code], &[]); // where init is gone, nobody waits
    }

    /// Init's folder in the host's /proc.
    pub fn init_on_host(&self) -> String {
        self.init.pid.to_string()
    }

    /// Gives the mounts of this process, which has entered the container's root, to the container's users, and then to init.
    /// `namespaces` is this process's folder of namespaces in the host's /proc.
    fn hand_over(
        &self,
        namespaces: &OwnedFd,
        places: &Places,
        console: Option<&Console>,
        propagation: Option<&str>,
    ) -> Result<()> {
        setns(&self.users.namespace, CloneFlags::CLONE_NEWUSER).context("entering the user namespace")?;
        unshare(CloneFlags::CLONE_NEWNS).context("giving the mounts to the user namespace")?;
        rootfs::spread(propagation)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mounts = openat(namespaces, "mnt", flags, Mode::empty()).context("opening the mount namespace")?;
        let files = [Some(&mounts), console.map(|it| &it.master), console.map(|it| &it.slave)];
        let place = |path: &Option<OsString>| path.as_deref().unwrap_or_default().as_bytes().to_vec();
        let text = [place(&places.notify), b"\0".to_vec(), place(&places.pressure)].concat();
        passing::send(&self.socket, &text, &files.into_iter().flatten().collect::<Vec<_>>())
            .context("handing the mounts over to the container's init")
    }
}

impl Init {
    /// The builder's work, up to where init goes on.
    pub fn build(mut self, builder: &Builder) -> ! {
        let Err(failed) = self.build_for(builder) else { std::process::exit(0) };
        let code = if self.session.is_some() { NoProgram::code(&failed) } else { self.stage.get() };
        let _ = self.report.write_all(&[&[code], one_line(&failed).as_bytes()].concat());
        builder.fail(self.stage.get());
        std::process::exit(1)
    }

    fn build_for(&self, builder: &Builder) -> Result<()> {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        self.stage.set(exit::NAMESPACE);
        let init = builder.join()?;
        let own = own_namespaces()?;
        let umask = rustix::process::umask(Mode::empty());
        let spec = &self.deployment.spec;
        let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else { bail!("config.json is not whole") };
        self.namespaces.bring_loopback_up()?;
        let (places, console) = self.make(process, linux, umask, Some((builder, init)))?;
        // What takes rights on the host, init has not got.
        self.stage.set(exit::LIMITS);
        process::limit(Some(number(init)?), process.rlimits().as_deref().unwrap_or_default())?;
        schedule::apply(init, process.scheduler().as_ref(), process.io_priority().as_ref())?;
        self.stage.set(exit::NAMESPACE);
        builder.hand_over(&own, &places, console.as_ref(), linux.rootfs_propagation().as_deref())
    }
}

/// Opens this process's namespaces in the host's /proc, for [`Builder::hand_over`].
fn own_namespaces() -> Result<OwnedFd> {
    Ok(File::open("/proc/self/ns").context("opening this process's namespaces")?.into())
}

/// Init, at its beginning: says which number it has, and waits until the builder has its namespaces.
pub fn greet(socket: &OwnedFd) -> Result<()> {
    passing::send(socket, &rustix::process::getpid().as_raw_nonzero().get().to_ne_bytes(), &[])?;
    received(socket).map(drop)
}

/// Init again: takes over the root that the builder has made, and becomes root of the container's, if there is one.
pub fn take_over(socket: &OwnedFd) -> Result<(Places, Option<Console>)> {
    let (text, files) = received(socket)?;
    let mut files = files.into_iter();
    let mounts = files.next().context("the builder handed no mounts over")?;
    setns(mounts, CloneFlags::CLONE_NEWNS).context("entering the container's mounts")?;
    let console = files.next().zip(files.next()).map(|(master, slave)| Console { master, slave });
    let mut parts = text.split(|byte| *byte == 0);
    let mut place = || parts.next().filter(|path| !path.is_empty()).map(|path| OsString::from_vec(path.to_vec()));
    let places = Places { notify: place(), pressure: place() };
    let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
    let _ = setgroups(&[]).and(setresgid(group, group, group)).and(setresuid(root, root, root));
    // A change of user takes it back.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok((places, console))
}

/// The builder failed, and has told the launcher why; init ends with this code once the launcher has spoken.
#[derive(Debug, thiserror::Error)]
#[error("the container's builder failed")]
pub struct Lost(pub u8);

/// The builder's next message. A code alone says that it failed.
fn received(socket: &OwnedFd) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    match passing::receive(socket)? {
        Some((code, files)) if files.is_empty() && code != GO => {
            bail!(Lost(code.first().copied().unwrap_or(exit::FAILURE)))
        }
        Some(message) => Ok(message),
        None => bail!(Lost(exit::FAILURE)),
    }
}

fn no_namespace(error: std::io::Error) -> anyhow::Error {
    let why = match error.raw_os_error() {
        Some(libc::ENOSPC) => "making a user namespace: user.max_user_namespaces (sysctl) allows no more",
        _ => "making a user namespace",
    };
    anyhow!(error).context(why)
}

/// Init as another process names it to the kernel.
fn number(pid: i32) -> Result<Pid> {
    Pid::from_raw(pid).context("init has no number here")
}
