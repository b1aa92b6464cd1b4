//! What every verb about images needs: pulling with a progress bar, who uses an image, sizes for people.

use std::collections::BTreeMap;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::Context;
use crate::output::Output;
pub use sysctr::model::size::shown as bytes;
use sysctr::{
    host::{
        dir::Folder,
        fsck::Report,
        lock::StoreLock,
        ostree::{Store, StoredImage},
        pull::{self, Progress},
        state, systems,
    },
    model::{
        fault::{Code, Fault},
        name::ContainerName,
        reference::ImageSource,
        settings::Settings,
    },
};

/// Pulls an image, unless the store has what the reference names now.
pub fn pull(
    context: &Context,
    lock: &StoreLock,
    store: &Store,
    source: &ImageSource,
    settings: &Settings,
) -> Result<StoredImage> {
    let mut progress = Bar { output: context.output, bar: ProgressBar::hidden() };
    let pulled = pull::pull(lock, store, source, settings, &mut progress);
    progress.bar.finish_and_clear();
    pulled
}

/// Fetches broken objects again; gives why a source could not help, where none could.
pub fn repair(
    context: &Context,
    lock: &StoreLock,
    store: &Store,
    found: &Report,
    from: Option<&ImageSource>,
    settings: &Settings,
) -> Result<Vec<String>> {
    let mut progress = Bar { output: context.output, bar: ProgressBar::hidden() };
    let failures = store.repair(lock, found, from, settings, &mut progress);
    progress.bar.finish_and_clear();
    failures
}

/// A progress bar on a terminal, nothing elsewhere; warnings always.
struct Bar {
    output: Output,
    bar: ProgressBar,
}

impl Progress for Bar {
    fn begin(&mut self, image: &ImageSource, bytes: u64) {
        if !self.output.progress() {
            return;
        }
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
        self.bar = ProgressBar::new(bytes).with_message(format!("pulling {}", image.repository_name()));
        self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    }

    fn fetched(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn warning(&mut self, text: &str) {
        self.bar.suspend(|| self.output.warn(text));
    }
}

/// The containers of each commit that a deployment was made of, in force or not.
pub fn users(root: &Folder) -> Result<BTreeMap<String, Vec<ContainerName>>> {
    let mut users: BTreeMap<String, Vec<ContainerName>> = BTreeMap::new();
    let mut names = systems::containers(root)?;
    names.extend(state::containers(root)?.into_iter().map(|container| container.name));
    for name in names {
        for deployment in state::deployments(root, &name)? {
            let names = users.entry(deployment.commit).or_default();
            if !names.contains(&name) {
                names.push(name.clone());
            }
        }
    }
    Ok(users)
}

/// The failure that says so.
pub fn missing(source: &ImageSource) -> Fault {
    Fault::new(Code::NotFound, format!("{source} is not in the store")).hint("`sysctr images` shows what is")
}

/// `1 image`, `2 images`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
