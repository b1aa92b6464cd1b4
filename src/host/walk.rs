//! Going through a folder, whoever goes on writing to it: each folder is opened from the one above it, and no link is followed.

use std::{
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use anyhow::Result;
use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat, StatxFlags},
    io::Errno,
};

/// The kernel takes no longer list of names and no longer value (xattr(7)).
pub const XATTR_MAX: usize = 64 << 10;

/// What is in a folder, by name.
pub fn entries(folder: BorrowedFd<'_>) -> Result<Vec<(CString, Stat)>> {
    let mut entries = Vec::new();
    for entry in fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => entries.push((name.to_owned(), stat)),
            // removed meanwhile
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(entries)
}

/// Which file it is, whatever names it has. On one mount there may be several file systems, each with numbers of its own: the layers of an
/// overlay, subvolumes of btrfs.
pub type FileId = (u64, u64);

/// Which file it is.
pub fn id(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

/// Opens what has the name there.
pub fn open(folder: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    Ok(fs::openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags, Mode::empty())?)
}

/// Whether it is a folder.
pub fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The first path below a folder that something else is mounted on.
pub fn mounted_below(folder: BorrowedFd<'_>) -> Result<Option<PathBuf>> {
    let own = mount(folder, c".")?;
    for (name, stat) in entries(folder)? {
        let path = Path::new(OsStr::from_bytes(name.to_bytes()));
        if mount(folder, &name)? != own {
            return Ok(Some(path.to_owned()));
        }
        if is_folder(&stat)
            && let Some(inner) = mounted_below(open(folder, &name, OFlags::DIRECTORY)?.as_fd())?
        {
            return Ok(Some(path.join(inner)));
        }
    }
    Ok(None)
}

/// The path of a name in a folder, for calls that take no handle.
pub fn below(folder: BorrowedFd<'_>, name: &CStr) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(OsStr::from_bytes(name.to_bytes()))
}

/// Which mount something is on: a file system of its own, or some place of this one that is shown there, too. An empty name is the folder.
pub fn mount(folder: BorrowedFd<'_>, name: &CStr) -> Result<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    Ok(fs::statx(folder, name, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// The names of its extended attributes.
pub fn xattrs(path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; XATTR_MAX];
    let length = match fs::llistxattr(path, &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let names = buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_owned).collect())
}
