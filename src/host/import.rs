//! A merged tree becomes an OSTree commit.

use std::{
    io::{Cursor, Read, Seek, Write},
    path::PathBuf,
};

use anyhow::{Context, Result};
use ostree::{
    MutableTree, ObjectType, Repo,
    gio::{self, prelude::*},
    glib::{self, Variant, variant::DictEntry},
};
use sha2::{Digest as _, Sha256};

use super::{
    layer::{Attributes, Importer, Node, NodeId, ObjectId, Tree},
    ostree::{FORMAT, META_CONFIG, META_FORMAT, META_MANIFEST, META_SIZE, NO_CANCEL},
};

/// Larger files wait on disk rather than in memory until their hash is known.
const BUFFERED: u64 = 8 * 1024 * 1024;
const CHUNK: usize = 256 * 1024;

/// Writes each content into the open transaction through libostree, with a hash made by the processor's own instructions:
/// libostree's own, in software, takes several times as long. So the hash has to be known before the writing starts.
pub struct TrustedImporter<'a> {
    repo: &'a Repo,
    tmp: PathBuf,
}

impl<'a> TrustedImporter<'a> {
    /// Writes into the transaction that is open in this repository; `tmp`, on the same disk, takes large files meanwhile.
    pub fn new(repo: &'a Repo, tmp: PathBuf) -> TrustedImporter<'a> {
        TrustedImporter { repo, tmp }
    }

    /// `object` is a content stream: the header's length, four zero bytes, the header, the content.
    fn write(&self, object: Vec<u8>) -> Result<ObjectId> {
        let id: ObjectId = Sha256::digest(&object).into();
        let length = object.len() as u64;
        let stream = gio::MemoryInputStream::from_bytes(&glib::Bytes::from_owned(object));
        self.repo.write_content_trusted(&hex(&id), &stream, length, NO_CANCEL)?;
        Ok(id)
    }

    /// The same for a content too large for memory. Its copy has no name and goes with its last handle.
    fn write_large(&self, header: Vec<u8>, size: u64, content: &mut dyn Read) -> Result<ObjectId> {
        let mut copy = tempfile::tempfile_in(&self.tmp)?;
        let mut hash = Sha256::new_with_prefix(&header);
        let mut buffer = vec![0; CHUNK];
        let mut left = size;
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
            content.read_exact(&mut buffer[..want])?;
            hash.update(&buffer[..want]);
            copy.write_all(&buffer[..want])?;
            left -= want as u64;
        }
        copy.rewind()?;
        let id: ObjectId = hash.finalize().into();
        let length = header.len() as u64 + size;
        let stream = gio::ReadInputStream::new(Cursor::new(header).chain(copy));
        self.repo.write_content_trusted(&hex(&id), &stream, length, NO_CANCEL)?;
        Ok(id)
    }
}

const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFDIR: u32 = 0o040_000;

impl Importer for TrustedImporter<'_> {
    fn file(&mut self, attributes: &Attributes, size: u64, content: &mut dyn Read) -> Result<ObjectId> {
        let mut object = header(attributes, S_IFREG, "");
        if size > BUFFERED {
            return self.write_large(object, size, content);
        }
        let begin = object.len();
        object.reserve_exact(size as usize);
        object.resize(begin + size as usize, 0);
        content.read_exact(&mut object[begin..])?;
        self.write(object)
    }

    fn symlink(&mut self, attributes: &Attributes, target: &str) -> Result<ObjectId> {
        self.write(header(attributes, S_IFLNK, target))
    }
}

/// A content object's header, `(uuuusa(ayay))` in big endian, behind its length.
fn header(attributes: &Attributes, kind: u32, target: &str) -> Vec<u8> {
    let mode = kind | attributes.mode;
    let fields = (attributes.uid.to_be(), attributes.gid.to_be(), mode.to_be(), 0u32, target, xattrs(attributes));
    let (uid, gid, mode, device, target, xattrs) = fields;
    let variant = Variant::tuple_from_iter([
        uid.to_variant(),
        gid.to_variant(),
        mode.to_variant(),
        device.to_variant(),
        target.to_variant(),
        xattrs,
    ]);
    let data = variant.data();
    let mut object = Vec::with_capacity(data.len() + 8);
    object.extend_from_slice(&(data.len() as u32).to_be_bytes());
    object.extend_from_slice(&[0; 4]);
    object.extend_from_slice(data);
    object
}

/// `a(ayay)`: names with their closing NUL, in order.
fn xattrs(attributes: &Attributes) -> Variant {
    let list: Vec<(Vec<u8>, Vec<u8>)> =
        attributes.xattrs.iter().map(|(name, value)| ([name.as_slice(), &[0]].concat(), value.clone())).collect();
    list.to_variant()
}

/// What goes with an image into its commit.
pub struct Metadata<'a> {
    /// the manifest's bytes
    pub manifest: &'a [u8],
    /// the config's bytes
    pub config: &'a [u8],
}

/// Writes folders and the commit; its checksum depends on nothing but the image.
pub fn commit(repo: &Repo, tree: &Tree, metadata: &Metadata<'_>) -> Result<String> {
    let root = MutableTree::new();
    fill(repo, tree, Tree::ROOT, &root)?;
    let root = repo.write_mtree(&root, NO_CANCEL).context("writing the image's folders")?;
    let root = root.downcast::<ostree::RepoFile>().ok().context("libostree gave no tree")?;
    let entries = [
        DictEntry::new(META_FORMAT, FORMAT.to_variant()),
        DictEntry::new(META_SIZE, tree.size().to_variant()),
        DictEntry::new(META_MANIFEST, metadata.manifest.to_variant()),
        DictEntry::new(META_CONFIG, metadata.config.to_variant()),
    ];
    let entries = Variant::array_from_iter::<DictEntry<&str, Variant>>(entries.iter().map(|entry| entry.to_variant()));
    let checksum = repo.write_commit_with_time(None, Some("image"), None, Some(&entries), &root, 0, NO_CANCEL)?;
    Ok(checksum.into())
}

/// A folder's own object, `(uuua(ayay))` in big endian.
pub(super) fn folder_meta(attributes: &Attributes) -> Variant {
    let mode = S_IFDIR | attributes.mode;
    let fields = [attributes.uid.to_be(), attributes.gid.to_be(), mode.to_be()].map(|field| field.to_variant());
    Variant::tuple_from_iter(fields.into_iter().chain([xattrs(attributes)]))
}

/// As deep as [`Tree`] lets folders be.
fn fill(repo: &Repo, tree: &Tree, id: NodeId, into: &MutableTree) -> Result<()> {
    let Node::Dir(attributes, children) = tree.node(id) else { return Ok(()) };
    let meta = folder_meta(attributes);
    let meta = repo.write_metadata(ObjectType::DirMeta, None, &meta, NO_CANCEL)?;
    into.set_metadata_checksum(&meta.to_hex());
    for (name, child) in children {
        match tree.node(*child) {
            Node::Dir(..) => fill(repo, tree, *child, &into.ensure_dir(name)?)?,
            Node::File(object, _) | Node::Symlink(object, _) => into.replace_file(name, &hex(object))?,
        }
    }
    Ok(())
}

fn hex(id: &ObjectId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
