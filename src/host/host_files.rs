//! Files of an image on the host, its links and empty folders: staged beside their places under temporary names, placed by renames, and
//! withdrawn again. One that is not as it was placed belongs to whoever changed it.
//!
//! ```text
//! PATH                the file, link or folder
//! PATH.sysctr-new     where PATH was edited: the text of the deployment in force
//! PATH.sysctr-old     where PATH was somebody else's and the admin let it be replaced: that one
//! deployments/N/host/SHA256   what deployment N places
//! ```

use std::{collections::BTreeSet, fs::File, io};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{
    dir::Folder,
    fsck::Report,
    host_places::{There, digest, make_parent, parent, there},
    state,
};
use crate::model::{
    deployment::Deployment,
    host_files::{self, Content, Placed, Ready, What, kept, newer},
    layout,
    name::ContainerName,
};

/// In a deployment's folder: what it places, by digest.
const COPIES: &str = "host";

/// Whether something stands in the way of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InTheWay {
    /// Nothing, or what this container put there.
    Nothing,
    /// A file or link of somebody else's, which could be kept beside it.
    Foreign,
    /// What gives way to nothing of an image, in words: a folder, a device, or a file that could not be kept.
    Never(String),
}

/// The records of files that are to be placed.
pub fn records(files: &[Ready]) -> Vec<Placed> {
    let what = |content: &Content| match content {
        Content::File { bytes, mode } => What::File { sha256: digest(bytes), mode: *mode },
        Content::Link { target } => What::Link { target: target.clone() },
        Content::Folder { mode } => What::Folder { mode: *mode },
    };
    let record = |file: &Ready| Placed { path: file.path.clone(), what: what(&file.content), replaces: file.replaces };
    files.iter().map(record).collect()
}

/// Folders that have to be made for these files, the outer ones first.
pub fn missing_folders(root: &Folder, files: &[Ready]) -> Result<Vec<String>> {
    let mut missing = BTreeSet::new();
    for file in files {
        let whole = matches!(file.content, Content::Folder { .. }).then_some(file.path.len());
        for at in file.path.match_indices('/').map(|(at, _)| at).skip(1).chain(whole) {
            if root.open(&file.path[1..at])?.is_none() {
                missing.insert(file.path[..at].to_owned());
            }
        }
    }
    Ok(missing.into_iter().collect())
}

/// The places of all files and links that a deployment of the container ever had, as far as there are records.
pub fn own_places(root: &Folder, name: &ContainerName) -> Result<BTreeSet<String>> {
    Ok(known(root, name)?.into_iter().filter(|placed| !placed.what.is_folder()).map(|placed| placed.path).collect())
}

/// What is at the place of a file that this container, whose places are `own`, did not put there.
pub fn in_the_way(root: &Folder, own: &BTreeSet<String>, file: &Ready) -> Result<InTheWay> {
    let Some((folder, last)) = parent(root, &file.path)? else { return Ok(InTheWay::Nothing) };
    let found = there(&folder, &last)?;
    let is_folder = matches!(file.content, Content::Folder { .. });
    Ok(match found {
        There::Nothing => InTheWay::Nothing,
        There::Folder if is_folder => InTheWay::Nothing,
        There::File(_) | There::Link(_) if !is_folder => match (own.contains(&file.path), folder.kind(&kept(&last))?) {
            (true, _) => InTheWay::Nothing,
            (false, None) => InTheWay::Foreign,
            (false, Some(_)) => InTheWay::Never(format!("{}, where it would be kept, is there", kept(&file.path))),
        },
        There::Folder => InTheWay::Never(format!("{} is a folder", file.path)),
        There::Other => InTheWay::Never(format!("{} is no file", file.path)),
        There::File(_) | There::Link(_) => InTheWay::Never(format!("{} is no folder", file.path)),
    })
}

/// Refuses a place that is reached through a link which an image put on the host: what an admin accepted says where a file goes.
pub fn refuse_images_links(root: &Folder, path: &str) -> Result<()> {
    for (at, _) in path.match_indices('/').skip(1) {
        let (above, name) = path[1..at].rsplit_once('/').unwrap_or((".", &path[1..at]));
        let Some(folder) = root.open(above)? else { return Ok(()) };
        if folder.kind(name)? != Some(FileType::Symlink) {
            continue;
        }
        for container in state::names(root)? {
            let of_image = known(root, &container)?.iter().any(|one| one.path == path[..at] && one.what.is_link());
            ensure!(
                !of_image,
                "{path}: {} is a link that {container} put there, and no file of an image goes through one",
                &path[..at]
            );
        }
    }
    Ok(())
}

/// Keeps what a deployment places, in its own folder.
pub fn keep(deployment: &Folder, files: &[Ready]) -> Result<()> {
    let mut contents = files.iter().filter_map(|file| match &file.content {
        Content::File { bytes, .. } => Some(bytes),
        Content::Link { .. } | Content::Folder { .. } => None,
    });
    let mut copies = None;
    contents.try_for_each(|bytes| {
        let copies = match &mut copies {
            Some(copies) => copies,
            none => none.insert(deployment.create(COPIES, 0o700)?),
        };
        copies.write_new_bytes(&digest(bytes), bytes, 0o600)
    })?;
    copies.map_or(Ok(()), |copies| copies.sync())
}

