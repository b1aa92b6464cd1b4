//! The images of a container that failed in an update: no update takes one of them again by itself.

use anyhow::Result;

use super::{dir::Folder, lock::StoreLock, state};
use crate::model::{
    deployment::{self, Deployment, Quarantine, Quarantined, Record},
    digest::Digest,
    layout,
    name::ContainerName,
};

/// More than anyone reads; older ones are forgotten.
const KEPT: usize = 20;

/// All of them, oldest first.
pub fn load(root: &Folder, name: &ContainerName) -> Result<Quarantine> {
    let folder = root.open(&layout::container(name))?;
    Ok(folder.map(|folder| state::record(&folder, layout::QUARANTINE)).transpose()?.flatten().unwrap_or_default())
}

/// The entry of an image, if it failed.
pub fn of(root: &Folder, name: &ContainerName, digest: &Digest) -> Result<Option<Quarantined>> {
    Ok(load(root, name)?.images.into_iter().find(|one| one.digest == *digest))
}

/// Forgets that an image failed: it was well now.
pub fn forget(root: &Folder, _lock: &StoreLock, name: &ContainerName, digest: &Digest) -> Result<()> {
    let mut quarantine = load(root, name)?;
    let before = quarantine.images.len();
    quarantine.images.retain(|one| one.digest != *digest);
    if quarantine.images.len() < before
        && let Some(folder) = root.open(&layout::container(name))?
    {
        folder.write(layout::QUARANTINE, &deployment::to_text(&quarantine)?, 0o600)?;
    }
    Ok(())
}

/// Remembers that the image of `bad` failed in the place of `good`. The same image with other values may have been well before.
pub fn add_failed(root: &Folder, lock: &StoreLock, bad: &Deployment, good: &Deployment, cause: &str) -> Result<()> {
    if bad.digest == good.digest {
        return Ok(());
    }
    let failed = Quarantined {
        digest: bad.digest.clone(),
        deployment: bad.id,
        cause: cause.to_owned(),
        at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    };
    add(root, lock, &bad.name, failed)
}

/// Remembers that an image failed.
pub fn add(root: &Folder, _lock: &StoreLock, name: &ContainerName, failed: Quarantined) -> Result<()> {
    let mut quarantine = load(root, name)?;
    quarantine.version = Quarantine::VERSION;
    quarantine.images.retain(|one| one.digest != failed.digest);
    quarantine.images.push(failed);
    let surplus = quarantine.images.len().saturating_sub(KEPT);
    quarantine.images.drain(..surplus);
    let folder = root.create(&layout::container(name), 0o755)?;
    folder.write(layout::QUARANTINE, &deployment::to_text(&quarantine)?, 0o600)
}
