//! A merged tree becomes an OSTree commit.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use ostree::glib::{Variant, prelude::*, variant::DictEntry};

use super::{
    layer::{Attributes, ObjectId},
    objects::Objects,
    ostree::{FORMAT, META_CONFIG, META_FOLDERS, META_FORMAT, META_MANIFEST, META_SIZE},
    tree::{Node, NodeId, Tree},
};

const S_IFDIR: u32 = 0o040_000;

/// A content object's header, `(uuuusa(ayay))` in big endian, behind its length.
pub(super) fn header(attributes: &Attributes, kind: u32, target: &str) -> Vec<u8> {
    let mut object = vec![0; 8];
    for number in [attributes.uid, attributes.gid, kind | attributes.mode, 0] {
        object.extend_from_slice(&number.to_be_bytes());
    }
    object.extend_from_slice(target.as_bytes());
    object.push(0);
    let end = object.len() - 8;
    if !attributes.xattrs.is_empty() {
        object.extend_from_slice(xattrs(attributes).data());
    }
    let size = offset_size(object.len() - 8, 1);
    push_offset(&mut object, end, size);
    let length = (object.len() - 8) as u32;
    object[..4].copy_from_slice(&length.to_be_bytes());
    object
}

/// `a(ayay)`: names with their closing NUL, in order.
fn xattrs(attributes: &Attributes) -> Variant {
    let pair = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        Variant::tuple_from_iter([bytes(&[name.as_slice(), &[0]].concat()), bytes(value)])
    };
    Variant::array_from_iter::<(Vec<u8>, Vec<u8>)>(attributes.xattrs.iter().map(pair))
}

/// `ay`. As a list of values, each byte of it would be a value of GLib, of 130 bytes.
fn bytes(data: &[u8]) -> Variant {
    Variant::array_from_fixed_array(data)
}

/// What goes with an image into its commit.
pub struct Metadata<'a> {
    /// the manifest's bytes
    pub manifest: &'a [u8],
    /// the config's bytes
    pub config: &'a [u8],
}

/// Writes folders and the commit; its checksum depends on nothing but the image.
pub fn commit(objects: &Objects, tree: &Tree, metadata: &Metadata<'_>) -> Result<String> {
    let mut writer = Writer { objects, tree, described: BTreeMap::new(), folders: 0 };
    let (contents, meta) = writer.folder(Tree::ROOT).context("writing the image's folders")?;
    let entries = [
        DictEntry::new(META_FORMAT, FORMAT.to_variant()),
        DictEntry::new(META_SIZE, tree.size().to_variant()),
        DictEntry::new(META_FOLDERS, writer.folders.to_variant()),
        DictEntry::new(META_MANIFEST, bytes(metadata.manifest)),
        DictEntry::new(META_CONFIG, bytes(metadata.config)),
    ];
    let entries = Variant::array_from_iter::<DictEntry<&str, Variant>>(entries.iter().map(|entry| entry.to_variant()));
    let no_related = Vec::<(String, Vec<u8>)>::new();
    // (a{sv}aya(say)sstayay): what it is about, parent, related ones, subject, body, time, root
    let commit = Variant::tuple_from_iter([
        entries,
        bytes(&[]),
        no_related.to_variant(),
        "image".to_variant(),
        "".to_variant(),
        0u64.to_variant(),
        bytes(&contents),
        bytes(&meta),
    ]);
    Ok(hex(&objects.metadata("commit", commit.data())?))
}

/// A folder's own object, `(uuua(ayay))` in big endian.
pub(super) fn folder_meta(attributes: &Attributes) -> Variant {
    let mode = S_IFDIR | attributes.mode;
    let fields = [attributes.uid.to_be(), attributes.gid.to_be(), mode.to_be()].map(|field| field.to_variant());
    Variant::tuple_from_iter(fields.into_iter().chain([xattrs(attributes)]))
}

/// Writes the folders of a tree.
struct Writer<'a> {
    objects: &'a Objects,
    tree: &'a Tree,
    /// attributes that were written: a thousand folders have a few
    described: BTreeMap<&'a Attributes, ObjectId>,
    folders: u64,
}

impl<'a> Writer<'a> {
    /// A folder and all below it, as deep as [`Tree`] lets folders be: the checksums of what it holds and of its attributes.
    fn folder(&mut self, id: NodeId) -> Result<(ObjectId, ObjectId)> {
        self.folders += 1;
        let mut listed = FolderObject::default();
        for (name, child) in self.tree.children(id) {
            match self.tree.node(child) {
                Node::Dir(_) => {
                    let (contents, meta) = self.folder(child)?;
                    listed.folders.add(name, &[&contents, &meta]);
                }
                Node::File(object, _) | Node::Symlink(object, _) => listed.files.add(name, &[object]),
            }
        }
        let Node::Dir(attributes) = self.tree.node(id) else { bail!("a file where a folder is expected") };
        let meta = match self.described.get(attributes) {
            Some(meta) => *meta,
            None => {
                let meta = self.objects.metadata("dirmeta", folder_meta(attributes).data())?;
                self.described.insert(attributes, meta);
                meta
            }
        };
        Ok((self.objects.metadata("dirtree", &listed.serialise())?, meta))
    }
}

/// What a folder holds, `(a(say)a(sayay))`, written by ourselves: as values of GLib, each of its names would take some 500 bytes.
///
/// The [format](https://people.gnome.org/~desrt/gvariant-serialisation.pdf) puts behind the parts of each container where they end.
#[derive(Default)]
struct FolderObject {
    files: Listing,
    folders: Listing,
}

