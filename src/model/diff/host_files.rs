//! The files on the host that two deployments place.

use std::collections::BTreeMap;

use serde::Serialize;

use super::units::Change;
use crate::model::host_files::Placed;

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

/// What one deployment places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Version {
    /// Of its content, in hexadecimal digits.
    pub sha256: String,
    /// Permission bits, octal.
    pub mode: String,
}

/// The files that differ, by path.
pub fn compare(old: &[Placed], new: &[Placed]) -> Vec<HostFileDifference> {
    let mut versions: BTreeMap<&String, [Option<Version>; 2]> = BTreeMap::new();
    for (at, files) in [old, new].into_iter().enumerate() {
        for file in files {
            let version = Version { sha256: file.sha256.clone(), mode: format!("{:04o}", file.mode) };
            versions.entry(&file.path).or_default()[at] = Some(version);
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
