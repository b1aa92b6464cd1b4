//! What a pull that was cut off has left: layers that had come whole are not fetched again.
//!
//! Their records say so, written once a layer's digests were checked. Their objects lie in the folder that the pull had in the
//! repository's `tmp`. Nothing of it was synced, and another layer may have been writing the same object when all ended: an object is
//! believed by its checksum alone.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};

use super::{
    checksum,
    entries::{Finished, Stored},
    import::hex,
    lock::StoreLock,
    objects::Objects,
    ostree::Store,
    source::Layer,
};

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
        let whole =
            |folder: &&OwnedFd| checksum::of_file(folder.as_fd(), Path::new(&name)).is_ok_and(|found| found == object);
        let Some(folder) = folders.iter().find(whole) else { return Ok(false) };
        objects.take(folder, &name)?;
    }
    Ok(true)
}
