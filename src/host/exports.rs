//! Reads files of an image straight from its commit: what it says about itself in `/exports`, and its accounts.

use std::{collections::BTreeMap, io::Read};

use anyhow::{Context, Result, ensure};
use ostree::gio::{FileQueryInfoFlags, FileType, prelude::*};
use ostree::{RepoFile, gio};

use super::ostree::{NO_CANCEL, Store, StoredImage};

/// No manifest, template or passwd(5) comes near it.
const MAX_FILE: i64 = 1 << 20;
/// Of files in /exports.
const MAX_FILES: usize = 1000;
const ATTRIBUTES: &str = "standard::name,standard::type,standard::size";

impl Store {
    /// The regular files below the image's `/exports`, by their path there. A link in it is refused: it could only mislead.
    pub fn exports(&self, image: &StoredImage) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        let folder = self.root_of(image)?.resolve_relative_path("exports");
        if kind(&folder) == FileType::Directory {
            self.walk(&folder, "", &mut files)?;
        }
        Ok(files)
    }

    /// A regular file of the image; none where there is none.
    pub fn read_file(&self, image: &StoredImage, path: &str) -> Result<Option<Vec<u8>>> {
        let file = self.root_of(image)?.resolve_relative_path(path);
        match kind(&file) {
            FileType::Regular => self.content(&file, path).map(Some),
            _ => Ok(None),
        }
    }

    fn root_of(&self, image: &StoredImage) -> Result<gio::File> {
        let (root, _) =
            self.repo.read_commit(&image.commit, NO_CANCEL).with_context(|| format!("reading {}", image.name()))?;
        Ok(root)
    }

    fn walk(&self, folder: &gio::File, below: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
        let entries = folder.enumerate_children(ATTRIBUTES, FileQueryInfoFlags::NOFOLLOW_SYMLINKS, NO_CANCEL)?;
        while let Some(info) = entries.next_file(NO_CANCEL)? {
            let name = info.name();
            let name = name.to_str().with_context(|| format!("/exports/{below}: a name is not UTF-8"))?;
            let path = format!("{below}{name}");
            let child = folder.child(name);
            match info.file_type() {
                FileType::Directory => self.walk(&child, &format!("{path}/"), files)?,
                FileType::Regular => {
                    drop(files.insert(path.clone(), self.content(&child, &format!("/exports/{path}"))?))
                }
                _ => anyhow::bail!("/exports/{path} is neither a file nor a folder"),
            }
            ensure!(files.len() <= MAX_FILES, "/exports has more than {MAX_FILES} files");
        }
        Ok(())
    }

    /// Through the object: a file of libostree has no stream of its own kind that GIO would take.
    fn content(&self, file: &gio::File, path: &str) -> Result<Vec<u8>> {
        let info = file.query_info(ATTRIBUTES, FileQueryInfoFlags::NOFOLLOW_SYMLINKS, NO_CANCEL)?;
        ensure!(info.size() <= MAX_FILE, "{path} is larger than {MAX_FILE} bytes");
        let context = || format!("reading {path}");
        let mut bytes = Vec::new();
        let object = file.downcast_ref::<RepoFile>().with_context(context)?;
        let (stream, _, _) = self.repo.load_file(&object.checksum(), NO_CANCEL).with_context(context)?;
        stream
            .with_context(context)?
            .into_read()
            .take(MAX_FILE as u64)
            .read_to_end(&mut bytes)
            .with_context(context)?;
        Ok(bytes)
    }
}

fn kind(file: &gio::File) -> FileType {
    file.query_file_type(FileQueryInfoFlags::NOFOLLOW_SYMLINKS, NO_CANCEL)
}
