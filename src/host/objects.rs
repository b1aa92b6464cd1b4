//! Content objects, written by ourselves: libostree takes some 25 system calls for each, and lets one thread write at a time.
//!
//! Each becomes a file in a folder of its own below the repository's `tmp`, whole and with its attributes. One sync later all of them
//! are renamed to where [ostree-repo(5)'s format](https://ostreedev.github.io/ostree/repo/) has them: what has an object's name is on
//! the disk, wherever the machine stops. They are part of nothing until a commit names them.

use std::{
    collections::HashSet,
    ffi::CString,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use rustix::{
    fs::{
        AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, accessat, fchmod, fchown,
        fsetxattr, futimens, mkdirat, openat, renameat, symlinkat, syncfs, unlinkat,
    },
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use super::{
    import::{header, hex},
    layer::{Attributes, Importer, ObjectId},
};

/// Larger files are hashed on their way to the disk instead of before.
const BUFFERED: u64 = 1024 * 1024;
const CHUNK: usize = 256 * 1024;
const STAGING: &str = "sysctr-objects";
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Objects that are not part of the repository yet.
pub struct Objects {
    tmp: OwnedFd,
    staging: OwnedFd,
    objects: OwnedFd,
    known: Mutex<Known>,
    unnamed: AtomicU64,
}

#[derive(Default)]
struct Known {
    /// staged, or there before
    all: HashSet<ObjectId>,
    staged: Vec<ObjectId>,
}

impl Objects {
    /// Begins in a repository of mode bare whose `tmp` has nothing unfinished.
    pub fn begin(repo: &Path) -> Result<Objects> {
        let folder = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let repo = openat(CWD, repo, folder, Mode::empty())?;
        let open = |parent: &OwnedFd, name: &str| openat(parent, name, folder | OFlags::NOFOLLOW, Mode::empty());
        let (tmp, objects) = (open(&repo, "tmp")?, open(&repo, "objects")?);
        mkdirat(&tmp, STAGING, Mode::RWXU).context("making a folder for new objects")?;
        let staging = open(&tmp, STAGING)?;
        Ok(Objects { tmp, staging, objects, known: Mutex::default(), unnamed: AtomicU64::new(0) })
    }

    /// Stores contents here; each thread has its own.
    pub fn writer(&self) -> Writer<'_> {
        Writer { objects: self, object: Vec::new() }
    }

    /// Makes all of them objects of the repository.
    pub fn publish(self) -> Result<()> {
        syncfs(&self.staging).context("writing the image's files to the disk")?;
        let mut staged = std::mem::take(&mut self.known().staged);
        staged.sort_unstable();
        for id in staged {
            let name = hex(&id);
            let place = place(&name);
            let renamed = match renameat(&self.staging, &name, &self.objects, &place) {
                Err(Errno::NOENT) => {
                    mkdirat(&self.objects, &name[..2], Mode::from_raw_mode(0o755))?;
                    renameat(&self.staging, &name, &self.objects, &place)
                }
                done => done,
            };
            renamed.with_context(|| format!("naming the object {name}"))?;
        }
        Ok(unlinkat(&self.tmp, STAGING, AtFlags::REMOVEDIR)?)
    }

    /// True for the first that asks for an object which is not there: that one writes it.
    fn claim(&self, id: ObjectId, name: &str) -> Result<bool> {
        if self.known().all.contains(&id) {
            return Ok(false);
        }
        let there = match accessat(&self.objects, place(name), rustix::fs::Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(error) => return Err(error.into()),
        };
        let mut known = self.known();
        if !known.all.insert(id) || there {
            return Ok(false);
        }
        known.staged.push(id);
        Ok(true)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, name: &str) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(openat(&self.staging, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }
}

/// Where an object lies, below the repository's `objects`.
fn place(name: &str) -> String {
    format!("{}/{}.file", &name[..2], &name[2..])
}

/// One thread's way into [`Objects`].
pub struct Writer<'a> {
    objects: &'a Objects,
    /// header and content of the one at hand
    object: Vec<u8>,
}

impl Writer<'_> {
    fn write_small(&mut self, attributes: &Attributes, content_at: usize) -> Result<ObjectId> {
        let id: ObjectId = Sha256::digest(&self.object).into();
        let name = hex(&id);
        if self.objects.claim(id, &name)? {
            let mut file = self.objects.create(&name)?;
            file.write_all(&self.object[content_at..])?;
            describe(&file, attributes)?;
        }
        Ok(id)
    }

    fn write_large(
        &self,
        header: &[u8],
        attributes: &Attributes,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<ObjectId> {
        let unnamed = format!("unnamed-{}", self.objects.unnamed.fetch_add(1, Ordering::Relaxed));
        let mut file = self.objects.create(&unnamed)?;
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
        if self.objects.claim(id, &name)? {
            describe(&file, attributes)?;
            renameat(staging, &unnamed, staging, &name)?;
        } else {
            unlinkat(staging, &unnamed, AtFlags::empty())?;
        }
        Ok(id)
    }
}

impl Importer for Writer<'_> {
    fn file(&mut self, attributes: &Attributes, size: u64, content: &mut dyn Read) -> Result<ObjectId> {
        let storing = || "writing its content to the store";
        let header = header(attributes, S_IFREG, "");
        if size > BUFFERED {
            return self.write_large(&header, attributes, size, content).with_context(storing);
        }
        self.object.clear();
        self.object.extend_from_slice(&header);
        self.object.resize(header.len() + size as usize, 0);
        content.read_exact(&mut self.object[header.len()..])?;
        self.write_small(attributes, header.len()).with_context(storing)
    }

    fn symlink(&mut self, attributes: &Attributes, target: &str) -> Result<ObjectId> {
        let id: ObjectId = Sha256::digest(header(attributes, S_IFLNK, target)).into();
        let name = hex(&id);
        let staging = &self.objects.staging;
        if self.objects.claim(id, &name)? {
            symlinkat(target, staging, &name).context("writing the link to the store")?;
            let (uid, gid) = owner(attributes);
            rustix::fs::chownat(staging, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(id)
    }
}

/// The owner first: a new one costs a file its capabilities and its set-user-ID bit.
fn describe(file: &File, attributes: &Attributes) -> Result<()> {
    let (uid, gid) = owner(attributes);
    fchown(file, uid, gid)?;
    for (name, value) in &attributes.xattrs {
        let shown = || format!("setting the attribute {}", String::from_utf8_lossy(name));
        fsetxattr(file.as_fd(), CString::new(name.as_slice())?, value, XattrFlags::empty()).with_context(shown)?;
    }
    fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    // As libostree: one object has one time, whichever image it came with.
    let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omitted, last_modification: Timespec { tv_sec: 0, tv_nsec: 0 } };
    Ok(futimens(file, &times)?)
}

fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
}
