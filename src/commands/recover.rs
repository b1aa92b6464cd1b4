//! `sysctr recover`: run at boot, before anything of ours starts.

use anyhow::Result;

use super::Context;
use sysctr::host::lock::StoreLock;

/// Finishes or undoes what was cut short. A journal whose operation is still at it is no business of ours; waiting for that
/// operation would be waiting for ourselves, because a start that it asks for requires this unit.
pub fn run(context: &Context) -> Result<()> {
    match StoreLock::try_acquire(&context.root, "recover")? {
        Some(lock) => context.recover(&lock).map(drop),
        None => Ok(()),
    }
}
