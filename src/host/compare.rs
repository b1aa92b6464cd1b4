//! Reads what `diff` compares: records, rendered sets, and of the images their packages and their files, from the store without a checkout.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, bail, ensure};
use ostree::gio;

use super::{
    dir::Folder,
    folders::StoredFolder,
    ostree::{NO_CANCEL, Store, StoredImage},
    state, units,
};
use crate::model::{
    deployment::Deployment,
    diff::{
        Identity, Side,
        files::{Entry, FileChange, Kind},
        packages::Packages,
        units::Change,
    },
};

/// A package database is never larger; Debian's, with every package there is, would be.
const MAX_DATABASE: u64 = 64 * 1024 * 1024;
/// Files of dpkg's `status.d`: one for each package of a "distroless" image.
const MAX_STATUS_FILES: usize = 10_000;
const MAX_STATUS_FILE: u64 = 256 * 1024;
const STATUS_FILES: &str = "var/lib/dpkg/status.d";
const APK: [&str; 2] = ["lib/apk/db", "usr/lib/apk/db"];
const RPM: [&str; 2] = ["var/lib/rpm", "usr/lib/sysimage/rpm"];

/// A deployment on disk.
pub fn side(root: &Folder, store: &Store, deployment: &Deployment) -> Result<Side> {
    let Deployment { name, id, .. } = deployment;
    let reading = || format!("reading deployment {id} of {name}");
    let config = state::config(root, deployment).with_context(reading)?;
    let texts = units::set_texts(root, name, *id)?;
    let image = store.image(&deployment.commit).with_context(reading)?;
    let identity = Identity {
        deployment: Some(*id),
        image: deployment.image.clone(),
        digest: deployment.digest.clone(),
        version: deployment.image_version.clone(),
        created: Some(deployment.created.clone()),
        commit: deployment.commit.clone(),
    };
    Ok(Side {
        identity,
        values: deployment.values.clone(),
        requests: deployment.accepted.clone(),
        units: texts,
        host_files: deployment.host_files.clone(),
        config,
        packages: packages(store, &image),
    })
}

/// What the package manager of an image knows. A database that cannot be read is a problem to tell, and no failure.
pub fn packages(store: &Store, image: &StoredImage) -> Packages {
    let mut packages = Packages::default();
    let read = |path: &str, limit| store.read_file(image, Path::new(path), limit);
    let mut add = |path: &str, limit, add: fn(&mut Packages, &[u8]) -> Result<()>| {
        let found = read(path, limit).and_then(|bytes| bytes.map_or(Ok(()), |bytes| add(&mut packages, &bytes)));
        packages.problems.extend(found.err().map(|error| format!("{path}: {error:#}")));
    };
    let dpkg = |packages: &mut Packages, bytes: &[u8]| {
        packages.add_dpkg(&String::from_utf8_lossy(bytes));
        Ok(())
    };
    add("var/lib/dpkg/status", MAX_DATABASE, dpkg);
    let status_files = names(store, image, STATUS_FILES).unwrap_or_default();
    for name in status_files.iter().filter(|name| !name.ends_with(".md5sums")).take(MAX_STATUS_FILES) {
        add(&format!("{STATUS_FILES}/{name}"), MAX_STATUS_FILE, dpkg);
    }
    for folder in APK {
        add(&format!("{folder}/installed"), MAX_DATABASE, |packages, bytes| {
            packages.add_apk(&String::from_utf8_lossy(bytes));
            Ok(())
        });
    }
    for folder in RPM {
        add(&format!("{folder}/rpmdb.sqlite"), MAX_DATABASE, Packages::add_rpm);
        // What was not yet taken over into the database itself, as after a build that was killed.
        add(&format!("{folder}/rpmdb.sqlite-wal"), MAX_DATABASE, |_, log| {
            ensure!(log.is_empty(), "the database was not closed: what came last is missing here");
            Ok(())
        });
        for old in ["Packages", "Packages.db"] {
            add(&format!("{folder}/{old}"), MAX_DATABASE, |_, _| bail!("this format of rpm's database is not read"));
        }
    }
    packages
}

