//! Host folders that a container owns: its declared state. A folder that we made bears the container's name in an extended attribute, so
//! that a later install knows its own from somebody else's.

use std::{os::fd::AsFd, path::Path};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{self, FileType, Gid, Mode, Uid, XattrFlags},
    io::Errno,
};

use super::{dir::Folder, walk};
use crate::model::{deployment::OwnedFolder, name::ContainerName, request};

/// Only root can set it, and only root can read it.
const MARK: &str = "trusted.sysctr";

/// Whether the folder is there.
pub fn exists(root: &Folder, path: &str) -> Result<bool> {
    Ok(open(root, path)?.is_some())
}

/// Whether the folder is there and does not bear the container's name.
pub fn is_foreign(root: &Folder, name: &ContainerName, path: &str) -> Result<bool> {
    refuse_links(root, name, path)?;
    Ok(open(root, path)?.is_some_and(|folder| owner(&folder).as_deref() != Some(name.as_str())))
}

/// Makes the folder with its owner, mode and mark. Can be done again.
pub fn claim(root: &Folder, name: &ContainerName, owned: &OwnedFolder) -> Result<()> {
    refuse_links(root, name, &owned.path)?;
    let home = home(name);
    if request::is_below(&owned.path, &home) && owned.path != home {
        // What else an image keeps there is ours too.
        mark(&root.create(&home[1..], 0o755)?, name)?;
    }
    let folder = root.create(owned.path.trim_start_matches('/'), 0o700)?;
    let context = || format!("making {}", owned.path);
    // First of all: going back knows it by that.
    mark(&folder, name)?;
    fs::fchown(&folder, Some(Uid::from_raw(owned.uid)), Some(Gid::from_raw(owned.gid))).with_context(context)?;
    fs::fchmod(&folder, Mode::from_raw_mode(owned.mode)).with_context(context)?;
    folder.sync()
}

/// Deletes each of these folders that bears the container's name. Goes on where one cannot be deleted, and tells all of them.
pub fn purge_all<'a>(root: &Folder, name: &ContainerName, paths: impl Iterator<Item = &'a str>) -> Result<()> {
    let failed = paths.filter_map(|path| purge(root, name, path).err().map(|error| format!("{path}: {error:#}")));
    let failed: Vec<String> = failed.collect();
    ensure!(failed.is_empty(), "its state could not be deleted: {}", failed.join("; "));
    Ok(())
}

/// Deletes the folder with all that is in it, if it bears the container's name. Can be done again.
fn purge(root: &Folder, name: &ContainerName, path: &str) -> Result<()> {
    if is_foreign(root, name, path)? {
        return Ok(());
    }
    if let Some(folder) = open(root, path)?
        && let Some(inner) = walk::mounted_below(folder.as_fd())?
    {
        // Another disk, which is nobody's state: a volume of a pod, say.
        bail!("{} is mounted on; unmount it first", Path::new(path).join(inner).display());
    }
    let home = home(name);
    let mut parts = path;
    let mut is_state = true;
    while let Some((parent, last)) = parts.rsplit_once('/')
        && (is_state || request::is_below(parts, &home))
    {
        if let Some(folder) = root.open(if parent.is_empty() { "." } else { &parent[1..] })? {
            if is_state {
                let removed = folder.remove_tree(last);
                // A disk of its own is emptied, and stays mounted.
                let emptied =
                    || -> Result<bool> { folder.open(last)?.map_or(Ok(true), |left| Ok(left.names()?.is_empty())) };
                if removed.is_err() && !emptied()? {
                    return removed;
                }
            } else if !folder.remove_empty(last)? {
                break;
            }
            folder.sync()?;
        }
        // Folders that were made for it, up to the container's own one.
        (parts, is_state) = (parent, false);
    }
    Ok(())
}

/// Removes a folder that was made for a deployment which is not in force any more, if nothing was put into it.
pub fn remove_unused(root: &Folder, name: &ContainerName, path: &str) -> Result<()> {
    refuse_links(root, name, path)?;
    let Some(folder) = open(root, path)? else { return Ok(()) };
    // cut short before it got its mark it is root's alone
    let stat = fs::fstat(&folder)?;
    let fresh = owner(&folder).is_none() && stat.st_uid == 0 && stat.st_mode & 0o7777 == 0o700;
    let (parent, last) = path.trim_start_matches('/').rsplit_once('/').unwrap_or((".", path.trim_start_matches('/')));
    if (fresh || owner(&folder).as_deref() == Some(name.as_str()))
        && let Some(parent) = root.open(parent)?
        && parent.remove_empty(last)?
    {
        parent.sync()?;
    }
    Ok(())
}

/// What ran under this name before may have left links in its own folder: nothing of it is followed, at install or by a mount.
pub fn refuse_links(root: &Folder, name: &ContainerName, path: &str) -> Result<()> {
    let home = home(name);
    let Some(rest) = path.strip_prefix(&home).and_then(|rest| rest.strip_prefix('/')) else { return Ok(()) };
    let Some(folder) = root.open(&home[1..])? else { return Ok(()) };
    for end in rest.match_indices('/').map(|(at, _)| at).chain([rest.len()]) {
        match folder.kind(&rest[..end])? {
            None => return Ok(()),
            Some(FileType::Symlink) => bail!("{home}/{} is a symbolic link, and state is none", &rest[..end]),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The place that a container has for itself.
pub(super) fn home(name: &ContainerName) -> String {
    format!("/var/lib/{name}")
}

fn mark(folder: &Folder, name: &ContainerName) -> Result<()> {
    // On a full disk what is as it should be may not be written again.
    if owner(folder).as_deref() == Some(name.as_str()) {
        return Ok(());
    }
    match fs::fsetxattr(folder, MARK, name.as_str().as_bytes(), XattrFlags::empty()) {
        Err(error @ (Errno::NOSPC | Errno::DQUOT)) => {
            Err(error).with_context(|| format!("marking {}", folder.path().display()))
        }
        // A file system without such attributes only makes the next install ask once more.
        _ => Ok(()),
    }
}

fn open(root: &Folder, path: &str) -> Result<Option<Folder>> {
    root.open(path.trim_start_matches('/'))
}

fn owner(folder: &Folder) -> Option<String> {
    let mut buffer = [0; 128];
    let length = fs::fgetxattr(folder, MARK, &mut buffer).ok()?;
    String::from_utf8(buffer[..length].to_vec()).ok()
}
