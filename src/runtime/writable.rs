//! `root.readonly: false`: a root that can be written to, and forgets it at each stop.
//!
//! The checkout shares its files with the store and with every other container of the image, so nothing is ever written there:
//! an overlay takes what is written into a tmpfs of its own, which nobody else sees and which ends with the container.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Gid, Mode, Uid, chmodat, chownat, fstat, mkdirat};

use super::mounts;
use super::rootfs::move_here;

/// An overlay over `lower`, a read-only mount that is attached already; still detached. Needs the host's /proc.
pub fn over(lower: &OwnedFd, label: Option<&str>) -> Result<(OwnedFd, OwnedFd)> {
    let stat = fstat(lower)?;
    let scratch = mounts::labelled("tmpfs", "sysctr-root", &["mode=700".into()], label)?;
    // The kernel wants the upper folder on a mount that hangs somewhere: over the lower one nobody reaches it.
    move_here(&scratch, lower)?;
    for folder in ["upper", "work"] {
        mkdirat(&scratch, folder, Mode::from_raw_mode(0o700))?;
    }
    // The new root's owner and mode are the upper folder's.
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(&scratch, "upper", Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    chmodat(&scratch, "upper", Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    let at = |file: &OwnedFd, below: &str| format!("/proc/self/fd/{}{below}", file.as_raw_fd());
    let parameters = [
        format!("lowerdir={}", at(lower, "")),
        format!("upperdir={}", at(&scratch, "/upper")),
        format!("workdir={}", at(&scratch, "/work")),
        // Attributes of an overlay that an image may have brought along say nothing here.
        "redirect_dir=nofollow".to_owned(),
        "metacopy=off".to_owned(),
        "index=off".to_owned(),
    ];
    let overlay = mounts::labelled("overlay", "overlay", &parameters, label)
        .context("a writable root (root.readonly is false) needs the kernel's overlay file system")?;
    Ok((overlay, scratch))
}
