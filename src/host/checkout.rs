//! An image's files as a folder. Hard links to the objects of the store need neither room nor a look at the objects.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use ostree::RepoCheckoutAtOptions;
use rayon::prelude::*;
use rustix::{
    fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, linkat, mkdirat, openat, utimensat},
    io::Errno,
};

use super::{
    folders::Folders,
    lock::StoreLock,
    mend,
    ostree::{NO_CANCEL, Store, StoredImage},
};

/// As libostree has it: a checkout is the same whenever it was made.
const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
};

impl Store {
    /// Makes the folder `name` in `parent` with the image's files, as hard links where the file system can, else as copies.
    /// Nothing is synced: whoever stages a deployment syncs it whole. Mount it read-only: a write in place would reach the store.
    pub fn checkout(&self, _lock: &StoreLock, image: &StoredImage, parent: BorrowedFd<'_>, name: &str) -> Result<()> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        ensure!(plain, "{name:?} cannot name a folder");
        let checking_out = || format!("checking out {}", image.name());
        let (tree, meta) = self.root_tree(&image.commit).with_context(checking_out)?;
        let linked = File::open(self.path().join("objects")).map_err(Into::into).and_then(|objects| {
            let links = Links { folders: self.folders(), objects: objects.as_fd() };
            links.make(parent, name, &tree, &meta)
        });
        match linked {
            Err(error) if matches!(error.downcast_ref(), Some(&(Errno::XDEV | Errno::MLINK | Errno::PERM))) => {
                mend::replace(self, parent, name, None).with_context(checking_out)?;
                let options = RepoCheckoutAtOptions::default();
                let copied = self.repo.checkout_at(Some(&options), parent.as_raw_fd(), name, &image.commit, NO_CANCEL);
                copied.with_context(checking_out)
            }
            linked => linked.with_context(checking_out),
        }
    }
}

/// Where hard links come from.
#[derive(Clone, Copy)]
struct Links<'a> {
    folders: Folders<'a>,
    objects: BorrowedFd<'a>,
}

impl Links<'_> {
    /// A folder with all below it, no deeper than a tree of ours; what it holds is made side by side.
    fn make(self, at: BorrowedFd<'_>, name: &str, tree: &str, meta: &str) -> Result<()> {
        mkdirat(at, name, Mode::RWXU).with_context(|| format!("making {name}"))?;
        let at = openat(at, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let listed = self.folders.open(tree)?;
        for file in listed.files() {
            let (name, object) = file.with_context(|| format!("reading the folder object {tree}"))?;
            let object = Path::new(&object[..2]).join(format!("{}.file", &object[2..]));
            linkat(self.objects, &object, &at, &name, AtFlags::empty())
                .with_context(|| format!("linking {name} to {}", object.display()))?;
        }
        let below = listed.folders().with_context(|| format!("reading the folder object {tree}"))?;
        drop(listed);
        below.par_iter().try_for_each(|(name, (tree, meta))| self.make(at.as_fd(), name, tree, meta))?;
        mend::describe_folder(self.folders, at.as_fd(), meta)?;
        Ok(utimensat(&at, ".", &TIMES, AtFlags::empty())?)
    }
}
