//! The rendered files of a deployment: staged beside their places, placed by renames, and withdrawn again.

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use rustix::fs::FileType;

use super::{dir::Folder, enablement, fsck::Report};
use crate::model::{layout, name::ContainerName, unit::UnitFile};

/// Where systemd looks for units, in this order (systemd.unit(5), "Unit File Load Path").
pub const LOAD_PATH: [&str; 12] = [
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/generator.early",
    "etc/systemd/system",
    layout::UNITS,
    "run/systemd/system",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
];

/// The file that makes a unit's name taken, where one does.
pub fn taken(root: &Folder, unit: &str) -> Result<Option<PathBuf>> {
    for place in LOAD_PATH {
        if let Some(folder) = root.open(place)?
            && folder.kind(unit)?.is_some()
        {
            return Ok(Some(PathBuf::from("/").join(place).join(unit)));
        }
    }
    Ok(None)
}

/// What lies already where one of the files or links of a new container would.
pub fn conflict(root: &Folder, name: &ContainerName, files: &BTreeMap<String, String>) -> Result<Option<PathBuf>> {
    for (file, text) in files {
        if layout::is_unit(file) {
            if let Some(path) = taken(root, file)? {
                return Ok(Some(path));
            }
            for link in layout::links(file, &UnitFile::parse(file, text)?)? {
                if let Some(folder) = root.open(&link.folder)?
                    && folder.kind(&link.name)?.is_some()
                    && folder.link_target(&link.name).as_deref() != Some(&link.target)
                {
                    return Ok(Some(PathBuf::from("/").join(link.folder).join(link.name)));
                }
            }
        } else {
            let (folder, placed) = layout::place(name, file);
            if root.open(folder)?.map(|folder| folder.kind(&placed)).transpose()?.flatten().is_some() {
                return Ok(Some(PathBuf::from("/").join(folder).join(placed)));
            }
        }
    }
    Ok(None)
}

/// Writes the set, and each of its files under a temporary name in the folder where it will lie; all synced.
pub fn stage(root: &Folder, name: &ContainerName, id: u32, files: &BTreeMap<String, String>) -> Result<()> {
    let set = root.create(&layout::unit_set(name, id), 0o755)?;
    files.iter().try_for_each(|(file, text)| set.write_new(file, text, 0o644))?;
    // The set tells what else there is to take back: it is there before any of that, and gone after it.
    set.sync()?;
    let mut folders = BTreeMap::new();
    for (file, text) in files {
        let (folder, placed) = layout::place(name, file);
        let opened = root.create(folder, 0o755)?;
        opened.write_new(&temporary(&placed, id), text, 0o644)?;
        folders.insert(folder, opened);
    }
    folders.values().try_for_each(|folder| folder.sync())
}

/// Takes back what [`stage`] wrote.
pub fn discard(root: &Folder, name: &ContainerName, id: u32) -> Result<()> {
    let mut folders = BTreeMap::new();
    for file in set_files(root, name, id)? {
        let (folder, placed) = layout::place(name, &file);
        if let Some(opened) = root.open(folder)? {
            opened.remove(&temporary(&placed, id))?;
            folders.insert(folder, opened);
        }
    }
    folders.values().try_for_each(|folder| folder.sync())?;
    folders.keys().try_for_each(|folder| remove_if_empty(root, folder))?;
    if let Some(settings) = root.open(&layout::settings(name))? {
        settings.remove_tree(&id.to_string())?;
        settings.sync()?;
    }
    Ok(())
}

/// Puts the set's files in their places, by renames where they are staged. Can be done again.
pub fn place(root: &Folder, name: &ContainerName, id: u32) -> Result<()> {
    let set = root.open(&layout::unit_set(name, id))?;
    let set = set.with_context(|| format!("deployment {id} of {name} has no units"))?;
    for file in set.names()? {
        let (folder, placed) = layout::place(name, &file);
        let folder = root.create(folder, 0o755)?;
        let staged = temporary(&placed, id);
        if folder.kind(&staged)?.is_some() {
            folder.rename(&staged, &placed)?;
        } else {
            let text = set.read(&file)?.unwrap_or_default();
            if folder.read(&placed)?.as_deref() != Some(&text) {
                folder.write(&placed, &text, 0o644)?;
            }
        }
    }
    point(root, name, id)
}

/// Lets `current` name the deployment in force.
pub fn point(root: &Folder, name: &ContainerName, id: u32) -> Result<()> {
    let target = format!("deployments/{id}");
    if let Some(container) = root.open(&layout::container(name))?
        && container.link_target("current").as_deref() != Some(&target)
        && container.kind(&target)?.is_some()
    {
        container.link("current", &target)?;
    }
    Ok(())
}

