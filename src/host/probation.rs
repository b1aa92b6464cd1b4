//! Updates that may still be taken back by themselves: the record, from the commit of an update to the end of its time.
//!
//! It is written before the commit, so that no cut leaves an update without it, and means something only while its deployment is in
//! force: until the update is done, that of the deployment before is kept beside it. What it does not mean any more goes with the journal
//! of the operation that ended it.

use anyhow::{Context, Result};

use super::{clock, dir::Folder, lock::StoreLock, quarantine, state, transaction};
use crate::model::{
    deployment::{Deployment, to_text},
    layout,
    name::ContainerName,
    probation::{AtBoot, Probation, Service},
    settings::Update,
};

/// What a boot did to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The container.
    pub name: ContainerName,
    /// What is to be done.
    pub result: AtBoot,
}

/// The record, where the deployment in force is on probation.
pub fn load(root: &Folder, name: &ContainerName) -> Result<Option<Probation>> {
    Ok(find(root, name)?.map(|(_, probation)| probation))
}

/// The same with its file.
fn find(root: &Folder, name: &ContainerName) -> Result<Option<(&'static str, Probation)>> {
    let active = state::container(root, name)?.and_then(|container| container.active);
    let Some(folder) = root.open(&layout::settings(name))? else { return Ok(None) };
    for file in [layout::PROBATION, layout::PROBATION_BEFORE] {
        let probation: Option<Probation> = state::record(&folder, file)?;
        if let Some(probation) = probation.filter(|probation| Some(probation.deployment) == active) {
            return Ok(Some((file, probation)));
        }
    }
    Ok(None)
}

/// Before `new` takes the place of `old`: from its commit on it is on probation, if it may come back at all. Its time begins with
/// [`begin`].
pub fn prepare(
    root: &Folder,
    _lock: &StoreLock,
    new: &Deployment,
    old: &Deployment,
    settings: Option<&Update>,
) -> Result<()> {
    let Some(set) = settings.filter(|settings| settings.probation() > 0) else { return Ok(()) };
    // What cannot be read means nothing to anybody.
    if let (Ok(Some((layout::PROBATION, _))), Some(folder)) =
        (find(root, &new.name), root.open(&layout::settings(&new.name))?)
    {
        folder.rename(layout::PROBATION, layout::PROBATION_BEFORE)?;
    }
    let written = write(root, &new.name, &Probation::new(new.id, old.id, set.probation(), set.crashes()));
    if written.is_err() {
        // The cause is what counts; what stays now goes with the next changing command.
        let _ = drop_stale(root, &new.name);
    }
    written
}

/// The update is done: its time begins. `other` is what the service was, where the update did not restart it.
pub fn begin(
    root: &Folder,
    _lock: &StoreLock,
    name: &ContainerName,
    other: Option<&Service>,
) -> Result<Option<Probation>> {
    let Some(mut probation) = load(root, name)? else { return Ok(None) };
    probation.begin(&clock::now(), other);
    write(root, name, &probation)?;
    Ok(Some(probation))
}

/// Replaces the record.
pub fn save(root: &Folder, _lock: &StoreLock, name: &ContainerName, probation: &Probation) -> Result<()> {
    write(root, name, probation)
}

/// Ends it, whatever came of it.
pub fn end(root: &Folder, _lock: &StoreLock, name: &ContainerName) -> Result<()> {
    remove(root, name)
}

/// Leaves the record of the deployment in force, if it has one: what it takes away or renames needs no room.
pub fn drop_stale(root: &Folder, name: &ContainerName) -> Result<()> {
    let Some(folder) = root.open(&layout::settings(name))? else { return Ok(()) };
    let changed = match find(root, name).ok().flatten() {
        Some((layout::PROBATION, _)) => folder.remove(layout::PROBATION_BEFORE)?,
        Some((before, _)) => folder.rename(before, layout::PROBATION).map(|()| true)?,
        None => folder.remove(layout::PROBATION)? | folder.remove(layout::PROBATION_BEFORE)?,
    };
    if changed { folder.sync() } else { Ok(()) }
}

/// Counts this boot for every container, once.
pub fn count_boot(root: &Folder, lock: &StoreLock) -> Result<Vec<Counted>> {
    let now = clock::now();
    let mut counted = Vec::new();
    for name in state::names(root)? {
        // One that cannot be read keeps no other from its own.
        let Ok(Some(container)) = state::container(root, &name) else { continue };
        let Ok(Some(mut probation)) = load(root, &name) else { continue };
        if container.journal.is_some() || !probation.is_new_boot(&now) {
            continue;
        }
        let result = probation.boot(&now);
        match result {
            AtBoot::Over => end(root, lock, &name)?,
            AtBoot::GoesOn | AtBoot::TooMany => write(root, &name, &probation)?,
        }
        counted.push(Counted { name, result });
    }
    Ok(counted)
}

/// Takes an update back, in files: the image is held back, and the deployment before is in force. Gives what was in force and what is now,
/// and leaves the journal to whoever lets that one run. `ran` is what has to run again wherever that is cut short.
pub fn take_back(
    root: &Folder,
    lock: &StoreLock,
    name: &ContainerName,
    cause: &str,
    ran: &[String],
) -> Result<(Deployment, Deployment)> {
    let probation = load(root, name)?.with_context(|| format!("{name} is not on probation"))?;
    let bad = state::deployment(root, name, probation.deployment)?;
    let good = state::deployment(root, name, probation.replaces)?;
    // Before the commit: cut short behind it, the next timer must not try that image again.
    let noted = quarantine::add_failed(root, lock, &bad, &good, cause);
    transaction::roll_back(root, lock, name, bad.id, good.id, ran)?;
    if noted.is_err() {
        // On a full disk it may be tried again, which is better than to run on.
        let _ = quarantine::add_failed(root, lock, &bad, &good, cause);
    }
    Ok((bad, good))
}

fn write(root: &Folder, name: &ContainerName, probation: &Probation) -> Result<()> {
    let folder = root.create(&layout::settings(name), 0o755)?;
    folder.write(layout::PROBATION, &to_text(probation)?, 0o644)
}

fn remove(root: &Folder, name: &ContainerName) -> Result<()> {
    match root.open(&layout::settings(name))? {
        Some(folder) if folder.remove(layout::PROBATION)? => folder.sync(),
        _ => Ok(()),
    }
}
