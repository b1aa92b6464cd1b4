//! The records on disk: one deployment, and the operation under way. Each has a version; a newer one than ours is refused.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{digest::Digest, health::HealthTest, name::ContainerName, other_runtime::RuntimePath, values::Values};

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
    /// Units, in the order of their names.
    pub units: Vec<String>,
    /// Host folders of state that it declared, and who they belong to.
    pub state: Vec<OwnedFolder>,
    /// Format of that state.
    #[serde(default)]
    pub epoch: u32,
    /// Files and folders that were added to the checkout to mount upon.
    pub mount_points: Vec<String>,
    /// The runtime that starts it, where it is not the bundled one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimePath>,
    /// The first of the host's numbers for users of its own: the same over all updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<u32>,
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

/// `journal.json`: names and numbers only, never paths to follow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// Format of the record.
    pub version: u32,
    /// What is under way.
    pub operation: Operation,
    /// The deployment in force before.
    pub from: Option<u32>,
    /// The deployment in force after.
    pub to: Option<u32>,
    /// Whether its units are enabled.
    pub enable: bool,
    /// Whether declared state goes too.
    pub purge: bool,
    /// Whether it is part of an update of several containers as one: [`Group`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub group: bool,
}

impl Journal {
    /// An operation from one deployment to another.
    pub fn new(operation: Operation, from: Option<u32>, to: Option<u32>, enable: bool) -> Journal {
        Journal { version: Journal::VERSION, operation, from, to, enable, purge: false, group: false }
    }

    /// The deployment that is in force when what was cut short is finished or undone; none where the container goes. `active` is what
    /// the container's file says, `group` whether `group.json` is there.
    pub fn winner(&self, active: Option<u32>, group: bool) -> Option<u32> {
        match self.operation {
            // Taken out of force it goes; not there yet it never was.
            Operation::Install | Operation::Uninstall => active,
            // Nobody knows whether it is well. Of a group it is known as soon as the record of the group is gone.
            Operation::Update if self.group && !group && active == self.to => self.to,
            Operation::Update => self.from,
            Operation::Rollback if active == self.to => self.to,
            Operation::Rollback => self.from,
        }
    }
}

/// `group.json`: containers that are updated as one. As long as it is there each of them goes back; its removal keeps the new ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Format of the record.
    pub version: u32,
    /// In the order in which they are restarted.
    pub members: Vec<ContainerName>,
}

/// The operations that change what is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Operation {
    Install,
    Uninstall,
    /// To a new deployment; cut short before it is known to be well, it goes back.
    Update,
    /// To a deployment that was in force before; cut short, it goes on.
    Rollback,
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

/// A record of a known version.
pub trait Record: Serialize + DeserializeOwned {
    /// The newest version that this program reads, and the one that it writes.
    const VERSION: u32;
}

impl Record for Deployment {
    const VERSION: u32 = 1;
}

impl Record for Journal {
    const VERSION: u32 = 1;
}

impl Record for Group {
    const VERSION: u32 = 1;
}

impl Record for Quarantine {
    const VERSION: u32 = 1;
}

/// Reads a record; a newer version is refused before anything else of it is believed.
pub fn parse<R: Record>(text: &str) -> Result<R> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(text).context("no record of sysctr")?;
    ensure!(
        version <= R::VERSION,
        "written by a newer sysctr (record version {version}, this one reads {})",
        R::VERSION
    );
    serde_json::from_str(text).context("a damaged record")
}

/// The text of a record.
pub fn to_text(record: &impl Record) -> Result<String> {
    Ok(serde_json::to_string_pretty(record).context("writing a record")? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_ends_with_all_of_the_old_or_all_of_the_new() {
        let alone = Journal::new(Operation::Update, Some(1), Some(2), true);
        let member = Journal { group: true, ..alone.clone() };
        for (journal, active, group, winner) in [
            (&alone, Some(1), false, Some(1)),
            (&alone, Some(2), false, Some(1)),
            (&alone, Some(2), true, Some(1)),
            // the group is written before its journals, and gone only when each is in force: the last line cannot come
            (&member, Some(1), true, Some(1)),
            (&member, Some(2), true, Some(1)),
            (&member, Some(2), false, Some(2)),
            (&member, Some(1), false, Some(1)),
        ] {
            assert_eq!(journal.winner(active, group), winner, "{active:?} in force, group {group}: {journal:?}");
        }
        let rollback = Journal::new(Operation::Rollback, Some(2), Some(1), true);
        assert_eq!((rollback.winner(Some(2), false), rollback.winner(Some(1), false)), (Some(2), Some(1)));
        let install = Journal::new(Operation::Install, None, Some(1), true);
        assert_eq!((install.winner(None, false), install.winner(Some(1), false)), (None, Some(1)));
    }
}
