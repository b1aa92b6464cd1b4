//! An image's objects, written by ourselves: libostree takes some 25 system calls for each, and lets one thread write at a time.
//!
//! Each becomes a file in a folder of its own below the repository's `tmp`, whole and with its attributes. One sync later all of them
//! are renamed to where [ostree-repo(5)'s format](https://ostreedev.github.io/ostree/repo/) has them: what has an object's name is on
//! the disk, wherever the machine stops. They are part of nothing until a reference leads to them.

use std::{
    collections::HashSet,
    ffi::CString,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, accessat, fchmod,
        fchown, fsetxattr, fstat, futimens, mkdirat, openat, renameat, symlinkat, syncfs, unlinkat,
    },
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use super::{
    controls, fsck,
    import::{header, hex},
    layer::{Attributes, Importer, ObjectId},
};

/// Larger files are hashed on their way to the disk instead of before.
const BUFFERED: u64 = 1024 * 1024;
const CHUNK: usize = 256 * 1024;
/// With a number: what is left of an earlier pull lies beside it.
const STAGING: &str = "sysctr-objects-";
const PUBLISHED_AT_ONCE: usize = 4096;
pub(super) const S_IFREG: u32 = 0o100_000;
pub(super) const S_IFLNK: u32 = 0o120_000;

/// Objects that are not part of the repository yet.
pub struct Objects {
    tmp: OwnedFd,
    /// the name of the staging folder
    pub(super) name: String,
    staging: OwnedFd,
    objects: OwnedFd,
    unnamed: AtomicU64,
    /// owner and group that a new file has by itself
    own: (u32, u32),
    /// there, but not to be believed
    broken: HashSet<ObjectId>,
}

impl Objects {
    /// Begins in a repository of mode bare.
    pub fn begin(repo: &Path) -> Result<Objects> {
        Objects::replacing(repo, HashSet::new())
    }

    /// Begins, and writes these again though the repository has something by their names.
    pub fn replacing(repo: &Path, broken: HashSet<ObjectId>) -> Result<Objects> {
        let folder = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let repo = openat(CWD, repo, folder, Mode::empty())?;
        let open = |parent: &OwnedFd, name: &str| openat(parent, name, folder | OFlags::NOFOLLOW, Mode::empty());
        let (tmp, objects) = (open(&repo, "tmp")?, open(&repo, "objects")?);
        let mut number = 0;
        let name = loop {
            let name = format!("{STAGING}{number}");
            match mkdirat(&tmp, &name, Mode::RWXU) {
                Err(Errno::EXIST) => number += 1,
                made => break made.map(|()| name).context("making a folder for new objects")?,
            }
        };
        let staging = open(&tmp, &name)?;
        // the group may be that of the folder above (setgid)
        let stat = fstat(&staging)?;
        let own = (stat.st_uid, stat.st_gid);
        Ok(Objects { tmp, name, staging, objects, own, unnamed: AtomicU64::new(0), broken })
    }

    /// The folders of earlier pulls.
    pub(super) fn left(&self) -> Result<Vec<OwnedFd>> {
        let folder = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut left = Vec::new();
        for entry in Dir::read_from(&self.tmp)? {
            let name = entry?.file_name().to_owned();
            if name.to_bytes().starts_with(STAGING.as_bytes()) && name.to_bytes() != self.name.as_bytes() {
                left.push(openat(&self.tmp, &name, folder, Mode::empty())?);
            }
        }
        Ok(left)
    }

    /// Takes an object over that is whole.
    pub(super) fn take(&self, from: &OwnedFd, name: &str) -> Result<()> {
        Ok(renameat(from, name, &self.staging, name)?)
    }

