//! `sysctr inspect IMAGE`: what an image says about itself, from the store or from where it comes from.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Context;
use sysctr::{
    host::{ostree::Store, settings, source},
    model::{reference::ImageName, schema},
};

/// Prints it; nothing is pulled.
pub fn run(context: &Context, name: &ImageName) -> Result<()> {
    let image = &context.named(name)?;
    let store = Store::open(&context.root)?;
    let stored = store.as_ref().map(|store| store.find(image)).transpose()?.flatten();
    let (digest, config, config_json, exports) = match (&store, stored) {
        (Some(store), Some(stored)) => {
            let exports = store.read_exports(&stored)?;
            (stored.digest, stored.config, stored.config_json, Some(shown(exports)))
        }
        _ => {
            let root = context.folder()?;
            let found = source::resolve(image, &root, &settings::load(&root)?)
                .with_context(|| format!("inspecting {image}"))?;
            // its files are in layers that nobody fetched
            (found.digest, found.config, found.config_json, None)
        }
    };
    let labels = config.config().as_ref().and_then(|config| config.labels().clone()).unwrap_or_default();
    let labels: BTreeMap<String, String> = labels.into_iter().collect();
    let raw: Value = serde_json::from_slice(&config_json).context("reading the image's config")?;
    let document = serde_json::json!({
        "reference": image, "digest": digest, "architecture": config.architecture().to_string(), "labels": labels,
        "config": raw.get("config"), "exports": exports,
    });
    context.output.result(&document, || serde_json::to_string_pretty(&document).unwrap_or_default())
}

/// Prints the schema of what an image says about itself.
pub fn schema(context: &Context) -> Result<()> {
    let text = schema::text()?;
    let document: Value = serde_json::from_str(&text).context("reading the schema")?;
    context.output.result(&document, || text)
}

/// Text as it is, JSON as JSON; what is neither only by its length.
fn shown(exports: BTreeMap<PathBuf, Vec<u8>>) -> BTreeMap<String, Value> {
    let show = |(path, data): (PathBuf, Vec<u8>)| {
        let path = path.display().to_string();
        let length = data.len();
        let value = match String::from_utf8(data) {
            Ok(text) if path.ends_with(".json") => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            Ok(text) => Value::String(text),
            Err(_) => serde_json::json!({"bytes": length}),
        };
        (path, value)
    };
    exports.into_iter().map(show).collect()
}
