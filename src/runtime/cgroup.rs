//! The unit's own cgroup, as the container may see it.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, XattrFlags, openat, setxattr, statfs};

use super::mounts;
use super::sys::{self, MountAttr};

/// The attribute that names the deployment.
const DEPLOYMENT: &str = "trusted.sysctr.deployment";

/// Says in the kernel's own books which deployment a unit's cgroup runs: after an update that restarted nothing it is not the one in
/// force. Goes with the cgroup; no container can change it. Where the kernel refuses, nothing but `sysctr exec` would ask.
pub fn mark(deployment: &Path) {
    let place = || -> Result<PathBuf> { Ok(hierarchy()?.join(path()?.trim_start_matches('/'))) };
    if let Ok(place) = place() {
        let _ = setxattr(place, DEPLOYMENT, deployment.as_os_str().as_bytes(), XattrFlags::empty());
    }
}

/// A mount of the cgroup that this process is in, and of nothing above it.
pub fn own() -> Result<OwnedFd> {
    let path = path()?;
    // In a cgroup namespace the path is "/", and the root of a new mount is the unit's own cgroup.
    if path == "/" {
        return mounts::fresh("cgroup2", "cgroup2", &[]);
    }
    let mount = mounts::copy(open(&path)?)?;
    // What the container mounts in it is nothing to the host's.
    sys::mount_setattr(&mount, MountAttr::of(0, 0, libc::MS_PRIVATE), false)?;
    Ok(mount)
}

/// The folder of a control group, whose path is from the root of the hierarchy.
pub fn open(path: &str) -> Result<OwnedFd> {
    let folder = hierarchy()?.join(path.trim_start_matches('/'));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, &folder, flags, Mode::empty()).with_context(|| format!("opening {}", folder.display()))
}

fn path() -> Result<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).context("the host has no cgroup v2")?;
    Ok(path.to_owned())
}

/// The path of a control group below this process's own, for a runtime to make. This process makes room: a group that hands its
/// controllers on may have no process beside the groups in it.
pub fn below_own() -> Result<String> {
    let own = path()?;
    let own = own.trim_end_matches('/');
    let aside = hierarchy()?.join(own.trim_start_matches('/')).join("launcher");
    let step = || -> std::io::Result<()> {
        if !aside.exists() {
            std::fs::create_dir(&aside)?;
        }
        std::fs::write(aside.join("cgroup.procs"), "0")
    };
    step().with_context(|| {
        format!("moving to the control group {}: does the unit have Delegate=yes?", aside.display())
    })?;
    Ok(format!("{own}/container"))
}

/// Where the host has cgroup v2 mounted.
fn hierarchy() -> Result<PathBuf> {
    for place in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        if statfs(place).is_ok_and(|found| found.f_type == libc::CGROUP2_SUPER_MAGIC) {
            return Ok(place.into());
        }
    }
    bail!("the host has no cgroup v2 mounted")
}
