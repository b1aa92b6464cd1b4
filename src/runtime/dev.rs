//! The container's /dev: the devices that each container has, those that config.json names, and the usual links.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, makedev, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::mounts;
use super::options::DEVICE;
use super::rootfs::RootFs;
use super::sys;
use super::users::{self, Users};

/// A device file.
#[derive(Debug, Clone)]
struct Device<'a> {
    path: &'a Path,
    kind: FileType,
    number: u64,
    mode: u32,
    owner: (u32, u32),
}

/// <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices>
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills /dev where it is a new file system of the container's own; a /dev of the host's stays as it is.
pub fn fill(root: &RootFs, extra: &[LinuxDevice], users: Option<&Users>) -> Result<()> {
    let dev = root.open(Path::new("/dev"), OFlags::DIRECTORY).context("opening /dev")?;
    if root.is_ours(&dev)? {
        for (path, major, minor) in DEFAULT {
            let number = makedev(major, minor);
            let path = Path::new(path);
            // One that is also asked for has the mode and owner of the request.
            if extra.iter().any(|device| wanted(device).is_ok_and(|own| own.path == path && own.number == number)) {
                continue;
            }
            let device = Device { path, kind: FileType::CharacterDevice, number, mode: 0o666, owner: (0, 0) };
            make(root, &device, users).with_context(|| format!("making {}", path.display()))?;
        }
        for (name, target) in LINKS {
            match symlinkat(target, &dev, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).with_context(|| format!("making /dev/{name}")),
            }
        }
    }
    for device in extra {
        let path = device.path();
        let made = wanted(device).and_then(|device| make(root, &device, users));
        made.with_context(|| format!("making the device {}", path.display()))?;
    }
    Ok(())
}

fn wanted(device: &LinuxDevice) -> Result<Device<'_>> {
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => bail!("its type must be b, c, u or p"),
    };
    let part = |number: i64| u32::try_from(number).with_context(|| format!("{number} is no device number"));
    let number = if kind == FileType::Fifo { 0 } else { makedev(part(device.major())?, part(device.minor())?) };
    Ok(Device {
        path: device.path(),
        kind,
        number,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
    })
}

fn make(root: &RootFs, device: &Device, users: Option<&Users>) -> Result<()> {
    match root.open(device.path, OFlags::NOFOLLOW) {
        // The host's own, below a /dev that was bound: it will do where it is the same.
        Ok(there) => return ensure_same(&there, device),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name()) else { bail!("it has no name") };
    let parent = root.mount_point(parent, true)?;
    ensure!(root.is_ours(&parent)?, "it is missing in the image, and {} is not ours", device.path.display());
    // On a root that is written to devices do not count: one that is made there would be of no use.
    if device.kind != FileType::Fifo && root.is_root(&parent)? {
        return bind(root, device);
    }
    match mknodat(&parent, name, device.kind, Mode::from_raw_mode(device.mode), device.number) {
        Ok(()) => {
            chmodat(&parent, name, Mode::from_raw_mode(device.mode), AtFlags::empty())?;
            let (uid, gid) = users::owner(users, device.owner)?;
            Ok(chownat(&parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        // Not allowed to make one (no CAP_MKNOD, a device policy of the unit's): the host's own then.
        Err(Errno::PERM | Errno::ACCESS) => bind(root, device),
        Err(error) => Err(error.into()),
    }
}

fn bind(root: &RootFs, device: &Device) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let host = openat(CWD, device.path, flags, Mode::empty()).context("it may not be made, and the host has none")?;
    ensure_same(&host, device)?;
    let place = root.mount_point(device.path, false)?;
    let mount = mounts::copy(host)?;
    // Read-only: a device can still be written to, but its owner and mode, which are the host's, stay as they are.
    sys::mount_setattr(&mount, DEVICE, false)?;
    root.attach_over(&mount, &place)
}

fn ensure_same(file: &OwnedFd, device: &Device) -> Result<()> {
    let stat = fstat(file)?;
    let same = FileType::from_raw_mode(stat.st_mode) == device.kind && stat.st_rdev == device.number;
    ensure!(same, "another file is there");
    Ok(())
}
