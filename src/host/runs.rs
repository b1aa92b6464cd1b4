//! Containers that are thrown away: `var/lib/sysctr/run/ID`, beside the store, so that a checkout is made of links.
//!
//! Whoever runs one holds its `lock` until the end, and removes the folder then. A folder whose lock is free belongs to nobody any
//! more, however its owner ended: the next command sweeps it away.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{FileType, FlockOperation, Mode, OFlags, flock, openat},
    io::{Errno, FdFlags, fcntl_setfd},
};

use super::{
    dir::Folder,
    lock::StoreLock,
    ostree::{Store, StoredImage},
    transaction,
};
use crate::model::{layout, name::ContainerName, spec::MountPoint};

const LOCK: &str = "lock";

/// One that is being made. Dropped, it takes itself away again.
pub struct Staged<'a> {
    root: &'a Folder,
    id: String,
    path: PathBuf,
    lock: Option<OwnedFd>,
}

impl<'a> Staged<'a> {
    /// Makes the folder and takes its lock. `name` is its whole name where `exact`, else the beginning of one.
    pub fn new(root: &'a Folder, _lock: &StoreLock, name: &ContainerName, exact: bool) -> Result<Staged<'a>> {
        let id = if exact { name.to_string() } else { format!("{name}-{}", std::process::id()) };
        root.create(layout::STATE, 0o700)?;
        let runs = root.create(layout::RUNS, 0o755)?;
        ensure!(runs.kind(&id)?.is_none(), "a container {id} is running already");
        let folder = runs.create(&id, 0o755)?;
        let mut staged = Staged { root, id, path: folder.real_path()?, lock: None };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&folder, LOCK, flags, Mode::from_raw_mode(0o600)).context("making its lock")?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).context("taking its lock")?;
        staged.lock = Some(file);
        Ok(staged)
    }

    /// What it is called, here and as a unit.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Checks the image out and writes config.json.
    pub fn fill(
        &self,
        lock: &StoreLock,
        store: &Store,
        image: &StoredImage,
        config_json: &str,
        mount_points: &[MountPoint],
    ) -> Result<()> {
        let folder = self.root.open(&format!("{}/{}", layout::RUNS, self.id))?.context("its folder is gone")?;
        store.checkout(lock, image, folder.as_fd(), "rootfs").context("checking out the image")?;
        let rootfs = folder.open("rootfs")?.context("the image's files are gone")?;
        for point in mount_points {
            transaction::make_mount_point(&rootfs, point)?;
        }
        folder.write_new("config.json", config_json, 0o600)
    }

    /// Leaves the folder, and its removal, to the program that this process becomes; it inherits the lock.
    pub fn hand_over(mut self) -> Result<PathBuf> {
        if let Some(lock) = &self.lock {
            fcntl_setfd(lock, FdFlags::empty()).context("leaving its lock")?;
        }
        // Held by its number until this process ends.
        self.lock.take().map(std::os::fd::IntoRawFd::into_raw_fd);
        Ok(self.path.clone())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.lock.is_some()
            && let Ok(Some(runs)) = self.root.open(layout::RUNS)
        {
            // What cannot be removed now, the next sweep removes.
            let _ = runs.remove_tree(&self.id);
        }
    }
}

/// Removes what nobody runs any more; gives how many.
pub fn sweep(root: &Folder, _lock: &StoreLock) -> Result<usize> {
    let Some(runs) = root.open(layout::RUNS)? else { return Ok(0) };
    let mut swept = 0;
    for id in runs.names()? {
        let sweeping = || format!("removing what is left of {id}");
        if is_free(&runs, &id).with_context(sweeping)? {
            runs.remove_tree(&id).with_context(sweeping)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Under the store's lock nobody else makes one: a folder without a lock is one whose maker was cut short.
fn is_free(runs: &Folder, id: &str) -> Result<bool> {
    if runs.kind(id)? != Some(FileType::Directory) {
        return Ok(true);
    }
    let Some(folder) = runs.open(id)? else { return Ok(true) };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file: File = match openat(&folder, LOCK, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(Errno::NOENT) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => bail!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{path::Path, time::Duration};

    fn there(root: &Path) -> Vec<String> {
        let root = Folder::root(root).expect("a root");
        root.open(layout::RUNS).expect("read").map_or(Vec::new(), |runs| runs.names().expect("names"))
    }

    #[test]
    fn a_sweep_takes_what_nobody_holds_and_nothing_else() {
        let place = tempfile::tempdir().expect("a folder");
        let root = Folder::root(place.path()).expect("a root");
        let lock = StoreLock::acquire(place.path(), "run", Duration::ZERO).expect("free");
        let name: ContainerName = "a".parse().expect("a name");
        let held = Staged::new(&root, &lock, &name, true).expect("made");
        assert!(Staged::new(&root, &lock, &name, true).is_err(), "the name was taken twice");
        let dropped = Staged::new(&root, &lock, &name, false).expect("made");
        assert_eq!(there(place.path()).len(), 2);
        drop(dropped);
        assert_eq!(there(place.path()), ["a"]);
        let runs = root.open(layout::RUNS).expect("read").expect("there");
        runs.create("cut", 0o755).expect("a folder without a lock");
        runs.create("dead", 0o755).expect("made").write_new(LOCK, "", 0o600).expect("a lock that nobody holds");
        assert_eq!(sweep(&root, &lock).expect("swept"), 2);
        assert_eq!(there(place.path()), ["a"]);
        // Whoever inherits the lock holds it.
        let path = held.hand_over().expect("handed over");
        assert_eq!((sweep(&root, &lock).expect("swept"), path.exists()), (0, true));
    }
}
