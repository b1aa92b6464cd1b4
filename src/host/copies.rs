//! Copies a folder with all that is in it: owners, modes, times, extended attributes, hard links and holes. Where the file system can, the
//! copy shares its blocks with the original (FICLONE, ioctl_ficlone(2)).
//!
//! Nobody may write there meanwhile. Links are copied and never followed.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    fs::File,
    io::{Read, Seek},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{
    dir::Folder,
    walk::{self, FileId, XATTR_MAX, below, entries, id, is_folder, open, xattrs},
};

/// How much a folder holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// What is allocated for it; a file with several names counts once.
    pub bytes: u64,
    /// Files, folders and whatever else has a name.
    pub names: u64,
}

/// Counts; refuses what reaches into another file system.
pub fn measure(folder: &Folder) -> Result<Size> {
    let mut measured =
        Measured { size: Size::default(), mount: walk::mount(folder.as_fd(), c"")?, seen: HashSet::new() };
    measured.add(folder.as_fd(), b"").with_context(|| format!("looking at {}", folder.path().display()))?;
    Ok(measured.size)
}

/// Whether a file of `from` can share its blocks with a copy in `to`; none where there is no file to try.
pub fn can_share(from: &Folder, to: &Folder) -> Result<Option<bool>> {
    let Some(file) = any_file(from.as_fd())? else { return Ok(None) };
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(copy) = fs::openat(to, ".", flags, Mode::RUSR | Mode::WUSR) else { return Ok(Some(false)) };
    Ok(Some(fs::ioctl_ficlone(&copy, &file).is_ok()))
}

/// Copies what is in `from`, and its own attributes, to `to`, which is there and empty. Not synced.
pub fn copy(from: &Folder, to: &Folder) -> Result<()> {
    let context = || format!("copying {} to {}", from.path().display(), to.path().display());
    let mut copier = Copier { to: to.as_fd(), links: HashMap::new() };
    copier.folder(from.as_fd(), to.as_fd(), b"").with_context(context)?;
    attributes(from.as_fd(), to.as_fd(), c".", &fs::fstat(from)?).with_context(context)
}

/// Removes all that is in a folder, and leaves the folder itself.
pub fn empty(folder: &Folder) -> Result<()> {
    let context = || format!("emptying {}", folder.path().display());
    for (name, stat) in entries(folder.as_fd()).with_context(context)? {
        match is_folder(&stat) {
            true => std::fs::remove_dir_all(below(folder.as_fd(), &name)).with_context(context)?,
            false => fs::unlinkat(folder, &*name, AtFlags::empty()).with_context(context)?,
        }
    }
    Ok(())
}

struct Measured {
    size: Size,
    mount: u64,
    seen: HashSet<FileId>,
}

impl Measured {
    fn add(&mut self, folder: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        for (name, stat) in entries(folder)? {
            let path = join(path, &name);
            ensure!(walk::mount(folder, &name)? == self.mount, "another file system is mounted on {}", shown(&path));
            self.size.names += 1;
            if stat.st_nlink < 2 || is_folder(&stat) || self.seen.insert(id(&stat)) {
                self.size.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            }
            if is_folder(&stat) {
                self.add(open(folder, &name, OFlags::DIRECTORY)?.as_fd(), &path)?;
            }
        }
        Ok(())
    }
}

struct Copier<'a> {
    to: BorrowedFd<'a>,
    /// Where in the copy a file that has several names is already.
    links: HashMap<FileId, Vec<u8>>,
}

impl Copier<'_> {
    fn folder(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        for (name, stat) in entries(from)? {
            let path = join(path, &name);
            self.one(from, to, &name, &path, &stat).with_context(|| shown(&path))?;
        }
        Ok(())
    }

    fn one(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, path: &[u8], stat: &Stat) -> Result<()> {
        if let Some(first) = self.links.get(&id(stat)) {
            return Ok(fs::linkat(self.to, first.as_slice(), to, name, AtFlags::empty())?);
        }
        let own = Mode::RUSR | Mode::WUSR;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                fs::mkdirat(to, name, Mode::RWXU)?;
                let (from, to) = (open(from, name, OFlags::DIRECTORY)?, open(to, name, OFlags::DIRECTORY)?);
                self.folder(from.as_fd(), to.as_fd(), path)?;
                return attributes(from.as_fd(), to.as_fd(), c".", stat);
            }
            FileType::RegularFile => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let copy = fs::openat(to, name, flags, own)?;
                content(open(from, name, OFlags::NONBLOCK)?, copy, stat)?;
            }
            FileType::Symlink => fs::symlinkat(fs::readlinkat(from, name, Vec::new())?, to, name)?,
            kind => fs::mknodat(to, name, kind, own, stat.st_rdev)?,
        }
        if stat.st_nlink > 1 {
            self.links.insert(id(stat), path.to_owned());
        }
        attributes(from, to, name, stat)
    }
}