/// The names in a folder of an image, reached without following links; empty where there is none.
fn names(store: &Store, image: &StoredImage, path: &str) -> Result<Vec<String>> {
    let mut folder = store.folders().read(&store.root_tree(&image.commit)?.0)?;
    for part in path.split('/') {
        let Some((tree, _)) = folder.folders.get(part) else { return Ok(Vec::new()) };
        folder = store.folders().read(tree)?;
    }
    Ok(folder.files.into_keys().collect())
}

/// The paths that differ between the images of two commits. What is the same has the same object and is not looked into.
pub fn files(store: &Store, old: &str, new: &str) -> Result<Vec<FileChange>> {
    let mut changes = Vec::new();
    let mut todo = vec![(String::new(), Some(store.root_tree(old)?), Some(store.root_tree(new)?))];
    while let Some((path, old, new)) = todo.pop() {
        if old == new {
            continue;
        }
        let meta = |folder: &Option<(String, String)>| folder.as_ref().map(|(_, meta)| meta.clone());
        if meta(&old) != meta(&new) && !path.is_empty() {
            let entry = |meta: Option<String>| meta.map(|meta| folder_entry(store, &meta)).transpose();
            changes.extend(change(&path, entry(meta(&old))?, entry(meta(&new))?));
        }
        let list = |folder: &Option<(String, String)>| match folder {
            Some((tree, _)) => store.folders().read(tree),
            None => Ok(StoredFolder::default()),
        };
        let (mut old, mut new) = (list(&old)?, list(&new)?);
        let files: BTreeSet<String> = old.files.keys().chain(new.files.keys()).cloned().collect();
        for name in files {
            let objects = [&old, &new].map(|folder| folder.files.get(&name));
            if objects[0] != objects[1] {
                let [from, to] = objects.map(|object| object.map(|object| file_entry(store, object)).transpose());
                changes.extend(change(&format!("{path}/{name}"), from?, to?));
            }
        }
        let folders: BTreeSet<String> = old.folders.keys().chain(new.folders.keys()).cloned().collect();
        for name in folders {
            todo.push((format!("{path}/{name}"), old.folders.remove(&name), new.folders.remove(&name)));
        }
    }
    Ok(changes)
}

fn change(path: &str, from: Option<Entry>, to: Option<Entry>) -> Option<FileChange> {
    let change = match (&from, &to) {
        (None, None) => return None,
        (None, Some(_)) => Change::Added,
        (Some(_), None) => Change::Removed,
        (Some(_), Some(_)) => Change::Changed,
    };
    Some(FileChange { path: path.to_owned(), change, from, to })
}

fn file_entry(store: &Store, object: &str) -> Result<Entry> {
    let (info, _) = store.repo.query_file(object, NO_CANCEL).with_context(|| format!("reading the object {object}"))?;
    let number = |name: &str| info.attribute_uint32(name);
    let target = info.symlink_target().map(|target| target.to_string_lossy().into_owned());
    let is_link = info.file_type() == gio::FileType::SymbolicLink;
    Ok(Entry {
        kind: if is_link { Kind::Link } else { Kind::File },
        size: if is_link { 0 } else { u64::try_from(info.size()).unwrap_or_default() },
        mode: mode(number("unix::mode")),
        uid: number("unix::uid"),
        gid: number("unix::gid"),
        target: target.filter(|_| is_link),
    })
}

fn folder_entry(store: &Store, meta: &str) -> Result<Entry> {
    let meta = store.folders().meta(meta)?;
    Ok(Entry { kind: Kind::Folder, size: 0, mode: mode(meta.mode), uid: meta.uid, gid: meta.gid, target: None })
}

fn mode(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}
