//! The process that becomes the program: limits, user, capabilities, working directory, and where the program is.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{AccessFlags, Gid, Uid, eaccess, setgroups, setresgid, setresuid};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, PosixRlimit, PosixRlimitType, Process, User};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::controls::{Defence, without};

/// What exec(3) looks in where the environment has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Enters the working directory, resolved in the image without /proc's magic links: those could lead to a folder of the
/// host's that is still open here.
pub fn enter_folder(cwd: &Path) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || openat2(CWD, cwd, flags, Mode::empty(), no_magic_links(Defence::Folder));
    let folder = match open() {
        Err(rustix::io::Errno::NOENT) => bail!("the working directory {cwd:?} is missing in the image"),
        Err(rustix::io::Errno::NOTDIR) => bail!("the working directory {cwd:?} is no folder"),
        folder => folder.with_context(|| format!("entering the working directory {cwd:?}"))?,
    };
    rustix::process::fchdir(folder.as_fd()).with_context(|| format!("entering the working directory {cwd:?}"))
}

fn no_magic_links(defence: Defence) -> ResolveFlags {
    if without(defence) { ResolveFlags::empty() } else { ResolveFlags::NO_MAGICLINKS }
}

/// Sets the resource limits of a process; None is the calling one.
pub fn limit(process: Option<Pid>, limits: &[PosixRlimit]) -> Result<()> {
    let finite = |limit: u64| Some(limit).filter(|limit| *limit != u64::MAX);
    for one in limits {
        let limit = Rlimit { current: finite(one.soft()), maximum: finite(one.hard()) };
        prlimit(process, resource(one.typ()), limit).with_context(|| {
            format!("setting the limit {} to {}:{}{}", one.typ(), one.soft(), one.hard(), above(one))
        })?;
    }
    Ok(())
}

/// Why a limit cannot be set, where that is so: nobody raises a hard limit without CAP_SYS_RESOURCE.
fn above(limit: &PosixRlimit) -> String {
    match getrlimit(resource(limit.typ())).maximum {
        Some(hard) if limit.hard() > hard && !has_sys_resource() => format!(
            ", above the unit's own {hard}: that needs CAP_SYS_RESOURCE, which the unit does not have, or a higher Limit...= in the unit"
        ),
        _ => String::new(),
    }
}

/// Sets how ready the kernel is to end a process when memory is short, see proc(5), oom_score_adj. `process` is its folder in /proc.
pub fn set_oom_score(process: &str, score: i32) -> Result<()> {
    std::fs::write(format!("/proc/{process}/oom_score_adj"), score.to_string()).with_context(|| {
        let why = if has_sys_resource() {
            ""
        } else {
            ": lower than the unit's own needs CAP_SYS_RESOURCE, which the unit does not have, or OOMScoreAdjust= in the unit"
        };
        format!("setting oomScoreAdj to {score}{why}")
    })
}

fn has_sys_resource() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap_or(false)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// All that this process can ever hold. In a new user namespace that is everything again, though of no use outside of it.
pub fn bounding() -> Result<CapsHashSet> {
    Ok(caps::read(None, CapSet::Bounding)?)
}

/// Capability sets, as far as this process has them itself: what the unit took away stays away.
#[derive(Debug)]
pub struct Capable {
    bounding: CapsHashSet,
    effective: CapsHashSet,
    permitted: CapsHashSet,
    inheritable: CapsHashSet,
    ambient: CapsHashSet,
}

impl Capable {
    /// The sets of config.json; without any, none. `ours` is what there is to give.
    pub fn of(wanted: Option<&LinuxCapabilities>, ours: &CapsHashSet) -> Result<Self> {
        let mut lacking = BTreeSet::new();
        let mut pick = |set: fn(&LinuxCapabilities) -> &Option<Capabilities>| -> Result<CapsHashSet> {
            let mut picked = CapsHashSet::new();
            for one in wanted.and_then(|all| set(all).as_ref()).into_iter().flatten() {
                let one = format!("CAP_{one}").parse().map_err(|_| anyhow!("the capability {one} is not known"))?;
                picked.insert(one);
            }
            lacking.extend(picked.difference(ours).map(ToString::to_string));
            Ok(picked.intersection(ours).copied().collect())
        };
        let all = Self {
            bounding: pick(LinuxCapabilities::bounding)?,
            effective: pick(LinuxCapabilities::effective)?,
            permitted: pick(LinuxCapabilities::permitted)?,
            inheritable: pick(LinuxCapabilities::inheritable)?,
            ambient: pick(LinuxCapabilities::ambient)?,
        };
        if !lacking.is_empty() {
            let names = lacking.into_iter().collect::<Vec<_>>().join(", ");
            eprintln!("warning: the container does not get {names}: the unit does not have it to give");
        }
        Ok(all)
    }

