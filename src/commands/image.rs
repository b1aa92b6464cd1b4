//! Pulling with a progress bar, for every verb that pulls.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::Context;
use crate::output::Output;
use sysctr::{
    host::{
        lock::StoreLock,
        ostree::{Store, StoredImage},
        pull::{self, Progress},
        source::RegistrySettings,
    },
    model::{reference::ImageSource, settings::Settings},
};

/// Pulls an image, unless the store has what the reference names now.
pub fn pull(
    context: &Context,
    lock: &StoreLock,
    store: &Store,
    source: &ImageSource,
    settings: &Settings,
) -> Result<StoredImage> {
    let registries = RegistrySettings { insecure: settings.registry.insecure.clone() };
    let mut progress = Bar { output: context.output, bar: ProgressBar::hidden() };
    let pulled = pull::pull(lock, store, source, &registries, &mut progress);
    progress.bar.finish_and_clear();
    pulled
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
