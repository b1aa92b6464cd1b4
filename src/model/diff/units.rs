//! The rendered files of two deployments as unified diffs.

use std::time::Duration;

use serde::Serialize;
use similar::TextDiff;

use super::Side;

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Change {
    Added,
    Removed,
    Changed,
}

/// A unit, or the file for tmpfiles.d(5) or sysusers.d(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct UnitDifference {
    pub file: String,
    pub change: Change,
    /// As of `diff -u`.
    pub diff: String,
}

/// Lines around a change.
const CONTEXT: usize = 3;
const PATIENCE: Duration = Duration::from_secs(2);

/// The files that differ, by name.
pub fn compare(old: &Side, new: &Side) -> Vec<UnitDifference> {
    let mut files: Vec<&String> = old.units.keys().chain(new.units.keys()).collect();
    files.sort();
    files.dedup();
    let mut differences = Vec::new();
    for file in files {
        let text = |side: &Side| side.units.get(file).map(|text| without_identity(text, side));
        let (change, from, to) = match (text(old), text(new)) {
            (Some(from), Some(to)) if from == to => continue,
            (Some(from), Some(to)) => (Change::Changed, from, to),
            (Some(from), None) => (Change::Removed, from, String::new()),
            (None, to) => (Change::Added, String::new(), to.unwrap_or_default()),
        };
        let name = |side: &Side| if side.units.contains_key(file) { file.as_str() } else { "/dev/null" };
        // An image may have written what takes long to compare; then the diff is longer than it need be.
        let diff = TextDiff::configure()
            .timeout(PATIENCE)
            .diff_lines(&from, &to)
            .unified_diff()
            .context_radius(CONTEXT)
            .header(name(old), name(new))
            .to_string();
        differences.push(UnitDifference { file: file.clone(), change, diff });
    }
    differences
}

/// A unit names its own deployment and image; that these are others is known and would hide what else is.
fn without_identity(text: &str, side: &Side) -> String {
    let text = text.replace(&side.identity.digest.to_string(), "DIGEST");
    match side.identity.deployment {
        Some(id) => without_number(&text, id),
        None => text,
    }
}

/// The text without the number of the deployment that it is of.
pub fn without_number(text: &str, id: u32) -> String {
    let own = format!("/deployments/{id}");
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&own) {
        let (before, after) = (&rest[..at], &rest[at + own.len()..]);
        clean.push_str(before);
        clean.push_str(if after.starts_with(|c: char| c.is_ascii_digit()) { &own } else { "/deployments/N" });
        rest = after;
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_units_own_number_is_left_out() {
        let text = "run /x/deployments/1\nx /deployments/12 /deployments/1/rootfs\n";
        let clean = "run /x/deployments/N\nx /deployments/12 /deployments/N/rootfs\n";
        assert_eq!(without_number(text, 1), clean);
    }
}
