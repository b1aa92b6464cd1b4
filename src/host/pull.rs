//! Brings an image into the store: resolve, fetch and check each layer as it streams, merge, commit.
//!
//! The files' contents come first, folders and commit after them; all of it is on the disk before a reference names it. A pull that is cut
//! off leaves objects that no reference leads to, and unfinished ones in the repository's own `tmp`. The next pull takes over what it needs
//! of them; prune clears both.

use anyhow::{Context, Result, ensure};

use super::{
    dir::Folder,
    entries::Finished,
    import::{Metadata, commit},
    layers::Layers,
    leftovers,
    lock::StoreLock,
    objects::Objects,
    ostree::{Store, StoredImage},
    policy,
    source::{Resolved, resolve},
    tree::Tree,
};
use crate::model::{reference::ImageSource, settings::Settings, size::shown};

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
    let resolved = resolve(source, &Folder::root(lock.root())?, settings).with_context(pulling)?;
    if let Some(image) = store.by_digest(&resolved.digest)? {
        if !image.references.contains(source) {
            store.tag(lock, &image, source)?;
        }
        return store.image(&image.commit);
    }
    let names = [resolved.digest.commit_ref(), source.tag_ref()];
    let objects = Objects::begin(store.path()).context("writing to the store").with_context(pulling)?;
    let left = leftovers::take_up(lock, store, &objects, &resolved.layers).with_context(pulling)?;
    let imported = import(store, source, &resolved, (objects, left), &names, progress).with_context(pulling);
    if imported.is_err() && !store.entries().any_left() {
        // the failure that counts is the import's; what is left now goes before the next one
        let _ = store.clear_unfinished(lock);
    }
    store.image(&imported?)
}

/// Fetches what `objects` and the store lack, and commits it under these names, first its own; of the layers in `left` they have all.
pub(super) fn import(
    store: &Store,
    source: &ImageSource,
    resolved: &Resolved,
    (objects, left): (Objects, Vec<Finished>),
    names: &[String],
    progress: &mut dyn Progress,
) -> Result<String> {
    let free = free_space(store)?;
    let entries = store.entries();
    let layers = Layers::new(resolved, &entries, left);
    let download = layers.download_size();
    ensure!(
        download <= free,
        "its layers are {}, and {} of space are free in {}",
        shown(download),
        shown(free),
        store.path().display()
    );
    progress.begin(source, download);
    let mut tree = Tree::new(MAX_ENTRIES);
    let records = layers.import(&objects, &mut tree, free, &mut |bytes| progress.fetched(bytes))?;
    tree.seal();
    let metadata = Metadata { manifest: &resolved.manifest_json, config: &resolved.config_json };
    let checksum = commit(&objects, &tree, &metadata)?;
    objects.publish().context("writing to the store")?;
    // A tag is taken from the image that had it only when this one has its own name.
    let (own, tags) = names.split_at(names.len().min(1));
    store.set_refs(&[own, tags], &checksum)?;
    records.into_iter().try_for_each(Finished::keep)?;
    for warning in tree.warnings() {
        progress.warning(&warning);
    }
    Ok(checksum)
}

fn free_space(store: &Store) -> Result<u64> {
    let stat = rustix::fs::statvfs(store.path()).context("asking for the store's free space")?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