/// In this order: a new owner takes capabilities and the set-user-ID bit away, and all of them change times.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    let (original, copy) = (below(from, name), below(to, name));
    let wanted = xattrs(&original)?;
    // such as the access list that it inherited; labels are the kernel's to give
    let inherited = |name: &&Vec<u8>| !wanted.contains(name) && !name.starts_with(b"security.");
    xattrs(&copy)?.iter().filter(inherited).try_for_each(|name| fs::lremovexattr(&copy, name.as_slice()))?;
    let mut value = vec![0; if wanted.is_empty() { 0 } else { XATTR_MAX }];
    for name in &wanted {
        let length = fs::lgetxattr(&original, name.as_slice(), &mut value[..])?;
        let set = fs::lsetxattr(&copy, name.as_slice(), &value[..length], XattrFlags::empty());
        set.with_context(|| format!("its attribute {}", shown(name)))?;
    }
    let last_access = Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ };
    let last_modification = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    Ok(fs::utimensat(to, name, &Timestamps { last_access, last_modification }, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Shares the blocks, or copies what is no hole.
fn content(from: OwnedFd, to: OwnedFd, stat: &Stat) -> Result<()> {
    match fs::ioctl_ficlone(&to, &from) {
        Ok(()) => return Ok(()),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let (mut from, mut to) = (File::from(from), File::from(to));
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        at = match fs::seek(&from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = fs::seek(&from, SeekFrom::Hole(at))?;
        from.seek(std::io::SeekFrom::Start(at))?;
        to.seek(std::io::SeekFrom::Start(at))?;
        let copied = std::io::copy(&mut (&mut from).take(hole - at), &mut to)?;
        ensure!(copied == hole - at, "it became shorter while it was copied");
        at = hole;
    }
    Ok(())
}

fn any_file(folder: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    for (name, stat) in entries(folder)? {
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_blocks > 0 {
            return open(folder, &name, OFlags::NONBLOCK).map(Some);
        }
        if is_folder(&stat)
            && let Some(found) = any_file(open(folder, &name, OFlags::DIRECTORY)?.as_fd())?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn join(path: &[u8], name: &CStr) -> Vec<u8> {
    if path.is_empty() { name.to_bytes().to_owned() } else { [path, b"/", name.to_bytes()].concat() }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::{
        collections::BTreeMap,
        fmt::Debug,
        os::unix::fs::MetadataExt,
        path::{Path, PathBuf},
        process::Command,
    };

    /// All that a copy is to have too: what stat(2) says but for the inode and the time of its change, extended attributes (access lists
    /// and capabilities are some), where a link points, and of a file the content and the blocks.
    fn all_of(folder: &Path) -> BTreeMap<PathBuf, Vec<String>> {
        fn add(top: &Path, path: &Path, all: &mut BTreeMap<PathBuf, Vec<String>>) {
            let stat = path.symlink_metadata().expect("there");
            let mut facts = Vec::new();
            let mut note = |what: &str, fact: &dyn Debug| facts.push(format!("{what}: {fact:?}"));
            note("mode", &stat.mode());
            note("owner", &(stat.uid(), stat.gid()));
            note("changed", &(stat.mtime(), stat.mtime_nsec()));
            note("names", &stat.nlink());
            note("device", &stat.rdev());
            for name in xattrs(path).expect("listed") {
                let mut value = vec![0; XATTR_MAX];
                let length = fs::lgetxattr(path, name.as_slice(), &mut value[..]).expect("there");
                note("attribute", &(shown(&name), &value[..length]));
            }
            if stat.is_symlink() {
                note("target", &path.read_link().expect("read"));
            }
            if stat.is_file() {
                note("blocks", &(stat.size(), stat.blocks()));
                note("content", &Sha256::digest(std::fs::read(path).expect("read")));
            }
            all.insert(path.strip_prefix(top).expect("below").to_owned(), facts);
            for entry in stat.is_dir().then(|| path.read_dir().expect("read")).into_iter().flatten() {
                add(top, &entry.expect("read").path(), all);
            }
        }
        let mut all = BTreeMap::new();
        add(folder, folder, &mut all);
        all
    }

    /// Mounts below a folder, until it is dropped.
    struct Mounts(PathBuf);

    impl Drop for Mounts {
        fn drop(&mut self) {
            let _ = Command::new("sh").arg("-c").arg("umount from a b").current_dir(&self.0).status();
        }
    }

    #[test]
    fn files_of_one_number_on_two_disks_are_two() {
        let place = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let script = "mkdir a b from to && mount -t tmpfs a a && mount -t tmpfs b b && for layer in a b; do
            mkdir $layer/$layer && echo $layer >$layer/$layer/one && ln $layer/$layer/one $layer/$layer/two; done
            mount -t overlay -o xino=off,lowerdir=a:b from from";
        let _mounts = Mounts(place.path().to_owned());
        assert!(Command::new("sh").arg("-c").arg(script).current_dir(&place).status().expect("sh").success());
        let [from, to] = ["from", "to"].map(|name| Folder::root(&place.path().join(name)).expect("there"));
        let number = |name: &str| from.path().join(name).metadata().expect("there").ino();
        assert_eq!(number("a/one"), number("b/one"), "the control");
        copy(&from, &to).expect("copied");
        assert_eq!(measure(&from).expect("measured").names, measure(&to).expect("measured").names);
        for name in ["a/one", "a/two", "b/one", "b/two"] {
            assert_eq!(std::fs::read(to.path().join(name)).expect(name), [name.as_bytes()[0], b'\n'], "{name}");
        }
    }

    /// An access list as the kernel has it (acl(5)): the user 12 may read, and so may others or not.
    fn access_list(others: u8) -> Vec<u8> {
        let entry = |tag: u8, may: u8, id: [u8; 4]| [[tag, 0, may, 0].as_slice(), &id].concat();
        let (no, user) = ([255; 4], [12, 0, 0, 0]);
        let entries = [(1, 6, no), (2, 4, user), (4, 4, no), (16, 4, no), (32, others, no)];
        [vec![2, 0, 0, 0], entries.into_iter().flat_map(|(tag, may, id)| entry(tag, may, id)).collect()].concat()
    }

    #[test]
    fn a_copy_is_the_same_in_everything() {
        let place = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let script = "mkdir -p from/a/b to && cd from && echo text >a/b/file && chmod 2750 a && ln a/b/file a/again &&
            ln -s ../none a/link && mkfifo a/pipe && mknod a/null c 1 3 && chown -h 12:34 a/b a/link && echo x >$'odd \\xff name' &&
            truncate -s 50M sparse && printf end | dd of=sparse bs=1 seek=40000000 conv=notrunc status=none &&
            cp /bin/true capable && setcap cap_net_raw+ep capable && chmod 4755 a/b/file && touch plain && chmod 400 plain &&
            touch -h -d 1999-01-01T00:00:00.123456789 a/link && touch -d 2001-02-03T04:05:06.789 a/b/file a/b . && chmod 700 .";
        assert!(Command::new("bash").arg("-c").arg(script).current_dir(&place).status().expect("bash").success());
        let [from, to] = ["from", "to"].map(|name| Folder::root(&place.path().join(name)).expect("there"));
        let set =
            |path: &Path, name: &str, value: &[u8]| fs::setxattr(path, name, value, XattrFlags::empty()).expect(name);
        set(from.path(), "trusted.sysctr", b"app");
        set(&from.path().join("a/b"), "system.posix_acl_default", &access_list(0));
        set(&from.path().join("a/b"), "system.posix_acl_access", &access_list(4));
        // what comes there inherits a list that the original has not
        set(to.path(), "system.posix_acl_default", &access_list(4));
        // and is another one's
        fs::fsetxattr(&to, "user.old", b"x", XattrFlags::empty()).expect("marked");

        copy(&from, &to).expect("copied");
        let (original, copied) = (all_of(from.path()), all_of(to.path()));
        assert!(original.keys().eq(copied.keys()), "{:?}\n{:?}", original.keys(), copied.keys());
        for (path, facts) in &original {
            assert_eq!(facts, &copied[path], "{} differs", path.display());
        }
        let stat = |folder: &Folder, name: &str| folder.path().join(name).metadata().expect("there");
        assert_eq!(stat(&to, "a/again").ino(), stat(&to, "a/b/file").ino(), "two names of one file became two files");
        assert!(stat(&to, "sparse").blocks() < 1000, "holes were filled");
        let [one, other] = [&from, &to].map(|folder| measure(folder).expect("measured"));
        assert_eq!((one.names, other), (11, one));
        empty(&to).expect("emptied");
        assert_eq!(measure(&to).expect("measured"), Size::default());
    }
}
