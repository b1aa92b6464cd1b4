//! A block device that remembers each write and each flush, in their order: what the kernel's dm-log-writes does, where there is no
//! device mapper. It is a loop device on the one file of a FUSE file system; a loop device hands a flush on as fsync(2), and the block
//! layer makes a flush of each FUA.
//!
//! What a write brought is on the disk for sure only when a flush that began after it has ended. Before that, any part of it may be.

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::common::run;

/// What a device was told.
pub enum Entry {
    Write { offset: u64, data: Vec<u8> },
    Flush,
}

/// What it remembers, and what is on it.
struct Recording {
    file: File,
    size: u64,
    log: Vec<Entry>,
}

type Shared = Arc<Mutex<Recording>>;

/// A device that records.
pub struct Device {
    recording: Shared,
    path: PathBuf,
    _folder: tempfile::TempDir,
    session: Option<BackgroundSession>,
}

impl Device {
    /// With the content of a file, which is written to.
    pub fn of(content: &Path) -> Device {
        let file = File::options().read(true).write(true).open(content).unwrap();
        let size = file.metadata().unwrap().len();
        let recording = Arc::new(Mutex::new(Recording { file, size, log: Vec::new() }));
        let folder = tempfile::tempdir().unwrap();
        let session = fuser::spawn_mount(Files(recording.clone()), folder.path(), &Config::default()).unwrap();
        let file = folder.path().join(DISK);
        let path = run("losetup", &["--find", "--show", file.to_str().unwrap()]).unwrap();
        Device { recording, path: path.trim().into(), _folder: folder, session: Some(session) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much was recorded until now.
    pub fn length(&self) -> usize {
        lock(&self.recording).log.len()
    }

    /// Ends it; what was recorded.
    pub fn log(self) -> Vec<Entry> {
        std::mem::take(&mut lock(&self.recording).log)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.path.to_str().unwrap()]).ok();
        self.session.take().map(BackgroundSession::umount_and_join);
    }
}

fn lock(recording: &Shared) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file system with one file.
struct Files(Shared);

const DISK: &str = "disk";
const TIME_TO_LIVE: Duration = Duration::from_secs(3600);

impl Files {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let size = lock(&self.0).size;
        let is_root = ino == INodeNo::ROOT;
        let kind = if is_root { FileType::Directory } else { FileType::RegularFile };
        FileAttr {
            ino,
            size: if is_root { 0 } else { size },
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == DISK {
            reply.entry(&TIME_TO_LIVE, &self.attributes(INodeNo(2)), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TIME_TO_LIVE, &self.attributes(ino));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<fuser::TimeOrNow>,
        _: Option<fuser::TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&TIME_TO_LIVE, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let recording = lock(&self.0);
        let end = recording.size.min(offset + u64::from(size));
        let mut data = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap()];
        match recording.file.read_exact_at(&mut data, offset) {
            Ok(()) => reply.data(&data),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut recording = lock(&self.0);
        if let Err(error) = recording.file.write_all_at(data, offset) {
            return reply.error(error.into());
        }
        recording.log.push(Entry::Write { offset, data: data.to_vec() });
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        lock(&self.0).log.push(Entry::Flush);
        reply.ok();
    }
}