/// Writes each file under a temporary name in the folder where it will lie, synced. A folder is made where it will be.
pub fn stage(root: &Folder, record: &Deployment, files: &[Ready]) -> Result<()> {
    for file in files {
        let (folder, name) = make_parent(root, &file.path)?;
        match &file.content {
            Content::File { bytes, mode } => folder.write_new_bytes(&temporary(&name, record.id), bytes, *mode)?,
            Content::Link { target } => folder.write_new_link(&temporary(&name, record.id), target)?,
            Content::Folder { mode } => drop(folder.create(&name, *mode)?),
        }
        folder.sync()?;
    }
    Ok(())
}

/// Takes back what [`stage`] wrote.
pub fn discard(root: &Folder, name: &ContainerName, id: u32) -> Result<()> {
    let Ok(record) = state::deployment(root, name, id) else { return Ok(()) };
    for placed in &record.host_files {
        if let Some((folder, file)) = parent(root, &placed.path)? {
            // Synced whoever removed it: what stopped before may not have been, and the record goes next.
            folder.remove(&temporary(&file, id))?;
            folder.sync()?;
        }
    }
    // Of a folder that another deployment has, too, this one was not the maker.
    let others = readable(root, name)?.into_iter().filter(|other| other.id != id);
    let kept: Vec<String> = others.flat_map(|other| other.host_files).map(|placed| placed.path).collect();
    remove_folders(root, record.host_folders.iter().filter(|folder| !kept.contains(folder)))
}

/// Puts the files of deployment `new` in their places and takes those away that only `old` had, by renames where they are staged. Can be
/// done again.
pub fn switch(root: &Folder, name: &ContainerName, old: Option<u32>, new: u32) -> Result<()> {
    let new = state::deployment(root, name, new)?;
    let old = old.and_then(|id| state::deployment(root, name, id).ok());
    let gone = old.iter().flat_map(|old| &old.host_files);
    let gone: Vec<&Placed> =
        gone.filter(|placed| !new.host_files.iter().any(|file| file.is_same_place(placed))).collect();
    if new.host_files.is_empty() && gone.is_empty() {
        return Ok(());
    }
    let known = known(root, name)?;
    // First, because a link of the one may stand where the other has a folder.
    gone.into_iter().try_for_each(|placed| take_away(root, &known, placed))?;
    if let Some(old) = &old {
        let made = gone_folders(old, &new);
        remove_folders(root, made)?;
    }
    for file in &new.host_files {
        place(root, &known, old.as_ref(), &new, file).with_context(|| format!("placing {}", file.path))?;
    }
    Ok(())
}

/// Folders of the old deployment itself, made for it, that the new one has not.
fn gone_folders<'a>(old: &'a Deployment, new: &'a Deployment) -> impl DoubleEndedIterator<Item = &'a String> {
    let has = |record: &Deployment, path: &String| {
        record.host_files.iter().any(|placed| placed.path == *path && placed.what.is_folder())
    };
    old.host_folders.iter().filter(move |path| has(old, path) && !has(new, path))
}

fn place(root: &Folder, known: &[Placed], old: Option<&Deployment>, new: &Deployment, file: &Placed) -> Result<()> {
    let (folder, name) = make_parent(root, &file.path)?;
    let found = there(&folder, &name)?;
    if let What::Folder { mode } = file.what {
        return if found == There::Nothing { folder.create(&name, mode).map(drop) } else { Ok(()) };
    }
    let staged = temporary(&name, new.id);
    let was = old.and_then(|old| old.host_files.iter().find(|placed| placed.is_same_place(file)));
    let is_ours =
        |found: &There| *found != There::Folder && known.iter().any(|one| one.path == file.path && found.is(&one.what));
    // Only what was there before the first file of ours gives way to it.
    let replaces = file.replaces && was.is_none() && matches!(found, There::File(_) | There::Link(_));
    let to = match &found {
        There::Nothing => Some(name.clone()),
        found if found.is(&file.what) => None,
        found if is_ours(found) => Some(name.clone()),
        _ if replaces && folder.kind(&kept(&name))?.is_none() => {
            rustix::fs::linkat(&folder, &name, &folder, kept(&name), AtFlags::empty()).context("keeping a copy")?;
            folder.sync()?;
            Some(name.clone())
        }
        // Linked, and the rename did not follow.
        found if replaces && there(&folder, &kept(&name))? == *found => Some(name.clone()),
        // Edited: as dpkg does, it stays, and a newer text is put beside it; going back takes that away.
        _ if old.is_some_and(|old| old.id > new.id) => {
            remove_if_known(&folder, &newer(&name), known, &file.path)?;
            None
        }
        _ if was.is_some_and(|was| was.what == file.what) => None,
        _ => Some(newer(&name)).filter(|beside| there(&folder, beside).map_or(true, |found| !found.is(&file.what))),
    };
    match to {
        None => {
            if folder.remove(&staged)? {
                folder.sync()?;
            }
            Ok(())
        }
        Some(to) if folder.kind(&staged)?.is_some() => folder.rename(&staged, &to),
        Some(to) => match &file.what {
            What::File { sha256, mode } => {
                let copies = root.open(&format!("{}/{COPIES}", layout::deployment(&new.name, new.id)))?;
                let content = copies.map(|copies| read(&copies, sha256)).transpose()?.flatten();
                folder.write_bytes(&to, &content.context("the deployment's own copy is gone")?, *mode)
            }
            What::Link { target } => folder.link(&to, target),
            What::Folder { .. } => Ok(()),
        },
    }
}

