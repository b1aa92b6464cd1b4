//! Pulling with a progress bar, for every verb that pulls.

use anyhow::Result;

use super::Context;
use sysctr::{
    host::{
        lock::StoreLock,
        ostree::{Store, StoredImage},
    },
    model::{reference::ImageSource, settings::Settings},
};

/// Pulls an image.
pub fn pull(
    _context: &Context,
    _lock: &StoreLock,
    _store: &Store,
    _source: &ImageSource,
    _settings: &Settings,
) -> Result<StoredImage> {
    anyhow::bail!("not there yet")
}
