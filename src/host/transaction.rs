//! An operation on what is installed: stage → journal → commit → place. Everything before the journal can be thrown away, everything
//! after the commit can be done again; [`super::recovery`] does either, whenever the machine stopped.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{
    apply, clock, controls,
    dir::Folder,
    enablement, host_files,
    lock::StoreLock,
    mount_points,
    ostree::{Store, StoredImage},
    owned, probation, quarantine, secrets, snapshot, space,
    state::{self, Container},
    units,
};
use crate::model::{
    deployment::{self, Deployment, Journal, Operation},
    fault::{Code, Fault},
    host_files::Ready,
    layout,
    name::ContainerName,
    spec::MountPoint,
};

/// A deployment on disk that is not in force. Dropped, it takes itself away again.
pub struct Staged<'a> {
    root: &'a Folder,
    name: ContainerName,
    id: u32,
    armed: bool,
}

/// What a deployment consists of.
#[allow(missing_docs)]
pub struct Parts<'a> {
    pub image: &'a StoredImage,
    pub record: Deployment,
    pub config_json: String,
    pub files: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, String>,
    pub mount_points: Vec<MountPoint>,
    pub host_files: Vec<Ready>,
}

/// The number for the container's next deployment: numbers are never used again.
pub fn next_id(root: &Folder, name: &ContainerName) -> Result<u32> {
    let failed = quarantine::load(root, name)?.images.into_iter().map(|one| one.deployment);
    let on_disk = state::deployment_ids(root, name)?.into_iter().chain(units::set_ids(root, name)?);
    Ok(on_disk.chain(failed).max().unwrap_or(0) + 1)
}

impl<'a> Staged<'a> {
    /// Writes the whole deployment, synced; nothing of it is in force.
    pub fn write(root: &'a Folder, lock: &StoreLock, store: &Store, parts: Parts) -> Result<Staged<'a>> {
        let Parts { image, mut record, config_json, files, secrets, mount_points, host_files } = parts;
        let staged = Staged { root, name: record.name.clone(), id: record.id, armed: true };
        root.create(layout::STATE, 0o700)?;
        let folder = root.create(&layout::deployment(&staged.name, staged.id), 0o755)?;
        folder.write_new(layout::STAGED, "", 0o600)?;
        store.checkout(lock, image, std::os::fd::AsFd::as_fd(&folder), "rootfs").context("checking out the image")?;
        if let Some(rootfs) = folder.open("rootfs")? {
            for point in &mount_points {
                record.mount_points.extend(mount_points::make(&rootfs, point)?);
            }
        }
        folder.write_new("config.json", &config_json, 0o600)?;
        secrets::write(root, &staged.name, staged.id, &secrets)?;
        apply::prepare(&folder, record.runtime.as_ref())?;
        host_files::keep(&folder, &host_files)?;
        // Whole or not there: readers go by it while the rest is being staged.
        folder.write(state::DEPLOYMENT, &deployment::to_text(&record)?, 0o600)?;
        folder.sync_all()?;
        units::stage(root, &staged.name, staged.id, &files)?;
        host_files::stage(root, &record, &host_files)?;
        if record.replaces.is_some() {
            space::reserve(root, &staged.name)?;
        }
        Ok(staged)
    }

    /// Installs: puts the deployment in force where there was none. From here on a power cut ends in the new state. Gives the state
    /// folders that were not there before.
    pub fn commit(mut self, _lock: &StoreLock, enable: bool) -> Result<Vec<String>> {
        let mut made = Vec::new();
        for folder in state::deployment(self.root, &self.name, self.id)?.state {
            if !owned::exists(self.root, &folder.path)? {
                made.push(folder.path);
            }
        }
        let journal = Journal::new(Operation::Install, None, Some(self.id), enable);
        let committed = put_in_force(self.root, &self.name, &journal);
        if committed.is_err() {
            // The cause is what counts; what cannot be removed now, the next changing command removes.
            if let Ok(Some(settings)) = self.root.open(&layout::settings(&self.name)) {
                let removed = settings.remove(layout::ACTIVE).and_then(|_| settings.remove(layout::JOURNAL));
                let _ = removed.and_then(|_| settings.sync());
            }
        }
        committed?;
        self.armed = false;
        let placed = roll_forward(self.root, &self.name, &journal);
        if placed.is_err() {
            let undone = owned::purge_all(self.root, &self.name, made.iter().map(String::as_str));
            undone.and(remove_files(self.root, &self.name)).with_context(|| half_done(&self.name))?;
        }
        placed.map(|()| made)
    }

    /// Notes that the state of `from` is going to be kept, and which units are down meanwhile: cut short from here on, they are started
    /// again by whoever recovers.
    pub fn announce(&self, _lock: &StoreLock, from: u32, stopped: &[String]) -> Result<()> {
        let journal = self.journal(from)?;
        write_journal(
            self.root,
            &self.name,
            &Journal { keep: false, state: true, stopped: stopped.to_owned(), ..journal },
        )
    }

    /// Updates: puts the deployment in force in place of `from`. Until [`finish`], a power cut ends in the old state. `stopped` are units
    /// that are down meanwhile.
    pub fn replace(mut self, lock: &StoreLock, from: u32, stopped: &[String]) -> Result<Journal> {
        self.armed = false;
        let journal = Journal { stopped: stopped.to_owned(), ..self.journal(from)? };
        if let Err(error) = put_in_force(self.root, &self.name, &journal) {
            // Not in force: what cannot be removed now, the next changing command removes.
            let _ = finish(self.root, lock, &self.name).and_then(|()| discard(self.root, &self.name, self.id));
            return Err(error);
        }
        let placed = roll_forward(self.root, &self.name, &journal);
        if placed.is_err() {
            let back =
                go_back(self.root, lock, &self.name, &journal).and_then(|()| finish(self.root, lock, &self.name));
            let back = back.and_then(|()| discard(self.root, &self.name, self.id));
            back.with_context(|| half_done(&self.name))?;
        }
        placed.map(|()| journal)
    }

    pub(super) fn name(&self) -> &ContainerName {
        &self.name
    }

    /// What there is to note before it takes the place of `from`.
    pub(super) fn journal(&self, from: u32) -> Result<Journal> {
        let enable = enablement::is_enabled(self.root, &self.name, from)?;
        let record = |id| state::deployment(self.root, &self.name, id);
        let raises = record(self.id)?.raises_epoch_of(&record(from)?);
        let state = raises && snapshot::of(self.root, &self.name, from)?.is_some();
        Ok(Journal {
            keep: raises && !state,
            state,
            ..Journal::new(Operation::Update, Some(from), Some(self.id), enable)
        })
    }

    /// Leaves it to a journal what becomes of it.
    pub(super) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.armed {
            // What cannot be removed now, the next changing command removes.
            let _ = discard(self.root, &self.name, self.id);
        }
    }
}

