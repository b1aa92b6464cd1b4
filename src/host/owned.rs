//! Host folders that a container owns: its declared state. A folder that we made bears the container's name in an extended attribute, so
//! that a later install knows its own from somebody else's.

use anyhow::{Context, Result};
use rustix::fs::{self, Gid, Mode, Uid, XattrFlags};

use super::dir::Folder;
use crate::model::{deployment::OwnedFolder, name::ContainerName};

/// Only root can set it, and only root can read it.
const MARK: &str = "trusted.sysctr";

/// Whether the folder is there and does not bear the container's name.
pub fn is_foreign(root: &Folder, name: &ContainerName, path: &str) -> Result<bool> {
    Ok(open(root, path)?.is_some_and(|folder| owner(&folder).as_deref() != Some(name.as_str())))
}

/// Makes the folder with its owner, mode and mark; whether it was not there before.
pub fn claim(root: &Folder, name: &ContainerName, owned: &OwnedFolder) -> Result<bool> {
    let is_new = open(root, &owned.path)?.is_none();
    let folder = root.create(owned.path.trim_start_matches('/'), 0o700)?;
    let context = || format!("making {}", owned.path);
    fs::fchown(&folder, Some(Uid::from_raw(owned.uid)), Some(Gid::from_raw(owned.gid))).with_context(context)?;
    fs::fchmod(&folder, Mode::from_raw_mode(owned.mode)).with_context(context)?;
    // A file system without such attributes only makes the next install ask once more.
    let _ = fs::fsetxattr(&folder, MARK, name.as_str().as_bytes(), XattrFlags::empty());
    folder.sync()?;
    Ok(is_new)
}

/// Deletes the folder with all that is in it, if it bears the container's name; whether it did.
pub fn purge(root: &Folder, name: &ContainerName, path: &str) -> Result<bool> {
    if open(root, path)?.is_none() || is_foreign(root, name, path)? {
        return Ok(false);
    }
    let (parent, last) = path.trim_start_matches('/').rsplit_once('/').unwrap_or(("", path.trim_start_matches('/')));
    if let Some(folder) = root.open(if parent.is_empty() { "." } else { parent })? {
        folder.remove_tree(last)?;
        folder.sync()?;
    }
    // A volume lies in a folder that was made for it.
    if parent == format!("var/lib/{name}")
        && let Some(lib) = root.open("var/lib")?
    {
        lib.remove_empty(name.as_str())?;
    }
    Ok(true)
}

fn open(root: &Folder, path: &str) -> Result<Option<Folder>> {
    root.open(path.trim_start_matches('/'))
}

fn owner(folder: &Folder) -> Option<String> {
    let mut buffer = [0; 128];
    let length = fs::fgetxattr(folder, MARK, &mut buffer).ok()?;
    String::from_utf8(buffer[..length].to_vec()).ok()
}
