//! `sysctr pull IMAGE`: bring an image into the store.

use anyhow::Result;

use super::Context;
use sysctr::{
    host::{ostree::Store, settings},
    model::reference::ImageName,
};

/// Pulls, and says what is there now.
pub fn run(context: &Context, image: &ImageName) -> Result<()> {
    let source = &context.named(image)?;
    let (root, lock) = context.begin("pull")?;
    let store = Store::open_or_create(&lock)?;
    let pulled = super::image::pull(context, &lock, &store, source, &settings::load(&root)?)?;
    let document = serde_json::json!({"reference": source, "digest": pulled.digest, "size": pulled.size});
    context.output.result(&document, || if context.output.quiet { String::new() } else { pulled.digest.to_string() })
}
