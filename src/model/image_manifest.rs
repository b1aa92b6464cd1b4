//! A manifest or an index, and nothing that only looks like one: whoever wrote it may want two readers to see two different things
//! (CVE-2021-41190).

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde_json::Value;

/// More than any tool makes; Docker's own end at 127.
const MAX_LAYERS: usize = 512;

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

/// What a document is.
#[derive(Debug)]
pub enum Document {
    /// images for several machines
    Index(Box<ImageIndex>),
    /// one image
    Image(Box<ImageManifest>),
}

impl Document {
    /// Reads a document that its referrer calls `promised`, where it has one.
    pub fn parse(text: &[u8], promised: Option<&MediaType>) -> Result<Document> {
        let value: Value = serde_json::from_slice(text).context("the manifest is not JSON")?;
        let version = value.get("schemaVersion").and_then(Value::as_u64);
        if version == Some(1) {
            bail!("the manifest is of Docker's first schema, which names no layers by their content");
        }
        ensure!(version == Some(2), "the manifest's schemaVersion is not 2");
        let has = |key: &str| value.get(key).is_some();
        let is_index = has("manifests");
        ensure!(
            !is_index || !(has("layers") || has("config")),
            "the manifest is ambiguous: it is an index and an image at once"
        );
        ensure!(is_index || has("layers"), "the manifest is not one of a container image");
        let kinds = if is_index { INDEXES } else { MANIFESTS };
        let promised = promised.map(MediaType::to_string);
        for kind in value.get("mediaType").and_then(Value::as_str).into_iter().chain(promised.as_deref()) {
            let what = if is_index { "an index" } else { "an image" };
            ensure!(kinds.contains(&kind), "the manifest is called {kind:?}, and its content is {what}");
        }
        if is_index {
            return Ok(Document::Index(Box::new(serde_json::from_value(value).context("reading the image index")?)));
        }
        let manifest: ImageManifest = serde_json::from_value(value).context("reading the manifest")?;
        let config = manifest.config().media_type().to_string();
        ensure!(CONFIGS.contains(&config.as_str()), "it is an artifact of type {config:?}, not a container image");
        let count = manifest.layers().len();
        ensure!(count <= MAX_LAYERS, "the manifest has {count} layers, more than {MAX_LAYERS}");
        for layer in manifest.layers() {
            let kind = layer.media_type().to_string();
            ensure!(is_layer(&kind), "the layer {} is called {kind:?}, which is no tar archive", layer.digest());
        }
        Ok(Document::Image(Box::new(manifest)))
    }
}

/// How it is compressed is seen when it is read: tools get that part wrong, and both digests are checked.
fn is_layer(kind: &str) -> bool {
    let plain = ["+gzip", "+zstd", ".gzip", ".zstd"].iter().find_map(|end| kind.strip_suffix(end)).unwrap_or(kind);
    LAYERS.contains(&plain)
}

/// Where a layer may be had from when the registry does not keep it: by TLS only, since no login goes there.
pub fn foreign_urls(layer: &Descriptor) -> Vec<String> {
    let urls = layer.urls().iter().flatten();
    urls.filter(|url| url.starts_with("https://")).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn described(kind: &str) -> Value {
        json!({"mediaType": kind, "digest": format!("sha256:{}", "a".repeat(64)), "size": 1})
    }

    fn image(config: &str, layers: &[&str]) -> Value {
        let layers: Vec<Value> = layers.iter().map(|kind| described(kind)).collect();
        json!({"schemaVersion": 2, "config": described(config), "layers": layers})
    }

    #[test]
    fn what_every_tool_writes_is_read() {
        for (config, layer, kind) in [
            (CONFIGS[0], "application/vnd.oci.image.layer.v1.tar", Some(MANIFESTS[0])),
            (CONFIGS[0], "application/vnd.oci.image.layer.v1.tar+gzip", None),
            (CONFIGS[0], "application/vnd.oci.image.layer.v1.tar+zstd", None),
            (CONFIGS[0], "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", None),
            (CONFIGS[1], "application/vnd.docker.image.rootfs.diff.tar.gzip", Some(MANIFESTS[1])),
            (CONFIGS[1], "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(MANIFESTS[1])),
        ] {
            let mut manifest = image(config, &[layer]);
            if let Some(kind) = kind {
                manifest["mediaType"] = kind.into();
            }
            // the first version that lets images point at others and have a type
            manifest["subject"] = described(MANIFESTS[0]);
            manifest["artifactType"] = "application/x".into();
            let read = Document::parse(manifest.to_string().as_bytes(), Some(&MANIFESTS[0].into())).expect(layer);
            assert!(matches!(read, Document::Image(_)), "{layer}");
        }
        let index = json!({"schemaVersion": 2, "manifests": []});
        assert!(matches!(Document::parse(index.to_string().as_bytes(), None), Ok(Document::Index(_))));
        assert!(Document::parse(image(CONFIGS[0], &[]).to_string().as_bytes(), None).is_ok());
    }

    #[test]
    fn what_is_not_what_it_says_is_refused() {
        let with = |key: &str, value: Value| {
            let mut manifest = image(CONFIGS[0], &[]);
            manifest[key] = value;
            manifest
        };
        let many = vec!["application/vnd.oci.image.layer.v1.tar"; 513];
        for (manifest, promised, why) in [
            (with("manifests", json!([])), None, "ambiguous"),
            (json!({"schemaVersion": 2, "manifests": [], "config": {}}), None, "ambiguous"),
            (with("mediaType", INDEXES[0].into()), None, "its content is an image"),
            (with("mediaType", "text/plain".into()), None, "text/plain"),
            (image(CONFIGS[0], &[]), Some(INDEXES[1]), "its content is an image"),
            (json!({"schemaVersion": 2, "manifests": []}), Some(MANIFESTS[0]), "its content is an index"),
            (with("schemaVersion", json!(1)), None, "first schema"),
            (with("schemaVersion", json!("2")), None, "schemaVersion"),
            (json!([]), None, "schemaVersion"),
            (json!({"schemaVersion": 2}), None, "not one of a container image"),
            (image("application/vnd.oci.empty.v1+json", &[]), None, "an artifact of type"),
            (image(CONFIGS[0], &["application/vnd.in-toto+json"]), None, "no tar archive"),
            (image(CONFIGS[0], &["application/vnd.oci.image.layer.v1.tar+gzip+encrypted"]), None, "no tar archive"),
            (image(CONFIGS[0], &many), None, "513 layers"),
            (with("layers", json!({})), None, "reading the manifest"),
            (with("config", json!({"mediaType": CONFIGS[0], "digest": "x", "size": -1})), None, "reading the manifest"),
        ] {
            let promised = promised.map(MediaType::from);
            let error = Document::parse(manifest.to_string().as_bytes(), promised.as_ref()).expect_err(why);
            assert!(format!("{error:#}").contains(why), "{manifest}: {error:#}");
        }
        let deep = [r#"{"schemaVersion":2,"layers":"#, &"[".repeat(10_000), &"]".repeat(10_000), "}"].concat();
        let error = format!("{:#}", Document::parse(deep.as_bytes(), None).expect_err("deep"));
        assert!(error.contains("recursion limit"), "{error}");
    }
}
