//! The places of an image's files on the host: reached without following what a container could have put there, and what lies at them.

use std::{fs::File, io};

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::dir::Folder;
use crate::model::{digest::Digest, host_files::What, host_lines};

/// What lies at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum There {
    Nothing,
    /// A file with this digest.
    File(String),
    /// A link that says this.
    Link(String),
    Folder,
    /// A device, a socket.
    Other,
}

impl There {
    /// Whether it is what was placed. The mode is not compared: whoever changed that meant it.
    pub fn is(&self, what: &What) -> bool {
        match (self, what) {
            (There::File(found), What::File { sha256, .. }) => found == sha256,
            (There::Link(found), What::Link { target }) => found == target,
            (There::Folder, What::Folder { .. }) => true,
            _ => false,
        }
    }
}

/// The folder of a file and the file's name in it; none where there is no such folder.
pub fn parent(root: &Folder, path: &str) -> Result<Option<(Folder, String)>> {
    let (above, name) = split(path)?;
    refuse_links(root, path)?;
    let Some(folder) = root.open(above)? else { return Ok(None) };
    refuse_forbidden(root, &folder, path)?;
    Ok(Some((folder, name.to_owned())))
}

pub fn make_parent(root: &Folder, path: &str) -> Result<(Folder, String)> {
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

/// What lies at a name.
pub fn there(folder: &Folder, name: &str) -> Result<There> {
    Ok(match folder.kind(name)? {
        None => There::Nothing,
        Some(FileType::RegularFile) => There::File(digest_of(folder, name)?),
        Some(FileType::Symlink) => folder.link_target(name).map_or(There::Other, There::Link),
        Some(FileType::Directory) => There::Folder,
        Some(_) => There::Other,
    })
}

fn digest_of(folder: &Folder, name: &str) -> Result<String> {
    let context = || format!("reading {}", folder.path().join(name).display());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty()).with_context(context)?;
    let mut hasher = Sha256::new();
    let (mut file, mut buffer) = (File::from(file), vec![0; 64 * 1024]);
    loop {
        match io::Read::read(&mut file, &mut buffer).with_context(context)? {
            0 => return Ok(Digest::from_sha256(hasher.finalize().into()).hex().to_owned()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// How a content is known, in hexadecimal digits.
pub fn digest(content: &[u8]) -> String {
    Digest::from_sha256(Sha256::digest(content).into()).hex().to_owned()
}
