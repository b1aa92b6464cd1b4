//! Several containers that are updated as one: all of them end with the new deployment, or all with the old one, wherever it is cut.
//!
//! ```text
//! group.json → journals → active of each → files placed → well? → group.json removed → journals removed
//!                                                           no → files and active back → journals removed → group.json removed
//! ```
//! What a cut ends in is decided by [`Journal::winner`].

use anyhow::{Context, Result};

use super::{
    dir::Folder,
    lock::StoreLock,
    state,
    transaction::{self, Staged},
};
use crate::model::{
    deployment::{self, Group, Journal, Operation, Record},
    layout,
    name::ContainerName,
};

/// One container of a group, whose new deployment is staged.
pub struct Member<'a> {
    /// Not in force yet.
    pub staged: Staged<'a>,
    /// The deployment in force.
    pub from: u32,
    /// Units that run, and are to run again wherever the update is cut short in this boot.
    pub ran: Vec<String>,
}

/// Whether a group is being updated, or was when that was cut short.
pub fn is_open(root: &Folder) -> Result<bool> {
    let (folder, file) = layout::GROUP;
    let record = root.open(folder)?.map(|folder| state::record::<Group>(&folder, file)).transpose()?;
    Ok(record.flatten().is_some())
}

/// Puts the new deployment of each in force. Until [`keep`], a cut ends with the old one of each.
pub fn replace(root: &Folder, lock: &StoreLock, members: Vec<Member>) -> Result<Vec<(ContainerName, Journal)>> {
    let mut journals = Vec::new();
    for Member { staged, from, ran } in &members {
        let journal = Journal { group: true, stopped: ran.clone(), ..staged.journal(*from)? };
        journals.push((staged.name().clone(), journal));
    }
    // Whatever fails from here on throws it away.
    members.into_iter().for_each(|member| member.staged.disarm());
    let replaced = write(root, &journals);
    if replaced.is_err() {
        let backwards = journals.iter().rev();
        let back = backwards.clone().try_for_each(|(name, journal)| transaction::go_back(root, lock, name, journal));
        let back = back.and_then(|()| give_up(root, lock, &journals));
        back.context("taking back the update of several containers")?;
    }
    replaced.map(|()| journals)
}

fn write(root: &Folder, journals: &[(ContainerName, Journal)]) -> Result<()> {
    let members = journals.iter().map(|(name, _)| name.clone()).collect();
    let (folder, file) = layout::GROUP;
    let group = deployment::to_text(&Group { version: Group::VERSION, members })?;
    root.create(folder, 0o755)?.write(file, &group, 0o644)?;
    for (name, journal) in journals {
        transaction::write_journal(root, name, journal)?;
    }
    for (name, journal) in journals {
        transaction::write_active(root, name, journal)?;
    }
    journals.iter().try_for_each(|(name, journal)| transaction::roll_forward(root, name, journal))
}

/// They are well: the new deployments stay, whatever happens from here on.
pub fn keep(root: &Folder, lock: &StoreLock, journals: &[(ContainerName, Journal)]) -> Result<()> {
    remove(root)?;
    journals.iter().try_for_each(|(name, _)| transaction::finish(root, lock, name))
}

/// The old deployments are back in force: ends the operation, and throws the new ones away.
pub fn give_up(root: &Folder, lock: &StoreLock, journals: &[(ContainerName, Journal)]) -> Result<()> {
    journals.iter().try_for_each(|(name, _)| transaction::finish(root, lock, name))?;
    remove(root)?;
    journals.iter().try_for_each(|(name, _)| transaction::discard_staged(root, lock, name).map(drop))
}

/// After a recovery: without a journal that belongs to it the group is over, or it never began.
pub fn end(root: &Folder) -> Result<()> {
    if let Some(folder) = root.open(layout::GROUP.0)? {
        folder.remove(&format!(".sysctr-{}.new", layout::GROUP.1))?;
    }
    let open = is_open(root)?;
    let is_member = |journal: &Journal| journal.group && journal.operation == Operation::Update;
    if open && !state::containers(root)?.iter().any(|one| one.journal.as_ref().is_some_and(is_member)) {
        remove(root)?;
    }
    Ok(())
}

fn remove(root: &Folder) -> Result<()> {
    let (folder, file) = layout::GROUP;
    let Some(folder) = root.open(folder)? else { return Ok(()) };
    if folder.remove(file)? { folder.sync() } else { Ok(()) }
}
