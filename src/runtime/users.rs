//! Users of the container's own: a user namespace, and what the host's files look like from it.
//!
//! What lies on the host's disk keeps plain numbers. The image's files and the folders of state are mounted through the container's
//! map (mount_setattr(2), MOUNT_ATTR_IDMAP): 0 on disk is 0 inside, whichever range of the host the container has.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use caps::CapSet;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, setfsgid, setfsuid};
use oci_spec::runtime::Mount;
use rustix::fs::{AtFlags, chownat, fstatfs};
use rustix::pipe::{PipeFlags, pipe_with};

use super::options::Options;
use super::running;
use super::sys::{self, Child, MountAttr};
use crate::model::idmap::{self, IdMap};

/// File systems that are met and cannot do it, or only from some kernel on; by the numbers of statfs(2).
const NAMES: [(i64, &str); 11] = [
    (0x794c_7630, "overlay"),
    (0x0102_1994, "tmpfs"),
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x2fc1_2fc1, "zfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x8584_58f6, "ramfs"),
    (0x7371_7368, "squashfs"),
    (0x00c3_6400, "ceph"),
];

/// The container's users, for whoever puts its root together with the host's rights.
#[derive(Debug)]
pub struct Users {
    /// their numbers
    pub map: IdMap,
    /// the user namespace
    pub namespace: File,
}

impl Users {
    /// Makes everything that this process makes from now on in a file system belong to the container's root, where it has one.
    /// The process keeps the host's rights.
    pub fn own_new_files(&self) -> Result<()> {
        let Some((user, group)) = self.root() else { return Ok(()) };
        let all = caps::read(None, CapSet::Permitted)?;
        setfsgid(Gid::from_raw(group));
        setfsuid(Uid::from_raw(user));
        caps::set(None, CapSet::Effective, &all).context("keeping the capabilities that another file owner has lost")
    }

    /// The root of a new file system that belongs to whoever has made the namespaces, not to whoever mounts it.
    pub fn own_mount(&self, mount: &OwnedFd, below: &[&str]) -> Result<()> {
        let Some((user, group)) = self.root() else { return Ok(()) };
        let (user, group) = (Some(rustix::fs::Uid::from_raw(user)), Some(rustix::fs::Gid::from_raw(group)));
        for name in [&[""], below].concat() {
            let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
            chownat(mount, name, user, group, flags).context("giving it to the container's root")?;
        }
        Ok(())
    }

    fn root(&self) -> Option<(u32, u32)> {
        Some((self.map.user(0)?, self.map.group(0)?))
    }

    /// The options of a new file system, whose owners are the container's numbers in config.json and the host's here.
    pub fn parameters(&self, given: &[String]) -> Result<Vec<String>> {
        let translate = |option: &String| -> Result<String> {
            let Some((key @ ("uid" | "gid"), id)) = option.split_once('=') else { return Ok(option.clone()) };
            let id = id.parse().with_context(|| format!("the option {option:?} has no number"))?;
            let outside = if key == "uid" { self.map.user(id) } else { self.map.group(id) };
            Ok(format!("{key}={}", outside.with_context(|| unmapped(&format!("the option {option:?}")))?))
        };
        given.iter().map(translate).collect()
    }
}

/// The host's numbers of a user and a group of the container's; the same ones where it has no users of its own.
pub fn owner(users: Option<&Users>, (user, group): (u32, u32)) -> Result<(u32, u32)> {
    let Some(Users { map, .. }) = users else { return Ok((user, group)) };
    let user = map.user(user).with_context(|| unmapped(&format!("user {user}")))?;
    Ok((user, map.group(group).with_context(|| unmapped(&format!("group {group}")))?))
}

fn unmapped(what: &str) -> String {
    format!("{what} is nobody in the container's user namespace (linux.uidMappings, linux.gidMappings)")
}

/// Shows the files of a bind mount under other numbers, where config.json asks for it: those of the mount, or the container's.
pub fn show(mount: &OwnedFd, wanted: &Mount, options: &Options, users: Option<&Users>) -> Result<()> {
    let own = own_map(wanted);
    let Some(recursive) = options.idmap.or(own.is_some().then_some(false)) else { return Ok(()) };
    match (own, users) {
        (Some(map), _) => through(mount, &namespace(&map)?, recursive),
        (None, Some(users)) => through(mount, &users.namespace, recursive),
        (None, None) => {
            Err(anyhow!("the option idmap needs a user namespace, or uidMappings and gidMappings of the mount"))
        }
    }
}

/// The mount's own map.
pub fn own_map(mount: &Mount) -> Option<IdMap> {
    let given = |ranges: &Option<Vec<_>>| ranges.clone().unwrap_or_default();
    let map = IdMap { users: given(mount.uid_mappings()), groups: given(mount.gid_mappings()) };
    (!map.users.is_empty() || !map.groups.is_empty()).then_some(map)
}

/// Shows the files of a mount that hangs nowhere yet through the map of a user namespace.
pub fn through(mount: &OwnedFd, namespace: impl AsFd, recursive: bool) -> Result<()> {
    sys::mount_setattr(mount, MountAttr::through(namespace.as_fd()), recursive).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::EINVAL) => format!(
                "{} does not support idmapped mounts on this kernel (ext4, XFS and btrfs do)",
                file_system(mount, recursive)
            ),
            Some(libc::EPERM) => "it is an idmapped mount already, or the unit lacks CAP_SYS_ADMIN".to_owned(),
            _ => "mapping its users".to_owned(),
        };
        anyhow!(error).context(why)
    })
}

fn file_system(mount: &OwnedFd, recursive: bool) -> String {
    let kind = fstatfs(mount).map(|found| found.f_type).unwrap_or_default();
    let name = NAMES.iter().find(|(known, _)| *known == kind).map(|(_, name)| format!(" ({name})"));
    let below = if recursive { ", or one mounted below," } else { "" };
    format!("its file system{}{below}", name.unwrap_or_default())
}

/// A user namespace for a map alone: a process makes it and ends.
fn namespace(map: &IdMap) -> Result<File> {
    let (held, hold) = pipe_with(PipeFlags::CLOEXEC)?;
    let Some(child) = sys::clone(libc::CLONE_NEWUSER as u64, false).context("making a user namespace")? else {
        drop(hold);
        let _ = File::from(held).read(&mut [0]);
        std::process::exit(0);
    };
    let opened = running::number(&child.pidfd).and_then(|number| fill(&number, map));
    drop((held, hold));
    let _ = waitpid(Pid::from_raw(child.pid), None); // it may not be ours to wait for, where nobody wants SIGCHLD
    opened
}

/// Gives a process's new user namespace its map, as which it stays.
pub fn of_child(child: &Child, map: IdMap) -> Result<Users> {
    let namespace = fill(&child.pid.to_string(), &map)?;
    Ok(Users { map, namespace })
}

fn fill(number: &str, map: &IdMap) -> Result<File> {
    for (file, ranges) in [("uid_map", &map.users), ("gid_map", &map.groups)] {
        std::fs::write(format!("/proc/{number}/{file}"), idmap::lines(ranges))
            .with_context(|| format!("writing the {file} of the user namespace"))?;
    }
    File::open(format!("/proc/{number}/ns/user")).context("opening the user namespace")
}
