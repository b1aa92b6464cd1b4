//! Hides and protects single paths: linux.maskedPaths and linux.readonlyPaths.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, major, minor, openat};
use rustix::io::Errno;

use super::controls::{Defence, without};
use super::mounts;
use super::options::{DEVICE, MASK, READ_ONLY};
use super::rootfs::RootFs;
use super::sys;

/// The host's /dev/null, looked at: a mask made of anything else would show it.
pub fn null() -> Result<OwnedFd> {
    let null = openat(CWD, "/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&null)?;
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    ensure!(
        character && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3),
        "the host's /dev/null is something else"
    );
    Ok(null)
}

/// Hides each path that is there: a folder behind an empty one, a file behind /dev/null.
pub fn mask(root: &RootFs, paths: &[String], null: &OwnedFd) -> Result<()> {
    let of_image = null_of_image(root)?;
    let null = of_image.as_ref().unwrap_or(null);
    let mut empty = None;
    for path in paths.iter().filter(|_| !without(Defence::Masks)) {
        let Some(place) = present(root, path).with_context(|| format!("masking {path}"))? else { continue };
        mask_one(root, &place, null, &mut empty).with_context(|| format!("masking {path}"))?;
    }
    Ok(())
}

/// What a mask must not be made of.
fn null_of_image(root: &RootFs) -> Result<Option<OwnedFd>> {
    if !without(Defence::Null) {
        return Ok(None);
    }
    let dev = root.open(Path::new("/dev"), OFlags::DIRECTORY)?;
    Ok(Some(openat(dev, "null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
}

/// `empty` is the empty folder, one for all: a file system costs more than another mount of it.
fn mask_one(root: &RootFs, place: &OwnedFd, null: &OwnedFd, empty: &mut Option<OwnedFd>) -> Result<()> {
    let folder = FileType::from_raw_mode(fstat(place)?.st_mode) == FileType::Directory;
    let mount = match empty {
        _ if !folder => mounts::copy(null)?,
        Some(empty) => mounts::copy(&*empty)?,
        None => mounts::empty()?,
    };
    sys::mount_setattr(&mount, if folder { MASK } else { DEVICE }, false)?;
    root.attach_over(&mount, place)?;
    if folder && empty.is_none() {
        *empty = Some(mount);
    }
    Ok(())
}

/// Makes each path that is there read-only, and all below it.
pub fn read_only(root: &RootFs, paths: &[String]) -> Result<()> {
    for path in paths.iter().filter(|_| !without(Defence::ReadOnlyPaths)) {
        let Some(place) = present(root, path).with_context(|| format!("protecting {path}"))? else { continue };
        let protect = || -> Result<()> {
            let mount = mounts::copy_all(&place)?;
            sys::mount_setattr(&mount, READ_ONLY, true)?;
            root.attach_over(&mount, &place)
        };
        protect().with_context(|| format!("protecting {path}"))?;
    }
    Ok(())
}

/// Kernels differ in what they have below /proc and /sys: what is not there needs no mask.
fn present(root: &RootFs, path: &str) -> Result<Option<OwnedFd>> {
    match root.open(Path::new(path), OFlags::empty()) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
