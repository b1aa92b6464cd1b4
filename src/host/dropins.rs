//! The unit of a service as systemd puts it together from files (systemd.unit(5)): the first one on its path, and the drop-ins.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rustix::fs::FileType;

use super::{dir::Folder, units::LOAD_PATH};
use crate::model::{boot::unit_name, name::ContainerName, unit::UnitFile};

/// The files of a container's service with their paths: its own first, then its drop-ins in the order in which they count.
pub fn of_service(root: &Folder, name: &ContainerName) -> Result<Vec<(String, UnitFile)>> {
    let unit = name.service_unit();
    let mut files = Vec::new();
    for place in LOAD_PATH {
        if let Some(folder) = root.open(place)?
            && let Some(text) = read(root, &folder, &unit)?
        {
            files.push((format!("/{place}/{unit}"), text));
            break;
        }
    }
    files.extend(in_folders(root, &unit_name::folders(&unit, "d"))?);
    files.into_iter().map(|(path, text)| Ok((path.clone(), UnitFile::parse(&path, &text)?))).collect()
}

/// The texts in folders with drop-ins, wherever on the load path these are, with their paths and in the order in which they count.
pub(super) fn in_folders(root: &Folder, folders: &[String]) -> Result<Vec<(String, String)>> {
    // The first folder that has a name wins it, and then the names decide the order.
    let mut drop_ins: BTreeMap<String, (String, Option<String>)> = BTreeMap::new();
    for place in folders.iter().flat_map(|folder| LOAD_PATH.iter().map(move |place| format!("{place}/{folder}"))) {
        let Some(folder) = root.open(&place)? else { continue };
        for file in folder.names()?.into_iter().filter(|file| file.ends_with(".conf")) {
            if !drop_ins.contains_key(&file) {
                let text = read(root, &folder, &file)?;
                drop_ins.insert(file.clone(), (format!("/{place}/{file}"), text));
            }
        }
    }
    Ok(drop_ins.into_values().filter_map(|(path, text)| Some((path, text?))).collect())
}

/// A file's text, through one link; none where it is masked or leads nowhere.
pub(super) fn read(root: &Folder, folder: &Folder, file: &str) -> Result<Option<String>> {
    if folder.kind(file)? != Some(FileType::Symlink) {
        return folder.read(file);
    }
    let target = folder.link_target(file).unwrap_or_default();
    let (parent, name) = target.rsplit_once('/').unwrap_or(("", &target));
    if target == "/dev/null" || name.is_empty() {
        return Ok(None);
    }
    let from = if target.starts_with('/') { root } else { folder };
    let parent = if parent.is_empty() { "." } else { parent };
    let parent = from.open(parent).with_context(|| format!("following {}", folder.path().join(file).display()))?;
    parent.map(|parent| parent.read(name)).transpose().map(Option::flatten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_are_found_and_masked_as_systemd_does_it() {
        let place = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = place.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            std::fs::write(path, text).expect("written");
        };
        write("etc/systemd/system.attached/a-b.service", "[Service]\nType=notify\n");
        write("etc/systemd/system/a-b.service.d/20-x.conf", "[Service]\nNice=1\n");
        write("run/systemd/system/a-b.service.d/20-x.conf", "[Service]\nNice=2\n");
        write("run/systemd/system/a-b.service.d/30-y.conf", "[Service]\nNice=3\n");
        write("usr/lib/systemd/system/a-b.service.d/40-masked.conf", "[Service]\nNice=4\n");
        write("usr/lib/systemd/system/service.d/10-all.conf", "[Service]\nNice=5\n");
        write("etc/systemd/system/a-.service.d/50-a.conf", "[Service]\nNice=6\n");
        write("etc/systemd/system/b.service.d/60-other.conf", "[Service]\nNice=7\n");
        write("srv/linked.conf", "[Service]\nNice=8\n");
        let mask = place.path().join("etc/systemd/system/a-b.service.d/40-masked.conf");
        std::os::unix::fs::symlink("/dev/null", mask).expect("a link");
        let link = place.path().join("etc/systemd/system/a-b.service.d/70-link.conf");
        std::os::unix::fs::symlink("/srv/linked.conf", link).expect("a link");

        let root = Folder::root(place.path()).expect("the root");
        let files = of_service(&root, &"a-b".parse().expect("a name")).expect("files");
        let nice = files.iter().skip(1).flat_map(|(_, unit)| unit.values("Service", "Nice")).collect::<Vec<_>>();
        assert_eq!(files[0].0, "/etc/systemd/system.attached/a-b.service");
        assert_eq!(nice, ["5", "1", "3", "6", "8"]);
    }
}
