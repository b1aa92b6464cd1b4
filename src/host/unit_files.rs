//! Units as systemd puts them together from files (systemd.unit(5), "Unit File Load Path"): the first file on the path, aliases, masks,
//! drop-ins, and the folders of links. The path is read once; what is not on disk yet can be laid over it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::Result;

use super::{dir::Folder, dropins, units::LOAD_PATH};
use crate::model::{
    boot::{
        DEFAULT_TARGET, Graph, Load, Names, implied,
        parse::{self, Source},
        unit_name,
    },
    layout,
    unit::UnitFile,
};

/// The names in every folder of the load path.
pub struct UnitFiles<'a> {
    root: &'a Folder,
    /// By folder below the root; those of links and drop-ins have their own.
    folders: BTreeMap<String, BTreeSet<String>>,
    /// Units that are to come, and the links to them, as if they were placed.
    coming: BTreeMap<String, String>,
    links: BTreeMap<String, Names>,
    /// Units that are to go.
    going: Names,
}

/// What a name is on the path.
enum Found {
    Text(String),
    /// Another name of this unit.
    Alias(String),
    Masked,
    Bad,
    Nothing,
}

impl<'a> UnitFiles<'a> {
    /// Reads which files there are.
    pub fn read(root: &'a Folder) -> Result<UnitFiles<'a>> {
        let mut folders = BTreeMap::new();
        for place in LOAD_PATH {
            let Some(folder) = root.open(place)? else { continue };
            let names: BTreeSet<String> = folder.names()?.into_iter().collect();
            for name in names
                .iter()
                .filter(|name| [".wants", ".requires", ".upholds", ".d"].iter().any(|end| name.ends_with(end)))
            {
                // A file of such a name is none of them.
                if let Ok(Some(inner)) = folder.open(name) {
                    folders.insert(format!("{place}/{name}"), inner.names()?.into_iter().collect());
                }
            }
            folders.insert(place.to_owned(), names);
        }
        Ok(UnitFiles { root, folders, coming: BTreeMap::new(), links: BTreeMap::new(), going: Names::new() })
    }

    /// Lays the units of a deployment over what is there, enabled or not, in place of those of the one before it.
    pub fn lay_over(&mut self, files: &BTreeMap<String, String>, enabled: bool, before: &[String]) -> Result<()> {
        self.going.extend(before.iter().filter(|unit| !files.contains_key(*unit)).cloned());
        for (file, text) in files.iter().filter(|(file, _)| layout::is_unit(file)) {
            if enabled {
                for link in layout::links(file, &UnitFile::parse(file, text)?)? {
                    self.links.entry(link.folder).or_default().insert(link.name);
                }
            }
            self.coming.insert(file.clone(), text.clone());
        }
        Ok(())
    }

    /// The graph of what a boot starts, and of these units.
    pub fn graph(&self, own: &Names) -> Result<Graph> {
        let mut units = BTreeMap::new();
        let mut own_names: BTreeMap<String, String> = BTreeMap::new();
        let named = own.iter().filter(|name| !unit_name::is_template(name)).cloned();
        let mut todo: VecDeque<String> = [DEFAULT_TARGET.to_owned()].into_iter().chain(named).collect();
        let mut asked = Names::new();
        while let Some(name) = todo.pop_front() {
            if !asked.insert(name.clone()) {
                continue;
            }
            let (id, source) = self.load(&name)?;
            if id != name {
                own_names.insert(name, id.clone());
            }
            if units.contains_key(&id) {
                continue;
            }
            let unit = parse::unit(&id, &source);
            todo.extend(unit.requires.iter().chain(&unit.requisite).chain(&unit.wants).cloned());
            let mounts = unit.mounts_for.iter().flat_map(|path| unit_name::mounts_above(path));
            todo.extend(mounts.filter(|mount| self.is_there(mount)));
            if own.contains(&id) {
                // Only whether they are there is asked of these.
                todo.extend(unit.after.iter().cloned());
            }
            units.insert(id, unit);
        }
        for (alias, id) in own_names {
            if let Some(unit) = units.get_mut(&id) {
                unit.aliases.insert(alias);
            }
        }
        implied::add(&mut units);
        Ok(Graph::new(units))
    }

    fn is_there(&self, name: &str) -> bool {
        self.coming.contains_key(name) || LOAD_PATH.iter().any(|place| self.has(place, name))
    }

    fn has(&self, place: &str, name: &str) -> bool {
        self.folders.get(place).is_some_and(|names| names.contains(name))
    }

    /// A unit under its own name, with all that belongs to it.
    fn load(&self, name: &str) -> Result<(String, Source)> {
        let mut id = name.to_owned();
        let mut source = Source::default();
        // An alias may lead to an alias.
        for _ in 0..8 {
            match self.find(&id)? {
                Found::Alias(other) => id = other,
                Found::Text(text) => {
                    match UnitFile::parse(&id, &text) {
                        Ok(text) => source.texts.push(text),
                        // systemd passes over such lines; what else there is, nobody knows.
                        Err(_) => source.load = Load::Bad,
                    }
                    break;
                }
                Found::Masked => source.load = Load::Masked,
                Found::Bad => source.load = Load::Bad,
                Found::Nothing => source.load = Load::NotFound,
            }
            if source.load != Load::Loaded {
                return Ok((id, source));
            }
        }
        let names: Names = [name.to_owned(), id.clone()].into_iter().collect();
        let mut folders: Vec<String> = names.iter().flat_map(|name| unit_name::folders(name, "d")).collect();
        folders.dedup();
        for (_, text) in self.drop_ins(&folders)? {
            source.texts.extend(UnitFile::parse(&id, &text));
        }
        for name in &names {
            source.required.extend(self.linked(name, "requires", &id));
            source.wanted.extend(self.linked(name, "wants", &id));
            source.wanted.extend(self.linked(name, "upholds", &id));
        }
        Ok((id, source))
    }

    /// The first file on the path, of the unit or of its template.
    fn find(&self, asked: &str) -> Result<Found> {
        if let Some(text) = self.coming.get(asked) {
            return Ok(Found::Text(text.clone()));
        }
        for name in [Some(asked.to_owned()), unit_name::template(asked)].into_iter().flatten() {
            for place in LOAD_PATH.iter().filter(|place| self.has(place, &name)) {
                if *place == layout::UNITS && self.going.contains(&name) {
                    continue;
                }
                let Some(folder) = self.root.open(place)? else { continue };
                let target = folder.link_target(&name);
                if target.as_deref() == Some("/dev/null") {
                    return Ok(Found::Masked);
                }
                let other = target.as_deref().map(|target| target.rsplit('/').next().unwrap_or(target).to_owned());
                if let Some(other) =
                    other.filter(|other| *other != name && unit_name::kind(other) == unit_name::kind(&name))
                {
                    // A link that leads to the template is an instance's own file, not another name.
                    let other = unit_name::instantiate(&other, unit_name::instance(asked));
                    if other != asked {
                        return Ok(Found::Alias(other));
                    }
                }
                return Ok(match dropins::read(self.root, &folder, &name) {
                    Ok(Some(text)) if text.is_empty() => Found::Masked,
                    Ok(Some(text)) => Found::Text(text),
                    Ok(None) => continue,
                    Err(_) => Found::Bad,
                });
            }
        }
        Ok(Found::Nothing)
    }

    /// The names in a unit's folders of links. One that is masked in an earlier place is none.
    fn linked(&self, name: &str, ending: &str, unit: &str) -> Names {
        let mut all = Names::new();
        let mut masked = Names::new();
        let folders = [Some(name.to_owned()), unit_name::template(name)].into_iter().flatten();
        for folder in folders.map(|name| format!("{name}.{ending}")) {
            for place in LOAD_PATH.iter().map(|place| format!("{place}/{folder}")) {
                for link in self.folders.get(&place).into_iter().flatten() {
                    let target = self.root.open(&place).ok().flatten().and_then(|folder| folder.link_target(link));
                    let is_mask = target.as_deref() == Some("/dev/null");
                    if is_mask && !all.contains(link) {
                        masked.insert(link.clone());
                    }
                    // What is not there any more links nothing.
                    if !masked.contains(link) && !self.going.contains(link) && target.is_some() {
                        all.insert(link.clone());
                    }
                }
            }
            all.extend(self.links.get(&format!("{}/{folder}", layout::LINKS)).into_iter().flatten().cloned());
        }
        all.into_iter().map(|link| unit_name::instantiate(&link, unit_name::instance(unit))).collect()
    }

    /// The texts of the drop-ins in these folders with their paths, in the order in which they count.
    fn drop_ins(&self, folders: &[String]) -> Result<Vec<(String, String)>> {
        let there =
            |folder: &&String| LOAD_PATH.iter().any(|place| self.folders.contains_key(&format!("{place}/{folder}")));
        let folders: Vec<String> = folders.iter().filter(there).cloned().collect();
        dropins::in_folders(self.root, &folders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink, path::Path};

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        match text.strip_prefix("-> ") {
            Some(target) => symlink(target, path).expect("a link"),
            None => fs::write(path, text).expect("written"),
        }
    }

    #[test]
    fn units_are_put_together_as_systemd_does_it() {
        let place = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            ("usr/lib/systemd/system/graphical.target", "[Unit]\nRequires=basic.target\nAfter=basic.target\n"),
            ("usr/lib/systemd/system/basic.target", "[Unit]\n"),
            ("usr/lib/systemd/system/sysinit.target", "[Unit]\n"),
            ("etc/systemd/system/default.target", "-> /usr/lib/systemd/system/graphical.target"),
            ("usr/lib/systemd/system/graphical.target.wants/a@1.service", "-> ../a@.service"),
            ("usr/lib/systemd/system/a@.service", "[Unit]\nWants=b-%i.service\n"),
            ("etc/systemd/system/a@.service.d/x.conf", "[Unit]\nWants=masked.service gone.service\n"),
            ("etc/systemd/system/b-.service.d/x.conf", "[Unit]\nAfter=basic.target\nWants=c.service\n"),
            ("usr/lib/systemd/system/b-1.service", "[Unit]\n"),
            ("etc/systemd/system/masked.service", "-> /dev/null"),
            ("usr/lib/systemd/system/masked.service", "[Unit]\nWants=never.service\n"),
            ("usr/lib/systemd/system/graphical.target.wants/never.service", "-> ../never.service"),
            ("etc/systemd/system/graphical.target.wants/never.service", "-> /dev/null"),
            ("usr/lib/systemd/system/never.service", "[Unit]\n"),
            ("etc/systemd/system/c.service", "-> /usr/lib/systemd/system/real.service"),
            ("usr/lib/systemd/system/real.service", "[Unit]\nBefore=b-1.service\n"),
            ("etc/systemd/system.attached/mine.service", "[Unit]\nAfter=real.service\n"),
        ] {
            write(place.path(), path, text);
        }
        let root = Folder::root(place.path()).expect("the root");
        let mut files = UnitFiles::read(&root).expect("files");
        let graph = files.graph(&Names::new()).expect("a graph");
        let jobs = graph.jobs(&[DEFAULT_TARGET]);
        let names: Vec<&str> =
            jobs.names().iter().map(String::as_str).filter(|name| name.ends_with(".service")).collect();
        assert_eq!(names, ["a@1.service", "b-1.service", "real.service"]);
        assert!(jobs.way("b-1.service", |unit| unit == "real.service").is_some(), "an alias is the unit itself");
        assert_eq!(graph.unit("default.target").map(|unit| unit.load), Some(Load::Loaded));
        assert_eq!(graph.unit("masked.service").map(|unit| unit.load), Some(Load::Masked));
        assert_eq!(graph.unit("gone.service").map(|unit| unit.load), Some(Load::NotFound));

        // What is to come takes the place of what is there, and is started if it is enabled.
        let coming = "[Unit]\nAfter=b-1.service\nBefore=real.service\n[Install]\nWantedBy=graphical.target\n";
        let coming = BTreeMap::from([("mine.service".to_owned(), coming.to_owned())]);
        files.lay_over(&coming, true, &["mine.service".to_owned()]).expect("laid over");
        let own = Names::from(["mine.service".to_owned()]);
        let graph = files.graph(&own).expect("a graph");
        let cycles = graph.jobs(&[DEFAULT_TARGET]).cycles(Some(&own));
        assert_eq!(cycles.len(), 1);
        assert_eq!(cycles[0].units, ["b-1.service", "real.service", "mine.service"]);
    }
}
