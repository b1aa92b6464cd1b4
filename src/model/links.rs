//! The links that enable a unit (systemd.unit(5), "[Install] Section Options").

use anyhow::{Result, ensure};

use super::{
    layout::{LINKS, UNITS},
    unit::UnitFile,
};

/// An enablement link: folder below [`LINKS`], name of the link, and what it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Link {
    pub folder: String,
    pub name: String,
    pub target: String,
}

/// The links that enable a unit, from its [Install] section (systemd.unit(5)). A name that is none could lead elsewhere.
pub fn links(file: &str, unit: &UnitFile) -> Result<Vec<Link>> {
    let target = format!("/{UNITS}/{file}");
    let mut links = Vec::new();
    for (key, suffix) in [("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")] {
        for wanting in unit.values("Install", key).flat_map(str::split_whitespace) {
            ensure!(is_unit_name(wanting), "{file}: {key}={wanting} names no unit");
            let folder = format!("{LINKS}/{wanting}.{suffix}");
            links.push(Link { folder, name: file.to_owned(), target: target.clone() });
        }
    }
    for alias in unit.values("Install", "Alias").flat_map(str::split_whitespace) {
        ensure!(is_unit_name(alias), "{file}: Alias={alias} names no unit");
        links.push(Link { folder: LINKS.to_owned(), name: alias.to_owned(), target: target.clone() });
    }
    Ok(links)
}

/// systemd.unit(5): `NAME.TYPE` of these characters.
fn is_unit_name(text: &str) -> bool {
    let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
    good && text.len() < 200
        && text
            .rsplit_once('.')
            .is_some_and(|(stem, kind)| !stem.is_empty() && !stem.starts_with('.') && !kind.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_lies_where_systemd_looks_or_nowhere() {
        let of = |line: &str| {
            let unit = UnitFile::parse("a.service", &format!("[Install]\n{line}")).expect(line);
            links("a.service", &unit)
        };
        assert_eq!(of("WantedBy=multi-user.target a@b.service").expect("two").len(), 2);
        for line in
            ["WantedBy=../../../tmp/x.target", "Alias=../x.service", "Alias=..", "RequiredBy=%i.target", "WantedBy=x"]
        {
            assert!(of(line).is_err(), "{line} was taken");
        }
    }
}
