//! From a reference to one image for this machine: its manifest, its config, and its layers as readers.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};

use super::{archive, blob::Blob, ostree::sha256, registry};
use crate::model::{digest::Digest, reference::ImageSource, settings::Settings};

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
}

/// Finds the image for this machine that the reference names now.
pub fn resolve(source: &ImageSource, settings: &Settings) -> Result<Resolved> {
    let place: Box<dyn BlobSource> = match source {
        ImageSource::Registry(reference) => Box::new(registry::Registry::connect(reference, settings)?),
        ImageSource::OciDir(at) => Box::new(archive::Layout::folder(at)?),
        ImageSource::OciArchive(at) => Box::new(archive::Layout::file(at)?),
        ImageSource::DockerArchive(at) => Box::new(archive::DockerArchive::open(at)?),
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
        self.source.blob(&layer.blob)
    }
}

fn resolve_in(source: Box<dyn BlobSource>, top: Vec<u8>) -> Result<Resolved> {
    let mut manifest_json = top;
    let mut depth = 0;
    let manifest: ImageManifest = loop {
        ensure!(manifest_json.len() as u64 <= MAX_JSON, "the manifest is larger than {MAX_JSON} bytes");
        let value: serde_json::Value = serde_json::from_slice(&manifest_json).context("the manifest is not JSON")?;
        if value.get("manifests").is_none() {
            ensure!(
                value.get("schemaVersion").and_then(|v| v.as_u64()) == Some(2),
                "the manifest's schemaVersion is not 2"
            );
            ensure!(value.get("layers").is_some(), "the manifest is not one of a container image");
            break serde_json::from_value(value).context("reading the manifest")?;
        }
        depth += 1;
        ensure!(depth <= MAX_NESTING, "image indexes are nested too deep");
        let index: ImageIndex = serde_json::from_value(value).context("reading the image index")?;
        let digest = for_this_machine(&index)?;
        manifest_json = source.manifest(&digest).with_context(|| format!("fetching the manifest {digest}"))?;
        same(&digest, &manifest_json)?;
    };
    let digest = sha256(&manifest_json);

    let blob = descriptor(manifest.config())?;
    ensure!(blob.size <= MAX_JSON, "the image's config is larger than {MAX_JSON} bytes");
    let mut config_json = Vec::new();
    let content = source.blob(&blob).context("fetching the image's config")?;
    super::blob::Checked::new(content, blob).read_to_end(&mut config_json).context("fetching the image's config")?;
    let config: ImageConfiguration = serde_json::from_slice(&config_json).context("reading the image's config")?;
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
    let layers = layers.map(|(layer, diff_id)| Ok(Layer { blob: descriptor(layer)?, diff_id: diff_id.parse()? }));
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

/// This machine's architecture in the image specification's words (Go's).
pub fn this_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

fn for_this_machine(index: &ImageIndex) -> Result<Digest> {
    let mut others: Vec<String> = Vec::new();
    let mut fallback = None;
    for entry in index.manifests() {
        let Some(platform) = entry.platform() else {
            // a single entry needs no platform: an index may simply wrap one image
            if index.manifests().len() == 1 {
                return Ok(entry.digest().to_string().parse()?);
            }
            continue;
        };
        let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
        if os == "linux" && architecture == this_architecture() {
            // a variant is for newer processors than every one of its family
            if platform.variant().is_none() || architecture == "arm64" {
                return Ok(entry.digest().to_string().parse()?);
            }
            fallback = fallback.or(Some(entry));
        } else if os != "unknown" {
            others.push(if os == "linux" { architecture } else { format!("{os}/{architecture}") });
        }
    }
    if let Some(entry) = fallback {
        return Ok(entry.digest().to_string().parse()?);
    }
    others.sort();
    others.dedup();
    match others.as_slice() {
        [] => bail!("no image for {}: the index names no platform", this_architecture()),
        others => bail!("no image for {}: it has {}", this_architecture(), others.join(", ")),
    }
}
