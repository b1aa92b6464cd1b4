//! Single entries of a checkout, put back while others use it.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

use anyhow::{Context, Result};
use ostree::RepoCheckoutAtOptions;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chownat, fchmod, fchown, fremovexattr, fsetxattr,
        linkat, lstat, openat, readlinkat, renameat, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    controls,
    folders::{Folders, Meta},
    fsck::attributes,
    ostree::{NO_CANCEL, Store},
};

/// No image has a name with a control character.
const TEMPORARY: &str = "\u{1}sysctr-mend";

/// Makes `name` the object, or takes it away where there is none.
pub fn replace(store: &Store, at: BorrowedFd<'_>, name: &str, object: Option<&str>) -> Result<()> {
    let Some(object) = object else { return remove(at, name) };
    if is_folder(at, name)? {
        remove(at, name)?;
    }
    let stored = store.path().join("objects").join(&object[..2]).join(format!("{}.file", &object[2..]));
    remove(at, TEMPORARY)?;
    match linkat(CWD, &stored, at, TEMPORARY, AtFlags::empty()) {
        Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => copy(&stored, at).context("copying the object")?,
        linked => linked.context("linking the object")?,
    }
    renameat(at, TEMPORARY, at, name)?;
    // two names of one file: rename(2) does nothing then
    remove(at, TEMPORARY)
}

/// As a checkout does where nothing can be linked.
fn copy(stored: &Path, at: BorrowedFd<'_>) -> Result<()> {
    let stat = lstat(stored)?;
    let (uid, gid) = (stat.st_uid, stat.st_gid);
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        symlinkat(readlinkat(CWD, stored, Vec::new())?, at, TEMPORARY)?;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        return Ok(chownat(at, TEMPORARY, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?);
    }
    let mut from = File::open(stored)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut to = File::from(openat(at, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut from, &mut to)?;
    let xattrs = attributes(from.as_fd())?.xattrs.into_iter();
    let xattrs = xattrs.map(|(name, value)| ([name, vec![0]].concat(), value)).collect();
    describe(to.as_fd(), &Meta { uid, gid, mode: stat.st_mode, xattrs })?;
    to.set_modified(from.metadata()?.modified()?)?;
    if !controls::without_sync("file") {
        to.sync_all()?;
    }
    Ok(())
}

/// A file, or a folder with all that is in it, if it is there.
fn remove(at: BorrowedFd<'_>, name: &str) -> Result<()> {
    if is_folder(at, name)? {
        return Ok(std::fs::remove_dir_all(Path::new(&format!("/proc/self/fd/{}", at.as_raw_fd())).join(name))?);
    }
    match unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_folder(at: BorrowedFd<'_>, name: &str) -> Result<bool> {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes the folder `name` what it is in the commit at `path`.
pub fn check_out(store: &Store, at: BorrowedFd<'_>, name: &str, commit: &str, path: &str) -> Result<()> {
    let options =
        RepoCheckoutAtOptions { subpath: Some(Path::new("/").join(path)), ..RepoCheckoutAtOptions::default() };
    Ok(store.repo.checkout_at(Some(&options), at.as_raw_fd(), name, commit, NO_CANCEL)?)
}

/// Gives a folder the owner, mode and attributes of this object.
pub fn describe_folder(folders: Folders<'_>, at: BorrowedFd<'_>, meta: &str) -> Result<()> {
    let folder = openat(at, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    describe(folder.as_fd(), &folders.meta(meta)?)
}

/// The same for a folder or file that is open.
pub fn describe(folder: BorrowedFd<'_>, meta: &Meta) -> Result<()> {
    let Meta { uid, gid, mode, xattrs } = meta;
    fchown(folder, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
    let wanted = xattrs.iter().map(|(name, value)| Ok((CStr::from_bytes_with_nul(name)?, value)));
    let wanted: BTreeMap<&CStr, &Vec<u8>> = wanted.collect::<Result<_>>()?;
    for name in attributes(folder)?.xattrs.into_keys().map(CString::new) {
        let name = name?;
        if !wanted.contains_key(&*name) {
            fremovexattr(folder, &name)?;
        }
    }
    wanted.into_iter().try_for_each(|(name, value)| fsetxattr(folder, name, value, XattrFlags::empty()))?;
    Ok(fchmod(folder, Mode::from_raw_mode(mode & 0o7777))?)
}
