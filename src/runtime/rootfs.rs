//! The container's root: every path of it is resolved inside it, and mounts are attached by descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, mkdirat, openat, openat2, statx,
};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::process::{fchdir, pivot_root};

use super::controls::{Defence, without};
use super::mounts::{self, Detached};
use super::options::{IMAGE, IMAGE_SETUID, NO_DEV, NO_SUID, READ_ONLY, WRITABLE_IMAGE, WRITABLE_IMAGE_SETUID};
use super::sys::{self, MountAttr};
use super::users::{self, Users};
use super::{copyup, writable};

/// The new root while it is put together.
#[derive(Debug)]
pub struct RootFs {
    root: OwnedFd,
    /// mounts that are new and empty, by mount ID: mount points may be made there, and nowhere else
    ours: Vec<u64>,
    seal: Vec<OwnedFd>,
}

impl RootFs {
    /// A read-only copy of the mount of `root`, a path below the deployment's folder, still detached. Its files are those of `users`,
    /// where the container has its own.
    pub fn detached(dir: &Path, root: &Path, setuid: bool, users: Option<&Users>) -> Result<OwnedFd> {
        let folder =
            open_below(dir, root).with_context(|| format!("opening the root file system {}", root.display()))?;
        let mount = mounts::copy(folder)?;
        let mut attr = if setuid { IMAGE_SETUID } else { IMAGE };
        attr.propagation = libc::MS_PRIVATE;
        for (defence, bit) in
            [(Defence::ReadOnlyRoot, READ_ONLY.set), (Defence::NoSuid, NO_SUID.set), (Defence::NoDev, NO_DEV.set)]
        {
            attr.set &= if without(defence) { !bit } else { u64::MAX };
        }
        sys::mount_setattr(&mount, attr, false).context("mounting the root file system read-only")?;
        if let Some(users) = users {
            let showing = || format!("mounting the root file system {}", dir.join(root).display());
            users::through(&mount, &users.namespace, false).with_context(showing)?;
        }
        Ok(mount)
    }

    /// Attaches that copy over the folder it was made of, in this process's own mount namespace.
    pub fn attached(mount: OwnedFd, dir: &Path, root: &Path) -> Result<Self> {
        move_here(&mount, &open_below(dir, root)?).context("mounting the root file system")?;
        Ok(Self { root: mount, ours: Vec::new(), seal: Vec::new() })
    }

    /// Puts an overlay over it, on which everything may be written to.
    pub fn make_writable(&mut self, setuid: bool, label: Option<&str>) -> Result<()> {
        let (overlay, scratch) = writable::over(&self.root, label)?;
        let attr = if setuid { WRITABLE_IMAGE_SETUID } else { WRITABLE_IMAGE };
        sys::mount_setattr(&overlay, attr, false)?;
        move_here(&overlay, &scratch).context("mounting the writable root")?;
        self.ours.push(mount_id(&overlay)?);
        self.root = overlay;
        Ok(())
    }

