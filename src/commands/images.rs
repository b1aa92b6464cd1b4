//! `sysctr images`: what is in the store.

use anyhow::Result;
use serde::Serialize;

use super::{Context, image};
use crate::output::{one_line, table};
use sysctr::{
    host::ostree::Store,
    model::{digest::Digest, name::ContainerName, reference::ImageSource},
};

/// One line of the list; the keys are part of the command line's contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    reference: Option<ImageSource>,
    digest: Digest,
    size: u64,
    unique: u64,
    layers: usize,
    created: Option<String>,
    used_by: Vec<ContainerName>,
}

/// Prints the list: a line for each reference, and one for an image whose references went to others.
pub fn run(context: &Context) -> Result<()> {
    let users = image::users(&context.folder()?)?;
    let mut rows = Vec::new();
    if let Some(store) = Store::open(&context.root)? {
        let images = store.images()?;
        let unique = store.unique_sizes(&images)?;
        for image in &images {
            let references = image.references.iter().cloned().map(Some);
            let nameless = image.references.is_empty().then_some(None);
            rows.extend(references.chain(nameless).map(|reference| Row {
                reference,
                digest: image.digest.clone(),
                size: image.size,
                unique: unique.get(&image.commit).copied().unwrap_or_default(),
                layers: image.manifest.layers().len(),
                created: image.created().map(str::to_owned),
                used_by: users.get(&image.commit).cloned().unwrap_or_default(),
            }));
        }
    }
    context.output.result(&rows, || {
        if rows.is_empty() {
            return "no images; `sysctr pull IMAGE` brings one".to_owned();
        }
        table(&["IMAGE", "DIGEST", "SIZE", "UNIQUE", "CREATED", "USED BY"], rows.iter().map(Row::cells))
    })
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let reference = self.reference.as_ref().map_or("-".to_owned(), ToString::to_string);
        let day =
            self.created.as_deref().and_then(|created| created.get(..10)).map_or_else(|| "-".to_owned(), one_line);
        let users: Vec<&str> = self.used_by.iter().map(ContainerName::as_str).collect();
        let users = if users.is_empty() { "-".to_owned() } else { users.join(", ") };
        vec![reference, self.digest.short().to_owned(), image::bytes(self.size), image::bytes(self.unique), day, users]
    }
}
