//! What the package managers of two images know: dpkg's status, apk's database. An image may have written anything into them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// More packages than any distribution has in one image.
const MAX_PACKAGES: usize = 100_000;

/// What an image's package manager knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packages {
    /// `dpkg`, `apk` or `rpm`.
    pub databases: BTreeSet<&'static str>,
    /// The versions of each; one package may be there in several.
    pub versions: BTreeMap<String, BTreeSet<String>>,
    /// Why not all could be read.
    pub problems: Vec<String>,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct PackagesDifference {
    /// Those that the two images have; none is no fault.
    pub databases: BTreeSet<&'static str>,
    pub added: Vec<Package>,
    pub removed: Vec<Package>,
    pub changed: Vec<PackageChange>,
    /// Why the list may not be whole.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Package {
    pub name: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct PackageChange {
    pub name: String,
    pub from: String,
    pub to: String,
}

impl Packages {
    /// Adds what a `status` file of dpkg says, or a file of `status.d` (deb822(5)).
    pub fn add_dpkg(&mut self, text: &str) {
        self.databases.insert("dpkg");
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        for line in text.lines().chain([""]) {
            if line.is_empty() {
                // Removed ones keep an entry for their configuration; status.d has no such field.
                let installed = fields.get("Status").is_none_or(|status| status.ends_with(" installed"));
                if let (Some(name), Some(version), true) = (fields.get("Package"), fields.get("Version"), installed) {
                    self.add(name, version);
                }
                fields.clear();
            } else if let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '\t'])) {
                fields.insert(key, value.trim());
            }
        }
    }

    /// Adds what apk's `installed` says.
    pub fn add_apk(&mut self, text: &str) {
        self.databases.insert("apk");
        let (mut name, mut version) = (None, None);
        for line in text.lines().chain([""]) {
            match line.split_once(':') {
                Some(("P", value)) => name = Some(value),
                Some(("V", value)) => version = Some(value),
                None if line.is_empty() => {
                    if let (Some(name), Some(version)) = (name.take(), version.take()) {
                        self.add(name, version);
                    }
                }
                _ => {}
            }
        }
    }

    /// Adds one package.
    pub fn add(&mut self, name: &str, version: &str) {
        if self.versions.len() < MAX_PACKAGES {
            self.versions.entry(name.to_owned()).or_default().insert(version.to_owned());
        } else if !self.problems.iter().any(|problem| problem.starts_with("more than")) {
            self.problems.push(format!("more than {MAX_PACKAGES} packages are listed, the others are left out"));
        }
    }
}

/// Compares by name.
pub fn compare(old: &Packages, new: &Packages) -> PackagesDifference {
    let text = |versions: &BTreeSet<String>| versions.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let only = |one: &Packages, other: &Packages| {
        let missing = one.versions.iter().filter(|(name, _)| !other.versions.contains_key(*name));
        missing.map(|(name, versions)| Package { name: name.clone(), version: text(versions) }).collect::<Vec<_>>()
    };
    let both = old.versions.iter().filter_map(|(name, from)| Some((name, from, new.versions.get(name)?)));
    let changed = both.filter(|(_, from, to)| from != to);
    let changed = changed.map(|(name, from, to)| PackageChange { name: name.clone(), from: text(from), to: text(to) });
    let mut problems: Vec<String> = old.problems.iter().map(|problem| format!("before: {problem}")).collect();
    problems.extend(new.problems.iter().map(|problem| format!("after: {problem}")));
    PackagesDifference {
        databases: old.databases.union(&new.databases).copied().collect(),
        added: only(new, old),
        removed: only(old, new),
        changed: changed.collect(),
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: libc6\nStatus: install ok installed\nVersion: 2.41-12\nDescription: a library\n of many\n Version: 9\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: sh\nStatus: install ok installed\nVersion: 1:5\n";

    #[test]
    fn only_what_is_installed_counts_and_a_description_is_no_field() {
        let mut packages = Packages::default();
        packages.add_dpkg(STATUS);
        packages.add_dpkg("Package: tzdata\nVersion: 2026a\n");
        let found: Vec<_> = packages.versions.iter().map(|(name, of)| (name.as_str(), of.iter().next())).collect();
        let version = |text: &str| text.to_owned();
        let wanted = [("libc6", version("2.41-12")), ("sh", version("1:5")), ("tzdata", version("2026a"))];
        assert_eq!(found, wanted.iter().map(|(name, of)| (*name, Some(of))).collect::<Vec<_>>());
    }

    #[test]
    fn packages_come_go_and_change() {
        let (mut old, mut new) = (Packages::default(), Packages::default());
        old.add_apk("C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\n\nP:zlib\nV:1\n\n");
        new.add_apk("P:musl\nV:1.2.5-r1\n\nP:curl\nV:8\n");
        let difference = compare(&old, &new);
        assert_eq!(difference.databases, BTreeSet::from(["apk"]));
        assert_eq!(difference.added, [Package { name: "curl".into(), version: "8".into() }]);
        assert_eq!(difference.removed, [Package { name: "zlib".into(), version: "1".into() }]);
        let musl = PackageChange { name: "musl".into(), from: "1.2.5-r0".into(), to: "1.2.5-r1".into() };
        assert_eq!(difference.changed, [musl]);
    }

    #[test]
    fn a_database_without_an_end_is_cut() {
        let mut packages = Packages::default();
        for number in 0..MAX_PACKAGES + 10 {
            packages.add(&number.to_string(), "1");
        }
        assert_eq!((packages.versions.len(), packages.problems.len()), (MAX_PACKAGES, 1));
    }
}
