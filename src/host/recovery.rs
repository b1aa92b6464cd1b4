//! What was cut short is finished or undone, in files only, whenever the machine stopped.
//!
//! ```text
//! journal     active   then
//! none        any      what was staged is thrown away
//! install     to       finished            install     other    undone
//! uninstall   none     finished            uninstall   any      undone
//! update      any      back to `from`: nobody knows whether `to` is well; finished if it keeps its state in a newer format
//! rollback    to       finished            rollback    from     undone
//! ```
//! Several updates that are one go back while `group.json` is there, and are finished when it is gone: [`super::group`].

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, bail};

use super::{
    apply, clock,
    dir::Folder,
    group,
    lock::StoreLock,
    owned, probation, snapshot,
    state::{self, Container},
    systems,
    transaction::{self, finish, half_done, remove_files, roll_forward, switch_files},
    units,
};
use crate::model::{
    deployment::{Journal, Operation},
    layout,
    name::ContainerName,
};

/// What [`recover`] did for a container.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Recovered {
    Finished(ContainerName),
    Undone(ContainerName),
    Removed(ContainerName),
    /// An update was cut short. Its deployment, this one, is staged again, since it may run: [`transaction::discard_staged`] throws it
    /// away.
    Back(ContainerName, Option<u32>),
    /// A rollback was cut short and is done. This deployment may still run.
    RolledBack(ContainerName, Option<u32>),
}

/// What came of a recovery.
#[derive(Debug, Default)]
pub struct Recovery {
    /// What was done.
    pub done: Vec<Recovered>,
    /// What could not be recovered, and why; the others were.
    pub failed: Vec<(ContainerName, anyhow::Error)>,
    /// Units that an operation of this boot had stopped, and did not start again.
    pub stopped: Vec<String>,
}

/// Finishes or undoes what was cut short, in files only: it neither starts nor awaits anything. One container that cannot be recovered
/// does not hold up the others, and neither does one that is to be left as it is.
pub fn recover(root: &Folder, lock: &StoreLock, leave: &dyn Fn(&Journal) -> bool) -> Result<Recovery> {
    let mut names = BTreeSet::new();
    for folder in [layout::CONTAINERS.to_owned(), format!("{}/containers", layout::STATE)] {
        let found = root.open(&folder)?.map_or(Ok(Vec::new()), |folder| folder.names())?;
        names.extend(found.iter().filter_map(|name| name.parse::<ContainerName>().ok()));
    }
    let mut recovery = Recovery::default();
    let group = group::is_open(root);
    for name in names {
        let journal = state::container(root, &name).ok().flatten().and_then(|container| container.journal);
        if journal.as_ref().is_some_and(leave) {
            continue;
        }
        match recover_one(root, lock, &name, &group) {
            Ok(done) => {
                let is_gone = matches!(done, Some(Recovered::Removed(_)));
                let of_this_boot = journal.filter(|journal| !is_gone && journal.boot == clock::boot());
                recovery.stopped.extend(of_this_boot.into_iter().flat_map(|journal| journal.stopped));
                recovery.done.extend(done);
            }
            Err(error) => recovery.failed.push((name, error)),
        }
    }
    if group.is_ok() {
        group::end(root)?;
    }
    transaction::remove_empty_folders(root)?;
    Ok(recovery)
}

/// Refuses to work on a container whose last operation could not be recovered.
pub fn refuse_pending(container: &Container) -> Result<()> {
    if container.journal.is_some() {
        bail!(half_done(&container.name));
    }
    Ok(())
}

fn recover_one(
    root: &Folder,
    lock: &StoreLock,
    name: &ContainerName,
    group: &Result<bool>,
) -> Result<Option<Recovered>> {
    let Some(container) = state::container(root, name)? else {
        // Of another version of the operating system: its /var is this one's.
        if root.open(&layout::settings(name))?.is_none() && systems::containers(root)?.contains(name) {
            return Ok(None);
        }
        let left = root.open(&layout::settings(name))?.is_some() || root.open(&layout::container(name))?.is_some();
        remove_files(root, name)?;
        return Ok(left.then(|| Recovered::Undone(name.clone())));
    };
    if let (Err(error), true) = (group, container.journal.as_ref().is_some_and(|journal| journal.group)) {
        bail!("{error:#}");
    }
    sweep(root, name)?;
    let Some(journal) = &container.journal else {
        probation::drop_stale(root, name)?;
        snapshot::sweep(root, name)?;
        // An operating system that went back took /etc with it, and /var stayed.
        container.active.map_or(Ok(()), |id| units::point(root, name, id))?;
        return Ok(transaction::discard_staged(root, lock, name)?.then(|| Recovered::Undone(name.clone())));
    };
    // What the one that was stopped did may not be on the disk yet, and doing it again would not see that.
    rustix::fs::sync();
    let winner = journal.winner(container.active, group.as_ref().is_ok_and(|open| *open));
    let done = match journal.operation {
        Operation::Install if container.active == journal.to => {
            roll_forward(root, name, journal)?;
            Recovered::Finished(name.clone())
        }
        Operation::Uninstall if container.active.is_none() => {
            finish_uninstall(root, name, journal)?;
            return Ok(Some(Recovered::Removed(name.clone())));
        }
        Operation::Install | Operation::Uninstall => {
            if let Some(id) = journal.to {
                transaction::discard(root, name, id)?;
            }
            finish(root, lock, name)?;
            if container.active.is_none() {
                remove_files(root, name)?;
            }
            return Ok(Some(Recovered::Undone(name.clone())));
        }
        // What ran may have brought its state into the new format already.
        Operation::Update if winner == journal.to => {
            roll_forward(root, name, journal)?;
            Recovered::Finished(name.clone())
        }
        Operation::Update => {
            transaction::go_back(root, lock, name, journal)?;
            Recovered::Back(name.clone(), journal.to)
        }
        Operation::Rollback if container.active == journal.to => {
            roll_forward(root, name, journal)?;
            Recovered::RolledBack(name.clone(), journal.from)
        }
        Operation::Rollback => {
            switch_files(root, name, journal.to, journal.from, journal.enable)?;
            Recovered::Undone(name.clone())
        }
    };
    finish(root, lock, name)?;
    Ok(Some(done))
}

/// Files that were being written.
fn sweep(root: &Folder, name: &ContainerName) -> Result<()> {
    for folder in [layout::settings(name), layout::container(name)] {
        let Some(folder) = root.open(&folder)? else { continue };
        let names = folder.names()?;
        names.iter().filter(|file| file.starts_with(".sysctr-")).try_for_each(|file| folder.remove(file).map(drop))?;
    }
    Ok(())
}

fn finish_uninstall(root: &Folder, name: &ContainerName, journal: &Journal) -> Result<()> {
    let record = journal.from.and_then(|id| state::deployment(root, name, id).ok());
    // In another tree nothing was made by its lines.
    let running = record.as_ref().filter(|_| root.path() == Path::new("/"));
    let removed = running.map_or(Ok(()), |record| apply::remove_tmpfiles(root, record, journal.purge));
    let state = record.iter().flat_map(|record| &record.state).filter(|_| journal.purge);
    let purged = owned::purge_all(root, name, state.map(|folder| folder.path.as_str()));
    remove_files(root, name)?;
    purged.and(removed)
}
