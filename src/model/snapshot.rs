//! `state.json`: state that is kept beside a deployment, as it was when that one was last in force.

use serde::{Deserialize, Serialize};

use super::record::Record;

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptState {
    /// Format of the record.
    pub version: u32,
    /// When it was taken, RFC 3339.
    pub created: String,
    /// The folders, each kept as a folder with its place in this list as name.
    pub folders: Vec<KeptFolder>,
}

/// One folder of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct KeptFolder {
    pub path: String,
    /// What was allocated for it.
    pub bytes: u64,
}

impl KeptState {
    /// All folders together.
    pub fn bytes(&self) -> u64 {
        self.folders.iter().map(|folder| folder.bytes).sum()
    }
}

impl Record for KeptState {
    const VERSION: u32 = 1;
}