    /// No more than these, a bit for each.
    pub fn within(mut self, bits: u64) -> Self {
        let sets =
            [&mut self.bounding, &mut self.effective, &mut self.permitted, &mut self.inheritable, &mut self.ambient];
        sets.into_iter().for_each(|set| set.retain(|one| one.bitmask() & bits != 0));
        self
    }

    /// Takes what is in no set from the bounding set; must come before the user changes.
    pub fn bound(&self) -> Result<()> {
        if without(Defence::Bounding) {
            return Ok(());
        }
        for one in caps::read(None, CapSet::Bounding)?.difference(&self.bounding) {
            caps::drop(None, CapSet::Bounding, *one).with_context(|| format!("dropping {one}"))?;
        }
        Ok(())
    }

    /// Sets the others; must come after the user changed.
    pub fn apply(&self) -> Result<()> {
        if !without(Defence::Inheritable) {
            caps::set(None, CapSet::Inheritable, &self.inheritable).context("setting inheritable capabilities")?;
        }
        caps::set(None, CapSet::Effective, &self.effective).context("setting effective capabilities")?;
        caps::set(None, CapSet::Permitted, &self.permitted).context("setting permitted capabilities")?;
        // An ambient capability must be permitted and inheritable; what the unit took away cannot be.
        let ambient = self.ambient.iter().filter(|one| self.permitted.contains(one) && self.inheritable.contains(one));
        caps::set(None, CapSet::Ambient, &ambient.copied().collect()).context("setting ambient capabilities")
    }
}

/// Becomes the user, keeping permitted capabilities over it. The umask is config.json's, else the unit's.
pub fn become_user(user: &User, umask: Mode) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    let groups: Vec<Gid> = user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_keep_capabilities(true)?;
    if !without(Defence::Groups) {
        setgroups(&groups).context("setting the groups")?;
    }
    setresgid(gid, gid, gid).with_context(|| format!("becoming group {gid}"))?;
    setresuid(uid, uid, uid).with_context(|| format!("becoming user {uid}"))?;
    rustix::thread::set_keep_capabilities(false)?;
    rustix::process::umask(user.umask().map_or(umask, Mode::from_raw_mode));
    Ok(())
}

/// A program that cannot be run, and how shells and other runtimes tell so.
#[derive(Debug, thiserror::Error)]
pub enum NoProgram {
    /// exit code 127
    #[error("{0}")]
    Missing(String),
    /// exit code 126
    #[error("{0}")]
    Unfit(String),
}

impl NoProgram {
    /// The exit code for a failure before the program ran: 125 where the program is not to blame.
    pub fn code(error: &anyhow::Error) -> u8 {
        match error.downcast_ref() {
            Some(NoProgram::Missing(_)) => 127,
            Some(NoProgram::Unfit(_)) => 126,
            None => 125,
        }
    }
}

/// Where the program of `process.args[0]` is, checked as the user that it will run as, with that program's environment.
pub fn find_program(process: &Process, env: &[CString]) -> Result<CString> {
    let name = process.args().as_ref().and_then(|args| args.first()).context("process.args is empty")?;
    if name.contains('/') {
        return match program_at(Path::new(name)) {
            Ok(path) => Ok(path),
            Err(Unfit::Missing) => bail!(NoProgram::Missing(format!("program {name:?} not found in the image"))),
            Err(Unfit::Because(why)) => bail!(NoProgram::Unfit(format!("program {name:?} {why}"))),
        };
    }
    let path = env.iter().rev().find_map(|variable| variable.to_str().ok()?.strip_prefix("PATH=")).unwrap_or(PATH);
    let mut unfit = None;
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let candidate = PathBuf::from(folder).join(name);
        match program_at(&candidate) {
            Ok(path) => return Ok(path),
            Err(Unfit::Missing) => {}
            Err(Unfit::Because(why)) => unfit = unfit.or(Some(format!("program {candidate:?} {why}"))),
        }
    }
    let missing = || NoProgram::Missing(format!("program {name:?} not found in the image, PATH is {path}"));
    bail!(unfit.map_or_else(missing, NoProgram::Unfit))
}

enum Unfit {
    Missing,
    Because(String),
}

fn program_at(path: &Path) -> Result<CString, Unfit> {
    use rustix::io::Errno;
    let because = |why: &str| Unfit::Because(why.to_owned());
    // Without /proc's magic links: /proc/self/exe is still the runtime itself.
    let file = match openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), no_magic_links(Defence::Program))
    {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(Unfit::Missing),
        Err(Errno::LOOP) => return Err(because("is a link of /proc, or links in a circle: refused")),
        Err(error) => return Err(because(&format!("cannot be opened: {error}"))),
    };
    let stat = fstat(&file).map_err(|error| because(&error.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(because("is no file"));
    }
    if let Err(error) = eaccess(path, AccessFlags::X_OK) {
        return Err(because(&format!("may not be executed by user {}: {}", Uid::effective(), error.desc())));
    }
    CString::new(path.as_os_str().as_bytes()).map_err(|_| because("has a NUL in its name"))
}
