//! Files of a stored image, read from its commit without a checkout.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use ostree::gio::{self, prelude::*};

use super::{
    folders::checksum,
    ostree::{NO_CANCEL, Store, StoredImage},
};
use crate::model::host_files::{Source, Sources};

const EXPORTS: &str = "exports";
const HOST: &str = "hostfs";
/// A template or a manifest is never larger.
const MAX_EXPORT: u64 = 1024 * 1024;
/// Files that go to the host may be programs.
const MAX_HOST_FILE: u64 = 64 * 1024 * 1024;
const MAX_EXPORTS: u64 = 128 * 1024 * 1024;
const MAX_LINKS: u32 = 40;

impl Store {
    /// The file at this path inside the image, links followed inside it; none where there is no such file.
    pub fn read_file(&self, image: &StoredImage, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let reading = || format!("reading {} of {}", path.display(), image.name());
        match self.look_up(image, path).with_context(reading)? {
            Some(object) => self.read_object(&object, limit).with_context(reading).map(Some),
            None => Ok(None),
        }
    }

    /// Every file below `/exports`, by its path in there; empty where the image has none. Links are refused, but for those of `hostfs`,
    /// which are none of these.
    pub fn read_exports(&self, image: &StoredImage) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        self.exports(image).with_context(|| format!("reading /exports of {}", image.name()))
    }

    /// What lies below `/exports/hostfs`, by its path below `/exports`: of the folders only those with nothing in them.
    pub fn read_hostfs(&self, image: &StoredImage) -> Result<Sources> {
        self.hostfs(image).with_context(|| format!("reading /exports/hostfs of {}", image.name()))
    }

    fn hostfs(&self, image: &StoredImage) -> Result<Sources> {
        let mut sources = Sources::new();
        let root = self.folders().read(&self.root_tree(&image.commit)?.0)?;
        let Some((tree, _)) = root.folders.get(EXPORTS) else { return Ok(sources) };
        let exports = self.folders().read(tree)?;
        let Some((tree, meta)) = exports.folders.get(HOST) else { return Ok(sources) };
        let mut todo = vec![(HOST.to_owned(), tree.clone(), meta.clone())];
        while let Some((path, tree, meta)) = todo.pop() {
            let folder = self.folders().read(&tree)?;
            if folder.files.is_empty() && folder.folders.is_empty() && path != HOST {
                sources.insert(path.clone(), Source::Folder { mode: self.folders().meta(&meta)?.mode & 0o7777 });
            }
            let inner = folder.folders.into_iter();
            todo.extend(inner.map(|(name, (tree, meta))| (format!("{path}/{name}"), tree, meta)));
            for (name, object) in folder.files {
                let (info, _) = self.repo.query_file(&object, NO_CANCEL)?;
                let source = match info.file_type() {
                    gio::FileType::SymbolicLink => {
                        let target = info.symlink_target().context("a link without a target")?;
                        let target =
                            target.to_str().with_context(|| format!("{path}/{name}: its target is no text"))?;
                        Source::Link { target: target.to_owned() }
                    }
                    _ => Source::File { mode: info.attribute_uint32("unix::mode") & 0o7777 },
                };
                sources.insert(format!("{path}/{name}"), source);
            }
        }
        Ok(sources)
    }

    fn exports(&self, image: &StoredImage) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut files = BTreeMap::new();
        let root = self.folders().read(&self.root_tree(&image.commit)?.0)?;
        let Some((tree, _)) = root.folders.get(EXPORTS) else {
            ensure!(!root.files.contains_key(EXPORTS), "it is not a folder");
            return Ok(files);
        };
        let mut todo = vec![(PathBuf::new(), tree.clone())];
        let mut total = 0;
        while let Some((path, tree)) = todo.pop() {
            let folder = self.folders().read(&tree)?;
            todo.extend(folder.folders.into_iter().map(|(name, (tree, _))| (path.join(name), tree)));
            for (name, object) in folder.files {
                let path = path.join(name);
                if path.starts_with(HOST) && self.is_link(&object)? {
                    continue;
                }
                let limit = if path.starts_with(HOST) { MAX_HOST_FILE } else { MAX_EXPORT };
                let data = self.read_object(&object, limit).with_context(|| path.display().to_string())?;
                total += data.len() as u64;
                ensure!(total <= MAX_EXPORTS, "its files are larger than {MAX_EXPORTS} bytes together");
                files.insert(path, data);
            }
        }
        Ok(files)
    }

    fn is_link(&self, object: &str) -> Result<bool> {
        Ok(self.repo.query_file(object, NO_CANCEL)?.0.file_type() == gio::FileType::SymbolicLink)
    }

    fn look_up(&self, image: &StoredImage, path: &Path) -> Result<Option<String>> {
        let names = path.to_str().context("the path is not UTF-8")?;
        let mut todo: VecDeque<String> = names.split('/').map(str::to_owned).collect();
        let mut above = vec![self.root_tree(&image.commit)?.0];
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    if above.len() > 1 {
                        above.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let folder = self.folders().read(above.last().map(String::as_str).unwrap_or_default())?;
            if let Some((tree, _)) = folder.folders.get(&name) {
                above.push(tree.clone());
                continue;
            }
            let Some(object) = folder.files.get(&name) else { return Ok(None) };
            let (info, _) = self.repo.query_file(object, NO_CANCEL)?;
            if info.file_type() != gio::FileType::SymbolicLink {
                return Ok(todo.iter().all(|rest| rest.is_empty()).then(|| object.clone()));
            }
            links += 1;
            ensure!(links <= MAX_LINKS, "too many links");
            let target = info.symlink_target().context("a link without a target")?;
            let target = target.to_str().context("a link's target is not UTF-8")?;
            if target.starts_with('/') {
                above.truncate(1);
            }
            for part in target.split('/').rev() {
                todo.push_front(part.to_owned());
            }
        }
        Ok(None)
    }

    fn read_object(&self, object: &str, limit: u64) -> Result<Vec<u8>> {
        let (stream, info, _) = self.repo.load_file(object, NO_CANCEL)?;
        ensure!(info.file_type() == gio::FileType::Regular, "it is a link, which is not followed here");
        let size = u64::try_from(info.size()).unwrap_or(u64::MAX);
        ensure!(size <= limit, "it is larger than {limit} bytes");
        let stream = stream.context("libostree gave no content")?;
        let mut data = vec![0; usize::try_from(size)?];
        let (read, failed) = stream.read_all(&mut data[..], NO_CANCEL)?;
        if let Some(error) = failed {
            bail!(error);
        }
        ensure!(read as u64 == size, "it is cut short");
        Ok(data)
    }

    /// The checksums of a commit's root: what it holds, and its attributes.
    pub(super) fn root_tree(&self, commit: &str) -> Result<(String, String)> {
        let (variant, _) = self.repo.load_commit(commit)?;
        let part = |at| checksum(&variant, at).context("a commit without a tree");
        Ok((part(6)?, part(7)?))
    }
}
