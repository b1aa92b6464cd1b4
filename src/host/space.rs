//! Is there room for what is about to be written? Asked before anything is, and room is set aside for going back.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{self, FallocateFlags, Mode, OFlags},
    io::Errno,
};

use super::dir::Folder;
use crate::model::{
    fault::{Code, Fault},
    layout,
    name::ContainerName,
    size::shown,
};

/// A block of most file systems, which even the smallest file takes.
const BLOCK: u64 = 4096;
/// Records, temporary names and what folders grow by.
const SMALL: Need = Need { bytes: 64 << 10, files: 24 };
/// What going back writes at a time is replaced at once: a marker, `active`, one placed file, a list of images that failed.
const RESERVE: [&str; 4] = [".sysctr-reserve-0", ".sysctr-reserve-1", ".sysctr-reserve-2", ".sysctr-reserve-3"];
const RESERVED: usize = 32 << 10;

/// What is going to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need {
    /// Bytes, in whole blocks.
    pub bytes: u64,
    /// Inodes.
    pub files: u64,
}

impl Need {
    /// A file with so many bytes.
    pub fn file(bytes: usize) -> Need {
        Need { bytes: (bytes as u64).div_ceil(BLOCK).max(1) * BLOCK, files: 1 }
    }

    /// What is set aside for going back, on one file system.
    pub fn reserve() -> Need {
        Need::file(RESERVED).times(RESERVE.len() as u64)
    }

    /// So many times the same.
    pub fn times(self, count: u64) -> Need {
        Need { bytes: self.bytes.saturating_mul(count), files: self.files.saturating_mul(count) }
    }
}

impl std::iter::Sum for Need {
    fn sum<I: Iterator<Item = Need>>(needs: I) -> Need {
        needs.fold(Need::default(), |sum, one| Need { bytes: sum.bytes + one.bytes, files: sum.files + one.files })
    }
}

/// Refuses what does not fit, with figures. Each need is that of a folder below the root.
pub fn check(root: &Folder, needs: &[(&str, Need)]) -> Result<()> {
    let mut disks: BTreeMap<u64, (String, Need, fs::StatVfs)> = BTreeMap::new();
    for (path, need) in needs {
        let folder = nearest(root, path)?;
        let device = fs::fstat(&folder).context("asking for free space")?.st_dev;
        let free = fs::fstatvfs(&folder).context("asking for free space")?;
        let (.., all, _) = disks.entry(device).or_insert_with(|| (format!("/{path}"), SMALL, free));
        *all = [*all, *need].into_iter().sum();
    }
    for (path, need, free) in disks.into_values() {
        // root may have all of it
        let bytes = free.f_bfree.saturating_mul(free.f_frsize);
        // some file systems have no such number
        let files = if free.f_files == 0 { u64::MAX } else { free.f_ffree };
        if need.bytes > bytes {
            bail!(full(format!("it needs {} in {path}, and {} are free", shown(need.bytes), shown(bytes))));
        }
        if need.files > files {
            bail!(full(format!("it needs {} files (inodes) in {path}, and {files} are free", need.files)));
        }
    }
    Ok(())
}

fn full(message: String) -> Fault {
    Fault::new(Code::Failed, message).hint("nothing was changed; `sysctr prune` drops what nothing needs")
}

/// The folder, or the one that it will be made in.
fn nearest(root: &Folder, path: &str) -> Result<Folder> {
    let mut path = path;
    loop {
        if let Some(folder) = root.open(path)? {
            return Ok(folder);
        }
        path = path.rsplit_once('/').map_or(".", |(parent, _)| parent);
    }
}

/// Sets room aside, on both file systems that going back writes to.
pub fn reserve(root: &Folder, name: &ContainerName) -> Result<()> {
    for folder in places(name) {
        let folder = root.create(&folder, 0o755)?;
        for file in RESERVE {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let context = || format!("setting room aside in {}", folder.path().display());
            let file = fs::openat(&folder, file, flags, Mode::RUSR | Mode::WUSR).with_context(context)?;
            match fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED as u64) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error).with_context(context),
            }
        }
    }
    Ok(())
}

/// Gives it back.
pub fn release(root: &Folder, name: &ContainerName) -> Result<()> {
    for folder in places(name) {
        if let Some(folder) = root.open(&folder)? {
            RESERVE.iter().try_for_each(|file| folder.remove(file).map(drop))?;
        }
    }
    Ok(())
}

fn places(name: &ContainerName) -> [String; 2] {
    [layout::settings(name), layout::container(name)]
}
