//! One whole unit set for systemd, whatever lies in its places.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    os::unix::fs::symlink,
    path::Path,
};

use anyhow::{Context, Result};

use super::put;
use crate::model::{
    journal::Journal,
    layout::{self, LINKS, Link},
    name::ContainerName,
    unit::UnitFile,
};

/// Writes the set of the deployment that will be in force when the operation is finished or taken back. The units of the container's other sets are masked:
/// half of one may be in place. What the admin has in /etc/systemd/system goes on to win, a mask too, though this folder comes before it.
pub fn write(root: &Path, name: &ContainerName, journal: &Journal, settled: Option<u32>, early: &Path) -> Result<()> {
    // Read whole before a line of it is written: of a damaged set not even half is given.
    let wanted = settled.map(|id| units(root, name, id)).transpose()?.unwrap_or_default();
    let mut others = BTreeMap::new();
    for id in [journal.from, journal.to].into_iter().flatten().filter(|id| Some(*id) != settled) {
        // One that is gone already has nothing in place.
        others.extend(units(root, name, id).unwrap_or_default());
    }
    let mut links = if journal.enable { links(&wanted)? } else { Vec::new() };
    for (unit, text) in wanted.iter().filter(|(unit, _)| !is_the_admins(root, unit)) {
        put(&early.join(unit), text)?;
    }
    for unit in others.keys().filter(|unit| !wanted.contains_key(*unit) && !is_the_admins(root, unit)) {
        link("/dev/null", &early.join(unit))?;
    }
    let kept: BTreeSet<_> = links.iter().map(place).collect();
    let gone = self::links(&others).unwrap_or_default().into_iter().filter(|link| !kept.contains(&place(link)));
    // An alias goes with its unit.
    links.extend(gone.filter(|link| link.folder != LINKS).map(|link| Link { target: "/dev/null".to_owned(), ..link }));
    for Link { folder, name, target } in links {
        let folder = early.join(folder.strip_prefix(LINKS).unwrap_or_default().trim_start_matches('/'));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let target = match target.rsplit_once('/') {
            Some((_, unit)) if target != "/dev/null" && is_the_admins(root, unit) => target.clone(),
            Some((_, unit)) if target != "/dev/null" => early.join(unit).display().to_string(),
            _ => target,
        };
        link(&target, &folder.join(name))?;
    }
    Ok(())
}

fn place(link: &Link) -> (String, String) {
    (link.folder.clone(), link.name.clone())
}

/// The units of a set with their text.
fn units(root: &Path, name: &ContainerName, id: u32) -> Result<BTreeMap<String, String>> {
    let folder = root.join(layout::unit_set(name, id));
    let context = || format!("reading {}", folder.display());
    let mut units = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(context)? {
        let file = entry.with_context(context)?.file_name().to_string_lossy().into_owned();
        if layout::is_unit(&file) && !file.starts_with('.') {
            let text = fs::read_to_string(folder.join(&file)).with_context(context)?;
            units.insert(file, text);
        }
    }
    Ok(units)
}

fn links(units: &BTreeMap<String, String>) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for (unit, text) in units {
        links.extend(layout::links(unit, &UnitFile::parse(unit, text)?)?);
    }
    Ok(links)
}

/// Whether a unit is masked or replaced in /etc/systemd/system.
fn is_the_admins(root: &Path, unit: &str) -> bool {
    root.join(LINKS).join(unit).symlink_metadata().is_ok()
}

fn link(target: &str, path: &Path) -> Result<()> {
    match symlink(target, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.with_context(|| format!("linking {}", path.display())),
    }
}