    /// Opens a path inside the root. No symbolic link leads out of it; below /proc, /sys and /dev none is followed at all,
    /// since there a link of the image would lead to another file of the kernel than the one meant.
    pub fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if without(Defence::Destinations) {
            let joined = format!("/proc/self/fd/{}/{}", self.root.as_raw_fd(), path.display());
            return openat(CWD, joined, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        }
        if is_kernels(path) && !without(Defence::KernelLinks) {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        loop {
            match openat2(&self.root, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // The kernel could not rule out a rename above us: another look.
                Err(Errno::AGAIN | Errno::INTR) => continue,
                result => return result,
            }
        }
    }

    /// Attaches a mount at its destination, whose mount point is made only where the folder above it is new and ours.
    pub fn attach(&mut self, detached: Detached) -> Result<()> {
        let folder = is_folder(&detached.mount)?;
        let place = self.mount_point(&detached.destination, folder)?;
        if detached.copy_up {
            copyup::copy(&place, &detached.mount).context("copying what the image has there (tmpcopyup)")?;
        }
        move_here(&detached.mount, &place)?;
        if detached.ours {
            self.ours.push(mount_id(&detached.mount)?);
        }
        if detached.seal {
            self.seal.push(detached.mount);
        }
        Ok(())
    }

    /// Attaches a mount over a file or folder that was opened inside the root.
    pub fn attach_over(&self, mount: &OwnedFd, place: &OwnedFd) -> Result<()> {
        move_here(mount, place)
    }

    /// The place to mount a folder or a file at.
    pub fn mount_point(&self, path: &Path, folder: bool) -> Result<OwnedFd> {
        match self.open(path, OFlags::empty()) {
            Ok(place) => {
                ensure!(
                    is_folder(&place)? == folder,
                    "one of the mount point and the source is a folder, the other is not"
                );
                Ok(place)
            }
            Err(Errno::NOENT) => self.make(path, folder),
            Err(Errno::LOOP | Errno::XDEV) => bail!("{} of the image is a symbolic link: refused", path.display()),
            Err(error) => Err(error).with_context(|| format!("opening the mount point {}", path.display())),
        }
    }

    /// True where the folder lies on the root's own file system, and on nothing mounted there.
    pub fn is_root(&self, folder: &OwnedFd) -> Result<bool> {
        Ok(mount_id(&self.root)? == mount_id(folder)?)
    }

    /// True where the folder at `path` lies on a mount that is new and ours.
    pub fn is_ours(&self, folder: &OwnedFd) -> Result<bool> {
        Ok(self.ours.contains(&mount_id(folder)?))
    }

    fn make(&self, path: &Path, folder: bool) -> Result<OwnedFd> {
        let missing = || format!("the mount point {} is missing in the image", path.display());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { bail!(missing()) };
        let parent = match self.open(parent, OFlags::DIRECTORY) {
            Err(Errno::NOENT) => self.make(parent, true).ok().with_context(missing)?,
            parent => parent.with_context(missing)?,
        };
        ensure!(without(Defence::Destinations) || self.is_ours(&parent)?, missing());
        if folder {
            mkdirat(&parent, name, Mode::from_raw_mode(0o755)).with_context(missing)?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&parent, name, flags, Mode::from_raw_mode(0o600)).with_context(missing)?;
        }
        Ok(openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Makes this root the process's own and lets the host's go. Paths from here on are the container's.
    pub fn enter(self, propagation: Option<&str>) -> Result<()> {
        for mount in &self.seal {
            sys::mount_setattr(mount, READ_ONLY, false).context("making a file system read-only")?;
        }
        fchdir(&self.root)?;
        if without(Defence::Pivot) {
            rustix::process::chroot(".")?;
            return Ok(rustix::process::chdir("/")?);
        }
        // Old and new root both on ".": the old one is then on top, and goes.
        pivot_root(".", ".").context("changing the root")?;
        if !without(Defence::OldRoot) {
            unmount(".", UnmountFlags::DETACH).context("letting the host's files go")?;
        }
        rustix::process::chdir("/")?;
        spread(propagation)
    }
}

/// Sets linux.rootfsPropagation of the root that this process has entered.
pub fn spread(propagation: Option<&str>) -> Result<()> {
    let flags = match propagation.unwrap_or_default() {
        "shared" | "rshared" => libc::MS_SHARED,
        "slave" | "rslave" => libc::MS_SLAVE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return Ok(()),
    };
    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    sys::mount_setattr(&root, MountAttr::of(0, 0, flags), false).context("setting the root's propagation")
}

/// Cuts this namespace's mounts off from the host's: nothing mounted here reaches the host.
pub fn cut_off() -> Result<()> {
    if without(Defence::CutOff) {
        return Ok(());
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("leaving the host's mounts")
}

fn open_below(dir: &Path, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = path.strip_prefix(dir).unwrap_or(path);
    ensure!(path.is_relative(), "it does not lie in {}", dir.display());
    let dir = openat(CWD, dir, flags, Mode::empty())?;
    // config.json may come from an image: "/" or "../.." as root would be the host's files.
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let resolve = if without(Defence::RootPath) { ResolveFlags::empty() } else { beneath };
    Ok(openat2(dir, path, flags, Mode::empty(), resolve)?)
}

/// Attaches a mount over an open file or folder.
pub fn move_here(mount: &OwnedFd, place: &OwnedFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", place, "", flags)?)
}

fn is_folder(file: impl AsFd) -> Result<bool> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory)
}

fn mount_id(file: impl AsFd) -> Result<u64> {
    Ok(statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn is_kernels(path: &Path) -> bool {
    let first: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).take(1).collect();
    ["proc", "sys", "dev"].iter().any(|name| first == Path::new(name))
}
