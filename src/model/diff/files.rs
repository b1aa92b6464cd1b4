//! The files of two images that differ.

use std::cmp::Ordering;

use serde::Serialize;

use super::units::Change;

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Entry {
    pub kind: Kind,
    /// Bytes; 0 where it is no file.
    pub size: u64,
    /// Permissions with setuid, setgid and sticky, as chmod(1) takes them.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    /// Where a link leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Link,
    Folder,
}

/// One path that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct FileChange {
    pub path: String,
    pub change: Change,
    pub from: Option<Entry>,
    pub to: Option<Entry>,
}

/// All of them, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct FilesDifference {
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
    /// Bytes that the new image's files have more than the old one's.
    pub grown: i64,
    /// Each of them, by path, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<FileChange>>,
}

impl FilesDifference {
    /// Counts them, and keeps the list if it is wanted.
    pub fn of(mut changes: Vec<FileChange>, keep: bool) -> FilesDifference {
        let mut files = FilesDifference::default();
        for FileChange { change, from, to, .. } in &changes {
            match change {
                Change::Added => files.added += 1,
                Change::Removed => files.removed += 1,
                Change::Changed => files.changed += 1,
            }
            let size =
                |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| i64::try_from(entry.size).unwrap_or(i64::MAX));
            files.grown = files.grown.saturating_add(size(to)).saturating_sub(size(from));
        }
        changes.sort_by(by_path);
        files.list = keep.then_some(changes);
        files
    }

    /// Whether the two are the same.
    pub fn is_empty(&self) -> bool {
        self.added + self.removed + self.changed == 0
    }
}

fn by_path(one: &FileChange, other: &FileChange) -> Ordering {
    one.path.cmp(&other.path)
}
