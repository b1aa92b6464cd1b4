//! An operation on what is installed: stage → journal → commit → place. Everything before the journal can be thrown away, everything
//! after the commit can be done again; [`super::recovery`] does either, whenever the machine stopped.

use anyhow::{Context, Result};

pub use self::staged::{Parts, Staged, discard, discard_staged, next_id};
use super::{
    clock, controls,
    dir::Folder,
    enablement, host_files,
    lock::StoreLock,
    owned, probation, snapshot, space,
    state::{self, Container},
    systems, units,
};
use crate::model::{
    deployment::{self, Journal, Operation},
    fault::{Code, Fault},
    layout,
    name::ContainerName,
};

mod staged;

/// Rolls back: puts an earlier deployment in force in place of `from`. A power cut ends in that one. `ran` is what has to run again where
/// it is cut short in this boot.
pub fn roll_back(
    root: &Folder,
    lock: &StoreLock,
    name: &ContainerName,
    from: u32,
    to: u32,
    ran: &[String],
) -> Result<()> {
    let journal = Journal::new(Operation::Rollback, Some(from), Some(to), enablement::is_enabled(root, name, from)?);
    roll_back_as_announced(root, lock, name, &Journal { stopped: ran.to_owned(), ..journal })
}

/// Notes that a rollback is going to put the state back that is kept beside `to`, and which units are down meanwhile.
pub fn announce_rollback(
    root: &Folder,
    _lock: &StoreLock,
    name: &ContainerName,
    from: u32,
    to: u32,
    stopped: &[String],
) -> Result<Journal> {
    let journal = Journal::new(Operation::Rollback, Some(from), Some(to), enablement::is_enabled(root, name, from)?);
    let journal = Journal { state: true, stopped: stopped.to_owned(), ..journal };
    write_journal(root, name, &journal)?;
    Ok(journal)
}

/// Rolls back as it was announced, where [`snapshot::prepare`] has made ready. Failing before the commit, it leaves nothing changed and
/// no journal.
pub fn roll_back_as_announced(root: &Folder, lock: &StoreLock, name: &ContainerName, rollback: &Journal) -> Result<()> {
    if let Err(error) = put_in_force(root, name, rollback) {
        let is_in_force = state::container(root, name)?.and_then(|container| container.active) == rollback.to;
        if is_in_force || finish(root, lock, name).is_err() {
            return Err(error).with_context(|| half_done(name));
        }
        return Err(error);
    }
    roll_forward(root, name, rollback).with_context(|| half_done(name))
}

/// Puts the deployment that was in force before back. The one that was to replace it is staged again: nothing of it is in force, but it
/// may still run.
pub fn go_back(root: &Folder, _lock: &StoreLock, name: &ContainerName, journal: &Journal) -> Result<()> {
    space::release(root, name)?;
    if let (Operation::Update, Some(to)) = (journal.operation, journal.to)
        && let Some(folder) = root.open(&layout::deployment(name, to))?
    {
        folder.write_new(layout::STAGED, "", 0o600)?;
        folder.sync()?;
    }
    if let (Some(settings), Some(from)) = (root.open(&layout::settings(name))?, journal.from) {
        if let (true, Some(to)) = (journal.state, journal.to) {
            // Before the commit the old program may have run again, and what is kept is older than what is there.
            match state::container(root, name)?.and_then(|container| container.active) == Some(to) {
                true => snapshot::put_back(root, name, to, from)?,
                false => snapshot::forget(root, name, from)?,
            }
        }
        settings.write(layout::ACTIVE, &format!("{from}\n"), 0o644)?;
    }
    switch_files(root, name, journal.to, journal.from, journal.enable)?;
    let state = |id: Option<u32>| id.and_then(|id| state::deployment(root, name, id).ok()).map(|record| record.state);
    let kept = state(journal.from).unwrap_or_default();
    let made = state(journal.to).unwrap_or_default();
    let is_kept = |path: &str| kept.iter().any(|other| other.path == path);
    let made = made.iter().map(|folder| folder.path.clone());
    // what was made for it, and last what that was made in
    let unused = made.chain([owned::home(name)]).filter(|path| !is_kept(path));
    unused.into_iter().try_for_each(|path| owned::remove_unused(root, name, &path))
}

/// Notes that a container is going to be removed, and which units are down meanwhile: cut short from here on, they are started again.
pub fn announce_uninstall(
    root: &Folder,
    _lock: &StoreLock,
    container: &Container,
    purge: bool,
    stopped: &[String],
) -> Result<()> {
    // An install that is taken back is noted already, and ends the same once nothing is in force.
    if container.journal.as_ref().is_some_and(|journal| journal.operation == Operation::Install) {
        return Ok(());
    }
    let journal = Journal::new(Operation::Uninstall, container.active, None, false);
    write_journal(root, &container.name, &Journal { purge, stopped: stopped.to_owned(), ..journal })
}

/// Takes it out of force: from here on a power cut ends with the container gone.
pub fn commit_uninstall(root: &Folder, _lock: &StoreLock, container: &Container) -> Result<()> {
    let Some(settings) = root.open(&layout::settings(&container.name))? else { return Ok(()) };
    settings.remove(layout::ACTIVE)?;
    settings.sync()
}

