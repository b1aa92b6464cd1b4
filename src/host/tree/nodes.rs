//! The nodes of a tree: in one vector, their names in one text, the attributes of folders once for all that have the same.

use std::hash::BuildHasher;

use anyhow::{Context, Result, ensure};

use super::{NodeId, Tree};
use crate::host::layer::{ObjectId, Piece};

/// A piece of [`Tree::text`].
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed)]
pub(super) struct Span {
    at: u32,
    length: u16,
}

#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed)]
pub(super) struct Folder {
    pub(super) attributes: u32,
    pub(super) first: NodeId,
}

#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed)]
pub(super) struct Size(pub(super) u64);

/// Packed, so that a slot needs no padding.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Dir(Folder),
    File { object: ObjectId, size: Size },
    Symlink { object: ObjectId, target: Span },
}

/// 56 bytes each.
pub(super) struct Slot {
    pub(super) what: What,
    pub(super) name_length: u8,
    pub(super) layer: u16,
    pub(super) name_at: u32,
    /// none of what was removed: it stays in the list of its folder until that is swept
    pub(super) parent: NodeId,
    pub(super) next: NodeId,
}

const _: () = assert!(size_of::<Slot>() == 56);

/// No node.
pub(super) const NONE: NodeId = NodeId::MAX;
/// Folders keep theirs in memory until the commit.
const MAX_XATTR_BYTES: usize = 16 * 1024 * 1024;
/// What a pair of them takes besides its text.
const XATTR_PAIR: usize = 128;
/// Names and links of a million entries take half of it.
const MAX_TEXT: usize = 48 * 1024 * 1024;
/// Owners, modes and attributes that folders have, each counted once; a real image has a dozen.
const MAX_KINDS: usize = 64 * 1024;

impl Tree {
    pub(super) fn insert(&mut self, parent: NodeId, name: &str, what: What) -> Result<NodeId> {
        // parents that no entry describes count too
        ensure!(self.slots.len() as u64 <= self.most, "the image has more than {} entries", self.most);
        let id = NodeId::try_from(self.slots.len())?;
        let name = self.write(name)?;
        let name_length = u8::try_from(name.length).context("a name is longer than 255 bytes")?;
        let next = self.first(parent);
        self.slots.push(Slot { what, name_length, layer: self.layer, name_at: name.at, parent, next });
        self.set_first(parent, id);
        let (slots, text, hasher) = (&self.slots, &self.text, &self.hasher);
        let hash = |id: &NodeId| {
            let slot = &slots[*id as usize];
            hasher.hash_one((slot.parent, slot.name().of(text)))
        };
        self.places.insert_unique(hash(&id), id, hash);
        Ok(id)
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        let hash = self.hasher.hash_one((self.slots[id as usize].parent, self.name(id)));
        if let Ok(place) = self.places.find_entry(hash, |there| *there == id) {
            place.remove();
        }
        self.slots[id as usize].parent = NONE;
    }

    /// A folder without anything in it.
    pub(super) fn empty(attributes: u32) -> What {
        What::Dir(Folder { attributes, first: NONE })
    }

    pub(in crate::host) fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let hash = self.hasher.hash_one((parent, name));
        let same = |id: &NodeId| self.slots[*id as usize].parent == parent && self.name(*id) == name;
        self.places.find(hash, same).copied()
    }

    pub(super) fn siblings(&self, parent: NodeId) -> impl Iterator<Item = NodeId> + use<'_> {
        let here = |id: NodeId| (id != NONE).then_some(id);
        let all = std::iter::successors(here(self.first(parent)), move |id| here(self.slots[*id as usize].next));
        all.filter(move |id| self.slots[*id as usize].parent == parent)
    }

    pub(super) fn first(&self, parent: NodeId) -> NodeId {
        match self.slots[parent as usize].what {
            What::Dir(folder) => folder.first,
            _ => NONE,
        }
    }

    pub(super) fn set_first(&mut self, parent: NodeId, id: NodeId) {
        if let What::Dir(folder) = &mut self.slots[parent as usize].what {
            folder.first = id;
        }
    }

    pub(super) fn name(&self, id: NodeId) -> &str {
        self.read(self.slots[id as usize].name())
    }

    pub(super) fn read(&self, span: Span) -> &str {
        span.of(&self.text)
    }

    pub(super) fn write(&mut self, text: &str) -> Result<Span> {
        ensure!(
            self.text.len() + text.len() <= MAX_TEXT,
            "the image's names are longer than {MAX_TEXT} bytes together"
        );
        let span = Span { at: u32::try_from(self.text.len())?, length: u16::try_from(text.len())? };
        self.text.push_str(text);
        Ok(span)
    }

    /// The number of a folder's attributes.
    pub(super) fn number(&mut self, entry: &Piece) -> Result<u32> {
        self.tell_left_out(entry);
        if let Some(number) = self.numbers.get(&entry.attributes) {
            return Ok(*number);
        }
        let pairs = entry.attributes.xattrs.iter();
        self.xattr_bytes += pairs.map(|(name, value)| name.len() + value.len() + XATTR_PAIR).sum::<usize>();
        ensure!(
            self.xattr_bytes <= MAX_XATTR_BYTES,
            "the image's folders have more than {MAX_XATTR_BYTES} bytes of attributes"
        );
        ensure!(
            self.attributes.len() < MAX_KINDS,
            "the image's folders have more than {MAX_KINDS} different attributes"
        );
        let number = u32::try_from(self.attributes.len())?;
        self.attributes.push(entry.attributes.clone());
        self.numbers.insert(entry.attributes.clone(), number);
        Ok(number)
    }
}

impl Slot {
    pub(super) fn name(&self) -> Span {
        Span { at: self.name_at, length: self.name_length.into() }
    }
}

impl Span {
    pub(super) fn of(self, text: &str) -> &str {
        let at = self.at as usize;
        &text[at..at + self.length as usize]
    }
}
