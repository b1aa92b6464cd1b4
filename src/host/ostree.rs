//! The store of images: an OSTree repository of our own.
//!
//! ```text
//! ROOT/var/lib/sysctr/repo                  mode bare, so that a checkout is made of hard links
//!     sysctr/image/sha256/HEX  -> commit    one for each image, by the digest of its manifest
//!     sysctr/tag/ESCAPED       -> commit    one for each reference that it was pulled by
//! ```
//! A commit is the merged tree of the image's layers; its metadata holds the manifest and the config as they came. The same
//! image always makes the same commit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::{DirBuilder, File},
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{ImageConfiguration, ImageManifest};
use ostree::{
    ObjectName, ObjectType, Repo, RepoMode, RepoPruneFlags,
    ffi::OSTREE_REPO_LIST_OBJECTS_ALL,
    gio::Cancellable,
    glib::{self, Variant, VariantTy},
};

use super::controls;
use super::entries::{Entries, Finished};
use super::lock::{StoreLock, state_dir};
use crate::model::{digest::Digest, reference::ImageSource};

pub(super) const NO_CANCEL: Option<&Cancellable> = Cancellable::NONE;
pub(super) const META_FORMAT: &str = "sysctr.format";
pub(super) const META_MANIFEST: &str = "sysctr.manifest";
pub(super) const META_CONFIG: &str = "sysctr.config";
pub(super) const META_SIZE: &str = "sysctr.size";
pub(super) const META_FOLDERS: &str = "sysctr.folders";
/// The version of what a commit's metadata says; a newer one is refused.
pub(super) const FORMAT: u32 = 1;

const REPO: &str = "repo";
const REPO_NEW: &str = ".repo.new";
pub(super) const IMAGE_PREFIX: &str = "sysctr/image/sha256/";

/// The images below one root.
pub struct Store {
    pub(super) repo: Repo,
    pub(super) path: PathBuf,
}

/// An image in the store.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// what it was pulled as; empty where a newer image took its tag
    pub references: Vec<ImageSource>,
    /// of its manifest
    pub digest: Digest,
    /// the OSTree commit with its files
    pub commit: String,
    /// its manifest
    pub manifest: ImageManifest,
    /// its config
    pub config: ImageConfiguration,
    /// the config as it came, with fields that the type does not know (Docker's `Healthcheck`)
    pub config_json: Vec<u8>,
    /// bytes of its files once installed, each name of a hard-linked file counted
    pub size: u64,
    /// how many folders it has, which a checkout of hard links has to make
    pub folders: u64,
}

/// What [`Store::prune`] freed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pruned {
    /// images dropped
    pub images: usize,
    /// objects deleted
    pub objects: u64,
    /// bytes freed
    pub bytes: u64,
}

impl StoredImage {
    /// When it was built, as its config says.
    pub fn created(&self) -> Option<&str> {
        self.config.created().as_deref()
    }

    /// What to call it in a message.
    pub fn name(&self) -> String {
        self.references.first().map_or_else(|| self.digest.to_string(), |reference| reference.to_string())
    }
}

