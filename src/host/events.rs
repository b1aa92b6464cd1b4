//! Tells the system's journal what happened to a container. An operation never fails because nobody could be told.

use std::path::Path;

use libsystemd::logging::{Priority, journal_send};

use crate::model::event::Event;

/// Writes the entry, where `root` is the running system.
pub fn tell(root: &Path, event: &Event) {
    if root == Path::new("/") {
        let _ = journal_send(priority(event.priority()), &event.message(), event.fields().into_iter());
    }
}

fn priority(level: u8) -> Priority {
    match level {
        0..=2 => Priority::Critical,
        3 => Priority::Error,
        4 => Priority::Warning,
        _ => Priority::Notice,
    }
}