/// Removes what deployment `old` had placed and `new` has not. If the container is enabled, the links become those of `new`: one that
/// both have is there all the time.
pub fn replace(root: &Folder, name: &ContainerName, old: u32, new: u32, enable: bool) -> Result<()> {
    enablement::replace(root, name, old, new, enable)?;
    let kept = set_files(root, name, new)?;
    for file in set_files(root, name, old)?.iter().filter(|file| !kept.contains(file)) {
        let (folder, placed) = layout::place(name, file);
        if let Some(folder) = root.open(folder)?
            && folder.remove(&placed)?
        {
            folder.sync()?;
        }
    }
    Ok(())
}

/// Removes every placed file of the container's sets, and the links to them.
pub fn withdraw(root: &Folder, name: &ContainerName) -> Result<()> {
    enablement::disable(root, name)?;
    for id in set_ids(root, name)? {
        for file in set_files(root, name, id)? {
            let (place, placed) = layout::place(name, &file);
            if let Some(folder) = root.open(place)? {
                folder.remove(&placed)?;
                folder.remove(&temporary(&placed, id))?;
                folder.sync()?;
            }
            remove_if_empty(root, place)?;
        }
    }
    // written anew where others have lines: what is removed gives room for it
    enablement::preset(root, name, None)
}

/// What it says of a program that is not there, too.
const NOT_EXECUTABLE: &str = " is not executable: ";

/// What `systemd-analyze verify` came to.
pub enum Reading {
    /// Every line that names one of the units.
    Said(Vec<String>),
    /// It did not read them, and why.
    Unread(String),
}

/// Lets systemd read sets before they are in force, all at once, since one may need another. Any message refuses; whether it was asked.
/// Unless they are `here`, what they run lies in the tree that they are for, where systemd-analyze does not look.
pub fn verify(root: &Folder, sets: &[(&ContainerName, u32)], here: bool) -> Result<Reading> {
    let mut paths = Vec::new();
    for (name, id) in sets {
        let Some(set) = root.open(&layout::unit_set(name, *id))? else { continue };
        paths.extend(set.names()?.iter().filter(|file| layout::is_unit(file)).map(|unit| set.path().join(unit)));
    }
    let reading = read_by_systemd(&paths)?;
    if let Reading::Said(lines) = &reading
        && let Some(line) = lines.iter().find(|line| here || !line.contains(NOT_EXECUTABLE))
    {
        bail!("systemd refuses the unit: {line}");
    }
    Ok(reading)
}

/// The same for the texts of units that are nowhere yet.
pub fn verify_texts(units: &BTreeMap<String, String>) -> Result<Reading> {
    let folder = tempfile::tempdir().context("making a folder for the units")?;
    for (unit, text) in units {
        std::fs::write(folder.path().join(unit), text).with_context(|| format!("writing {unit}"))?;
    }
    let paths: Vec<PathBuf> = units.keys().map(|unit| folder.path().join(unit)).collect();
    let own = format!("Command {} is not executable", layout::RUNTIME);
    Ok(match read_by_systemd(&paths)? {
        // Where sysctr is not installed.
        Reading::Said(lines) => Reading::Said(lines.into_iter().filter(|line| !line.contains(&own)).collect()),
        unread @ Reading::Unread(_) => unread,
    })
}

/// It exits 0 for keys that it does not know, so what counts is what it says.
fn read_by_systemd(paths: &[PathBuf]) -> Result<Reading> {
    let mut command = Command::new("systemd-analyze");
    let output = match command.args(["verify", "--man=no", "--recursive-errors=no"]).args(paths).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Reading::Unread("there is no systemd-analyze".to_owned()));
        }
        Err(error) => return Err(error).context("running systemd-analyze verify"),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let units: Vec<_> = paths.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    // "/path/of/a.service:3: ..." or "a.service: ..."; a name that only ends so is another unit's.
    let names = |line: &str, unit: &str| line.contains(&format!("/{unit}:")) || line.starts_with(&format!("{unit}:"));
    // What it requires may be installed later; until then it does not start, and says why.
    let later = |line: &str| line.contains("/start: Unit ") && line.ends_with(" not found.");
    let lines = text.lines().filter(|line| !later(line) && units.iter().any(|unit| names(line, unit)));
    Ok(Reading::Said(lines.map(str::to_owned).collect()))
}

