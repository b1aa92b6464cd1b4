//! The mount option `tmpcopyup`: a new tmpfs begins with what the image has at its place.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fchmod, fchown, mkdirat, openat,
    readlinkat, statat, symlinkat,
};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies everything in the folder `from` into the empty folder `to`, with owners and modes. No symbolic link is followed, and
/// set-user-ID bits stay behind: the tmpfs may be mounted without `nosuid`.
pub fn copy(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let from = openat(from, ".", FOLDER, Mode::empty())?;
    let to = openat(to, ".", FOLDER, Mode::empty())?;
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_one(&from, &to, name).with_context(|| format!("copying {name:?}"))?;
        }
    }
    Ok(())
}

fn copy_one(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::CStr) -> Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (uid, gid) = owner(&stat);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let (inner, copied) =
                (openat(from, name, FOLDER, Mode::empty())?, openat(to, name, FOLDER, Mode::empty())?);
            copy(&inner, &copied)?;
            fchown(&copied, uid, gid)?;
            fchmod(&copied, mode)?;
        }
        FileType::RegularFile => {
            let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // Another container may write there: a file that has become a pipe meanwhile must not hold the start.
            let mut source = File::from(openat(from, name, OFlags::RDONLY | OFlags::NONBLOCK | flags, Mode::empty())?);
            ensure!(source.metadata()?.is_file(), "it was a file a moment ago");
            let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
            let mut target = File::from(openat(to, name, new, Mode::from_raw_mode(0o600))?);
            io::copy(&mut source, &mut target)?;
            fchown(&target, uid, gid)?;
            fchmod(&target, mode & Mode::from_raw_mode(0o1777))?;
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
            chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        FileType::Fifo => {
            rustix::fs::mknodat(to, name, FileType::Fifo, mode, 0)?;
            chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            chmodat(to, name, mode, AtFlags::empty())?;
        }
        other => bail!("it is a {other:?}, which tmpcopyup does not copy"),
    }
    Ok(())
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}
