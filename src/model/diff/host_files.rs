//! The files on the host that two deployments place, and their links and folders.

use std::collections::BTreeMap;

use serde::Serialize;

use super::units::Change;
use crate::model::host_files::{Placed, What};

/// A file that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct HostFileDifference {
    /// On the host.
    pub path: String,
    pub change: Change,
    pub from: Option<Version>,
    pub to: Option<Version>,
}

/// What one deployment places: a file has a digest, a link a target, a folder neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Version {
    /// Of a file's content, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What a link says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Permission bits, octal; a link has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// One of a deployment, for a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Listed {
    /// On the host.
    pub path: String,
    #[serde(flatten)]
    pub what: Version,
}

impl Listed {
    /// Of a record.
    pub fn of(placed: &Placed) -> Listed {
        Listed { path: placed.path.clone(), what: Version::of(&placed.what) }
    }

    /// A file of which nobody asks the mode.
    pub fn file(path: String, sha256: String) -> Listed {
        Listed { path, what: Version { sha256: Some(sha256), ..Version::default() } }
    }
}

impl Version {
    fn of(what: &What) -> Version {
        let mode = |mode: &u32| Some(format!("{mode:04o}"));
        match what {
            What::File { sha256, mode: bits } => {
                Version { sha256: Some(sha256.clone()), mode: mode(bits), ..Version::default() }
            }
            What::Link { target } => Version { target: Some(target.clone()), ..Version::default() },
            What::Folder { mode: bits } => Version { mode: mode(bits), ..Version::default() },
        }
    }
}

/// The files that differ, by path.
pub fn compare(old: &[Placed], new: &[Placed]) -> Vec<HostFileDifference> {
    let mut versions: BTreeMap<&String, [Option<Version>; 2]> = BTreeMap::new();
    for (at, files) in [old, new].into_iter().enumerate() {
        for file in files {
            versions.entry(&file.path).or_default()[at] = Some(Version::of(&file.what));
        }
    }
    let differences = versions.into_iter().filter(|(_, [from, to])| from != to).map(|(path, [from, to])| {
        let change = match (&from, &to) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        };
        HostFileDifference { path: path.clone(), change, from, to }
    });
    differences.collect()
}
