//! What `systemctl enable` would do for a container's units, by links of our own that are synced (it does not sync), and by lines in a
//! preset file.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{
    dir::Folder,
    units::{remove_if_empty, set_files, set_ids},
};
use crate::model::{
    layout::{self, Link},
    name::ContainerName,
    unit::UnitFile,
};

/// Makes the links of the set's [Install] sections.
pub fn enable(root: &Folder, name: &ContainerName, id: u32) -> Result<()> {
    for link in links(root, name, id)? {
        let folder = root.create(&link.folder, 0o755)?;
        if folder.link_target(&link.name).as_deref() != Some(&link.target) {
            folder.link(&link.name, &link.target)?;
        }
    }
    Ok(())
}

/// Whether every link of the set's [Install] sections is there, and there is one.
pub fn is_enabled(root: &Folder, name: &ContainerName, id: u32) -> Result<bool> {
    let links = links(root, name, id)?;
    for link in &links {
        let there = root.open(&link.folder)?.and_then(|folder| folder.link_target(&link.name));
        if there.as_deref() != Some(&link.target) {
            return Ok(false);
        }
    }
    Ok(!links.is_empty())
}

/// Whether a unit of the set is one that its [Install] section enables.
pub fn is_linked(root: &Folder, name: &ContainerName, id: u32, unit: &str) -> Result<bool> {
    let target = format!("/{}/{unit}", layout::UNITS);
    Ok(links(root, name, id)?.iter().any(|link| link.target == target))
}

/// Lets the links of `old` become those of `new`, where the container is enabled; else those of `old` go. One that both have is there all
/// the time.
pub fn replace(root: &Folder, name: &ContainerName, old: u32, new: u32, enable: bool) -> Result<()> {
    if enable {
        self::enable(root, name, new)?;
    }
    let keep = links(root, name, new)?;
    for link in links(root, name, old)?.iter().filter(|link| !keep.contains(link)) {
        if let Some(folder) = root.open(&link.folder)? {
            // also one that was being made
            remove_links(&folder, std::slice::from_ref(&link.target))?;
        }
        remove_if_unused(root, link)?;
    }
    Ok(())
}

/// Removes every link to the container's units, whoever made it.
pub fn disable(root: &Folder, name: &ContainerName) -> Result<()> {
    let mut targets = Vec::new();
    for id in set_ids(root, name)? {
        targets.extend(set_files(root, name, id)?.into_iter().map(|file| format!("/{}/{file}", layout::UNITS)));
    }
    let Some(system) = root.open(layout::LINKS)? else { return Ok(()) };
    remove_links(&system, &targets)?;
    for folder in
        system.names()?.iter().filter(|name| [".wants", ".requires", ".upholds"].iter().any(|end| name.ends_with(end)))
    {
        if let Some(wants) = system.open(folder)? {
            remove_links(&wants, &targets)?;
        }
    }
    // As `systemctl disable` does; also those that an earlier run emptied.
    for id in set_ids(root, name)? {
        for link in links(root, name, id)? {
            remove_if_unused(root, &link)?;
        }
    }
    Ok(())
}

/// Removes the folder of a link (`x.target.wants`) where nothing is left in it.
fn remove_if_unused(root: &Folder, link: &Link) -> Result<()> {
    if let Some(folder) = link.folder.strip_prefix(layout::LINKS).and_then(|folder| folder.strip_prefix('/'))
        && let Some(system) = root.open(layout::LINKS)?
        && system.remove_empty(folder)?
    {
        system.sync()?;
    }
    Ok(())
}

fn remove_links(folder: &Folder, targets: &[String]) -> Result<()> {
    let mut removed = false;
    for name in folder.names()? {
        if folder.link_target(&name).is_some_and(|target| targets.contains(&target)) {
            removed |= folder.remove(&name)?;
        }
    }
    if removed { folder.sync() } else { Ok(()) }
}

/// Sets the container's lines in our preset file (systemd.preset(5)) to those of a deployment, enabled or not, or drops them: a first boot
/// must not enable what was left off, nor the other way round.
pub fn preset(root: &Folder, name: &ContainerName, enabled: Option<(u32, bool)>) -> Result<()> {
    let known = root.open(layout::PRESET_FOLDER)?.map(|folder| folder.read(layout::PRESET)).transpose()?.flatten();
    if known.is_none() && enabled.is_none() {
        return remove_if_empty(root, layout::PRESET_FOLDER);
    }
    let known = known.unwrap_or_default();
    let is_other = |line: &&str| line.split_whitespace().nth(1).is_none_or(|unit| !layout::is_of(unit, name));
    let mut lines: Vec<String> = known.lines().filter(is_other).map(str::to_owned).collect();
    if let Some((id, on)) = enabled {
        let mut units = BTreeSet::from([name.service_unit()]);
        units.extend(
            links(root, name, id)?.into_iter().filter_map(|link| Some(link.target.rsplit('/').next()?.to_owned())),
        );
        lines.extend(units.iter().map(|unit| format!("{} {unit}", if on { "enable" } else { "disable" })));
    }
    lines.sort();
    if lines.is_empty() {
        if let Some(folder) = root.open(layout::PRESET_FOLDER)? {
            folder.remove(layout::PRESET)?;
            folder.sync()?;
        }
        return remove_if_empty(root, layout::PRESET_FOLDER);
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if text == known {
        // What was killed while it wrote others, which are taken back, left them half written.
        return match root.open(layout::PRESET_FOLDER)? {
            Some(folder) => folder.remove(&format!(".sysctr-{}.new", layout::PRESET)).map(drop),
            None => Ok(()),
        };
    }
    root.create(layout::PRESET_FOLDER, 0o755)?.write(layout::PRESET, &text, 0o644)
}

fn links(root: &Folder, name: &ContainerName, id: u32) -> Result<Vec<Link>> {
    let Some(set) = root.open(&layout::unit_set(name, id))? else { return Ok(Vec::new()) };
    let mut links = Vec::new();
    for file in set.names()?.into_iter().filter(|file| layout::is_unit(file)) {
        let text = set.read(&file)?.unwrap_or_default();
        links.extend(layout::links(&file, &UnitFile::parse(&file, &text)?)?);
    }
    Ok(links)
}
