//! The operation under way on a container.

use serde::{Deserialize, Serialize};

use super::{name::ContainerName, record::Record};

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
    /// Whether an update that was cut short behind its commit stays, since what ran may have brought its state into a newer format.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
    /// Whether the state of `from`, or `to` of a rollback, is kept beside it, and is put back with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub state: bool,
    /// Units that ran, and may be down meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<String>,
    /// Whether it is part of an update of several containers as one: [`Group`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub group: bool,
    /// The boot in which it was begun.
    #[serde(default)]
    pub boot: Option<String>,
}

impl Journal {
    /// An operation from one deployment to another.
    pub fn new(operation: Operation, from: Option<u32>, to: Option<u32>, enable: bool) -> Journal {
        let version = Journal::VERSION;
        let (purge, keep, state, stopped, group, boot) = (false, false, false, Vec::new(), false, None);
        Journal { version, operation, from, to, enable, purge, keep, state, stopped, group, boot }
    }

    /// The deployment that is in force when what was cut short is finished or undone; none where the container goes. `active` is what
    /// the container's file says, `group` whether `group.json` is there.
    pub fn winner(&self, active: Option<u32>, group: bool) -> Option<u32> {
        match self.operation {
            // Taken out of force it goes; not there yet it never was.
            Operation::Install | Operation::Uninstall => active,
            Operation::Update if self.keep && active == self.to => self.to,
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

impl Record for Journal {
    const VERSION: u32 = 1;
}

impl Record for Group {
    const VERSION: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_ends_in_the_old_or_the_new_one() {
        use Operation::*;
        for (operation, from, to, active, keep, settled) in [
            (Install, None, Some(1), Some(1), false, Some(1)),
            (Install, None, Some(1), None, false, None),
            (Uninstall, Some(1), None, None, false, None),
            (Uninstall, Some(1), None, Some(1), false, Some(1)),
            (Update, Some(1), Some(2), Some(1), false, Some(1)),
            (Update, Some(1), Some(2), Some(2), false, Some(1)),
            (Update, Some(1), Some(2), Some(2), true, Some(2)),
            (Update, Some(1), Some(2), Some(1), true, Some(1)),
            (Rollback, Some(2), Some(1), Some(1), false, Some(1)),
            (Rollback, Some(2), Some(1), Some(2), false, Some(2)),
        ] {
            let journal = Journal { keep, ..Journal::new(operation, from, to, true) };
            assert_eq!(journal.winner(active, false), settled, "{journal:?} with {active:?} in force");
        }
    }

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
    }
}
