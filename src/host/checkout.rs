//! An image's files as a folder. Hard links to the objects of the store need neither room nor a look at the objects.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
};

use anyhow::{Context, Error, Result, ensure};
use ostree::RepoCheckoutAtOptions;
use rayon::{Scope, ThreadPoolBuilder};
use rustix::{
    fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, linkat, mkdirat, openat, utimensat},
    io::Errno,
};

use super::{
    folders::{Folders, Meta},
    lock::StoreLock,
    mend,
    ostree::{NO_CANCEL, Store, StoredImage},
};

/// As libostree has it: a checkout is the same whenever it was made.
const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
};

/// Each has a folder open for each level that it is at, and a process may have a thousand.
const MOST_THREADS: usize = 4;

impl Store {
    /// Makes the folder `name` in `parent` with the image's files, as hard links where the file system can, else as copies.
    /// Nothing is synced: whoever stages a deployment syncs it whole. Mount it read-only: a write in place would reach the store.
    pub fn checkout(&self, _lock: &StoreLock, image: &StoredImage, parent: BorrowedFd<'_>, name: &str) -> Result<()> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        ensure!(plain, "{name:?} cannot name a folder");
        let checking_out = || format!("checking out {}", image.name());
        let top = self.root_tree(&image.commit).with_context(checking_out)?;
        let linked = File::open(self.path().join("objects")).map_err(Into::into).and_then(|objects| {
            let (folders, objects) = (self.folders(), objects.as_fd());
            let links = Links { folders, objects, metas: Mutex::default(), failed: OnceLock::new() };
            links.make(parent, name, top)
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

/// A checkout of hard links, each of its folders filled by whoever is free.
struct Links<'a> {
    folders: Folders<'a>,
    objects: BorrowedFd<'a>,
    /// Attributes by their objects, which are few.
    metas: Mutex<HashMap<String, Arc<Meta>>>,
    failed: OnceLock<Error>,
}

/// A folder that is there with nothing in it, and its objects.
struct Empty {
    above: Arc<OwnedFd>,
    name: String,
    tree: String,
    meta: String,
}

impl Links<'_> {
    fn make(mut self, at: BorrowedFd<'_>, name: &str, (tree, meta): (String, String)) -> Result<()> {
        mkdirat(at, name, Mode::RWXU).with_context(|| format!("making {name}"))?;
        let top = Empty { above: Arc::new(at.try_clone_to_owned()?), name: name.to_owned(), tree, meta };
        let threads = thread::available_parallelism().map_or(1, |processors| processors.get().min(MOST_THREADS));
        let threads = ThreadPoolBuilder::new().num_threads(threads).build().context("starting threads")?;
        threads.scope(|scope| self.go_on(scope, top));
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Fills a folder, and leaves those in it to whoever is free. None waits for another one: neither the depth of a tree nor its breadth
    /// takes a stack.
    fn go_on<'scope>(&'scope self, scope: &Scope<'scope>, folder: Empty) {
        if self.failed.get().is_some() {
            return;
        }
        match self.fill(folder) {
            Ok(inner) => inner.into_iter().for_each(|folder| scope.spawn(|scope| self.go_on(scope, folder))),
            // one cause is enough
            Err(error) => drop(self.failed.set(error)),
        }
    }

    /// Links a folder's files, and makes its folders before it is described: nothing changes it after that.
    fn fill(&self, Empty { above, name, tree, meta }: Empty) -> Result<Vec<Empty>> {
        let at = openat(&above, &name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        drop(above);
        let listed = self.folders.open(&tree)?;
        for file in listed.files() {
            let (name, object) = file.with_context(|| format!("reading the folder object {tree}"))?;
            let object = Path::new(&object[..2]).join(format!("{}.file", &object[2..]));
            linkat(self.objects, &object, &at, &name, AtFlags::empty())
                .with_context(|| format!("linking {name} to {}", object.display()))?;
        }
        let at = Arc::new(at);
        let mut inner = Vec::new();
        for (name, (tree, meta)) in listed.folders().with_context(|| format!("reading the folder object {tree}"))? {
            mkdirat(&at, &name, Mode::RWXU).with_context(|| format!("making {name}"))?;
            inner.push(Empty { above: at.clone(), name, tree, meta });
        }
        mend::describe(at.as_fd(), &*self.meta(meta)?)?;
        utimensat(&at, ".", &TIMES, AtFlags::empty())?;
        Ok(inner)
    }

    fn meta(&self, object: String) -> Result<Arc<Meta>> {
        let mut metas = self.metas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meta) = metas.get(&object) {
            return Ok(meta.clone());
        }
        let meta = Arc::new(self.folders.meta(&object)?);
        metas.insert(object, meta.clone());
        Ok(meta)
    }
}
