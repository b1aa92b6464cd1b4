//! A terminal for the program: a pair in the container's own devpts.
//!
//! The container may have put anything at /dev/pts and /dev/ptmx, so no name there is believed: the folder must be the root of a
//! devpts, its ptmx is opened without following a link and must be that device, and the program's end is asked of the kernel, not
//! opened by name (CVE-2025-52565).

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, fstatfs, major, minor, openat2};

use super::controls::{Defence, without};
use super::sys;

/// statfs(2)
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// The device number of ptmx.
const PTMX: (u32, u32) = (5, 2);
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Console {
    /// for whoever waits
    pub master: OwnedFd,
    /// for the program
    pub slave: OwnedFd,
}

impl Console {
    /// A new one in the devpts of which `folder` is the root.
    pub fn open(folder: &OwnedFd) -> Result<Self> {
        let is_devpts = fstatfs(folder)?.f_type as i64 == DEVPTS_SUPER_MAGIC;
        ensure!(is_devpts || without(Defence::Console), "/dev/pts of the container is no devpts");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = OFlags::PATH | OFlags::CLOEXEC;
        // Looked at first: opening another device could do something.
        let device = fstat(openat2(folder, "ptmx", path, Mode::empty(), INSIDE)?)?.st_rdev;
        let is_ptmx = (major(device), minor(device)) == PTMX;
        ensure!(is_ptmx || without(Defence::Console), "/dev/pts/ptmx of the container is another device");
        let master = openat2(folder, "ptmx", flags, Mode::empty(), INSIDE).context("opening /dev/pts/ptmx")?;
        let device = fstat(&master)?.st_rdev;
        ensure!((major(device), minor(device)) == PTMX, "/dev/pts/ptmx of the container is another device");
        let slave = sys::terminal_of(&master).context("opening the other end of a terminal")?;
        Ok(Self { master, slave })
    }

    /// The file of the program's end, to be mounted elsewhere.
    pub fn file(&self, folder: &OwnedFd) -> Result<OwnedFd> {
        let number = sys::terminal_number(&self.master)?.to_string();
        let file = openat2(folder, number, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE)?;
        let (named, own) = (fstat(&file)?, fstat(&self.slave)?);
        ensure!((named.st_dev, named.st_ino) == (own.st_dev, own.st_ino), "another file has the terminal's name");
        Ok(file)
    }
}
