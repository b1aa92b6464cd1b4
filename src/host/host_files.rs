//! Files of an image on the host: staged beside their places under temporary names, placed by renames, and withdrawn again. One that is
//! not as it was placed belongs to whoever changed it.
//!
//! ```text
//! PATH                the file
//! PATH.sysctr-new     where PATH was edited: the text of the deployment in force
//! PATH.sysctr-old     where PATH was somebody else's and the admin let it be replaced: that one
//! deployments/N/host/SHA256   what deployment N places
//! ```

use std::{collections::BTreeSet, fs::File, io};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::{dir::Folder, fsck::Report, state};
use crate::model::{
    deployment::Deployment,
    digest::Digest,
    host_files::{self, Placed, Ready, kept, newer},
    host_lines, layout,
    name::ContainerName,
};

/// In a deployment's folder: what it places, by digest.
const COPIES: &str = "host";

/// What lies at a place.
#[derive(Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// A file with this digest.
    File(String),
    /// A folder, a link, a device.
    Other,
}

/// The records of files that are to be placed.
pub fn records(files: &[Ready]) -> Vec<Placed> {
    let record = |file: &Ready| Placed {
        path: file.path.clone(),
        sha256: digest(&file.content),
        mode: file.mode,
        replaces: file.replaces,
    };
    files.iter().map(record).collect()
}

/// Folders that have to be made for these files, the outer ones first.
pub fn missing_folders(root: &Folder, files: &[Ready]) -> Result<Vec<String>> {
    let mut missing = BTreeSet::new();
    for file in files {
        for (at, _) in file.path.match_indices('/').skip(1) {
            if root.open(&file.path[1..at])?.is_none() {
                missing.insert(file.path[..at].to_owned());
            }
        }
    }
    Ok(missing.into_iter().collect())
}

/// Whether something is at the place of a file that this container did not put there.
pub fn is_foreign(root: &Folder, name: &ContainerName, path: &str) -> Result<bool> {
    let Some((folder, file)) = parent(root, path)? else { return Ok(false) };
    Ok(match there(&folder, &file)? {
        There::Nothing => false,
        There::File(_) => !known(root, name)?.iter().any(|placed| placed.path == path),
        There::Other => true,
    })
}

/// Keeps what a deployment places, in its own folder.
pub fn keep(deployment: &Folder, files: &[Ready]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let copies = deployment.create(COPIES, 0o700)?;
    files.iter().try_for_each(|file| copies.write_new_bytes(&digest(&file.content), &file.content, 0o600))?;
    copies.sync()
}