/// Removes a file that is as it was placed; what it took the place of comes back.
fn take_away(root: &Folder, known: &[Placed], placed: &Placed) -> Result<()> {
    if placed.what.is_folder() {
        return Ok(());
    }
    let Some((folder, name)) = parent(root, &placed.path)? else { return Ok(()) };
    remove_if_known(&folder, &newer(&name), known, &placed.path)?;
    remove_if_known(&folder, &name, known, &placed.path)?;
    let replaced = known.iter().any(|one| one.path == placed.path && one.replaces);
    if replaced && folder.kind(&kept(&name))?.is_some() && folder.kind(&name)?.is_none() {
        folder.rename(&kept(&name), &name)?;
    }
    Ok(())
}

/// Removes every file of the container that is as it was placed, whatever is staged, and the folders that were made for them.
pub fn withdraw(root: &Folder, name: &ContainerName) -> Result<()> {
    let records = readable(root, name)?;
    let known: Vec<Placed> = records.iter().flat_map(|record| record.host_files.clone()).collect();
    for record in &records {
        for placed in &record.host_files {
            if let Some((folder, file)) = parent(root, &placed.path)? {
                folder.remove(&temporary(&file, record.id))?;
                folder.sync()?;
            }
            take_away(root, &known, placed)?;
        }
    }
    records.iter().try_for_each(|record| remove_folders(root, record.host_folders.iter()))
}

/// Is each file what was placed? One below /etc may have been edited, and is there.
pub fn verify(root: &Folder, name: &ContainerName, id: u32, report: &mut Report) -> Result<()> {
    let Ok(record) = state::deployment(root, name, id) else { return Ok(()) };
    for placed in &record.host_files {
        report.checked += 1;
        let found = match parent(root, &placed.path)? {
            Some((folder, file)) => there(&folder, &file)?,
            None => There::Nothing,
        };
        let path = root.path().join(&placed.path[1..]).display().to_string();
        match found {
            There::Nothing => report.add("placed", path, "it is missing"),
            found if found.is(&placed.what) => {}
            There::File(_) | There::Link(_)
                if !placed.what.is_folder() && host_files::is_configuration(&placed.path) => {}
            There::File(_) if matches!(placed.what, What::File { .. }) => {
                report.add("placed", path, "its content is not what was installed")
            }
            There::Link(_) if placed.what.is_link() => report.add("placed", path, "it leads elsewhere"),
            _ => report.add("placed", path, format!("it is no {}", placed.what.word())),
        }
    }
    Ok(())
}

/// All files that a deployment of the container ever placed, as far as there are records.
fn known(root: &Folder, name: &ContainerName) -> Result<Vec<Placed>> {
    Ok(readable(root, name)?.into_iter().flat_map(|record| record.host_files).collect())
}

/// A record that cannot be read holds nothing up: what only that one knows of stays.
fn readable(root: &Folder, name: &ContainerName) -> Result<Vec<Deployment>> {
    let ids = state::deployment_ids(root, name)?;
    Ok(ids.into_iter().filter_map(|id| state::deployment(root, name, id).ok()).collect())
}

fn remove_if_known(folder: &Folder, name: &str, known: &[Placed], path: &str) -> Result<()> {
    let found = there(folder, name)?;
    if !matches!(found, There::Nothing | There::Folder)
        && known.iter().any(|one| one.path == path && found.is(&one.what))
    {
        folder.remove(name)?;
        folder.sync()?;
    }
    Ok(())
}

/// The innermost first; what somebody put something into stays.
fn remove_folders<'a>(root: &Folder, paths: impl DoubleEndedIterator<Item = &'a String>) -> Result<()> {
    for path in paths.rev() {
        let (above, name) =
            path.trim_start_matches('/').rsplit_once('/').unwrap_or((".", path.trim_start_matches('/')));
        if let Some(above) = root.open(above)?
            && above.kind(name)? == Some(FileType::Directory)
            && above.remove_empty(name)?
        {
            above.sync()?;
        }
    }
    Ok(())
}

fn read(folder: &Folder, name: &str) -> Result<Option<Vec<u8>>> {
    if folder.kind(name)? != Some(FileType::RegularFile) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty()).context("opening the copy")?;
    let mut content = Vec::new();
    io::Read::read_to_end(&mut File::from(file), &mut content).context("reading the copy")?;
    Ok(Some(content))
}

fn temporary(name: &str, id: u32) -> String {
    format!(".sysctr-{name}.{id}")
}
