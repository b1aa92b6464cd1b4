//! `sysctr remove IMAGE...`: forget images that nothing uses.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::{Context, image};
use sysctr::{
    host::ostree::{Store, StoredImage},
    model::{
        fault::{Code, Fault},
        name::ContainerName,
        reference::ImageSource,
    },
};

/// Checks all of them before it removes any.
pub fn run(context: &Context, sources: &[ImageSource]) -> Result<()> {
    let (root, lock) = context.begin_now("remove")?;
    let users = image::users(&root)?;
    let store = Store::open(&context.root)?;
    let mut found: Vec<(&ImageSource, StoredImage)> = Vec::new();
    for source in sources {
        let image = store.as_ref().map(|store| store.find(source)).transpose()?.flatten();
        let image = image.ok_or_else(|| image::missing(source))?;
        let others = image.references.iter().any(|reference| !sources.contains(reference));
        if others && !image.references.contains(source) {
            let names: Vec<String> = image.references.iter().map(ToString::to_string).collect();
            let message = format!("removing {source}: the image is kept under another name");
            bail!(Fault::new(Code::Failed, message).hint(format!("remove {}", names.join(" "))));
        }
        if !others && let Some(names) = users.get(&image.commit) {
            let names: Vec<&str> = names.iter().map(ContainerName::as_str).collect();
            let message = format!("removing {source}: {} uses it", names.join(", "));
            bail!(Fault::new(Code::Failed, message).hint("uninstall what uses it first"));
        }
        found.push((source, image));
    }
    let Some(store) = store else { return Ok(()) };
    for (source, image) in &found {
        let others = image.references.iter().any(|reference| !sources.contains(reference));
        if others {
            store.untag(&lock, source)?;
        } else if store.by_digest(&image.digest)?.is_some() {
            store.remove(&lock, image)?;
        }
    }
    let needed: BTreeSet<String> = users.into_keys().collect();
    let freed = store.prune(&lock, &needed)?;
    context.output.say(format!("removed {}, {} freed", image::count(found.len(), "image"), image::bytes(freed.bytes)));
    Ok(())
}
