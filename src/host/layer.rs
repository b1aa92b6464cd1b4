//! Layers merged into one tree, as the image specification's
//! [layer.md](https://github.com/opencontainers/image-spec/blob/main/layer.md) says.
//!
//! [`read`] stores the contents of a layer through an [`Importer`], several layers side by side; a [`Tree`] takes what is left of the
//! entries, layer by layer: names, links and attributes in memory. So a path of an image is never looked up on the host: a link in it
//! can only lead to another node of the tree.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    paths::{MAX_PATH, Step, Walk, split, text},
    tarball::{Entry, Kind, TarReader},
};

/// Owner, permission bits and extended attributes of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// SHA-256 of a content object.
pub type ObjectId = [u8; 32];

/// Takes the contents that layers bring.
pub trait Importer {
    /// Stores a file's content, `size` bytes of it.
    fn file(&mut self, attributes: &Attributes, size: u64, content: &mut dyn Read) -> Result<ObjectId>;
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
#[derive(Clone, Debug)]
pub struct Piece {
    path: Vec<u8>,
    kind: Kind,
    link: Vec<u8>,
    size: u64,
    attributes: Attributes,
    /// names of attributes that are not kept
    left_out: Vec<Vec<u8>>,
    /// none for what brings no object
    object: Option<ObjectId>,
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
    let Entry { path, kind, mode, uid, gid, size, link, xattrs } = entry;
    let (kept, others): (BTreeMap<_, _>, BTreeMap<_, _>) = xattrs.into_iter().partition(|(name, _)| kept(name));
    let left_out = others.into_keys().filter(|name| name != b"security.selinux").collect();
    let mut attributes = Attributes { uid, gid, mode, xattrs: kept };
    // Whiteouts and the like say what to do: their content is nobody's.
    let speaks = path.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT.as_bytes()));
    let object = match kind {
        _ if speaks => None,
        Kind::File => {
            room.take(size)?;
            Some(importer.file(&attributes, size, content)?)
        }
        Kind::Symlink => {
            let target = text(&link).context("the link's target")?;
            ensure!(!target.is_empty() && target.len() < MAX_PATH, "the link's target is empty or too long");
            // no attribute that we keep may stand on a link
            attributes = Attributes { xattrs: BTreeMap::new(), mode: 0o777, ..attributes };
            Some(importer.symlink(&attributes, target)?)
        }
        Kind::Dir | Kind::Hardlink | Kind::Special => None,
    };
    Ok(Piece { path, kind, link, size, attributes, left_out, object })
}

/// A node's place in the tree.
pub type NodeId = usize;

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Node {
    /// a folder
    Dir(Attributes, BTreeMap<String, NodeId>),
    /// a file's content and its length
    File(ObjectId, u64),
    /// a symbolic link's object and where it leads
    Symlink(ObjectId, String),
}

/// The merged tree of the layers applied so far.
pub struct Tree {
    nodes: Vec<(u32, Node)>,
    layer: u32,
    entries: u64,
    most: u64,
    xattr_bytes: usize,
    warnings: Vec<String>,
    /// devices, fifos and sockets: how many, and the first of them
    special: (u64, Vec<String>),
}

/// libostree follows at most 256 levels.
const MAX_DEPTH: usize = 240;
/// Folders keep theirs in memory until the commit.
const MAX_XATTR_BYTES: usize = 64 * 1024 * 1024;
const MAX_WARNINGS: usize = 20;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Files that AUFS kept for itself.
const AUFS: &str = ".wh..wh.";

impl Tree {
    /// The root folder.
    pub const ROOT: NodeId = 0;

    /// An empty root, root's own and 0755, for at most so many entries.
    pub fn new(most: u64) -> Tree {
        let root = Node::Dir(implied(), BTreeMap::new());
        Tree {
            nodes: vec![(0, root)],
            layer: 0,
            entries: 0,
            most,
            xattr_bytes: 0,
            warnings: Vec::new(),
            special: (0, Vec::new()),
        }
    }

