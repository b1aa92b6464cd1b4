//! A layer read: [`read`] stores its contents through an [`Importer`], several layers side by side, and hands on what is left of each
//! entry, from which a [`Tree`](super::tree::Tree) is made layer by layer.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};

use super::{
    paths::{MAX_PATH, split, text},
    tarball::{Entry, Kind, TarReader},
    walk::XATTR_MAX,
};

pub(super) const WHITEOUT: &str = ".wh.";

/// Owner, permission bits and extended attributes of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attributes {
    /// owner
    pub uid: u32,
    /// group
    pub gid: u32,
    /// permission bits, with setuid, setgid and sticky
    pub mode: u32,
    /// extended attributes
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Attributes {
    /// Of a folder that no layer describes.
    pub fn implied() -> Attributes {
        Attributes { uid: 0, gid: 0, mode: 0o755, xattrs: BTreeMap::new() }
    }
}

/// SHA-256 of a content object.
pub type ObjectId = [u8; 32];

/// Takes the contents that layers bring.
pub trait Importer {
    /// Stores a file's content, `size` bytes of it, last changed at `mtime`, in seconds since 1970.
    fn file(&mut self, attributes: &Attributes, mtime: i64, size: u64, content: &mut dyn Read) -> Result<ObjectId>;
    /// Fails where no folder can have these attributes. Asked of those with extended ones; they are stored with the commit.
    fn folder(&mut self, attributes: &Attributes) -> Result<()>;
    /// Stores a symbolic link.
    fn symlink(&mut self, attributes: &Attributes, target: &str) -> Result<ObjectId>;
}

/// Bytes that the files of all layers together may have.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    used: AtomicU64,
}

impl Room {
    /// For so many bytes.
    pub fn of(limit: u64) -> Room {
        Room { limit, used: AtomicU64::new(0) }
    }

    /// Bytes that there are in all.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    fn take(&self, bytes: u64) -> Result<()> {
        // No sum of two that were let in wraps: each is at most the limit, which is a disk's.
        let used = self.used.load(Ordering::Relaxed).saturating_add(bytes);
        ensure!(used <= self.limit, "the image is larger than the free space ({} bytes)", self.limit);
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// An entry of a layer whose content is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
    /// names of attributes that are not kept
    pub(super) left_out: Vec<Vec<u8>>,
    /// none for what brings no object
    pub(super) object: Option<ObjectId>,
}

impl Piece {
    /// Bytes of memory that it takes, roughly.
    pub(super) fn weight(&self) -> usize {
        let xattrs = self.attributes.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>();
        let left_out = self.left_out.iter().map(|name| name.len() + 32).sum::<usize>();
        size_of::<Piece>() + self.path.len() + self.link.len() + xattrs + left_out
    }
}

/// Reads a layer to its end: stores its contents, and hands each entry on.
pub fn read(
    layer: &mut dyn Read,
    importer: &mut dyn Importer,
    room: &Room,
    to: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<()> {
    let mut reader = TarReader::new(layer);
    while let Some(entry) = reader.next_entry()? {
        let shown = entry.path.clone();
        to(piece(entry, &mut reader, importer, room).with_context(|| named(&shown))?)?;
    }
    Ok(())
}

fn piece(entry: Entry, content: &mut dyn Read, importer: &mut dyn Importer, room: &Room) -> Result<Piece> {
    let Entry { path, kind, mode, uid, gid, size, mtime, link, xattrs } = entry;
    split(&path)?;
    ensure!(link.len() < MAX_PATH, "the link's target is too long");
    let (kept, others): (BTreeMap<_, _>, BTreeMap<_, _>) = xattrs.into_iter().partition(|(name, _)| kept(name));
    for (name, value) in &kept {
        let (shown, most) = (String::from_utf8_lossy(name), XATTR_MAX);
        ensure!(!name.contains(&0), "the name of its attribute {shown:?} holds a NUL");
        ensure!(value.len() <= most, "its attribute {shown:?} is larger than {most} bytes");
    }
    let left_out = others.into_keys().filter(|name| name != b"security.selinux").collect();
    let mut attributes = Attributes { uid, gid, mode, xattrs: kept };
    // Whiteouts and the like say what to do: their content is nobody's.
    let speaks = path.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT.as_bytes()));
    let object = match kind {
        _ if speaks => None,
        Kind::File => {
            room.take(size)?;
            Some(importer.file(&attributes, mtime, size, content)?)
        }
        Kind::Symlink => {
            let target = text(&link).context("the link's target")?;
            ensure!(!target.is_empty() && target.len() < MAX_PATH, "the link's target is empty or too long");
            // no attribute that we keep may stand on a link
            attributes = Attributes { xattrs: BTreeMap::new(), mode: 0o777, ..attributes };
            Some(importer.symlink(&attributes, target)?)
        }
        Kind::Dir if !attributes.xattrs.is_empty() => {
            importer.folder(&attributes)?;
            None
        }
        Kind::Dir | Kind::Hardlink | Kind::Special => None,
    };
    Ok(Piece { path, kind, link, size, attributes, left_out, object })
}

/// Only attributes that mean the same on every machine are kept: labels and overlay marks are the host's.
pub(super) fn kept(xattr: &[u8]) -> bool {
    let user = xattr.starts_with(b"user.") && !xattr.starts_with(b"user.overlay.");
    user || matches!(xattr, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// What an error calls an entry; a name may have a megabyte.
pub(super) fn named(path: &[u8]) -> String {
    format!("layer entry {}", shortened(path))
}

/// Quoted, and cut where nobody would read on.
pub(super) fn shortened(name: &[u8]) -> String {
    const MOST: usize = 200;
    let more = if name.len() > MOST { "..." } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(&name[..name.len().min(MOST)]))
}
