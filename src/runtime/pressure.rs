//! The unit's memory pressure file (systemd.exec(5), $MEMORY_PRESSURE_WATCH) where the program can open it for writing.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Gid, OFlags, Uid, chownat};

use super::mounts;
use super::rootfs::RootFs;
use super::sys::{self, MountAttr};

/// Where it is in the container, whose /sys/fs/cgroup is the unit's own cgroup.
const PLACE: &str = "/sys/fs/cgroup/memory.pressure";

/// The path that `watch`, systemd's, becomes in the container. None where it cannot be had: then the program is better not told.
pub fn watch(root: &RootFs, watch: &OsStr, user: (u32, u32)) -> Option<OsString> {
    if watch == "/dev/null" {
        return Some(watch.to_owned()); // MemoryPressureWatch=off
    }
    make_writable(root, user).is_ok().then(|| PLACE.into())
}

fn make_writable(root: &RootFs, (uid, gid): (u32, u32)) -> Result<()> {
    let place: OwnedFd = root.open(Path::new(PLACE), OFlags::NOFOLLOW).context("opening it")?;
    let mount = mounts::copy(&place)?;
    sys::mount_setattr(&mount, MountAttr::of(0, libc::MS_RDONLY, libc::MS_PRIVATE), false)?;
    if uid != 0 {
        chownat(&mount, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    }
    root.attach_over(&mount, &place)
}