    /// The node with this number.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id].1
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
            match self.node(id) {
                Node::Dir(_, children) => todo.extend(children.values()),
                Node::File(_, size) => sum = sum.saturating_add(*size),
                Node::Symlink(..) => {}
            }
        }
        sum
    }

    /// Puts the next layer on top.
    pub fn apply(&mut self, layer: impl IntoIterator<Item = Result<Piece>>) -> Result<()> {
        self.layer += 1;
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
            let attributes = self.attributes(entry)?;
            self.describe(Tree::ROOT, attributes);
            return Ok(());
        };
        if path.iter().any(|part| part.starts_with(AUFS) && *part != OPAQUE) {
            return Ok(());
        }
        ensure!(!parents.iter().any(|part| part.starts_with(WHITEOUT)), "a whiteout is not a folder");
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.white_out(parents, if *name == OPAQUE { None } else { Some(hidden) });
        }
        let node = match entry.kind {
            Kind::Special => {
                // A container has a /dev of its own, mounted over the image's.
                if path[0] != "dev" {
                    self.special.0 += 1;
                    if self.special.1.len() < 3 {
                        self.special.1.push(format!("{:?}", path.join("/")));
                    }
                }
                return Ok(());
            }
            Kind::Dir => {
                let attributes = self.attributes(entry)?;
                let parent = self.folder(parents)?;
                if let Some(there) = self.child(parent, name)
                    && matches!(self.node(there), Node::Dir(..))
                {
                    self.describe(there, attributes);
                    return Ok(());
                }
                Node::Dir(attributes, BTreeMap::new())
            }
            Kind::File | Kind::Symlink => {
                self.attributes(entry)?;
                let object = entry.object.context("its content was not stored")?;
                match entry.kind {
                    Kind::File => Node::File(object, entry.size),
                    _ => Node::Symlink(object, text(&entry.link)?.to_owned()),
                }
            }
            Kind::Hardlink => self.link_target(&entry.link)?,
        };
        let parent = self.folder(parents)?;
        self.insert(parent, name, node).map(drop)
    }

    fn link_target(&self, link: &[u8]) -> Result<Node> {
        let shown = String::from_utf8_lossy(link).into_owned();
        let path = split(link).with_context(|| format!("hard link to {shown:?}"))?;
        let found = path.split_last().and_then(|(name, parents)| {
            let parent = self.find(parents).ok().flatten()?;
            self.child(parent, name)
        });
        match found.map(|id| self.node(id)) {
            Some(Node::Dir(..)) => bail!("hard link to the folder {shown:?}"),
            Some(node) => Ok(node.clone()),
            None => bail!("hard link to {shown:?}, which is not there"),
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
                    self.children_mut(parent).remove(name);
                }
            }
            None => self.drop_lower_children(parent),
        }
        Ok(())
    }

    /// Takes away what is not of this layer; true where nothing is left of the node.
    fn drop_lower(&mut self, id: NodeId) -> bool {
        if matches!(self.node(id), Node::Dir(..)) {
            self.drop_lower_children(id);
        }
        let empty = !matches!(self.node(id), Node::Dir(_, children) if !children.is_empty());
        self.nodes[id].0 < self.layer && empty
    }

    fn drop_lower_children(&mut self, id: NodeId) {
        let children: Vec<(String, NodeId)> =
            self.children_mut(id).iter().map(|(name, id)| (name.clone(), *id)).collect();
        for (name, child) in children {
            if self.drop_lower(child) {
                self.children_mut(id).remove(&name);
            }
        }
    }

    fn describe(&mut self, id: NodeId, attributes: Attributes) {
        self.nodes[id].0 = self.layer;
        if let Node::Dir(there, _) = &mut self.nodes[id].1 {
            *there = attributes;
        }
    }

    fn insert(&mut self, parent: NodeId, name: &str, node: Node) -> Result<NodeId> {
        let id = self.nodes.len();
        // parents that no entry describes count too
        ensure!(id as u64 <= self.most, "the image has more than {} entries", self.most);
        self.nodes.push((self.layer, node));
        self.children_mut(parent).insert(name.to_owned(), id);
        Ok(id)
    }

    pub(super) fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        match self.node(parent) {
            Node::Dir(_, children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn children_mut(&mut self, id: NodeId) -> &mut BTreeMap<String, NodeId> {
        match &mut self.nodes[id].1 {
            Node::Dir(_, children) => children,
            _ => unreachable!("only folders are asked for their children"),
        }
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
                    let id = self.insert(walk.here(), &name, Node::Dir(implied(), BTreeMap::new()))?;
                    walk.dirs.push(id);
                }
                Step::NotAFolder(name) => bail!("{name:?} on the way to it is not a folder"),
                Step::At => {}
            }
        }
        ensure!(walk.dirs.len() <= MAX_DEPTH, "it lies more than {MAX_DEPTH} folders deep");
        Ok(walk.here())
    }

    /// Says what was left out of them.
    fn attributes(&mut self, entry: &Piece) -> Result<Attributes> {
        let xattrs = &entry.attributes.xattrs;
        self.xattr_bytes += xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        ensure!(self.xattr_bytes <= MAX_XATTR_BYTES, "the image has more than {MAX_XATTR_BYTES} bytes of attributes");
        for name in &entry.left_out {
            let name = String::from_utf8_lossy(name).into_owned();
            self.warn(format!("left out the attribute {name:?} of {:?}", String::from_utf8_lossy(&entry.path)));
        }
        Ok(entry.attributes.clone())
    }

    fn warn(&mut self, text: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(text);
        }
    }
}

/// A folder that no layer describes.
fn implied() -> Attributes {
    Attributes { uid: 0, gid: 0, mode: 0o755, xattrs: BTreeMap::new() }
}

/// Only attributes that mean the same on every machine are kept: labels and overlay marks are the host's.
fn kept(xattr: &[u8]) -> bool {
    let user = xattr.starts_with(b"user.") && !xattr.starts_with(b"user.overlay.");
    user || matches!(xattr, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

fn named(path: &[u8]) -> String {
    format!("layer entry {:?}", String::from_utf8_lossy(path))
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
