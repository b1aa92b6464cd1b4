//! Folders as handles, and files that are replaced whole: write, fsync, rename, fsync of the folder.
//!
//! Every path is resolved inside the root (openat2(2), RESOLVE_IN_ROOT): with `--root DIR` an absolute link in that tree means the tree,
//! not the machine that works on it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::controls;

/// An open folder, and its path for messages.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    /// see [`Folder::synced_together`]
    together: bool,
}

/// Text of records and units; nothing that sysctr reads whole is near this size.
const LIMIT: u64 = 16 << 20;

impl Folder {
    /// The root that all other paths are below.
    pub fn root(path: &Path) -> Result<Folder> {
        let fd = fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(Folder { fd, path: path.to_owned(), together: false })
    }

    /// The folder below this one, or none where there is none.
    pub fn open(&self, below: &str) -> Result<Option<Folder>> {
        let path = self.path.join(below);
        match fs::openat2(&self.fd, below, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(fd) => Ok(Some(Folder { fd, path, together: self.together })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening {}", path.display())),
        }
    }

    /// The folder below this one, made with its parents where it is missing (`mode` is for the last part, parents get 0755).
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn create(&self, below: &str, mode: u32) -> Result<Folder> {
        if let Some(folder) = self.open(below)? {
            return Ok(folder);
        }
        let (parent, name) = below.rsplit_once('/').unwrap_or(("", below));
        let made;
        let parent = if parent.is_empty() {
            self
        } else {
            made = self.create(parent, 0o755)?;
            &made
        };
        let context = || format!("making {}", parent.path.join(name).display());
        match fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                // A umask must not decide who may read it.
                fs::chmodat(&parent.fd, name, Mode::from_raw_mode(mode), AtFlags::empty()).with_context(context)?;
                parent.sync()?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(context),
        }
        match self.open(below)? {
            Some(folder) => Ok(folder),
            None => bail!("{} is a link to nothing", self.path.join(below).display()),
        }
    }

    /// The same folder, where and below which nothing is synced by itself, whatever is said of it: who makes something there ends with the
    /// [`Folder::sync_all`] of a folder on the same file system. Until then nothing may go by what is made, nor get a name that counts.
    pub fn synced_together(&self) -> Result<Folder> {
        let fd = self.fd.try_clone().with_context(|| format!("opening {}", self.path.display()))?;
        Ok(Folder { fd, path: self.path.clone(), together: true })
    }

