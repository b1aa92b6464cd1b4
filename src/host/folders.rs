//! What the objects of an image's folders say. libostree would take a dozen calls for each of a thousand, and lets one thread read at a
//! time.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use ostree::glib::{Variant, VariantTy};

use super::{import::hex, ostree::Store};

/// One folder: its files and links, and its folders, by name, with the checksums of their objects.
#[derive(Default)]
pub(super) struct StoredFolder {
    pub files: BTreeMap<String, String>,
    pub folders: BTreeMap<String, (String, String)>,
}

/// What a folder's attributes are.
pub(super) struct Meta {
    pub uid: u32,
    pub gid: u32,
    /// with the kind of file
    pub mode: u32,
    /// names with their closing NUL
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads them in the repository at this path, from any thread.
#[derive(Clone, Copy)]
pub(super) struct Folders<'a>(&'a Path);

impl Store {
    /// A way to its folders that libostree has no part in.
    pub(super) fn folders(&self) -> Folders<'_> {
        Folders(self.path())
    }
}

impl Folders<'_> {
    /// What a folder holds, `(a(say)a(sayay))`, not yet looked at.
    pub fn open(self, tree: &str) -> Result<Listed> {
        let listed = self.object(tree, "dirtree", "(a(say)a(sayay))");
        listed.with_context(|| format!("reading the folder object {tree}")).map(Listed)
    }

    /// All of what a folder holds.
    pub fn read(self, tree: &str) -> Result<StoredFolder> {
        let listed = self.open(tree)?;
        let read =
            || anyhow::Ok(StoredFolder { files: listed.files().collect::<Result<_>>()?, folders: listed.folders()? });
        read().with_context(|| format!("reading the folder object {tree}"))
    }

    /// A folder's attributes, `(uuua(ayay))`, big-endian.
    pub fn meta(self, meta: &str) -> Result<Meta> {
        type Fields = (u32, u32, u32, Vec<(Vec<u8>, Vec<u8>)>);
        let variant = self.object(meta, "dirmeta", "(uuua(ayay))")?;
        let (uid, gid, mode, xattrs): Fields =
            variant.get().with_context(|| format!("the folder object {meta} is malformed"))?;
        Ok(Meta { uid: u32::from_be(uid), gid: u32::from_be(gid), mode: u32::from_be(mode), xattrs })
    }

    fn object(self, object: &str, kind: &str, format: &str) -> Result<Variant> {
        let path = self.0.join("objects").join(&object[..2]).join(format!("{}.{kind}", &object[2..]));
        let data = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Variant::from_data_with_type(data, VariantTy::new(format)?))
    }
}

/// What a folder holds, of which a million files need not be in memory at once.
pub(super) struct Listed(Variant);

impl Listed {
    /// Its files and links, each with its object.
    pub fn files(&self) -> impl Iterator<Item = Result<(String, String)>> {
        let files = self.0.child_value(0);
        (0..files.n_children()).map(move |at| {
            let file = files.child_value(at);
            Ok((name(&file)?, checksum(&file, 1)?))
        })
    }

    /// Its folders, each with the objects of what it holds and of its attributes.
    pub fn folders(&self) -> Result<BTreeMap<String, (String, String)>> {
        let folder = |folder: Variant| Ok((name(&folder)?, (checksum(&folder, 1)?, checksum(&folder, 2)?)));
        self.0.child_value(1).iter().map(folder).collect()
    }
}

/// The name of an entry of a folder.
fn name(entry: &Variant) -> Result<String> {
    let name = entry.child_value(0);
    let name = name.str().unwrap_or_default();
    ensure!(!name.is_empty() && name != "." && name != ".." && !name.contains('/'), "{name:?} is no name");
    Ok(name.to_owned())
}

/// A checksum of an entry or of a commit. As a list of values, each byte of it would be a value of GLib.
pub(super) fn checksum(entry: &Variant, at: usize) -> Result<String> {
    let bytes = entry.child_value(at);
    Ok(hex(bytes.fixed_array::<u8>()?.try_into().context("a checksum of another length")?))
}
