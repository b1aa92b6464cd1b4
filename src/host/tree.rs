//! The merged tree of an image's layers, as the image specification's
//! [layer.md](https://github.com/opencontainers/image-spec/blob/main/layer.md) says.
//!
//! A million entries have to fit beside everything else into 128 MiB: nodes lie in one vector, names one behind the other in one
//! text, attributes once for all folders that have the same. A path of an image is never looked up on the host: a link in it can only
//! lead to another node.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
};

use anyhow::{Context, Result, bail, ensure};
use hashbrown::HashTable;

use super::{
    layer::{Attributes, ObjectId, Piece, WHITEOUT, named, shortened},
    paths::{Step, Walk, split, text},
    tarball::Kind,
};

mod nodes;

use nodes::{NONE, Size, Slot, What};

/// A node's place in the tree.
pub type NodeId = u32;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// a folder
    Dir(&'a Attributes),
    /// a file's content and its length
    File(&'a ObjectId, u64),
    /// a symbolic link's object and where it leads
    Symlink(&'a ObjectId, &'a str),
}

/// libostree follows at most 256 levels.
const MAX_DEPTH: usize = 240;
const MAX_WARNINGS: usize = 20;
const OPAQUE: &str = ".wh..wh..opq";
/// Files that AUFS kept for itself.
const AUFS: &str = ".wh..wh.";

/// The merged tree of the layers applied so far.
pub struct Tree {
    slots: Vec<Slot>,
    /// by parent and name
    places: HashTable<NodeId>,
    hasher: RandomState,
    text: String,
    attributes: Vec<Attributes>,
    numbers: BTreeMap<Attributes, u32>,
    layer: u16,
    /// folders of which this layer has taken away what lower ones have
    swept: HashSet<NodeId>,
    /// paths of devices and the like, hashed: there may be a million
    left_out: HashSet<u64>,
    entries: u64,
    most: u64,
    xattr_bytes: usize,
    warnings: Vec<String>,
    /// devices, fifos and sockets: how many, and the first of them
    special: (u64, Vec<String>),
}

impl Tree {
    /// The root folder.
    pub const ROOT: NodeId = 0;

    /// An empty root, root's own and 0755, for at most so many entries.
    pub fn new(most: u64) -> Tree {
        let root = Slot { what: Tree::empty(0), name_length: 0, layer: 0, name_at: 0, parent: NONE, next: NONE };
        Tree {
            slots: vec![root],
            places: HashTable::new(),
            hasher: RandomState::new(),
            text: String::new(),
            attributes: vec![Attributes::implied()],
            numbers: BTreeMap::from([(Attributes::implied(), 0)]),
            layer: 0,
            swept: HashSet::new(),
            left_out: HashSet::new(),
            entries: 0,
            most,
            xattr_bytes: 0,
            warnings: Vec::new(),
            special: (0, Vec::new()),
        }
    }

    /// The node with this number.
    pub fn node(&self, id: NodeId) -> Node<'_> {
        match &self.slots[id as usize].what {
            What::Dir(folder) => Node::Dir(&self.attributes[folder.attributes as usize]),
            What::File { object, size } => Node::File(object, size.0),
            What::Symlink { object, target } => Node::Symlink(object, self.read(*target)),
        }
    }

    /// What is in a folder, by name.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = (&str, NodeId)> {
        let mut children: Vec<NodeId> = self.siblings(id).collect();
        children.sort_unstable_by(|one, other| self.name(*one).cmp(self.name(*other)));
        children.into_iter().map(|id| (self.name(id), id))
    }

    /// No layer follows: gives memory back that only another one would need.
    pub fn seal(&mut self) {
        self.places = HashTable::new();
        self.swept = HashSet::new();
        self.left_out = HashSet::new();
    }

    /// Every file and link that is left, by its object.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectId> {
        let mut todo = vec![self.siblings(Tree::ROOT)];
        std::iter::from_fn(move || {
            loop {
                match todo.last_mut()?.next() {
                    None => drop(todo.pop()),
                    Some(id) => match &self.slots[id as usize].what {
                        What::Dir(_) => todo.push(self.siblings(id)),
                        What::File { object, .. } | What::Symlink { object, .. } => return Some(object),
                    },
                }
            }
        })
    }

    /// What was left out, for the user.
    pub fn warnings(&self) -> Vec<String> {
        let (count, named) = &self.special;
        let more = count - named.len() as u64;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let special = format!("left out {}{more}: devices, fifos and sockets are not installed", named.join(", "));
        self.warnings.iter().cloned().chain((*count > 0).then_some(special)).collect()
    }

    /// Bytes of all files in the tree, a hard-linked one counted for each name.
    pub fn size(&self) -> u64 {
        let mut todo = vec![Tree::ROOT];
        let mut sum = 0u64;
        while let Some(id) = todo.pop() {
            match self.slots[id as usize].what {
                What::Dir(_) => todo.extend(self.siblings(id)),
                What::File { size, .. } => sum = sum.saturating_add(size.0),
                What::Symlink { .. } => {}
            }
        }
        sum
    }

    /// Puts the next layer on top.
    pub fn apply(&mut self, layer: impl IntoIterator<Item = Result<Piece>>) -> Result<()> {
        self.swept.clear();
        self.layer = self.layer.checked_add(1).context("the image has more than 65535 layers")?;
        for piece in layer {
            let piece = piece?;
            self.entries += 1;
            ensure!(self.entries <= self.most, "the image has more than {} entries", self.most);
            self.place(&piece).with_context(|| named(&piece.path))?;
        }
        Ok(())
    }

    fn place(&mut self, entry: &Piece) -> Result<()> {
        let path = split(&entry.path)?;
        let Some((name, parents)) = path.split_last() else {
            ensure!(entry.kind == Kind::Dir, "the root of an image must be a folder");
            return self.describe(Tree::ROOT, entry);
        };
        if path.iter().any(|part| part.starts_with(AUFS) && *part != OPAQUE) {
            return Ok(());
        }
        ensure!(!parents.iter().any(|part| part.starts_with(WHITEOUT)), "a whiteout is not a folder");
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.white_out(parents, if *name == OPAQUE { None } else { Some(hidden) });
        }
        if entry.kind == Kind::Special || (entry.kind == Kind::Hardlink && self.is_left_out(&entry.link)) {
            self.leave_out(&path);
            // what it stands in the place of is hidden all the same
            return self.white_out(parents, Some(name));
        }
        let linked = if entry.kind == Kind::Hardlink { Some(self.link_target(&entry.link)?) } else { None };
        let parent = self.folder(parents)?;
        let there = self.child(parent, name);
        if let Some(there) = there {
            let is_dir = matches!(self.slots[there as usize].what, What::Dir(_));
            if is_dir && entry.kind == Kind::Dir {
                return self.describe(there, entry);
            }
            // Which of the two is meant, tools disagree about; layer.md forbids it.
            ensure!(self.slots[there as usize].layer < self.layer, "the layer has it twice");
        }
        let object = || entry.object.context("its content was not stored");
        let what = match (linked, entry.kind) {
            (Some(node), _) => node,
            (None, Kind::Dir) => Tree::empty(self.number(entry)?),
            (None, Kind::Symlink) => What::Symlink { object: object()?, target: self.write(text(&entry.link)?)? },
            (None, _) => What::File { object: object()?, size: Size(entry.size) },
        };
        if entry.kind != Kind::Dir {
            self.tell_left_out(entry);
        }
        if let Some(there) = there {
            self.remove(there);
        }
        self.insert(parent, name, what).map(drop)
    }

    fn leave_out(&mut self, path: &[&str]) {
        self.left_out.insert(self.hasher.hash_one(path));
        // A container has a /dev of its own, mounted over the image's.
        if path[0] != "dev" {
            self.special.0 += 1;
            if self.special.1.len() < 3 {
                self.special.1.push(format!("{:?}", path.join("/")));
            }
        }
    }

    /// Whether a hard link leads to a device or the like.
    fn is_left_out(&self, link: &[u8]) -> bool {
        split(link).is_ok_and(|path| self.left_out.contains(&self.hasher.hash_one(&*path)) && self.at(&path).is_none())
    }

    fn at(&self, path: &[&str]) -> Option<NodeId> {
        let (name, parents) = path.split_last()?;
        let parent = self.find(parents).ok().flatten()?;
        self.child(parent, name)
    }

    fn link_target(&self, link: &[u8]) -> Result<What> {
        let shown = shortened(link);
        let path = split(link).with_context(|| format!("hard link to {shown}"))?;
        match self.at(&path).map(|id| self.slots[id as usize].what) {
            Some(What::Dir(_)) => bail!("hard link to the folder {shown}"),
            Some(what) => Ok(what),
            None => bail!("hard link to {shown}, which is not there"),
        }
    }

    /// Hides what lower layers brought: one name, or everything in the folder.
    fn white_out(&mut self, parents: &[&str], hidden: Option<&str>) -> Result<()> {
        let Some(parent) = self.find(parents)? else { return Ok(()) };
        match hidden {
            Some("" | "." | "..") => bail!("a whiteout of nothing"),
            Some(name) => {
                if let Some(child) = self.child(parent, name)
                    && self.drop_lower(child)
                {
                    self.remove(child);
                }
            }
            None => self.drop_lower_children(parent),
        }
        Ok(())
    }

    /// Takes away what is not of this layer; true where nothing is left of the node.
    fn drop_lower(&mut self, id: NodeId) -> bool {
        self.drop_lower_children(id);
        self.slots[id as usize].layer < self.layer && self.siblings(id).next().is_none()
    }

    fn drop_lower_children(&mut self, id: NodeId) {
        // Once a layer: nothing of a lower one comes back, and many whiteouts of a large folder would take hours.
        if self.first(id) == NONE || !self.swept.insert(id) {
            return;
        }
        let mut first = NONE;
        for child in self.siblings(id).collect::<Vec<_>>() {
            if self.drop_lower(child) {
                self.remove(child);
            } else {
                self.slots[child as usize].next = std::mem::replace(&mut first, child);
            }
        }
        self.set_first(id, first);
    }

    fn describe(&mut self, id: NodeId, entry: &Piece) -> Result<()> {
        let number = self.number(entry)?;
        let layer = self.layer;
        let slot = &mut self.slots[id as usize];
        slot.layer = layer;
        if let What::Dir(folder) = &mut slot.what {
            folder.attributes = number;
        }
        Ok(())
    }

    fn find(&self, path: &[&str]) -> Result<Option<NodeId>> {
        let mut walk = Walk::new(path);
        while let Some(step) = walk.next(self)? {
            match step {
                Step::Missing(..) | Step::NotAFolder(_) => return Ok(None),
                Step::At => {}
            }
        }
        Ok(Some(walk.here()))
    }

    /// The folder at this path, links followed inside the tree; made where it is missing.
    fn folder(&mut self, path: &[&str]) -> Result<NodeId> {
        let mut walk = Walk::new(path);
        while let Some(step) = walk.next(self)? {
            match step {
                Step::Missing(name) => {
                    let id = self.insert(walk.here(), &name, Tree::empty(0))?;
                    walk.dirs.push(id);
                }
                Step::NotAFolder(name) => bail!("{name:?} on the way to it is not a folder"),
                Step::At => {}
            }
        }
        ensure!(walk.dirs.len() <= MAX_DEPTH, "it lies more than {MAX_DEPTH} folders deep");
        Ok(walk.here())
    }

    fn tell_left_out(&mut self, entry: &Piece) {
        for name in &entry.left_out {
            if self.warnings.len() < MAX_WARNINGS {
                let name = String::from_utf8_lossy(name);
                let text = format!("left out the attribute {name:?} of {:?}", String::from_utf8_lossy(&entry.path));
                self.warnings.push(text);
            }
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
