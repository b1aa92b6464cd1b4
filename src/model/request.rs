//! What an image may do unasked, and what it has to request, by the table of `rules`. One reader for each kind of text: `spec` for the
//! finished config.json, `unit` for the finished units, and `host_lines` for the tmpfiles.d and sysusers.d lines; so nothing depends on
//! how the text was made.

use std::collections::BTreeSet;

mod spec;
mod unit;

pub use spec::{of_both, of_spec};
pub use unit::of_unit;
pub(super) use unit::{FREE, INSTALL_TARGETS, PASSIVE_TARGETS};

/// Requests in plain words, sorted; the words are also what the record keeps as accepted.
pub type Requests = BTreeSet<String>;

/// The unit that mends what was cut short before anything of ours starts.
pub const RECOVER_UNIT: &str = "sysctr-recover.service";

/// Whether `path` is `folder` or lies in it.
pub fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