    /// Stores contents here; each thread has its own.
    pub fn writer(&self) -> Writer<'_> {
        Writer { objects: self, object: Vec::new(), tried: None }
    }

    /// Makes all of them objects of the repository.
    pub fn publish(self) -> Result<()> {
        if !controls::without_sync("file system") {
            syncfs(&self.staging).context("writing the image's files to the disk")?;
        }
        // Some at a time: a million names need not be in memory at once.
        loop {
            let mut staged = Vec::with_capacity(PUBLISHED_AT_ONCE);
            for entry in Dir::read_from(&self.staging)?.take(PUBLISHED_AT_ONCE) {
                let name = entry?.file_name().to_str()?.to_owned();
                if !name.starts_with('.') {
                    staged.push(name);
                }
            }
            if staged.is_empty() {
                return Ok(unlinkat(&self.tmp, &self.name, AtFlags::REMOVEDIR)?);
            }
            staged.sort_unstable();
            staged
                .iter()
                .try_for_each(|name| self.rename(name).with_context(|| format!("naming the object {name}")))?;
        }
    }

    fn rename(&self, name: &str) -> Result<()> {
        let place = place(name);
        Ok(match renameat(&self.staging, name, &self.objects, &place) {
            Err(Errno::NOENT) => {
                mkdirat(&self.objects, &name[..2], Mode::from_raw_mode(0o755))?;
                renameat(&self.staging, name, &self.objects, &place)
            }
            done => done,
        }?)
    }

    /// Whether the store has this object, or will have it once these are published.
    pub fn have(&self, id: &ObjectId) -> Result<bool> {
        let name = hex(id);
        Ok(self.published(id, &name)? || exists(&self.staging, &name)?)
    }

    /// Stores the object of a folder or of a commit; `kind` is how libostree's name for it ends.
    pub fn metadata(&self, kind: &str, data: &[u8]) -> Result<ObjectId> {
        let id: ObjectId = Sha256::digest(data).into();
        let name = format!("{}.{kind}", hex(&id));
        if !self.published(&id, &name)?
            && let Some(mut file) = self.create(&name)?
        {
            file.write_all(data)?;
            fchmod(&file, Mode::from_raw_mode(0o644))?;
        }
        Ok(id)
    }

    /// A new file; none where another thread writes the same, or has.
    fn create(&self, name: &str) -> Result<Option<File>> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match openat(&self.staging, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The owner first: a new one costs a file its capabilities and its set-user-ID bit.
    fn describe(&self, file: &File, attributes: &Attributes, mtime: i64) -> Result<()> {
        if self.own != (attributes.uid, attributes.gid) {
            let (uid, gid) = owner(attributes);
            fchown(file, uid, gid)?;
        }
        for (name, value) in &attributes.xattrs {
            let shown = || format!("setting the attribute {}", String::from_utf8_lossy(name));
            fsetxattr(file.as_fd(), CString::new(name.as_slice())?, value, XattrFlags::empty()).with_context(shown)?;
        }
        fchmod(file, Mode::from_raw_mode(attributes.mode))?;
        if !attributes.xattrs.is_empty() {
            kept_as_they_are(file, attributes)?;
        }
        // libostree's would all be 0, and with that every compiled file of Python is out of date, and no web server sees a change.
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: omitted, last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 } };
        Ok(futimens(file, &times)?)
    }

    fn published(&self, id: &ObjectId, name: &str) -> Result<bool> {
        Ok(!self.broken.contains(id) && exists(&self.objects, &place(name))?)
    }
}

/// Fails where the kernel gives an attribute back otherwise than it was set: an access list that the mode says too, or says otherwise, or
/// capabilities of an older form. The object's name is made of what the image says, and would never be its checksum.
fn kept_as_they_are(file: &File, attributes: &Attributes) -> Result<()> {
    let (found, wanted) = (fsck::attributes(file.as_fd())?.xattrs, &attributes.xattrs);
    let differs = wanted.keys().chain(found.keys()).find(|name| found.get(*name) != wanted.get(*name));
    if let Some(name) = differs {
        bail!("the kernel does not keep its attribute {:?} as it is in the image", String::from_utf8_lossy(name));
    }
    Ok(())
}

