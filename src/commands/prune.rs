//! `sysctr prune`: drop what nothing needs.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Context, image, replace};
use sysctr::{
    host::{
        mounted,
        ostree::{Pruned, Store},
        runs, settings, state,
    },
    model::retention,
};

/// Drops images without a reference and a user, and objects without an image.
pub fn run(context: &Context, dry_run: bool) -> Result<()> {
    let (root, lock) = context.begin_now("prune")?;
    let manager = context.manager()?;
    let mut retired = 0;
    let keep = settings::load(&root)?.update.keep();
    for container in state::containers(&root)? {
        let Some(active) = container.active.filter(|_| container.journal.is_none()) else { continue };
        let (ids, name) = (state::deployment_ids(&root, &container.name)?, &container.name);
        let replaced = state::deployment(&root, name, active)?.replaces;
        let surplus = retention::surplus(&ids, active, replaced, keep);
        let surplus = replace::unneeded(&root, manager.as_ref(), name, surplus)?;
        retired += surplus.len();
        if !dry_run {
            replace::retire(&root, &container.name, &surplus)?;
        }
    }
    if !dry_run {
        runs::sweep(&root, &lock)?;
        mounted::sweep(&root, &lock)?;
    }
    let needed: BTreeSet<String> = image::users(&root)?.into_keys().collect();
    let pruned = match Store::open(&context.root)? {
        Some(store) if dry_run => store.prunable(&lock, &needed)?,
        Some(store) => store.prune(&lock, &needed)?,
        None => Pruned::default(),
    };
    let document = serde_json::json!({"images": pruned.images, "objects": pruned.objects, "bytes": pruned.bytes, "deployments": retired, "dryRun": dry_run});
    context.output.result(&document, || {
        if context.output.quiet {
            return String::new();
        }
        let would = if dry_run { "would drop" } else { "dropped" };
        let deployments = match retired {
            0 => String::new(),
            _ => format!("{}, ", image::count(retired, "deployment")),
        };
        format!("{would} {deployments}{}, {}", image::count(pruned.images, "image"), image::bytes(pruned.bytes))
    })
}
