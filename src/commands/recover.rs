//! `sysctr recover`: run at boot, before anything of ours starts.

use anyhow::{Result, bail};

use super::Context;
use sysctr::{
    host::{lock::StoreLock, recovery::Recovered, state, transaction, units},
    model::fault::{Code, Fault},
};

/// Finishes or undoes what was cut short. An operation whose process lives was not cut short: it may be waiting for a unit that in turn
/// waits for us, so there is nothing to wait for here.
pub fn run(context: &Context) -> Result<()> {
    let Some(lock) = StoreLock::try_acquire(&context.root, "recover")? else { return Ok(()) };
    let root = context.folder()?;
    let recovery = context.recover(&root, &lock)?;
    let manager = if recovery.done.is_empty() { None } else { context.manager()? };
    for one in recovery.done {
        if let Recovered::Back(name) = &one {
            // Where it runs already, this is no boot; what it runs from goes with the next changing command.
            match &manager {
                Some(manager) if manager.state(&name.service_unit())?.active != "inactive" => {
                    manager.queue_try_restart(&name.service_unit())?;
                }
                _ => drop(transaction::discard_staged(&root, &lock, name)?),
            }
        }
        // systemd planned this boot without its unit. The job is queued only: it waits for this very program to end.
        if let Some(manager) = &manager
            && let Recovered::Finished(name) | Recovered::Back(name) | Recovered::RolledBack(name) = one
            && let Some(id) = state::container(&root, &name)?.and_then(|container| container.active)
            && units::is_enabled(&root, &name, id)?
        {
            manager.queue_start(&name.service_unit())?;
        }
    }
    match recovery.failed.first() {
        Some((name, _)) => {
            bail!(Fault::new(Code::NeedsYou, format!("{name} could not be recovered, the warning says why")))
        }
        None => Ok(()),
    }
}
