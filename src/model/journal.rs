//! The operation under way on a container.

use serde::{Deserialize, Serialize};

use super::record::Record;

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
    #[serde(default)]
    pub keep: bool,
    /// The boot in which it was begun.
    #[serde(default)]
    pub boot: Option<String>,
}

impl Journal {
    /// An operation from one deployment to another.
    pub fn new(operation: Operation, from: Option<u32>, to: Option<u32>, enable: bool) -> Journal {
        Journal { version: Journal::VERSION, operation, from, to, enable, purge: false, keep: false, boot: None }
    }

    /// The deployment that is in force once this operation is finished or taken back; `active` is the one that the files name.
    pub fn settled(&self, active: Option<u32>) -> Option<u32> {
        match self.operation {
            Operation::Install | Operation::Uninstall => active,
            Operation::Update if active == self.to && self.keep => self.to,
            Operation::Update => self.from,
            Operation::Rollback if active == self.to => self.to,
            Operation::Rollback => self.from,
        }
    }
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
            assert_eq!(journal.settled(active), settled, "{journal:?} with {active:?} in force");
        }
    }
}
