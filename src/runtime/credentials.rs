//! The unit's credentials (systemd.exec(5), LoadCredential=) in the container, at the path they have on the host.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::runtime::User;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chmodat, chownat, openat};

use super::mounts::{self, Detached};
use super::options::MASK;
use super::rootfs::{self, RootFs};
use super::sys;
use super::users::{self, Users};

/// Credentials as a mount that hangs nowhere yet.
#[derive(Debug)]
pub struct Credentials {
    path: PathBuf,
    mount: OwnedFd,
}

impl Credentials {
    /// Those below `path` on the host. systemd gives them to the unit's user alone, which is root here: a program that runs
    /// as another user, or as another root, gets a copy of its own, in memory that is never swapped out.
    pub fn of_host(path: &Path, user: &User, users: Option<&Users>) -> Result<Self> {
        let plain = user.uid() == 0 && users.is_none();
        let mount =
            if plain { mounts::of_host(path)? } else { copy(path, users::owner(users, (user.uid(), user.gid()))?)? };
        sys::mount_setattr(&mount, MASK, true)?;
        Ok(Self { path: path.to_owned(), mount })
    }

    /// Attaches them at a folder of this process's own mount namespace.
    pub fn attach_at(self, place: &Path) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, place, flags, Mode::empty())?;
        rootfs::move_here(&self.mount, &folder).with_context(|| format!("mounting {}", place.display()))
    }

    /// Attaches them. An image cannot know its unit's name, so a folder /run/credentials will do: the rest is made on a file
    /// system over it.
    pub fn attach(self, root: &mut RootFs) -> Result<()> {
        let Self { path, mount } = self;
        let parent = path.parent().filter(|parent| parent.ends_with("credentials"));
        let of_image = |folder: OwnedFd| root.is_ours(&folder).is_ok_and(|ours| !ours);
        if let (Some(parent), Err(_)) = (parent, root.open(&path, OFlags::empty()))
            && root.open(parent, OFlags::DIRECTORY).is_ok_and(of_image)
        {
            let over = mounts::fresh("tmpfs", "tmpfs", &["mode=755".into(), "size=4k".into()])?;
            root.attach(Detached { mount: over, destination: parent.into(), ours: true, seal: true, copy_up: false })?;
        }
        let attached =
            root.attach(Detached { mount, destination: path.clone(), ours: false, seal: false, copy_up: false });
        attached.with_context(|| format!("mounting {}", path.display()))
    }
}

fn copy(path: &Path, (uid, gid): (u32, u32)) -> Result<OwnedFd> {
    let mount = mounts::fresh("ramfs", "ramfs", &["mode=700".into()])?;
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let own = |name: &str, mode| -> Result<()> {
        chmodat(&mount, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        Ok(chownat(&mount, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    };
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        let name = entry?.file_name().into_string().ok().context("a credential's name is not UTF-8")?;
        let copy_one = || -> Result<()> {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let mut to = File::from(openat(&mount, name.as_str(), flags, Mode::from_raw_mode(0o400))?);
            to.write_all(&fs::read(path.join(&name))?)?;
            own(&name, 0o400)
        };
        copy_one().with_context(|| format!("passing the credential {name}"))?;
    }
    own(".", 0o500)?;
    Ok(mount)
}
