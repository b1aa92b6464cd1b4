//! A deployment on disk that is not in force: staged, put in force, or thrown away.

use std::{collections::BTreeMap, os::fd::AsFd};

use anyhow::{Context, Result};

use super::{finish, go_back, half_done, put_in_force, remove_files, roll_forward, write_journal};
use crate::{
    host::{
        apply,
        dir::Folder,
        enablement, host_files,
        lock::StoreLock,
        mount_points,
        ostree::{Store, StoredImage},
        owned, quarantine, secrets, snapshot, space, state, units,
    },
    model::{
        deployment::{self, Deployment, Journal, Operation},
        host_files::Ready,
        layout,
        name::ContainerName,
        spec::MountPoint,
    },
};

/// The record of a deployment that is still being staged.
const RECORD_NEW: &str = ".sysctr-deployment.json.new";

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
        let place = layout::deployment(&staged.name, staged.id);
        let folder = root.synced_together()?.create(&place, 0o755)?;
        folder.write_new(layout::STAGED, "", 0o600)?;
        store.checkout(lock, image, folder.as_fd(), "rootfs").context("checking out the image")?;
        if let Some(rootfs) = folder.open("rootfs")? {
            for point in &mount_points {
                record.mount_points.extend(mount_points::make(&rootfs, point)?);
            }
        }
        folder.write_new("config.json", &config_json, 0o600)?;
        secrets::write(&folder, &secrets)?;
        apply::prepare(&folder, record.runtime.as_ref())?;
        host_files::keep(&folder, &host_files)?;
        // Readers go by the record, also while the rest is being staged: it gets its name once all is on the disk.
        folder.write_new(RECORD_NEW, &deployment::to_text(&record)?, 0o600)?;
        folder.sync_all()?;
        root.open(&place)?.context("it is gone")?.rename(RECORD_NEW, state::DEPLOYMENT)?;
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

    /// Updates: puts the deployment in force in place of `from`. Until [`finish`], a power cut ends in the old state. `ran` is what
    /// has to run again where that happens in this boot.
    pub fn replace(mut self, lock: &StoreLock, from: u32, ran: &[String]) -> Result<Journal> {
        self.armed = false;
        let journal = Journal { stopped: ran.to_owned(), ..self.journal(from)? };
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

    pub(in crate::host) fn name(&self) -> &ContainerName {
        &self.name
    }

    /// What there is to note before it takes the place of `from`.
    pub(in crate::host) fn journal(&self, from: u32) -> Result<Journal> {
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
    pub(in crate::host) fn disarm(mut self) {
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
