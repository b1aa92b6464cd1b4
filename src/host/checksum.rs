//! Checksums of what lies on the disk, made as the names of objects are made when they are written.
//!
//! libostree's own count every attribute that a file has, also those that the kernel gave it since.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use anyhow::{Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};
use sha2::{Digest as _, Sha256};

use super::{
    fsck::attributes,
    import::header,
    layer::{Attributes, ObjectId},
    objects::{S_IFLNK, S_IFREG},
};

const CHUNK: u64 = 256 * 1024;

/// Of a file or symbolic link, with its attributes.
pub fn of_file(folder: BorrowedFd<'_>, name: &Path) -> Result<ObjectId> {
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let own = Attributes { uid: stat.st_uid, gid: stat.st_gid, mode: 0o777, ..Attributes::implied() };
            let target = readlinkat(folder, name, Vec::new())?;
            Ok(Sha256::digest(header(&own, S_IFLNK, target.to_str()?)).into())
        }
        FileType::RegularFile => {
            let file = open(folder, name)?;
            let begun = Sha256::new_with_prefix(header(&attributes(file.as_fd())?, S_IFREG, ""));
            content(file, stat.st_size as u64, begun)
        }
        _ => bail!("it is neither a file nor a link"),
    }
}

/// Of a file's content alone, as that of a folder or commit object.
pub fn of_content(folder: BorrowedFd<'_>, name: &Path) -> Result<ObjectId> {
    let file = open(folder, name)?;
    let size = file.metadata()?.len();
    content(file, size, Sha256::new())
}

fn open(folder: BorrowedFd<'_>, name: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(folder, name, flags, Mode::empty())?))
}

fn content(mut file: File, size: u64, mut hash: Sha256) -> Result<ObjectId> {
    // most files are small; one byte more finds the end
    let mut chunk = vec![0; CHUNK.min(size + 1) as usize];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&chunk[..count]),
        }
    }
}