/// Is each placed file what the set in force says? Drop-ins and masks are the admin's and lie elsewhere.
pub fn verify_placed(root: &Folder, name: &ContainerName, id: u32, report: &mut Report) -> Result<()> {
    let files = set_files(root, name, id)?;
    // An image of version 1.0 may be nothing but files for the host.
    let has_service = super::state::deployment(root, name, id).map_or(true, |record| !record.units.is_empty());
    if has_service && !files.contains(&name.service_unit()) {
        let set = root.path().join(layout::unit_set(name, id)).join(name.service_unit());
        report.add("placed", set.display().to_string(), "it is missing");
    }
    for file in files {
        let wanted = root.open(&layout::unit_set(name, id))?.map(|set| set.read(&file)).transpose()?.flatten();
        let (folder, placed) = layout::place(name, &file);
        let path = root.path().join(folder).join(&placed).display().to_string();
        report.checked += 1;
        let Some(folder) = root.open(folder)? else {
            report.add("placed", path, "it is missing");
            continue;
        };
        match folder.kind(&placed)? {
            None => report.add("placed", path, "it is missing"),
            Some(FileType::RegularFile) if folder.read_bytes(&placed)? == wanted.map(String::into_bytes) => {}
            Some(FileType::RegularFile) => report.add("placed", path, "its content is not what was installed"),
            Some(_) => report.add("placed", path, "it is no regular file"),
        }
    }
    Ok(())
}

/// The text of the placed tmpfiles.d(5) file; empty where there is none.
pub fn tmpfiles(root: &Folder, name: &ContainerName) -> Result<String> {
    let (folder, placed) = layout::place(name, layout::TMPFILES);
    Ok(root.open(folder)?.map(|folder| folder.read(&placed)).transpose()?.flatten().unwrap_or_default())
}

/// Whether a socket of the set has an instance of a service started for each connection.
pub fn accepts(root: &Folder, name: &ContainerName, id: u32) -> Result<bool> {
    let Some(set) = root.open(&layout::unit_set(name, id))? else { return Ok(false) };
    for file in set.names()?.iter().filter(|file| file.ends_with(".socket")) {
        if UnitFile::parse(file, &set.read(file)?.unwrap_or_default())?.accepts() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The files of a set.
pub fn set_files(root: &Folder, name: &ContainerName, id: u32) -> Result<Vec<String>> {
    root.open(&layout::unit_set(name, id))?.map_or(Ok(Vec::new()), |set| set.names())
}

/// The files of a set with their texts.
pub fn set_texts(root: &Folder, name: &ContainerName, id: u32) -> Result<BTreeMap<String, String>> {
    let Some(set) = root.open(&layout::unit_set(name, id))? else { return Ok(BTreeMap::new()) };
    set.names()?.into_iter().map(|file| Ok((file.clone(), set.read(&file)?.unwrap_or_default()))).collect()
}

/// Whether a file is the same in two sets.
pub fn is_same(root: &Folder, name: &ContainerName, file: &str, one: u32, other: u32) -> Result<bool> {
    let text = |id| root.open(&layout::unit_set(name, id))?.map_or(Ok(None), |set| set.read(file));
    Ok(text(one)? == text(other)?)
}

/// The deployments that an admin's own unit, template unit or drop-in for the container names.
pub fn named_deployments(root: &Folder, name: &ContainerName) -> Result<Vec<u32>> {
    let mut named = Vec::new();
    let start = format!("/{}/", layout::deployments(name));
    for place in ["etc/systemd/system", "run/systemd/system"] {
        let Some(folder) = root.open(place)? else { continue };
        let mut texts = Vec::new();
        for unit in [name.service_unit(), name.template_unit()] {
            if folder.kind(&unit)? == Some(FileType::RegularFile) {
                texts.extend(folder.read(&unit)?);
            }
            if let Some(drop_ins) = folder.open(&format!("{unit}.d"))? {
                for file in drop_ins.names()?.iter().filter(|file| file.ends_with(".conf")) {
                    texts.extend(drop_ins.read(file).ok().flatten());
                }
            }
        }
        for text in texts {
            let ids = text.match_indices(&start).map(|(at, _)| &text[at + start.len()..]);
            named.extend(ids.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()));
        }
    }
    Ok(named)
}

/// The numbers of the sets on disk.
pub fn set_ids(root: &Folder, name: &ContainerName) -> Result<Vec<u32>> {
    let names = root.open(&layout::settings(name))?.map_or(Ok(Vec::new()), |folder| folder.names())?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

fn temporary(placed: &str, id: u32) -> String {
    format!(".sysctr-{placed}.{id}")
}

/// Our own folders go when nothing is left in them; the distribution's stay.
pub(super) fn remove_if_empty(root: &Folder, folder: &str) -> Result<()> {
    if [layout::UNITS, layout::PRESET_FOLDER].contains(&folder)
        && let Some((parent, name)) = folder.rsplit_once('/')
        && let Some(parent) = root.open(parent)?
    {
        parent.remove_empty(name)?;
        parent.sync()?;
    }
    Ok(())
}
