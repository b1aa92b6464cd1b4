//! Brings an image into the store: resolve, fetch and check each layer as it streams, merge, commit.
//!
//! Everything is written in one OSTree transaction with one sync at its end, before the references. A pull that is cut off leaves
//! only unfinished objects in the repository's own `tmp`, which the next pull or prune clears.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, ensure};

use super::{
    blob::LayerReader,
    import::{Metadata, TrustedImporter, commit},
    layer::{Limits, Tree},
    lock::StoreLock,
    ostree::{NO_CANCEL, Store, StoredImage},
    policy,
    source::{Resolved, resolve},
};
use crate::model::{reference::ImageSource, settings::Settings};

/// More than any system image has; a full desktop has half a million.
const MAX_ENTRIES: u64 = 1_000_000;

/// Hears how a pull goes on.
pub trait Progress {
    /// The bytes that will be fetched.
    fn begin(&mut self, _image: &ImageSource, _bytes: u64) {}
    /// So many bytes have come since the last call.
    fn fetched(&mut self, _bytes: u64) {}
    /// Something was left out, or is odd.
    fn warning(&mut self, _text: &str) {}
}

/// Tells nobody.
pub struct Silent;
impl Progress for Silent {}

/// Pulls what the reference names now, unless the store has it. Policy is asked first, before anything is fetched.
pub fn pull(
    lock: &StoreLock,
    store: &Store,
    source: &ImageSource,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<StoredImage> {
    policy::check(lock.root(), source)?;
    let pulling = || format!("pulling {source}");
    let resolved = resolve(source, settings).with_context(pulling)?;
    if let Some(image) = store.by_digest(&resolved.digest)? {
        if !image.references.contains(source) {
            store.tag(lock, &image, source)?;
        }
        return store.image(&image.commit);
    }
    store.clear_unfinished(lock).with_context(pulling)?;
    let imported = import(store, source, &resolved, progress).with_context(pulling);
    if imported.is_err() {
        // the failure that counts is the import's; what is left now goes before the next one
        let _ = store.clear_unfinished(lock);
    }
    store.image(&imported?)
}

fn import(store: &Store, source: &ImageSource, resolved: &Resolved, progress: &mut dyn Progress) -> Result<String> {
    let free = free_space(store)?;
    let download = resolved.download_size();
    ensure!(
        download <= free,
        "{download} bytes of layers do not fit into {free} bytes of free space in {}",
        store.path().display()
    );
    progress.begin(source, download);
    let transaction = store.repo.auto_transaction(NO_CANCEL).context("writing to the store")?;
    let mut tree = Tree::new(Limits { entries: MAX_ENTRIES, bytes: free });
    let mut importer = TrustedImporter::new(&store.repo, store.path().join("tmp"));
    for layer in &resolved.layers {
        let digest = &layer.blob.digest;
        let fetching = || format!("layer {}", digest.short());
        let count = Arc::new(AtomicU64::new(0));
        let inner = resolved.open(layer).with_context(fetching)?;
        let content = Box::new(Fetched { inner, count: count.clone() });
        // headers and padding are not stored: a layer may be a little longer than its files
        let limit = free.saturating_mul(2);
        let mut reader = LayerReader::start(content, layer.blob.clone(), layer.diff_id.clone(), limit);
        let applied = tree.apply(&mut Telling { inner: &mut reader, count, progress }, &mut importer);
        reader.finish(applied).with_context(fetching)?;
    }
    let metadata = Metadata { manifest: &resolved.manifest_json, config: &resolved.config_json };
    let checksum = commit(&store.repo, &tree, &metadata)?;
    store.repo.transaction_set_ref(None, &resolved.digest.commit_ref(), Some(&checksum));
    store.repo.transaction_set_ref(None, &source.tag_ref(), Some(&checksum));
    transaction.commit(NO_CANCEL).context("writing to the store")?;
    for warning in tree.warnings() {
        progress.warning(&warning);
    }
    Ok(checksum)
}

fn free_space(store: &Store) -> Result<u64> {
    let stat = rustix::fs::statvfs(store.path()).context("asking for the store's free space")?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Counts what is fetched, on the thread that fetches.
struct Fetched {
    inner: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Fetched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Tells what was fetched meanwhile, on the thread that imports.
struct Telling<'a> {
    inner: &'a mut LayerReader,
    count: Arc<AtomicU64>,
    progress: &'a mut dyn Progress,
}

impl Read for Telling<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let fetched = self.count.swap(0, Ordering::Relaxed);
        if fetched > 0 {
            self.progress.fetched(fetched);
        }
        self.inner.read(buffer)
    }
}
