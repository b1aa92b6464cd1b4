//! Images shown in a folder: `var/lib/sysctr/mounts/N`, a checkout of hard links, bound read-only upon it.
//!
//! A checkout that no mount shows any more, because the machine was started anew or somebody used umount(8), is nobody's: the next
//! `unmount` or `prune` takes it away.

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use rustix::fs::{AtFlags, stat, statat};

use super::{
    dir::Folder,
    lock::StoreLock,
    ostree::{Store, StoredImage},
    walk,
};
use crate::model::{
    fault::{Code, Fault},
    layout,
};

const NO_DATA: Option<&str> = None;

/// Shows the image in the folder `at`, which has to be there.
pub fn show(root: &Folder, lock: &StoreLock, store: &Store, image: &StoredImage, at: &Path) -> Result<PathBuf> {
    let at = at.canonicalize().with_context(|| format!("mounting upon {}", at.display()))?;
    ensure!(at.is_dir(), "mounting upon {}: it is no folder", at.display());
    sweep(root, lock)?;
    let mounts = root.create(layout::MOUNTS, 0o700)?;
    let taken: BTreeSet<u32> = mounts.names()?.iter().filter_map(|name| name.parse().ok()).collect();
    let number = (1..).find(|number| !taken.contains(number)).unwrap_or_default().to_string();
    let shown = mounts.real_path()?.join(&number);
    let mounted = store.checkout(lock, image, mounts.as_fd(), &number).and_then(|()| bind(&shown, &at));
    if mounted.is_err() {
        // what counts is why it failed; the next sweep takes what is left
        let _ = mounts.remove_tree(&number);
    }
    mounted.map(|()| at)
}

fn bind(from: &Path, at: &Path) -> Result<()> {
    let mounting = || format!("mounting upon {}", at.display());
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // Read-only in its place before it has one: a write would reach the store.
    mount(Some(from), from, NO_DATA, MsFlags::MS_BIND, NO_DATA).with_context(mounting)?;
    let result = mount(NO_DATA, from, NO_DATA, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, NO_DATA)
        .and_then(|()| mount(Some(from), at, NO_DATA, MsFlags::MS_BIND, NO_DATA))
        .and_then(|()| mount(NO_DATA, at, NO_DATA, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, NO_DATA));
    umount2(from, MntFlags::MNT_DETACH).with_context(mounting)?;
    result.with_context(mounting)
}

/// Takes the image from the folder `at`.
pub fn take_away(root: &Folder, lock: &StoreLock, at: &Path) -> Result<()> {
    let at = at.canonicalize().with_context(|| format!("unmounting {}", at.display()))?;
    let ours = mounts_of(root, "/proc/self/mountinfo")?;
    let last = ours.iter().rfind(|(_, place)| *place == at);
    let is_it = last.is_some_and(|(name, _)| is_checkout(root, name, &at).unwrap_or(false));
    ensure!(is_it, "unmounting {}: no image is mounted there", at.display());
    umount2(&at, MntFlags::empty()).map_err(|error| {
        let fault = Fault::new(Code::Failed, format!("unmounting {}: {error}", at.display()));
        let users = || format!("something in it is in use: `fuser -vm {}` shows by whom", at.display());
        if error == Errno::EBUSY { fault.hint(users()) } else { fault }
    })?;
    sweep(root, lock)
}

/// Removes the checkouts that no mount shows, here or where PID 1 is.
pub fn sweep(root: &Folder, _lock: &StoreLock) -> Result<()> {
    let Some(mounts) = root.open(layout::MOUNTS)? else { return Ok(()) };
    let mut shown = mounts_of(root, "/proc/self/mountinfo")?;
    shown.extend(mounts_of(root, "/proc/1/mountinfo")?);
    let shown: BTreeSet<String> = shown.into_iter().map(|(name, _)| name).collect();
    for name in mounts.names()?.iter().filter(|name| !shown.contains(*name)) {
        mounts.remove_tree(name)?;
    }
    if let Some(state) = root.open(layout::STATE)? {
        state.remove_empty("mounts")?;
    }
    Ok(())
}

/// Which of our checkouts are mounted, and where, in the order of proc_pid_mountinfo(5).
fn mounts_of(root: &Folder, table: &str) -> Result<Vec<(String, PathBuf)>> {
    let Some(folder) = root.open(layout::MOUNTS)? else { return Ok(Vec::new()) };
    let table = std::fs::read_to_string(table).with_context(|| format!("reading {table}"))?;
    let is_there = |name: &str| folder.kind(name).is_ok_and(|kind| kind.is_some());
    Ok(checkouts(&table).filter(|(name, _)| is_there(name)).collect())
}

/// What may be a checkout of ours, by its name and place.
///
/// What is shown is a path within its file system, which may begin anywhere above `mounts`: /var/lib/sysctr may be a mount, a subvolume or
/// a link. Nor does the device tell, which is another one for stat(2) on btrfs. At worst a checkout is kept for longer.
fn checkouts(table: &str) -> impl Iterator<Item = (String, PathBuf)> {
    table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, _, _, shown, at, ..] = fields[..] else { return None };
        let (_, name) = shown.rsplit_once("/mounts/").filter(|(_, name)| !name.contains('/'))?;
        Some((name.to_owned(), PathBuf::from(unescaped(at))))
    })
}

/// Whether this checkout is what is seen at `at`.
fn is_checkout(root: &Folder, name: &str, at: &Path) -> Result<bool> {
    let Some(mounts) = root.open(layout::MOUNTS)? else { return Ok(false) };
    let checkout = statat(mounts.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(walk::id(&checkout) == walk::id(&stat(at)?))
}

/// `\040` is a space.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let number = more.get(..3).and_then(|octal| u8::from_str_radix(std::str::from_utf8(octal).ok()?, 8).ok());
        match (first, number) {
            (b'\\', Some(number)) => {
                bytes.push(number);
                rest = &more[3..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_known_wherever_the_store_lies() {
        let table = "\
30 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
41 30 8:1 /var/lib/sysctr/mounts/1 /mnt ro,nosuid,nodev shared:1 - ext4 /dev/sda1 rw
42 30 8:2 /mounts/2 /a\\040mount ro,nosuid,nodev - xfs /dev/sda2 rw
43 30 0:30 /@sysctr/mounts/3 /subvolume ro,nosuid,nodev - btrfs /dev/sda3 rw,subvolid=260,subvol=/@sysctr
44 30 8:1 /srv/linked/mounts/4 /linked ro,nosuid,nodev - ext4 /dev/sda1 rw
45 30 8:1 /var/lib/sysctr/mounts/5/etc /inside ro - ext4 /dev/sda1 rw
46 30 8:1 /var/lib/sysctr/containers/6 /other ro - ext4 /dev/sda1 rw
nonsense
";
        let found: Vec<(String, PathBuf)> = checkouts(table).collect();
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, at)| (name.as_str(), at.to_str().unwrap_or_default())).collect();
        assert_eq!(found, [("1", "/mnt"), ("2", "/a mount"), ("3", "/subvolume"), ("4", "/linked")]);
    }
}
