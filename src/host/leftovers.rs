//! What a pull that was cut off has left: layers that had come whole are not fetched again.
//!
//! Their records say so, written once a layer's digests were checked. Their objects lie in the folder that the pull had in the
//! repository's `tmp`. Nothing of it was synced, and another layer may have been writing the same object when all ended: an object is
//! believed by its checksum alone.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};
use sha2::{Digest as _, Sha256};

use super::{
    entries::{Finished, Stored},
    fsck::attributes,
    import::{header, hex},
    layer::{Attributes, ObjectId},
    lock::StoreLock,
    objects::{Objects, S_IFLNK, S_IFREG},
    ostree::Store,
    source::Layer,
};

const CHUNK: usize = 256 * 1024;

/// Puts into `objects` what was left of these layers, and clears away the rest of what was left. Gives the records of the layers of
/// which nothing lacks.
pub fn take_up(lock: &StoreLock, store: &Store, objects: &Objects, layers: &[Layer]) -> Result<Vec<Finished>> {
    let entries = store.entries();
    let folders = objects.left().context("looking for what an earlier pull left")?;
    let mut taken: Vec<Finished> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        if layers[..at].iter().any(|before| before.diff_id == layer.diff_id) {
            continue;
        }
        // a record that is not taken goes
        if let Some((stored, record)) = entries.left(&layer.diff_id)
            && take(objects, &folders, stored).unwrap_or(false)
        {
            taken.push(record);
        }
    }
    store.clear_unfinished_but(lock, &objects.name, &taken)?;
    Ok(taken)
}

fn take(objects: &Objects, folders: &[OwnedFd], layer: Stored) -> Result<bool> {
    for piece in layer {
        let Some(object) = piece?.object else { continue };
        if objects.have(&object)? {
            continue;
        }
        let name = hex(&object);
        let Some(folder) = folders.iter().find(|folder| checksum(folder, &name).is_ok_and(|found| found == object))
        else {
            return Ok(false);
        };
        objects.take(folder, &name)?;
    }
    Ok(true)
}

/// As an object's name is made.
fn checksum(folder: &OwnedFd, name: &str) -> Result<ObjectId> {
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let own = Attributes { uid: stat.st_uid, gid: stat.st_gid, mode: 0o777, ..Attributes::implied() };
            let target = readlinkat(folder, name, Vec::new())?;
            Ok(Sha256::digest(header(&own, S_IFLNK, target.to_str()?)).into())
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(folder, name, flags, Mode::empty())?);
            let mut hash = Sha256::new_with_prefix(header(&attributes(file.as_fd())?, S_IFREG, ""));
            let mut chunk = vec![0; CHUNK];
            loop {
                match file.read(&mut chunk)? {
                    0 => return Ok(hash.finalize().into()),
                    count => hash.update(&chunk[..count]),
                }
            }
        }
        _ => bail!("{name} is no object"),
    }
}
