//! From a reference to one image for this machine: its manifest, its config, and its layers as readers.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{ImageConfiguration, ImageManifest};

pub use super::machine::this_architecture;
use super::{
    archive, blob::Blob, dir::Folder, machine::this_platform, ostree::sha256, registries::Registries,
    registry::Registry, rootfs, skopeo,
};
use crate::model::{
    digest::Digest,
    image_manifest::{Document, foreign_urls},
    reference::ImageSource,
    settings::Settings,
};

/// A manifest or a config is never larger.
pub const MAX_JSON: u64 = 4 * 1024 * 1024;
/// An index within an index, as the specification allows; no deeper.
const MAX_NESTING: usize = 3;

/// A place that blobs come from.
pub trait BlobSource: Sync {
    /// The manifest or index that the reference names.
    fn top(&self) -> Result<Vec<u8>>;
    /// A manifest by its digest; the caller checks it.
    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>>;
    /// A blob's bytes; the caller checks them.
    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>>;
    /// The same from another place, where a layer that may not be given on is kept.
    fn foreign(&self, blob: &Blob, _url: &str) -> Result<Box<dyn Read + Send>> {
        bail!("{} is not there, and kept elsewhere only", blob.digest)
    }
}

/// One image for this machine, not yet fetched.
pub struct Resolved {
    /// of the manifest
    pub digest: Digest,
    /// the manifest
    pub manifest: ImageManifest,
    /// the manifest's bytes, which have the digest
    pub manifest_json: Vec<u8>,
    /// the config
    pub config: ImageConfiguration,
    /// the config's bytes
    pub config_json: Vec<u8>,
    /// the layers, lowest first
    pub layers: Vec<Layer>,
    source: Box<dyn BlobSource>,
}

/// A layer as stored and the digest of its tar.
#[derive(Clone, Debug)]
pub struct Layer {
    /// as stored
    pub blob: Blob,
    /// of the tar in it
    pub diff_id: Digest,
    /// where it is kept besides
    pub urls: Vec<String>,
}

/// Finds the image for this machine that the reference names now.
pub fn resolve(source: &ImageSource, root: &Folder, settings: &Settings) -> Result<Resolved> {
    let place: Box<dyn BlobSource> = match source {
        ImageSource::Registry(reference) => Box::new(Registry::find(reference, &Registries::load(root)?, settings)?),
        ImageSource::OciDir(at) => Box::new(archive::Layout::folder(at)?),
        ImageSource::OciArchive(at) => Box::new(archive::Layout::file(at)?),
        ImageSource::DockerArchive(at) => Box::new(archive::DockerArchive::open(at)?),
        ImageSource::DockerDaemon(_) | ImageSource::ContainersStorage(_) => Box::new(skopeo::fetch(source)?),
        ImageSource::Rootfs(path) => Box::new(rootfs::Packed::of(path)?),
    };
    let top = place.top()?;
    if let Some(wanted) = source.wanted_digest() {
        same(&wanted, &top)?;
    }
    resolve_in(place, top)
}

impl Resolved {
    /// The stored bytes of a layer, unchecked.
    pub fn open(&self, layer: &Layer) -> Result<Box<dyn Read + Send>> {
        let here = self.source.blob(&layer.blob);
        if here.is_ok() || layer.urls.is_empty() {
            return here;
        }
        let mut elsewhere = layer.urls.iter().map(|url| self.source.foreign(&layer.blob, url));
        elsewhere.find(Result::is_ok).unwrap_or(here)
    }
}

fn resolve_in(source: Box<dyn BlobSource>, top: Vec<u8>) -> Result<Resolved> {
    let mut manifest_json = top;
    let mut promised = None;
    let mut depth = 0;
    let manifest = loop {
        ensure!(manifest_json.len() as u64 <= MAX_JSON, "the manifest is larger than {MAX_JSON} bytes");
        let index = match Document::parse(&manifest_json, promised.as_ref())? {
            Document::Image(manifest) => break *manifest,
            Document::Index(index) => index,
        };
        depth += 1;
        ensure!(depth <= MAX_NESTING, "image indexes are nested too deep");
        let entry = this_platform().choose(&index)?;
        let Blob { digest, size } = descriptor(entry)?;
        manifest_json = source.manifest(&digest).with_context(|| format!("fetching the manifest {digest}"))?;
        same(&digest, &manifest_json)?;
        let found = manifest_json.len() as u64;
        ensure!(found == size, "the manifest {digest} has {found} bytes, its index promises {size}");
        promised = Some(entry.media_type().clone());
    };
    let digest = sha256(&manifest_json);

    let blob = descriptor(manifest.config())?;
    ensure!(blob.size <= MAX_JSON, "the image's config is larger than {MAX_JSON} bytes");
    let mut config_json = Vec::new();
    let content = source.blob(&blob).context("fetching the image's config")?;
    super::blob::Checked::new(content, blob).read_to_end(&mut config_json).context("fetching the image's config")?;
    // as a whole first: what this type passes over is read elsewhere, and may be as deep as nothing can hold
    let config = serde_json::from_slice::<serde_json::Value>(&config_json).context("reading the image's config")?;
    let config: ImageConfiguration = serde_json::from_value(config).context("reading the image's config")?;
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    if os != "linux" || architecture != this_architecture() {
        bail!("no image for {}: it is for {os}/{architecture}", this_architecture());
    }

    let diff_ids = config.rootfs().diff_ids();
    ensure!(
        diff_ids.len() == manifest.layers().len(),
        "the manifest has {} layers and the config {}",
        manifest.layers().len(),
        diff_ids.len()
    );
    let layers = manifest.layers().iter().zip(diff_ids);
    let layers = layers.map(|(layer, diff_id)| {
        Ok(Layer { blob: descriptor(layer)?, diff_id: diff_id.parse()?, urls: foreign_urls(layer) })
    });
    let layers = layers.collect::<Result<_>>()?;
    Ok(Resolved { digest, manifest, manifest_json, config, config_json, layers, source })
}

fn same(wanted: &Digest, data: &[u8]) -> Result<()> {
    let found = sha256(data);
    ensure!(found == *wanted, "the manifest {wanted} is corrupted: its content has {found}");
    Ok(())
}

fn descriptor(descriptor: &oci_spec::image::Descriptor) -> Result<Blob> {
    Ok(Blob { digest: descriptor.digest().to_string().parse()?, size: descriptor.size() })
}