/// Rolls back: puts an earlier deployment in force in place of `from`. A power cut ends in that one.
pub fn roll_back(root: &Folder, _lock: &StoreLock, name: &ContainerName, from: u32, to: u32) -> Result<Journal> {
    let journal = Journal::new(Operation::Rollback, Some(from), Some(to), enablement::is_enabled(root, name, from)?);
    put_in_force(root, name, &journal)?;
    roll_forward(root, name, &journal)?;
    Ok(journal)
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

/// Rolls back as it was announced, where [`snapshot::prepare`] has made ready.
pub fn roll_back_with_state(root: &Folder, _lock: &StoreLock, name: &ContainerName, journal: &Journal) -> Result<()> {
    put_in_force(root, name, journal)?;
    roll_forward(root, name, journal)
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

/// Begins an uninstall: from here on a power cut ends with the container gone.
pub fn commit_uninstall(root: &Folder, _lock: &StoreLock, container: &Container, purge: bool) -> Result<()> {
    let Some(settings) = root.open(&layout::settings(&container.name))? else { return Ok(()) };
    let journal = Journal { purge, ..Journal::new(Operation::Uninstall, container.active, None, false) };
    write_journal(root, &container.name, &journal)?;
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
        probation::drop_stale(root, name)?;
        settings.remove(layout::JOURNAL)?;
        settings.sync()?;
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
    match old {
        Some(old) => units::replace(root, name, old, new, enable)?,
        None => {
            enablement::preset(root, name, Some(enable))?;
            if enable {
                enablement::enable(root, name, new)?;
            }
        }
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
    if let Some(containers) = root.open(&format!("{}/containers", layout::STATE))? {
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

/// Throws away what is staged and not in force, also what was being staged when the machine stopped. Whether there was any.
pub fn discard_staged(root: &Folder, _lock: &StoreLock, name: &ContainerName) -> Result<bool> {
    let mut staged = Vec::new();
    let deployments = state::deployment_ids(root, name)?;
    // What is in force is never left over, whatever a mark says and though /var may lack it.
    let active = state::container(root, name)?.and_then(|container| container.active);
    for id in deployments.iter().filter(|id| Some(**id) != active) {
        let folder = root.open(&layout::deployment(name, *id))?;
        let marked = |folder: &Folder| Ok::<_, anyhow::Error>(folder.kind(layout::STAGED)?.is_some());
        let recorded = |folder: &Folder| Ok::<_, anyhow::Error>(folder.kind(state::DEPLOYMENT)?.is_some());
        if let Some(folder) = folder
            && (marked(&folder)? || !recorded(&folder)?)
        {
            staged.push(*id);
        }
    }
    // the last of a deployment that was being thrown away
    let left = |id: &u32| !deployments.contains(id) && Some(*id) != active;
    staged.extend(units::set_ids(root, name)?.into_iter().filter(left));
    staged.iter().try_for_each(|id| discard(root, name, *id))?;
    Ok(!staged.is_empty())
}

/// Throws a deployment away that is not in force.
pub fn discard(root: &Folder, name: &ContainerName, id: u32) -> Result<()> {
    space::release(root, name)?;
    host_files::discard(root, name, id)?;
    // The record first: cut short from here on, what is left is nobody's.
    if let Some(folder) = root.open(&layout::deployment(name, id))?
        && folder.remove(state::DEPLOYMENT)?
    {
        folder.sync()?;
    }
    units::discard(root, name, id)?;
    if let Some(deployments) = root.open(&layout::deployments(name))? {
        deployments.remove_tree(&id.to_string())?;
        deployments.sync()?;
    }
    if state::container(root, name)?.is_none() {
        remove_files(root, name)?;
    }
    Ok(())
}
