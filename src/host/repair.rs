//! Broken objects, fetched again from wherever their image can be had.
//!
//! An object is replaced by a rename, so that whoever reads it has the old one or the new one. A checkout made of hard links still has
//! the broken one: [`Store::mend_checkout`] links the new one in its place.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, Result, ensure};
use ostree::{ObjectName, ObjectType};
use rustix::fs::CWD;

use super::{
    checksum,
    dir::Folder,
    fsck::Report,
    import::{hex, unhex},
    lock::StoreLock,
    objects::Objects,
    ostree::{IMAGE_PREFIX, NO_CANCEL, Store},
    policy,
    pull::{self, Progress},
    source::resolve,
};
use crate::model::{digest::Digest, reference::ImageSource, settings::Settings};

impl Store {
    /// Fetches the broken objects of `report` again: from `also`, or what the images that have them were pulled as. Gives why the sources
    /// could not help, where some are broken still.
    pub fn repair(
        &self,
        lock: &StoreLock,
        report: &Report,
        also: Option<&ImageSource>,
        settings: &Settings,
        progress: &mut dyn Progress,
    ) -> Result<Vec<String>> {
        let mut broken = report.broken.clone();
        let mut failures = Vec::new();
        self.clear_unfinished(lock)?;
        let refs = self.refs()?;
        for (name, commit) in &refs {
            let Some(digest) = name.strip_prefix(IMAGE_PREFIX) else { continue };
            let digest: Digest = format!("sha256:{digest}").parse()?;
            if !broken.iter().any(|object| self.may_have(commit, object)) {
                continue;
            }
            let pulled = refs.iter().filter(|(_, target)| *target == commit);
            let pulled = pulled.filter_map(|(name, _)| ImageSource::from_tag_ref(name)).map(|it| it.pinned(&digest));
            for source in also.cloned().into_iter().chain(pulled) {
                let fetched = self.fetch_again(lock, &source, &digest, commit, &broken, settings, progress);
                broken.retain(|object| self.is_broken(object));
                match fetched {
                    Ok(()) => break,
                    Err(error) => failures.push(format!("{error:#}")),
                }
            }
        }
        // What no image has is only in the way, or was only named by a folder that was broken itself.
        for object in self.unneeded(&broken) {
            match std::fs::remove_file(self.place_of(&object)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing the object {object}"));
                }
                _ => broken.remove(&object),
            };
        }
        Ok(if broken.is_empty() { Vec::new() } else { failures })
    }

    #[allow(clippy::too_many_arguments, reason = "they are one call's, a type for them would be used once")]
    fn fetch_again(
        &self,
        lock: &StoreLock,
        source: &ImageSource,
        digest: &Digest,
        commit: &str,
        broken: &BTreeSet<Broken>,
        settings: &Settings,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        policy::check(lock.root(), source)?;
        let fetching = || format!("fetching {source} again");
        let resolved = resolve(source, &Folder::root(lock.root())?, settings).with_context(fetching)?;
        ensure!(resolved.digest == *digest, "fetching {source} again: it is the image {} now", resolved.digest);
        let broken = broken.iter().map(|object| unhex(&object.checksum)).collect::<Result<_>>()?;
        let imported = Objects::replacing(self.path(), broken).and_then(|objects| {
            let objects = (objects, Vec::new());
            pull::import(self, source, &resolved, objects, &[], progress)
        });
        if imported.is_err() {
            let _ = self.clear_unfinished(lock);
        }
        let made = imported.with_context(fetching)?;
        ensure!(made == commit, "fetching {source} again: it makes the commit {made}, stored was {commit}");
        Ok(())
    }

    /// Where that cannot be told, because the commit or a folder of it is broken, it may.
    fn may_have(&self, commit: &str, object: &Broken) -> bool {
        let name = ObjectName::new(object.checksum.as_str(), object.kind());
        let reached = self.repo.load_commit(commit).and_then(|_| self.repo.traverse_commit(commit, 0, NO_CANCEL));
        reached.map_or(true, |reached| reached.contains(&name))
    }

    fn is_broken(&self, object: &Broken) -> bool {
        self.check_object(object).is_err()
    }

    /// Fails where it is not there, or is not what its name says.
    pub(super) fn check_object(&self, object: &Broken) -> Result<()> {
        let path = self.place_of(object);
        let checksum = if object.suffix == "file" { checksum::of_file } else { checksum::of_content };
        let found = checksum(CWD, &path).with_context(|| format!("reading {}", path.display()))?;
        let found = hex(&found);
        ensure!(found == object.checksum, "its content, owner, mode or attributes have changed: it has {found}");
        Ok(())
    }

    fn unneeded(&self, broken: &BTreeSet<Broken>) -> Vec<Broken> {
        let Ok(refs) = self.refs() else { return Vec::new() };
        let commits: BTreeSet<&String> = refs.values().collect();
        let needed = |object: &&Broken| commits.iter().any(|commit| self.may_have(commit, object));
        broken.iter().filter(|object| !needed(object)).cloned().collect()
    }

    fn place_of(&self, object: &Broken) -> PathBuf {
        let (folder, file) = object.checksum.split_at(2);
        self.path().join("objects").join(folder).join(format!("{file}.{}", object.suffix))
    }
}

/// An object that is not what its name says, or not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Broken {
    /// its name
    pub checksum: String,
    /// `file`, `dirtree`, `dirmeta` or `commit`
    pub suffix: String,
}

impl Broken {
    /// Of a name as libostree writes it.
    pub fn named(name: &str) -> Option<Broken> {
        let (checksum, suffix) = name.split_once('.').filter(|(checksum, _)| checksum.len() == 64)?;
        Some(Broken { checksum: checksum.to_owned(), suffix: suffix.to_owned() })
    }

    fn kind(&self) -> ObjectType {
        match self.suffix.as_str() {
            "dirtree" => ObjectType::DirTree,
            "dirmeta" => ObjectType::DirMeta,
            "commit" => ObjectType::Commit,
            _ => ObjectType::File,
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.checksum, self.suffix)
    }
}
