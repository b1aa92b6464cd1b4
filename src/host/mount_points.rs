//! The places in a checkout that a container mounts something upon, which have to be there because it is read-only later.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::FileType;

use super::dir::Folder;
use crate::model::spec::MountPoint;

/// Makes what the checkout lacks to mount upon, and gives what was made: the image does not have it. Resolved inside the checkout: an
/// image's links cannot lead out of it.
pub fn make(rootfs: &Folder, point: &MountPoint) -> Result<Vec<String>> {
    let path = point.path();
    let below = path.trim_start_matches('/');
    let context = || format!("making the mount point {path} in the image");
    let (parents, name) = below.rsplit_once('/').unwrap_or(("", below));
    let mut made = Vec::new();
    let optional = matches!(point, MountPoint::FolderIfFree(_));
    let ends = parents.match_indices('/').map(|(at, _)| at).chain((!parents.is_empty()).then_some(parents.len()));
    let folders = ends.map(|end| &below[..end]).chain((!matches!(point, MountPoint::File(_))).then_some(below));
    for folder in folders {
        let there = match rootfs.open(folder) {
            Err(_) if optional => return Ok(made),
            there => there.with_context(context)?.is_some(),
        };
        if !there {
            let new = match rootfs.create(folder, 0o755) {
                Err(_) if optional => return Ok(made),
                new => new.with_context(context)?,
            };
            made.push(in_image(rootfs, &new.real_path()?)?);
        }
    }
    if !matches!(point, MountPoint::File(_)) {
        return Ok(made);
    }
    let parent = rootfs.open(if parents.is_empty() { "." } else { parents })?.with_context(context)?;
    match parent.kind(name).with_context(context)? {
        Some(FileType::RegularFile) => return Ok(made),
        // A link such as resolv.conf -> ../run/... would have the host's file mounted elsewhere.
        Some(FileType::Symlink) => drop(parent.remove(name)?),
        Some(_) => bail!("the image has something else at {path}, where a file is to be mounted"),
        None => {}
    }
    parent.write_new(name, "", 0o644).with_context(context)?;
    made.push(in_image(rootfs, &parent.real_path()?.join(name))?);
    Ok(made)
}

/// The name in the image of a path in its checkout: where a mount point really lies, behind the image's links.
fn in_image(rootfs: &Folder, path: &Path) -> Result<String> {
    let below = path.strip_prefix(rootfs.real_path()?).context("a mount point outside the image")?;
    Ok(format!("/{}", below.display()))
}
