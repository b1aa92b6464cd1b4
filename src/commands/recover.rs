//! `sysctr recover`: run at boot, before anything of ours starts.

use anyhow::Result;

use super::Context;
use sysctr::host::{lock::StoreLock, state, transaction::Recovered, units};

/// Finishes or undoes what was cut short. An operation whose process lives was not cut short: it may be waiting for a unit that in turn
/// waits for us, so there is nothing to wait for here.
pub fn run(context: &Context) -> Result<()> {
    let Some(lock) = StoreLock::try_acquire(&context.root, "recover")? else { return Ok(()) };
    let root = context.folder()?;
    let recovered = context.recover(&root, &lock)?;
    let Some(manager) = context.manager()? else { return Ok(()) };
    for one in recovered {
        // systemd planned this boot without its unit. The job is queued only: it waits for this very program to end.
        if let Recovered::Finished(name) = one
            && let Some(id) = state::container(&root, &name)?.and_then(|container| container.active)
            && units::is_enabled(&root, &name, id)?
        {
            manager.queue_start(&name.service_unit())?;
        }
    }
    Ok(())
}
