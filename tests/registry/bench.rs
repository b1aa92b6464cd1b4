//! A store to pull into, and images to pull.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use sysctr::{
    host::{
        lock::StoreLock,
        ostree::{Store, StoredImage},
        pull::{self, Silent},
        source::this_architecture,
    },
    model::{reference::ImageSource, settings::Settings},
};
use tempfile::TempDir;

use super::common::{Layout, Packing, dir, file, tar_of};

/// A root with an empty store, and a work folder beside it.
pub struct Bench {
    pub work: TempDir,
    pub lock: StoreLock,
    pub store: Store,
    pub settings: Settings,
}

impl Bench {
    pub fn new() -> Bench {
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = work.path().join("root");
        fs::create_dir(&root).unwrap();
        let lock = StoreLock::acquire(&root, "pull", Duration::ZERO).unwrap();
        let store = Store::open_or_create(&lock).unwrap();
        // what fails for now is to fail soon
        let settings = Settings::parse("[registry]\nretries = 1\n").unwrap();
        Bench { work, lock, store, settings }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.work.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn pull(&self, image: &str) -> anyhow::Result<StoredImage> {
        let source: ImageSource = image.parse()?;
        pull::pull(&self.lock, &self.store, &source, &self.settings, &mut Silent)
    }

    /// The pull fails, says each of these words on one line, and the store is as before.
    pub fn refuses(&self, image: &str, words: &[&str]) {
        let before = listing(self.store.path());
        let error = format!("{:#}", self.pull(image).err().unwrap_or_else(|| panic!("{image} was pulled")));
        for word in words {
            assert!(error.contains(word), "{image}: no {word:?} in: {error}");
        }
        assert!(!error.contains('\n') && error.len() < 600, "{error}");
        assert_eq!(listing(self.store.path()), before, "{image} left something");
    }
}

/// All files of the store but its lock.
pub fn listing(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                todo.push(path);
            } else if !path.ends_with("repo/.lock") {
                files.insert(path, meta.len());
            }
        }
    }
    files
}

pub fn layer(number: usize) -> Vec<u8> {
    let noise: Vec<u8> = (0..400_000usize).map(|at| ((at * at + number) % 251) as u8).collect();
    let name = format!("data/file-{number}");
    tar_of(&[dir("data/", 0o755), file(&name, 0o644, &noise), file("data/last", 0o600, name.as_bytes())])
}

pub fn all_packings() -> [(Vec<u8>, Packing); 3] {
    [(layer(1), Packing::Gzip), (layer(2), Packing::Zstd), (layer(3), Packing::Plain)]
}

pub fn image_in(folder: &Path) -> (Layout, Value) {
    let layout = Layout::new(folder);
    let image = layout.image(this_architecture(), &all_packings());
    layout.index(&[(Some("1"), &image)]);
    (layout, image)
}

pub fn blob(layout: &Layout, descriptor: &Value) -> Vec<u8> {
    fs::read(layout.folder.join("blobs/sha256").join(&digest_of(descriptor)[7..])).unwrap()
}

pub fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}