fn exists(folder: &OwnedFd, path: &str) -> Result<bool> {
    match accessat(folder, path, rustix::fs::Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Where an object lies, below the repository's `objects`. In the staging folder a name with an ending is metadata's, one without a file's.
fn place(name: &str) -> String {
    let kind = if name.contains('.') { "" } else { ".file" };
    format!("{}/{}{kind}", &name[..2], &name[2..])
}

/// One thread's way into [`Objects`].
pub struct Writer<'a> {
    objects: &'a Objects,
    /// header and content of the one at hand
    object: Vec<u8>,
    /// what a folder was last made with
    tried: Option<Attributes>,
}

impl Writer<'_> {
    fn unnamed(&self) -> String {
        format!("unnamed-{}", self.objects.unnamed.fetch_add(1, Ordering::Relaxed))
    }

    fn write_small(&mut self, attributes: &Attributes, mtime: i64, content_at: usize) -> Result<ObjectId> {
        let id: ObjectId = Sha256::digest(&self.object).into();
        let name = hex(&id);
        if !self.objects.published(&id, &name)?
            && let Some(mut file) = self.objects.create(&name)?
        {
            file.write_all(&self.object[content_at..])?;
            self.objects.describe(&file, attributes, mtime)?;
        }
        Ok(id)
    }

    fn write_large(
        &self,
        header: &[u8],
        attributes: &Attributes,
        mtime: i64,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<ObjectId> {
        let unnamed = self.unnamed();
        let mut file = self.objects.create(&unnamed)?.context("another import is at work")?;
        let mut hash = Sha256::new_with_prefix(header);
        let mut buffer = vec![0; CHUNK];
        let mut left = size;
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
            content.read_exact(&mut buffer[..want])?;
            hash.update(&buffer[..want]);
            file.write_all(&buffer[..want])?;
            left -= want as u64;
        }
        let id: ObjectId = hash.finalize().into();
        let name = hex(&id);
        let staging = &self.objects.staging;
        if self.objects.published(&id, &name)? {
            unlinkat(staging, &unnamed, AtFlags::empty())?;
        } else {
            self.objects.describe(&file, attributes, mtime)?;
            renameat(staging, &unnamed, staging, &name)?;
        }
        Ok(id)
    }
}

impl Importer for Writer<'_> {
    fn file(&mut self, attributes: &Attributes, mtime: i64, size: u64, content: &mut dyn Read) -> Result<ObjectId> {
        let storing = || "writing its content to the store";
        let header = header(attributes, S_IFREG, "");
        if size > BUFFERED {
            return self.write_large(&header, attributes, mtime, size, content).with_context(storing);
        }
        self.object.clear();
        self.object.extend_from_slice(&header);
        self.object.resize(header.len() + size as usize, 0);
        content.read_exact(&mut self.object[header.len()..])?;
        self.write_small(attributes, mtime, header.len()).with_context(storing)
    }

    fn folder(&mut self, attributes: &Attributes) -> Result<()> {
        if self.tried.as_ref() == Some(attributes) {
            return Ok(());
        }
        let (staging, name) = (&self.objects.staging, self.unnamed());
        mkdirat(staging, &name, Mode::RWXU)?;
        let folder = openat(staging, &name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let described = self.objects.describe(&folder.into(), attributes, 0);
        unlinkat(staging, &name, AtFlags::REMOVEDIR)?;
        self.tried = Some(attributes.clone());
        described
    }

    fn symlink(&mut self, attributes: &Attributes, target: &str) -> Result<ObjectId> {
        let id: ObjectId = Sha256::digest(header(attributes, S_IFLNK, target)).into();
        let name = hex(&id);
        let staging = &self.objects.staging;
        if self.objects.published(&id, &name)? {
            return Ok(id);
        }
        match symlinkat(target, staging, &name) {
            Err(Errno::EXIST) => return Ok(id),
            made => made.context("writing the link to the store")?,
        }
        if self.objects.own != (attributes.uid, attributes.gid) {
            let (uid, gid) = owner(attributes);
            rustix::fs::chownat(staging, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(id)
    }
}

fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
}
