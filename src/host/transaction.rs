//! An operation on what is installed: stage → journal → commit → place. Everything before the journal can be thrown away, everything
//! after the commit can be done again; [`recover`] does either, whenever the machine stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::fs::FileType;

use super::{
    apply,
    dir::Folder,
    lock::StoreLock,
    ostree::{Store, StoredImage},
    owned,
    state::{self, Container},
    units,
};
use crate::model::{
    deployment::{self, Deployment, Journal, Operation, Record},
    fault::{Code, Fault},
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
    pub mount_points: Vec<MountPoint>,
}

/// The number for the container's next deployment: numbers are never used again.
pub fn next_id(root: &Folder, name: &ContainerName) -> Result<u32> {
    let on_disk = state::deployment_ids(root, name)?.into_iter().chain(units::set_ids(root, name)?).max();
    Ok(on_disk.unwrap_or(0) + 1)
}

impl<'a> Staged<'a> {
    /// Writes the whole deployment, synced; nothing of it is in force.
    pub fn write(root: &'a Folder, lock: &StoreLock, store: &Store, parts: Parts) -> Result<Staged<'a>> {
        let Parts { image, mut record, config_json, files, mount_points } = parts;
        let staged = Staged { root, name: record.name.clone(), id: record.id, armed: true };
        root.create(layout::STATE, 0o700)?;
        let folder = root.create(&layout::deployment(&staged.name, staged.id), 0o755)?;
        store.checkout(lock, image, std::os::fd::AsFd::as_fd(&folder), "rootfs").context("checking out the image")?;
        if let Some(rootfs) = folder.open("rootfs")? {
            for point in &mount_points {
                record.mount_points.extend(make_mount_point(&rootfs, point)?);
            }
        }
        folder.write_new("config.json", &config_json, 0o600)?;
        apply::prepare(&folder, record.runtime.as_ref())?;
        folder.write_new(state::DEPLOYMENT, &deployment::to_text(&record)?, 0o600)?;
        folder.sync_all()?;
        units::stage(root, &staged.name, staged.id, &files)?;
        Ok(staged)
    }

    /// Puts the deployment in force. From here on a power cut ends in the new state. Gives the state folders that were not there before.
    pub fn commit(mut self, _lock: &StoreLock, enable: bool) -> Result<Vec<String>> {
        let mut made = Vec::new();
        for folder in state::deployment(self.root, &self.name, self.id)?.state {
            if !owned::exists(self.root, &folder.path)? {
                made.push(folder.path);
            }
        }
        let settings = self.root.create(&layout::settings(&self.name), 0o755)?;
        let journal = Journal {
            version: Journal::VERSION,
            operation: Operation::Install,
            from: None,
            to: Some(self.id),
            enable,
            purge: false,
        };
        let text = deployment::to_text(&journal)?;
        let committed = settings
            .write(layout::JOURNAL, &text, 0o600)
            .and_then(|()| settings.write(layout::ACTIVE, &format!("{}\n", self.id), 0o644));
        if committed.is_err() {
            // The cause is what counts; what cannot be removed now, the next changing command removes.
            let _ = settings.remove(layout::ACTIVE).and_then(|_| settings.remove(layout::JOURNAL));
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
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.armed {
            // What cannot be removed now, the next changing command removes.
            let _ = discard(self.root, &self.name, self.id);
        }
    }
}

/// Begins an uninstall: from here on a power cut ends with the container gone.
pub fn commit_uninstall(root: &Folder, _lock: &StoreLock, container: &Container, purge: bool) -> Result<()> {
    let Some(settings) = root.open(&layout::settings(&container.name))? else { return Ok(()) };
    let journal = Journal {
        version: Journal::VERSION,
        operation: Operation::Uninstall,
        from: container.active,
        to: None,
        enable: false,
        purge,
    };
    settings.write(layout::JOURNAL, &deployment::to_text(&journal)?, 0o600)?;
    settings.remove(layout::ACTIVE)?;
    settings.sync()
}

/// Ends an operation: nothing is left to do for it.
pub fn finish(root: &Folder, _lock: &StoreLock, name: &ContainerName) -> Result<()> {
    if let Some(settings) = root.open(&layout::settings(name))? {
        settings.remove(layout::JOURNAL)?;
        settings.sync()?;
    }
    Ok(())
}

/// What [`recover`] did for a container.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Recovered {
    Finished(ContainerName),
    Undone(ContainerName),
    Removed(ContainerName),
}

/// What there is to say when an operation could be neither done nor undone.
fn half_done(name: &ContainerName) -> Fault {
    Fault::new(Code::NeedsYou, format!("{name} is neither installed nor removed"))
        .hint("mend what the message names, then run any changing command, such as `sysctr prune`")
}

/// What came of a recovery.
#[derive(Debug, Default)]
pub struct Recovery {
    /// What was done.
    pub done: Vec<Recovered>,
    /// What could not be recovered, and why; the others were.
    pub failed: Vec<(ContainerName, anyhow::Error)>,
}

/// Finishes or undoes what was cut short, in files only: it neither starts nor awaits anything. One container that cannot be recovered
/// does not hold up the others.
pub fn recover(root: &Folder, lock: &StoreLock) -> Result<Recovery> {
    let mut names = BTreeSet::new();
    for folder in [layout::CONTAINERS.to_owned(), format!("{}/containers", layout::STATE)] {
        let found = root.open(&folder)?.map_or(Ok(Vec::new()), |folder| folder.names())?;
        names.extend(found.iter().filter_map(|name| name.parse::<ContainerName>().ok()));
    }
    let mut recovery = Recovery::default();
    for name in names {
        match recover_one(root, lock, &name) {
            Ok(done) => recovery.done.extend(done),
            Err(error) => recovery.failed.push((name, error)),
        }
    }
    remove_empty_folders(root)?;
    Ok(recovery)
}

/// Refuses to work on a container whose last operation could not be recovered.
pub fn refuse_pending(container: &Container) -> Result<()> {
    if container.journal.is_some() {
        bail!(half_done(&container.name));
    }
    Ok(())
}

fn recover_one(root: &Folder, lock: &StoreLock, name: &ContainerName) -> Result<Option<Recovered>> {
    let Some(container) = state::container(root, name)? else {
        let left = root.open(&layout::settings(name))?.is_some() || root.open(&layout::container(name))?.is_some();
        remove_files(root, name)?;
        return Ok(left.then(|| Recovered::Undone(name.clone())));
    };
    match (&container.journal, container.active) {
        (None, active) => {
            if let Some(settings) = root.open(&layout::settings(name))? {
                // a file that was being written when the operation had not begun
                let names = settings.names()?;
                names
                    .iter()
                    .filter(|file| file.starts_with(".sysctr-"))
                    .try_for_each(|file| settings.remove(file).map(drop))?;
            }
            let newer = |id: &u32| Some(*id) > active;
            let mut staged: Vec<u32> = state::deployment_ids(root, name)?.into_iter().filter(newer).collect();
            staged.extend(units::set_ids(root, name)?.into_iter().filter(newer));
            staged.iter().try_for_each(|id| discard(root, name, *id))?;
            Ok((!staged.is_empty()).then(|| Recovered::Undone(name.clone())))
        }
        (Some(journal), active) => match journal.operation {
            Operation::Install if active == journal.to => {
                roll_forward(root, name, journal)?;
                finish(root, lock, name)?;
                Ok(Some(Recovered::Finished(name.clone())))
            }
            Operation::Uninstall if active.is_none() => {
                let record =
                    journal.from.and_then(|id| state::deployment(root, name, id).ok()).filter(|_| journal.purge);
                let paths = record.iter().flat_map(|record| &record.state).map(|folder| folder.path.as_str());
                let purged = owned::purge_all(root, name, paths);
                remove_files(root, name)?;
                purged?;
                Ok(Some(Recovered::Removed(name.clone())))
            }
            Operation::Install | Operation::Uninstall => {
                if let Some(id) = journal.to {
                    discard(root, name, id)?;
                }
                finish(root, lock, name)?;
                if active.is_none() {
                    remove_files(root, name)?;
                }
                Ok(Some(Recovered::Undone(name.clone())))
            }
        },
    }
}

/// Everything behind the commit that is files.
fn roll_forward(root: &Folder, name: &ContainerName, journal: &Journal) -> Result<()> {
    let Some(id) = journal.to else { return Ok(()) };
    units::place(root, name, id)?;
    units::preset(root, name, Some(journal.enable))?;
    if journal.enable {
        units::enable(root, name, id)?;
    }
    state::deployment(root, name, id)?.state.iter().try_for_each(|folder| owned::claim(root, name, folder))
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
fn remove_empty_folders(root: &Folder) -> Result<()> {
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

/// Throws a staged deployment away.
fn discard(root: &Folder, name: &ContainerName, id: u32) -> Result<()> {
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

/// Makes what the checkout lacks to mount upon, and gives what was made: the image does not have it. Resolved inside the checkout: an
/// image's links cannot lead out of it.
pub(super) fn make_mount_point(rootfs: &Folder, point: &MountPoint) -> Result<Vec<String>> {
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
