//! Tells the system's journal what happened to a container. An operation never fails because nobody could be told.

use std::path::Path;

use libsystemd::logging::{Priority, journal_send};

use super::{dir::Folder, recovery::Recovered, state};
use crate::model::event::{Event, Operation, Result, Version};

/// Writes the entry, where `root` is the running system.
pub fn tell(root: &Path, event: &Event) {
    if root == Path::new("/") {
        let _ = journal_send(priority(event.priority()), &event.message(), event.fields().into_iter());
    }
}

/// Tells that something which was cut short is at an earlier deployment now. What was finished as it was meant needs no word.
pub fn tell_recovered(root: &Folder, path: &Path, recovered: &Recovered) {
    let (Recovered::Back(name, _) | Recovered::RolledBack(name, _)) = recovered else { return };
    let to = state::installed(root, name).ok().map(|(_, now)| Version { digest: now.digest, deployment: Some(now.id) });
    let (operation, result) = (Operation::Recovery, Result::RolledBack);
    tell(path, &Event { container: name.clone(), operation, result, from: None, to, unasked: true, cause: None });
}

fn priority(level: u8) -> Priority {
    match level {
        0..=2 => Priority::Critical,
        3 => Priority::Error,
        4 => Priority::Warning,
        _ => Priority::Notice,
    }
}