#[derive(Default)]
struct Listing {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Listing {
    /// In the order of names.
    fn add(&mut self, name: &str, checksums: &[&ObjectId]) {
        let begin = self.data.len();
        self.data.extend_from_slice(name.as_bytes());
        self.data.push(0);
        let mut ends = Vec::with_capacity(checksums.len());
        for checksum in checksums {
            ends.push(self.data.len() - begin);
            self.data.extend_from_slice(*checksum);
        }
        // those of a tuple stand in reverse, its last part has none
        let size = offset_size(self.data.len() - begin, ends.len());
        ends.iter().rev().for_each(|end| push_offset(&mut self.data, *end, size));
        // a million names of 255 bytes and what goes with them are less than 4 GiB
        self.ends.push(self.data.len() as u32);
    }

    fn serialise(mut self) -> Vec<u8> {
        let size = offset_size(self.data.len(), self.ends.len());
        self.ends.iter().for_each(|end| push_offset(&mut self.data, *end as usize, size));
        self.data
    }
}

impl FolderObject {
    fn serialise(self) -> Vec<u8> {
        let mut data = self.files.serialise();
        let end = data.len();
        data.extend_from_slice(&self.folders.serialise());
        let size = offset_size(data.len(), 1);
        push_offset(&mut data, end, size);
        data
    }
}

/// Bytes that each of so many offsets takes, behind so many bytes: what reaches over all of it.
fn offset_size(bytes: usize, offsets: usize) -> usize {
    [1, 2, 4].into_iter().find(|size| bytes + size * offsets < 1 << (8 * size)).unwrap_or(8)
}

fn push_offset(data: &mut Vec<u8>, offset: usize, size: usize) {
    data.extend_from_slice(&offset.to_le_bytes()[..size]);
}

pub(super) fn hex(id: &ObjectId) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    id.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

pub(super) fn unhex(hex: &str) -> Result<ObjectId> {
    let mut id = ObjectId::default();
    ensure!(hex.len() == 2 * id.len() && hex.is_ascii(), "{hex:?} is no checksum");
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16)?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_as_glib_writes_them() {
        let with = |xattrs: &[(&str, usize)]| Attributes {
            uid: 33,
            gid: 70_000,
            mode: 0o4755,
            xattrs: xattrs.iter().map(|(name, length)| (name.as_bytes().to_vec(), vec![7; *length])).collect(),
        };
        let sets = [with(&[]), with(&[("user.a", 0)]), with(&[("security.capability", 20), ("user.b", 70_000)])];
        for attributes in sets {
            for target in ["", "a", &"t".repeat(236), &"t".repeat(237), &"t".repeat(238), &"t".repeat(4000)] {
                let mode = S_IFDIR | attributes.mode;
                let fields = (attributes.uid.to_be(), attributes.gid.to_be(), mode.to_be(), 0u32, target);
                let list = xattrs(&attributes);
                let glib = Variant::tuple_from_iter([
                    fields.0.to_variant(),
                    fields.1.to_variant(),
                    fields.2.to_variant(),
                    fields.3.to_variant(),
                    fields.4.to_variant(),
                    list,
                ]);
                let ours = header(&attributes, S_IFDIR, target);
                assert!(ours[8..] == *glib.data(), "{} and {:?}", target.len(), attributes.xattrs.keys());
                assert_eq!(ours[..8], [&(glib.size() as u32).to_be_bytes()[..], &[0; 4]].concat());
            }
        }
    }

    #[test]
    fn bytes_at_once_are_what_glib_makes_of_each() {
        for length in [0, 1, 20, 255, 256, 70_000] {
            let data: Vec<u8> = (0..length).map(|at| at as u8).collect();
            assert!(bytes(&data) == data.to_variant());
            let one = |name: &str| (name.as_bytes().to_vec(), data.clone());
            for named in [vec![], vec![one("user.a")], vec![one("user.a"), one("user.bb")]] {
                let ours = Attributes { xattrs: named.iter().cloned().collect(), ..Attributes::implied() };
                let named = named.into_iter().map(|(name, value)| ([name, vec![0]].concat(), value));
                let glib = named.collect::<Vec<(Vec<u8>, Vec<u8>)>>().to_variant();
                assert!(xattrs(&ours) == glib && xattrs(&ours).data() == glib.data(), "{length}");
            }
            let ours =
                Variant::array_from_iter::<DictEntry<&str, Variant>>([DictEntry::new("a", bytes(&data)).to_variant()]);
            let glib = Variant::array_from_iter::<DictEntry<&str, Variant>>([
                DictEntry::new("a", data.to_variant()).to_variant()
            ]);
            assert!(ours.data() == glib.data(), "{length}");
        }
    }

    #[test]
    fn folders_are_written_as_glib_writes_them() {
        let long = "n".repeat(255);
        // around each length at which offsets grow
        for count in [0, 1, 2, 5, 6, 7, 8, 40, 200, 1500, 1900, 3000] {
            for names in [vec!["a".to_owned()], vec!["name".to_owned(), long.clone()]] {
                let name =
                    |at: usize| format!("{at:05}{}", names[at % names.len()]).chars().take(255).collect::<String>();
                let mut ours = FolderObject::default();
                let (mut files, mut folders) = (Vec::new(), Vec::new());
                for at in 0..count {
                    let id: ObjectId = [at as u8; 32];
                    ours.files.add(&name(at), &[&id]);
                    files.push((name(at), id.to_vec()));
                    if at % 3 == 0 {
                        ours.folders.add(&name(at), &[&id, &[1; 32]]);
                        folders.push((name(at), id.to_vec(), vec![1u8; 32]));
                    }
                }
                assert!(ours.serialise() == (files, folders).to_variant().data(), "{count} of {} bytes", names.len());
            }
        }
    }
}