impl Store {
    /// Opens the store to read it; none where nothing was ever pulled.
    pub fn open(root: &Path) -> Result<Option<Store>> {
        let path = state_dir(root).join(REPO);
        match path.symlink_metadata() {
            Ok(_) => Store::open_at(path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening {}", path.display())),
        }
    }

    /// Opens the store to change it, made where it is missing.
    pub fn open_or_create(lock: &StoreLock) -> Result<Store> {
        if let Some(store) = Store::open(lock.root())? {
            return Ok(store);
        }
        let folder = state_dir(lock.root());
        create(&folder).with_context(|| format!("making the store in {}", folder.display()))?;
        Store::open_at(folder.join(REPO))
    }

    fn open_at(path: PathBuf) -> Result<Store> {
        let opening = || format!("opening the store {}", path.display());
        let folder = File::open(&path).with_context(opening)?;
        let repo = Repo::open_at_dir(folder.as_fd(), ".").with_context(opening)?;
        ensure!(repo.mode() == RepoMode::Bare, "{} is not a store of sysctr (its mode is not bare)", path.display());
        repo.set_disable_fsync(controls::without_sync("libostree's"));
        Ok(Store { repo, path })
    }

    /// What is known of the layers.
    pub(super) fn entries(&self) -> Entries {
        Entries::of(self.path.parent().unwrap_or(&self.path))
    }

    /// Where the repository lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every image, ordered by its first reference.
    pub fn images(&self) -> Result<Vec<StoredImage>> {
        let refs = self.refs()?;
        let mut tags: HashMap<&str, Vec<ImageSource>> = HashMap::new();
        for (name, commit) in &refs {
            if let Some(source) = ImageSource::from_tag_ref(name) {
                tags.entry(commit).or_default().push(source);
            }
        }
        let mut images = Vec::new();
        for (name, commit) in &refs {
            if name.starts_with(IMAGE_PREFIX) {
                let references = tags.get(commit.as_str()).cloned().unwrap_or_default();
                match self.load(commit, references) {
                    Err(_) if self.is_gone(name, commit) => {}
                    image => images.push(image?),
                }
            }
        }
        images.sort_by_key(|image| (image.references.is_empty(), image.name()));
        Ok(images)
    }

    /// The image that this reference was last pulled as, or that has the digest it asks for.
    pub fn find(&self, source: &ImageSource) -> Result<Option<StoredImage>> {
        match (self.rev(&source.tag_ref())?, source.wanted_digest()) {
            (Some(commit), _) => self.image(&commit).map(Some),
            (None, Some(digest)) => self.by_digest(&digest),
            (None, None) => Ok(None),
        }
    }

    /// The image with this manifest digest.
    pub fn by_digest(&self, digest: &Digest) -> Result<Option<StoredImage>> {
        match self.rev(&digest.commit_ref())? {
            Some(commit) => self.image(&commit).map(Some),
            None => Ok(None),
        }
    }

    /// The image in this commit.
    pub fn image(&self, commit: &str) -> Result<StoredImage> {
        let mut references: Vec<ImageSource> = self
            .refs()?
            .into_iter()
            .filter(|(_, target)| target == commit)
            .filter_map(|(name, _)| ImageSource::from_tag_ref(&name))
            .collect();
        references.sort_by_key(ToString::to_string);
        self.load(commit, references)
    }

    fn load(&self, commit: &str, references: Vec<ImageSource>) -> Result<StoredImage> {
        self.load_from(commit, references).with_context(|| format!("reading the stored image in commit {commit}"))
    }

    fn load_from(&self, commit: &str, references: Vec<ImageSource>) -> Result<StoredImage> {
        let (variant, _) = self.repo.load_commit(commit)?;
        let metadata = glib::VariantDict::new(Some(&variant.child_value(0)));
        let format = metadata.lookup::<u32>(META_FORMAT).ok().flatten().context("it is not an image of sysctr")?;
        ensure!(format <= FORMAT, "it was stored by a newer sysctr (format {format})");
        let bytes = |key: &str| {
            let value = metadata.lookup_value(key, Some(VariantTy::BYTE_STRING));
            let value = value.with_context(|| format!("{key} is missing"))?;
            anyhow::Ok(value.fixed_array::<u8>()?.to_vec())
        };
        let number = |key: &str| metadata.lookup::<u64>(key).ok().flatten().unwrap_or_default();
        let manifest_json = bytes(META_MANIFEST)?;
        let config_json = bytes(META_CONFIG)?;
        Ok(StoredImage {
            references,
            digest: sha256(&manifest_json),
            commit: commit.to_owned(),
            manifest: serde_json::from_slice(&manifest_json).context("its manifest")?,
            config: serde_json::from_slice(&config_json).context("its config")?,
            config_json,
            size: number(META_SIZE),
            folders: number(META_FOLDERS),
        })
    }

    /// Lets this reference name the image too.
    pub fn tag(&self, _lock: &StoreLock, image: &StoredImage, source: &ImageSource) -> Result<()> {
        self.set_refs(&[&[source.tag_ref()]], &image.commit)
    }

    /// Forgets one reference; the image stays until [`Store::prune`].
    pub fn untag(&self, _lock: &StoreLock, source: &ImageSource) -> Result<()> {
        ensure!(self.rev(&source.tag_ref())?.is_some(), "{source} is not in the store");
        self.remove_refs(&[source.tag_ref()])
    }

    /// Forgets an image and all its references; its objects go with the next [`Store::prune`].
    pub fn remove(&self, _lock: &StoreLock, image: &StoredImage) -> Result<()> {
        let mut names: Vec<String> = image.references.iter().map(ImageSource::tag_ref).collect();
        names.push(image.digest.commit_ref());
        self.remove_refs(&names)
    }

    /// Drops images that have no reference and that no commit in `needed` is, and every object that no image has.
    pub fn prune(&self, lock: &StoreLock, needed: &BTreeSet<String>) -> Result<Pruned> {
        self.clear_unfinished(lock)?;
        let mut unneeded = self.images()?;
        unneeded.retain(|image| image.references.is_empty() && !needed.contains(&image.commit));
        let names: Vec<String> = unneeded.iter().map(|image| image.digest.commit_ref()).collect();
        self.remove_refs(&names)?;
        let mut pruned = Pruned { images: unneeded.len(), ..Pruned::default() };
        self.untag_imageless(needed)?;
        let images = self.images()?;
        let diff_ids = images.iter().flat_map(|image| image.config.rootfs().diff_ids());
        self.entries().retain(&diff_ids.filter_map(|id| id.strip_prefix("sha256:")).map(str::to_owned).collect())?;
        let (_, objects, bytes) =
            self.repo.prune(RepoPruneFlags::REFS_ONLY, 0, NO_CANCEL).context("pruning the store")?;
        pruned.objects = u64::try_from(objects).unwrap_or_default();
        pruned.bytes = bytes;
        Ok(pruned)
    }

    /// Removes what a pull left in the repository's `tmp`: an image that is refused could fill the disk with it.
    pub(super) fn clear_unfinished(&self, lock: &StoreLock) -> Result<()> {
        self.clear_unfinished_but(lock, "", &[])
    }

    /// The same, but for a folder in `tmp` and the records of layers whose objects it has.
    pub(super) fn clear_unfinished_but(&self, _lock: &StoreLock, kept: &str, records: &[Finished]) -> Result<()> {
        let folder = self.path.join("tmp");
        let clearing = || format!("clearing {}", folder.display());
        for entry in std::fs::read_dir(&folder).with_context(clearing)? {
            let entry = entry.with_context(clearing)?;
            if entry.file_name() == "cache" || entry.file_name() == kept {
                continue;
            }
            let is_folder = entry.file_type().with_context(clearing)?.is_dir();
            let removed =
                if is_folder { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
            removed.with_context(clearing)?;
        }
        self.entries().clear_unfinished(records)?;
        self.clear_unfinished_refs()
    }

    /// What [`Store::prune`] would free.
    pub fn prunable(&self, _lock: &StoreLock, needed: &BTreeSet<String>) -> Result<Pruned> {
        let images = self.images()?;
        let goes = |image: &StoredImage| image.references.is_empty() && !needed.contains(&image.commit);
        let mut kept: HashSet<ObjectName> = HashSet::new();
        for image in images.iter().filter(|image| !goes(image)) {
            kept.extend(self.repo.traverse_commit(&image.commit, 0, NO_CANCEL)?);
        }
        let mut pruned = Pruned { images: images.iter().filter(|image| goes(image)).count(), ..Pruned::default() };
        for object in self.repo.list_objects(OSTREE_REPO_LIST_OBJECTS_ALL, NO_CANCEL)?.into_keys() {
            if !kept.contains(&object) {
                pruned.objects += 1;
                pruned.bytes +=
                    self.repo.query_object_storage_size(object.object_type(), object.checksum(), NO_CANCEL)?;
            }
        }
        Ok(pruned)
    }

    /// For each image, by commit, the bytes that only it needs: what removing it and pruning would free.
    pub fn unique_sizes(&self, images: &[StoredImage]) -> Result<BTreeMap<String, u64>> {
        let mut users: HashMap<String, (usize, usize)> = HashMap::new();
        for (at, image) in images.iter().enumerate() {
            let reached = match self.repo.traverse_commit(&image.commit, 0, NO_CANCEL) {
                Err(_) if self.is_gone(&image.digest.commit_ref(), &image.commit) => continue,
                reached => reached?,
            };
            for object in reached {
                if object.object_type() == ObjectType::File {
                    users.entry(object.checksum().to_owned()).or_insert((at, 0)).1 += 1;
                }
            }
        }
        let mut sizes: BTreeMap<String, u64> = images.iter().map(|image| (image.commit.clone(), 0)).collect();
        for (checksum, (owner, count)) in users {
            if count == 1 {
                let image = &images[owner];
                match self.repo.query_object_storage_size(ObjectType::File, &checksum, NO_CANCEL) {
                    Err(_) if self.is_gone(&image.digest.commit_ref(), &image.commit) => {}
                    size => *sizes.entry(image.commit.clone()).or_default() += size?,
                }
            }
        }
        Ok(sizes)
    }
}

/// Made under another name first: a repository that a power cut left without half its folders would never open again.
fn create(folder: &Path) -> Result<()> {
    let parent = File::open(folder)?;
    let fresh = folder.join(REPO_NEW);
    match std::fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&fresh)?;
    Repo::create_at_dir(parent.as_fd(), REPO_NEW, RepoMode::Bare, None::<&Variant>)?;
    // libostree makes its lock when it first wants it: a prune, of all, could not on a full disk.
    File::create(fresh.join(".lock"))?;
    if !controls::without_sync("file system") {
        rustix::fs::syncfs(&parent)?;
    }
    std::fs::rename(&fresh, folder.join(REPO))?;
    if !controls::without_sync("folder") {
        parent.sync_all()?;
    }
    Ok(())
}

pub(super) fn sha256(data: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_sha256(sha2::Sha256::digest(data).into())
}
