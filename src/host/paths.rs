//! Paths of an image: what may stand in an entry, and where it leads inside the tree.

use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};

use super::tree::{Node, NodeId, Tree};

pub(super) const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
const MAX_LINKS: u32 = 40;

/// A path followed inside the tree, one name at a time.
pub(super) struct Walk {
    pub dirs: Vec<NodeId>,
    todo: VecDeque<String>,
    links: u32,
}

/// What one step met.
pub(super) enum Step {
    At,
    Missing(String),
    NotAFolder(String),
}

impl Walk {
    pub fn new(path: &[&str]) -> Walk {
        Walk { dirs: vec![Tree::ROOT], todo: path.iter().map(|part| (*part).to_owned()).collect(), links: 0 }
    }

    pub fn here(&self) -> NodeId {
        self.dirs.last().copied().unwrap_or(Tree::ROOT)
    }

    pub fn next(&mut self, tree: &Tree) -> Result<Option<Step>> {
        let Some(name) = self.todo.pop_front() else { return Ok(None) };
        match name.as_str() {
            "" | "." => return Ok(Some(Step::At)),
            ".." => {
                ensure!(self.dirs.len() > 1, "a link on the way to it leads out of the image");
                self.dirs.pop();
                return Ok(Some(Step::At));
            }
            _ => {}
        }
        let Some(child) = tree.child(self.here(), &name) else {
            return Ok(Some(Step::Missing(name)));
        };
        match tree.node(child) {
            Node::Dir(..) => self.dirs.push(child),
            Node::File(..) => return Ok(Some(Step::NotAFolder(name))),
            Node::Symlink(_, target) => {
                self.links += 1;
                ensure!(self.links <= MAX_LINKS, "too many links on the way to it");
                if target.starts_with('/') {
                    self.dirs.truncate(1);
                }
                for part in target.split('/').rev() {
                    self.todo.push_front(part.to_owned());
                }
            }
        }
        Ok(Some(Step::At))
    }
}

/// Text without control characters.
pub(super) fn text(bytes: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(bytes).context("it is not UTF-8")?;
    ensure!(!text.chars().any(char::is_control), "it holds control characters");
    Ok(text)
}

/// The names of a path inside the image; none for the root itself.
pub(super) fn split(path: &[u8]) -> Result<Vec<&str>> {
    ensure!(path.len() < MAX_PATH, "the path is longer than {MAX_PATH} bytes");
    let path = text(path)?;
    ensure!(!path.starts_with('/'), "an absolute path");
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    ensure!(!parts.contains(&".."), "a path with '..'");
    ensure!(parts.iter().all(|part| part.len() <= MAX_NAME), "a name longer than {MAX_NAME} bytes");
    Ok(parts)
}
