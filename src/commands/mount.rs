//! `sysctr mount IMAGE DIR`: look into an image of the store.

use std::path::Path;

use anyhow::Result;

use super::{Context, image};
use sysctr::{
    host::{mounted, ostree::Store},
    model::reference::ImageSource,
};

/// Mounts it read-only, and says where.
pub fn run(context: &Context, source: &ImageSource, dir: &Path) -> Result<()> {
    let (root, lock) = context.begin("mount")?;
    let store = Store::open(&context.root)?;
    let found = store.as_ref().map(|store| store.find(source)).transpose()?.flatten();
    let (Some(store), Some(found)) = (store, found) else {
        return Err(image::missing(source).into());
    };
    let at = mounted::show(&root, &lock, &store, &found, dir)?;
    let document = serde_json::json!({"reference": source, "digest": found.digest, "path": at});
    context.output.result(&document, || if context.output.quiet { String::new() } else { at.display().to_string() })
}
