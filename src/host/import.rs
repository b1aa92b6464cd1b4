//! A merged tree becomes an OSTree commit.

use anyhow::{Context, Result};
use ostree::{
    MutableTree, ObjectType, Repo,
    glib::{Variant, prelude::*, variant::DictEntry},
};

use super::{
    layer::{Attributes, Node, NodeId, ObjectId, Tree},
    ostree::{FORMAT, META_CONFIG, META_FORMAT, META_MANIFEST, META_SIZE, NO_CANCEL},
};

const S_IFDIR: u32 = 0o040_000;

/// A content object's header, `(uuuusa(ayay))` in big endian, behind its length.
pub(super) fn header(attributes: &Attributes, kind: u32, target: &str) -> Vec<u8> {
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

pub(super) fn hex(id: &ObjectId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