/// Writes each file under a temporary name in the folder where it will lie, synced.
pub fn stage(root: &Folder, record: &Deployment, files: &[Ready]) -> Result<()> {
    for file in files {
        let (folder, name) = make_parent(root, &file.path)?;
        folder.write_new_bytes(&temporary(&name, record.id), &file.content, file.mode)?;
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
    remove_folders(root, &record)
}

/// Puts the files of deployment `new` in their places and takes those away that only `old` had, by renames where they are staged. Can be
/// done again.
pub fn switch(root: &Folder, name: &ContainerName, old: Option<u32>, new: u32) -> Result<()> {
    let new = state::deployment(root, name, new)?;
    let old = old.and_then(|id| state::deployment(root, name, id).ok());
    let gone = old.iter().flat_map(|old| &old.host_files);
    let gone: Vec<&Placed> =
        gone.filter(|placed| !new.host_files.iter().any(|file| file.path == placed.path)).collect();
    if new.host_files.is_empty() && gone.is_empty() {
        return Ok(());
    }
    let known = known(root, name)?;
    for file in &new.host_files {
        place(root, &known, old.as_ref(), &new, file).with_context(|| format!("placing {}", file.path))?;
    }
    gone.into_iter().try_for_each(|placed| take_away(root, &known, placed))
}

fn place(root: &Folder, known: &[Placed], old: Option<&Deployment>, new: &Deployment, file: &Placed) -> Result<()> {
    let (folder, name) = make_parent(root, &file.path)?;
    let staged = temporary(&name, new.id);
    let was = old.and_then(|old| old.host_files.iter().find(|placed| placed.path == file.path));
    let is_ours = |sha256: &String| known.iter().any(|one| one.path == file.path && one.sha256 == *sha256);
    let to = match there(&folder, &name)? {
        There::Nothing => Some(name.clone()),
        There::File(sha256) if sha256 == file.sha256 => None,
        There::File(sha256) if is_ours(&sha256) => Some(name.clone()),
        There::File(_) if file.replaces && folder.kind(&kept(&name))?.is_none() => {
            rustix::fs::linkat(&folder, &name, &folder, kept(&name), AtFlags::empty()).context("keeping a copy")?;
            folder.sync()?;
            Some(name.clone())
        }
        // Linked, and the rename did not follow.
        There::File(sha256) if file.replaces && there(&folder, &kept(&name))? == There::File(sha256.clone()) => {
            Some(name.clone())
        }
        // Edited: as dpkg does, it stays, and a newer text is put beside it; going back takes that away.
        There::File(_) | There::Other if old.is_some_and(|old| old.id > new.id) => {
            remove_if_known(&folder, &newer(&name), known, &file.path)?;
            None
        }
        There::File(_) | There::Other if was.is_some_and(|was| was.sha256 == file.sha256) => None,
        There::File(_) | There::Other => Some(newer(&name))
            .filter(|beside| there(&folder, beside).map_or(true, |found| found != There::File(file.sha256.clone()))),
    };
    match to {
        None => {
            if folder.remove(&staged)? {
                folder.sync()?;
            }
            Ok(())
        }
        Some(to) if folder.kind(&staged)?.is_some() => folder.rename(&staged, &to),
        Some(to) => {
            let copies = root.open(&format!("{}/{COPIES}", layout::deployment(&new.name, new.id)))?;
            let content = copies.map(|copies| read(&copies, &file.sha256)).transpose()?.flatten();
            let content = content.context("the deployment's own copy is gone")?;
            folder.write_bytes(&to, &content, file.mode)
        }
    }
}

/// Removes a file that is as it was placed; what it took the place of comes back.
fn take_away(root: &Folder, known: &[Placed], placed: &Placed) -> Result<()> {
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
    records.iter().try_for_each(|record| remove_folders(root, record))
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
            There::Other => report.add("placed", path, "it is no regular file"),
            There::File(sha256) if sha256 == placed.sha256 || host_files::is_configuration(&placed.path) => {}
            There::File(_) => report.add("placed", path, "its content is not what was installed"),
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
    if let There::File(sha256) = there(folder, name)?
        && known.iter().any(|one| one.path == path && one.sha256 == sha256)
    {
        folder.remove(name)?;
        folder.sync()?;
    }
    Ok(())
}

/// The innermost first; what somebody put something into stays.
fn remove_folders(root: &Folder, record: &Deployment) -> Result<()> {
    for path in record.host_folders.iter().rev() {
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

/// The folder of a file and the file's name in it; none where there is no such folder.
fn parent(root: &Folder, path: &str) -> Result<Option<(Folder, String)>> {
    let (above, name) = split(path)?;
    refuse_links(root, path)?;
    let Some(folder) = root.open(above)? else { return Ok(None) };
    refuse_forbidden(root, &folder, path)?;
    Ok(Some((folder, name.to_owned())))
}

fn make_parent(root: &Folder, path: &str) -> Result<(Folder, String)> {
    let (above, name) = split(path)?;
    refuse_links(root, path)?;
    let folder = root.create(above, 0o755)?;
    refuse_forbidden(root, &folder, path)?;
    Ok((folder, name.to_owned()))
}

fn split(path: &str) -> Result<(&str, &str)> {
    let parts = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
    parts.with_context(|| format!("{path:?} is no path of a file below a folder"))
}

/// Below /var/lib programs may make links where a folder was: none is followed there.
fn refuse_links(root: &Folder, path: &str) -> Result<()> {
    const STATE: &str = "/var/lib/";
    let Some(rest) = path.strip_prefix(STATE) else { return Ok(()) };
    let Some(folder) = root.open(&STATE[1..STATE.len() - 1])? else { return Ok(()) };
    for (at, _) in rest.match_indices('/') {
        match folder.kind(&rest[..at])? {
            None => return Ok(()),
            Some(FileType::Symlink) => bail!("{STATE}{} is a symbolic link, and none is followed there", &rest[..at]),
            Some(_) => {}
        }
    }
    Ok(())
}

/// A link of the host's may lead to where no image writes.
fn refuse_forbidden(root: &Folder, folder: &Folder, path: &str) -> Result<()> {
    let (real, root) = (folder.real_path()?, root.real_path()?);
    let below = real.strip_prefix(&root).unwrap_or(&real);
    let real = format!("/{}/x", below.display().to_string().trim_matches('/'));
    match host_lines::forbidden(&real) {
        Some(place) => bail!("{path} lies below {place}, where nothing of an image is written"),
        None => Ok(()),
    }
}

fn there(folder: &Folder, name: &str) -> Result<There> {
    match folder.kind(name)? {
        None => Ok(There::Nothing),
        Some(FileType::RegularFile) => {
            let context = || format!("reading {}", folder.path().join(name).display());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = rustix::fs::openat(folder, name, flags, Mode::empty()).with_context(context)?;
            let mut hasher = Sha256::new();
            let (mut file, mut buffer) = (File::from(file), vec![0; 64 * 1024]);
            loop {
                match io::Read::read(&mut file, &mut buffer).with_context(context)? {
                    0 => break,
                    read => hasher.update(&buffer[..read]),
                }
            }
            Ok(There::File(Digest::from_sha256(hasher.finalize().into()).hex().to_owned()))
        }
        Some(_) => Ok(There::Other),
    }
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

fn digest(content: &[u8]) -> String {
    Digest::from_sha256(Sha256::digest(content).into()).hex().to_owned()
}

fn temporary(name: &str, id: u32) -> String {
    format!(".sysctr-{name}.{id}")
}
