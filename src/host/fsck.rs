//! Is what lies on disk what was installed? Objects against their checksums, checkouts against their commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use anyhow::{Context, Result};
use ostree::ffi::OSTREE_REPO_LIST_OBJECTS_ALL;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use serde::Serialize;

use super::{
    checksum,
    import::{folder_meta, hex},
    layer::Attributes,
    lock::StoreLock,
    mend,
    ostree::{NO_CANCEL, Store, sha256},
    repair::Broken,
    walk::XATTR_MAX,
};
use crate::model::digest::Digest;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `object`, `image`, `checkout` or `placed`
    pub kind: &'static str,
    /// the object, image or path
    pub subject: String,
    /// what is wrong with it
    pub detail: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// objects and files
    pub checked: u64,
    /// what is wrong
    pub problems: Vec<Problem>,
    /// the objects among it
    pub broken: BTreeSet<Broken>,
}

impl Report {
    /// Adds a problem.
    pub fn add(&mut self, kind: &'static str, subject: impl Into<String>, detail: impl Into<String>) {
        self.problems.push(Problem { kind, subject: subject.into(), detail: detail.into() });
    }
}

impl Store {
    /// Checks every object by its checksum, that every image has all of its own, and that it is the one its ref names.
    pub fn verify(&self, report: &mut Report) -> Result<()> {
        let loose =
            self.repo.list_objects(OSTREE_REPO_LIST_OBJECTS_ALL, NO_CANCEL).context("listing the store's objects")?;
        let mut objects: BTreeSet<String> = loose.into_keys().map(|object| object.to_string()).collect();
        for (name, commit) in self.refs()? {
            let before = report.problems.len();
            match self.repo.traverse_commit(&commit, 0, NO_CANCEL) {
                Ok(reached) => objects.extend(reached.into_iter().map(|object| object.to_string())),
                Err(error) => report.add("image", &name, error.to_string()),
            }
            if let Err(error) = self.check_ref(&name, &commit) {
                report.add("image", &name, format!("{error:#}"));
            }
            // what is there and broken is found below among the objects
            if report.problems.len() > before {
                self.missing_below(&commit, &mut report.broken);
            }
        }
        for object in objects.iter().filter_map(|name| Broken::named(name)) {
            report.checked += 1;
            if let Err(error) = self.check_object(&object) {
                report.add("object", object.to_string(), format!("{error:#}"));
                report.broken.insert(object);
            }
        }
        Ok(())
    }

    /// Folders of a commit, and the commit, that are not there or cannot be read.
    fn missing_below(&self, commit: &str, broken: &mut BTreeSet<Broken>) {
        let lacks = |checksum: &str, suffix: &str| Broken { checksum: checksum.to_owned(), suffix: suffix.to_owned() };
        let Ok((root, meta)) = self.root_tree(commit) else {
            broken.insert(lacks(commit, "commit"));
            return;
        };
        let mut todo = vec![(root, meta)];
        while let Some((tree, meta)) = todo.pop() {
            let meta = lacks(&meta, "dirmeta");
            if self.check_object(&meta).is_err() {
                broken.insert(meta);
            }
            match self.folders().read(&tree) {
                Ok(folder) => todo.extend(folder.folders.into_values()),
                Err(_) => drop(broken.insert(lacks(&tree, "dirtree"))),
            }
        }
    }

    fn check_ref(&self, name: &str, commit: &str) -> Result<()> {
        let image = self.image(commit)?;
        let Some(hex) = name.strip_prefix("sysctr/image/sha256/") else { return Ok(()) };
        let wanted: Digest = format!("sha256:{hex}").parse()?;
        anyhow::ensure!(image.digest == wanted, "it holds the image {}", image.digest);
        let config = image.manifest.config().digest().to_string();
        anyhow::ensure!(sha256(&image.config_json).to_string() == config, "its config is not the one of its manifest");
        Ok(())
    }

    /// Puts what a checkout lacks or has otherwise back in its place, from the store, while others use it; says what it could not. What
    /// it can, [`Store::verify_checkout`] does not find any more.
    pub fn mend_checkout(
        &self,
        _lock: &StoreLock,
        commit: &str,
        rootfs: BorrowedFd<'_>,
        added: &[String],
        shown: &Path,
    ) -> Result<()> {
        let (tree, meta) = self.root_tree(commit)?;
        let added = added.iter().map(|path| path.trim_matches('/').to_owned()).collect();
        let mut check = Check { store: self, added, shown, report: &mut Report::default(), mends: Some(commit) };
        check.folder(rootfs, "", &tree, &meta)
    }

    /// Compares the folder `rootfs` with the commit that it was checked out from. `added` names what may be there besides, as
    /// paths below the folder.
    pub fn verify_checkout(
        &self,
        commit: &str,
        rootfs: BorrowedFd<'_>,
        added: &[String],
        shown: &Path,
        report: &mut Report,
    ) -> Result<()> {
        let (tree, meta) = match self.root_tree(commit) {
            Ok(root) => root,
            Err(error) => {
                report.add(
                    "checkout",
                    shown.display().to_string(),
                    format!("its image is not in the store: {error:#}"),
                );
                return Ok(());
            }
        };
        let added = added.iter().map(|path| path.trim_matches('/').to_owned()).collect();
        let mut check = Check { store: self, added, shown, report, mends: None };
        check.folder(rootfs, "", &tree, &meta)
    }
}