/// The commit point: what the journal says is under way, and `active` names the new deployment.
fn put_in_force(root: &Folder, name: &ContainerName, journal: &Journal) -> Result<()> {
    write_journal(root, name, journal)?;
    write_active(root, name, journal)
}

pub(super) fn write_journal(root: &Folder, name: &ContainerName, journal: &Journal) -> Result<()> {
    let settings = root.create(&layout::settings(name), 0o755)?;
    // Of another boot than this one it is what the machine stopped at: the generator goes by that.
    let journal = Journal { boot: clock::boot(), ..journal.clone() };
    settings.write(layout::JOURNAL, &deployment::to_text(&journal)?, 0o600)
}

pub(super) fn write_active(root: &Folder, name: &ContainerName, journal: &Journal) -> Result<()> {
    let Some(to) = journal.to else { return Ok(()) };
    let settings = root.create(&layout::settings(name), 0o755)?;
    if controls::split_commit() {
        return Ok(std::fs::write(settings.path().join(layout::ACTIVE), format!("{to}\n"))?);
    }
    settings.write(layout::ACTIVE, &format!("{to}\n"), 0o644)
}

/// Ends an operation: nothing is left to do for it.
pub fn finish(root: &Folder, _lock: &StoreLock, name: &ContainerName) -> Result<()> {
    if let Some(settings) = root.open(&layout::settings(name))? {
        space::release(root, name)?;
        snapshot::sweep(root, name)?;
        settings.remove(layout::JOURNAL)?;
        settings.sync()?;
        // Until here the update may be taken back, and the probation of the deployment before goes on. What is stale means nothing to
        // anybody, and goes with the next changing command if it cannot now.
        let _ = probation::drop_stale(root, name);
    }
    Ok(())
}

/// What there is to say when an operation could be neither done nor undone.
pub fn half_done(name: &ContainerName) -> Fault {
    Fault::new(Code::NeedsYou, format!("{name} was left half-way"))
        .hint("mend what the message names, then run any changing command, such as `sysctr prune`")
}

/// Everything behind the commit that is files. Can be done again.
pub fn roll_forward(root: &Folder, name: &ContainerName, journal: &Journal) -> Result<()> {
    if let (Operation::Rollback, true, Some(from), Some(to)) =
        (journal.operation, journal.state, journal.from, journal.to)
    {
        snapshot::put_back(root, name, from, to)?;
    }
    switch_files(root, name, journal.from, journal.to, journal.enable)
}

/// Makes the placed files those of `new`, where they were those of `old`. Can be done again.
pub fn switch_files(
    root: &Folder,
    name: &ContainerName,
    old: Option<u32>,
    new: Option<u32>,
    enable: bool,
) -> Result<()> {
    let Some(new) = new else { return Ok(()) };
    host_files::switch(root, name, old, new)?;
    units::place(root, name, new)?;
    enablement::preset(root, name, Some((new, enable)))?;
    match old {
        Some(old) => units::replace(root, name, old, new, enable)?,
        None if enable => enablement::enable(root, name, new)?,
        None => {}
    }
    state::deployment(root, name, new)?.state.iter().try_for_each(|folder| owned::claim(root, name, folder))?;
    if let Some(folder) = root.open(&layout::deployment(name, new))?
        && folder.remove(layout::STAGED)?
    {
        folder.sync()?;
    }
    Ok(())
}

/// Removes every file of a container that is no longer in force; its state and its image stay.
pub fn remove_files(root: &Folder, name: &ContainerName) -> Result<()> {
    let settings = root.open(&layout::settings(name))?;
    if let Some(settings) = &settings
        && settings.remove(layout::ACTIVE)?
    {
        settings.sync()?;
    }
    units::withdraw(root, name)?;
    host_files::withdraw(root, name)?;
    // Another version of the operating system that has it too shares this /var.
    if !systems::containers(root)?.contains(name)
        && let Some(containers) = root.open(&format!("{}/containers", layout::STATE))?
    {
        containers.remove_tree(name.as_str())?;
        containers.sync()?;
    }
    // The journal goes last: until then all of this can be done again.
    if let Some(settings) = settings {
        let files = settings.names()?;
        files.iter().filter(|file| *file != layout::JOURNAL).try_for_each(|file| settings.remove_tree(file))?;
        settings.sync()?;
    }
    if let Some(containers) = root.open(layout::CONTAINERS)? {
        containers.remove_tree(name.as_str())?;
        containers.sync()?;
    }
    remove_empty_folders(root)
}

/// Without containers nothing of ours is left but the store.
pub fn remove_empty_folders(root: &Folder) -> Result<()> {
    for (parent, folder) in [("etc/sysctr", "containers"), ("etc", "sysctr"), (layout::STATE, "containers")] {
        if let Some(parent) = root.open(parent)?
            && parent.kind(folder)?.is_some()
            && parent.remove_empty(folder)?
        {
            parent.sync()?;
        }
    }
    Ok(())
}
