//! `sysctr recover`: run at boot, before anything of ours starts.

use anyhow::Result;

use super::Context;
use sysctr::host::lock::StoreLock;

/// Finishes or undoes what was cut short. An operation whose process lives was not cut short: it may be waiting for a unit that in turn
/// waits for us, so there is nothing to wait for here.
pub fn run(context: &Context) -> Result<()> {
    match StoreLock::try_acquire(&context.root, "recover")? {
        Some(lock) => context.recover(&context.folder()?, &lock),
        None => Ok(()),
    }
}
