//! The records on disk: one deployment, and the images that failed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    digest::Digest, health::HealthTest, host_files::Placed, name::ContainerName, other_runtime::RuntimePath,
    overrides::Overrides, quadlet, values::Values,
};
pub use super::{
    journal::{Group, Journal, Operation},
    record::{Record, parse, to_text},
};

/// `deployment.json`: one numbered version of a container, written once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Format of the record.
    pub version: u32,
    /// The container.
    pub name: ContainerName,
    /// 1 for the first one; never used again.
    pub id: u32,
    /// The deployment that it took the place of.
    #[serde(default)]
    pub replaces: Option<u32>,
    /// Where the image came from.
    pub image: String,
    /// The image's manifest.
    pub digest: Digest,
    /// The OSTree commit of the checkout.
    pub commit: String,
    /// The image's label `org.opencontainers.image.version`.
    pub image_version: Option<String>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Settings in force.
    pub values: Values,
    /// Requests of the image that were accepted.
    pub accepted: BTreeSet<String>,
    /// Units that can be started, in the order of their names: those of instances are not among them.
    pub units: Vec<String>,
    /// Host folders of state that it declared, and who they belong to.
    pub state: Vec<OwnedFolder>,
    /// Format of that state.
    #[serde(default)]
    pub epoch: u32,
    /// What stands in the place of the image's own words on itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quadlet: Option<quadlet::Source>,
    /// Files on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_files: Vec<Placed>,
    /// Folders that were made for them, the outer ones first; also for those of earlier deployments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_folders: Vec<String>,
    /// Files and folders that were added to the checkout to mount upon.
    pub mount_points: Vec<String>,
    /// The runtime that starts it, where it is not the bundled one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimePath>,
    /// The first of the host's numbers for users of its own: the same over all updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<u32>,
    /// What the admin gave it beyond what the image says.
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub overrides: Overrides,
    /// Its program says itself when it is ready.
    #[serde(default)]
    pub notify: bool,
    /// How to tell that it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthTest>,
}

impl Deployment {
    /// Whether it keeps the state of an older deployment in a newer format, which that one may not read.
    pub fn raises_epoch_of(&self, old: &Deployment) -> bool {
        self.epoch > old.epoch && !old.state.is_empty()
    }
}

/// A host folder of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OwnedFolder {
    pub path: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// `quarantine.json`: images that failed in an update and are not tried again by themselves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// Format of the record.
    pub version: u32,
    /// Oldest first.
    pub images: Vec<Quarantined>,
}

/// An image that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The image's manifest.
    pub digest: Digest,
    /// The number that its deployment had: no later one gets it again.
    pub deployment: u32,
    /// What went wrong, on one line.
    pub cause: String,
    /// When, RFC 3339.
    pub at: String,
}

impl Record for Deployment {
    const VERSION: u32 = 1;
}

impl Record for Quarantine {
    const VERSION: u32 = 1;
}