struct Check<'a> {
    store: &'a Store,
    added: BTreeSet<String>,
    shown: &'a Path,
    report: &'a mut Report,
    /// the commit that what is wrong is mended from
    mends: Option<&'a str>,
}

impl Check<'_> {
    /// No deeper than a tree of ours.
    fn folder(&mut self, at: BorrowedFd<'_>, path: &str, tree: &str, meta: &str) -> Result<()> {
        let found = folder_meta(&attributes(at).with_context(|| self.shown.join(path).display().to_string())?);
        if sha256(found.data()).hex() != meta {
            self.bad(path, "its owner, mode or attributes have changed");
            if self.mends.is_some() {
                mend::describe_folder(self.store.folders(), at, meta)
                    .with_context(|| self.shown.join(path).display().to_string())?;
            }
        }
        let folder = match self.store.folders().read(tree) {
            Ok(folder) => folder,
            Err(error) => {
                self.bad(path, format!("its folder object is damaged: {error:#}"));
                return Ok(());
            }
        };
        let mut there: BTreeMap<String, FileType> = BTreeMap::new();
        for entry in Dir::read_from(at).with_context(|| self.shown.join(path).display().to_string())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                let stat = rustix::fs::statat(at, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                there.insert(name, FileType::from_raw_mode(stat.st_mode));
            }
        }
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        for (name, object) in &folder.files {
            match there.remove(name) {
                None => self.bad_entry(at, &below(name), name, Some(object), "it is missing")?,
                // A link of the image made way for a file to mount upon.
                Some(FileType::RegularFile) if self.added.contains(&below(name)) => {}
                Some(FileType::Directory) => {
                    self.bad_entry(at, &below(name), name, Some(object), "it is a folder now")?;
                }
                Some(_) => self.file(at, name, &below(name), object)?,
            }
        }
        for (name, (tree, meta)) in &folder.folders {
            match there.remove(name) {
                None => self.bad_folder(at, &below(name), name, "it is missing")?,
                Some(FileType::Directory) => {
                    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let fd = rustix::fs::openat(at, name.as_str(), flags, Mode::empty())?;
                    self.folder(fd.as_fd(), &below(name), tree, meta)?;
                }
                Some(_) => self.bad_folder(at, &below(name), name, "it is no folder any more")?,
            }
        }
        for name in there.into_keys() {
            let path = below(&name);
            if !self.added.contains(&path) {
                self.bad_entry(at, &path, &name, None, "the image does not have it")?;
            }
        }
        Ok(())
    }

    /// A hard link to the object is as good as the object; a copy is read.
    fn file(&mut self, at: BorrowedFd<'_>, name: &str, path: &str, object: &str) -> Result<()> {
        self.report.checked += 1;
        let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let stored = self.store.path().join("objects").join(&object[..2]).join(format!("{}.file", &object[2..]));
        let same = |stat: &Stat| {
            stored.symlink_metadata().is_ok_and(|meta| meta.dev() == stat.st_dev && meta.ino() == stat.st_ino)
        };
        if same(&stat) {
            return Ok(());
        }
        match checksum::of_file(at, Path::new(name)) {
            Ok(found) if hex(&found) == object => {}
            Ok(_) => {
                self.bad_entry(at, path, name, Some(object), "its content, owner, mode or attributes have changed")?;
            }
            Err(error) => self.bad_entry(at, path, name, Some(object), format!("{error:#}"))?,
        }
        Ok(())
    }

    /// Mended, it is `object`, or gone where the image has none.
    fn bad_entry(
        &mut self,
        at: BorrowedFd<'_>,
        path: &str,
        name: &str,
        object: Option<&str>,
        detail: impl Into<String>,
    ) -> Result<()> {
        self.bad(path, detail);
        if self.mends.is_some() {
            let mending = || format!("mending {}", self.shown.join(path).display());
            mend::replace(self.store, at, name, object).with_context(mending)?;
        }
        Ok(())
    }

    fn bad_folder(&mut self, at: BorrowedFd<'_>, path: &str, name: &str, detail: &str) -> Result<()> {
        self.bad(path, detail);
        if let Some(commit) = self.mends {
            let mending = || format!("mending {}", self.shown.join(path).display());
            mend::replace(self.store, at, name, None).with_context(mending)?;
            mend::check_out(self.store, at, name, commit, path).with_context(mending)?;
        }
        Ok(())
    }

    fn bad(&mut self, path: &str, detail: impl Into<String>) {
        self.report.add("checkout", self.shown.join(path).display().to_string(), detail);
    }
}

/// A file's or folder's attributes as they are now, without what the kernel's security modules give each by themselves: labels, and
/// hashes of IMA.
pub(super) fn attributes(file: BorrowedFd<'_>) -> Result<Attributes> {
    let stat = rustix::fs::fstat(file)?;
    let mut names = vec![0; XATTR_MAX];
    let length = rustix::fs::flistxattr(file, &mut names[..])?;
    let mut xattrs = BTreeMap::new();
    let modules = |name: &[u8]| name.starts_with(b"security.") && name != b"security.capability";
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && !modules(name)) {
        let mut value = vec![0; XATTR_MAX];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(Attributes { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, xattrs })
}