    /// Where it is, for messages and for programs that take a path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it really is, all links followed.
    pub fn real_path(&self) -> Result<PathBuf> {
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.fd));
        std::fs::read_link(link).with_context(|| format!("looking where {} is", self.path.display()))
    }

    /// The names in it, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let context = || format!("reading {}", self.path.display());
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd).with_context(context)? {
            let entry = entry.with_context(context)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// What a name is, without following a link; none where there is nothing.
    pub fn kind(&self, name: &str) -> Result<Option<FileType>> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking at {}", self.path.join(name).display())),
        }
    }

    /// The text of a regular file in this folder; none where there is none.
    pub fn read(&self, name: &str) -> Result<Option<String>> {
        let context = || format!("reading {}", self.path.join(name).display());
        let bytes = self.read_bytes(name)?;
        bytes.map(|bytes| String::from_utf8(bytes).with_context(context)).transpose()
    }

    /// The content of a regular file in this folder, whatever it is; none where there is none.
    pub fn read_bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let context = || format!("reading {}", self.path.join(name).display());
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).with_context(context),
        };
        let mut content = Vec::new();
        let read = file.take(LIMIT).read_to_end(&mut content).with_context(context)?;
        if read as u64 == LIMIT {
            bail!("{} is larger than anything that sysctr writes", self.path.join(name).display());
        }
        Ok(Some(content))
    }

    /// Puts a whole file in place of whatever has the name: whoever looks sees the old text or the new one.
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn write(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        self.write_bytes(name, text.as_bytes(), mode)
    }

    /// The same, whatever it holds.
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn write_bytes(&self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        let temporary = format!(".sysctr-{name}.new");
        self.write_new_bytes(&temporary, content, mode)?;
        self.rename(&temporary, name).inspect_err(|_| drop(self.remove(&temporary)))
    }

    /// Writes a file and syncs it, its folder not yet. An empty one has nothing to sync but its name.
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn write_new(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        self.write_new_bytes(name, text.as_bytes(), mode)
    }

    /// The same, whatever it holds.
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn write_new_bytes(&self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        let context = || format!("writing {}", self.path.join(name).display());
        self.remove(name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode)).with_context(context)?;
        let mut file = File::from(fd);
        fs::fchmod(&file, Mode::from_raw_mode(mode)).with_context(context)?;
        let without = content.is_empty() || self.together || controls::without_sync("file");
        let written = file.write_all(content).and_then(|()| if without { Ok(()) } else { file.sync_all() });
        written.inspect_err(|_| drop(self.remove(name))).with_context(context)
    }

    /// Renames within the folder and syncs it.
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        fs::renameat(&self.fd, from, &self.fd, to)
            .with_context(|| format!("putting {} in place", self.path.join(to).display()))?;
        self.sync()
    }

    /// Makes a symbolic link, in place of one that points elsewhere.
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn link(&self, name: &str, target: &str) -> Result<()> {
        let temporary = format!(".sysctr-{name}.new");
        self.write_new_link(&temporary, target)?;
        self.rename(&temporary, name)
    }

    /// Makes a symbolic link under a name that nobody looks for, its folder not yet synced.
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn write_new_link(&self, name: &str, target: &str) -> Result<()> {
        self.remove(name)?;
        fs::symlinkat(target, &self.fd, name).with_context(|| format!("linking {}", self.path.join(name).display()))
    }

    /// What a symbolic link in this folder says; none where there is no link.
    pub fn link_target(&self, name: &str) -> Option<String> {
        fs::readlinkat(&self.fd, name, Vec::new()).ok().map(|target| target.to_string_lossy().into_owned())
    }

    /// Removes a file or link; whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("removing {}", self.path.join(name).display())),
        }
    }

    /// Removes a folder that is empty; whether it is gone.
    pub fn remove_empty(&self, name: &str) -> Result<bool> {
        match fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("removing {}", self.path.join(name).display())),
        }
    }

    /// Removes a file, or a folder with all that is in it. Links are removed, not followed.
    pub fn remove_tree(&self, name: &str) -> Result<()> {
        if self.kind(name)? != Some(FileType::Directory) {
            return self.remove(name).map(drop);
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.fd))).join(name);
        std::fs::remove_dir_all(path).with_context(|| format!("removing {}", self.path.join(name).display()))
    }

    /// Makes what was renamed, made and removed here outlive a power cut.
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn sync(&self) -> Result<()> {
        if self.together || controls::without_sync("folder") {
            return Ok(());
        }
        fs::fsync(&self.fd).with_context(|| format!("syncing {}", self.path.display()))
    }

    /// Everything on this folder's file system.
    #[cfg_attr(feature = "controls", track_caller)]
    pub fn sync_all(&self) -> Result<()> {
        if controls::without_sync("file system") {
            return Ok(());
        }
        fs::syncfs(&self.fd).with_context(|| format!("syncing the file system of {}", self.path.display()))
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_a_tree_mean_the_tree() {
        let place = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/data", place.path().join("var")).expect("a link");
        std::fs::create_dir(place.path().join("data")).expect("a folder");
        let root = Folder::root(place.path()).expect("the root");
        root.create("var/lib/x", 0o700).expect("made").write("a", "b", 0o600).expect("written");
        assert_eq!(std::fs::read_to_string(place.path().join("data/lib/x/a")).expect("there"), "b");
        assert!(!Path::new("/data/lib/x").exists());
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_link_is_not_followed() {
        let place = tempfile::tempdir().expect("a folder");
        std::fs::write(place.path().join("target"), "old").expect("written");
        std::os::unix::fs::symlink("target", place.path().join("a")).expect("a link");
        let folder = Folder::root(place.path()).expect("a folder");
        assert!(folder.read("a").is_err());
        folder.write("a", "new", 0o644).expect("written");
        assert_eq!(folder.read("a").expect("read").as_deref(), Some("new"));
        assert_eq!(folder.read("target").expect("read").as_deref(), Some("old"));
        assert_eq!(folder.names().expect("names"), ["a", "target"]);
    }
}
