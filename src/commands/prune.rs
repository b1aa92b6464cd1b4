//! `sysctr prune`: drop what nothing needs.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Context, image};
use sysctr::host::{
    ostree::{Pruned, Store},
    runs,
};

/// Drops images without a reference and a user, and objects without an image.
pub fn run(context: &Context, dry_run: bool) -> Result<()> {
    let (root, lock) = context.begin("prune")?;
    if !dry_run {
        runs::sweep(&root, &lock)?;
    }
    let needed: BTreeSet<String> = image::users(&root)?.into_keys().collect();
    let pruned = match Store::open(&context.root)? {
        Some(store) if dry_run => store.prunable(&lock, &needed)?,
        Some(store) => store.prune(&lock, &needed)?,
        None => Pruned::default(),
    };
    let document = serde_json::json!({"images": pruned.images, "objects": pruned.objects, "bytes": pruned.bytes, "dryRun": dry_run});
    context.output.result(&document, || {
        if context.output.quiet {
            return String::new();
        }
        let would = if dry_run { "would drop" } else { "dropped" };
        format!("{would} {}, {}", image::count(pruned.images, "image"), image::bytes(pruned.bytes))
    })
}
