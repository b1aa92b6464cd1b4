//! `sysctr recover`: run at boot, before anything of ours starts.

use anyhow::{Result, bail};

use super::{Context, probation};
use sysctr::{
    host::{
        clock, dir::Folder, enablement, lock::StoreLock, recovered, recovery::Recovered, state, systemd::Manager,
        transaction, units,
    },
    model::{
        fault::{Code, Fault},
        journal::Journal,
        layout,
        name::ContainerName,
    },
};

/// Finishes or undoes what was cut short, and counts the boot for what is on probation. An operation whose process lives was not cut
/// short: it may be waiting for a unit that in turn waits for us, so there is nothing to wait for here.
pub fn run(context: &Context) -> Result<()> {
    let Some(lock) = StoreLock::try_acquire(&context.root, "recover")? else { return Ok(()) };
    let root = context.folder()?;
    let manager = context.manager()?;
    // What writes to the state would have to be stopped first, and its start may be waiting for us.
    let is_live = |journal: &Journal| manager.is_some() && journal.state && journal.boot == clock::boot();
    let recovery = context.recover(&root, &lock, &is_live)?;
    for one in recovery.done {
        if let Recovered::Back(name, _) = &one {
            // Where it runs already, this is no boot; what it runs from goes with the next changing command.
            match &manager {
                Some(manager) if manager.state(&name.service_unit())?.active != "inactive" => {
                    manager.queue_try_restart(&name.service_unit())?;
                }
                _ => drop(transaction::discard_staged(&root, &lock, name)?),
            }
        }
        if let Some(manager) = &manager
            && let Recovered::Finished(name) | Recovered::Back(name, _) | Recovered::RolledBack(name, _) = one
        {
            queue(context, &root, manager, &name)?;
        }
    }
    if let Some(manager) = &manager {
        // What waits for us may be one of them.
        for unit in &recovery.stopped {
            if let Err(error) = manager.queue_start(unit) {
                context.output.warn(format!("{error:#}"));
            }
        }
        for name in probation::count_boot(context, &root, &lock, manager)? {
            queue(context, &root, manager, &name)?;
        }
    }
    match recovery.failed.first() {
        Some((name, _)) => {
            bail!(Fault::new(Code::NeedsYou, format!("{name} could not be recovered, the warning says why")))
        }
        None => Ok(()),
    }
}

/// systemd planned this boot without these units, or with others. The jobs are queued only: they wait for this very program to end. How
/// the service is then is asked later.
fn queue(context: &Context, root: &Folder, manager: &Manager, name: &ContainerName) -> Result<()> {
    let Some(id) = state::container(root, name)?.and_then(|container| container.active) else { return Ok(()) };
    if !enablement::is_enabled(root, name, id)? {
        return Ok(());
    }
    recovered::note(name)?;
    let units = units::set_files(root, name, id)?.into_iter().filter(|file| layout::is_unit(file));
    for unit in units {
        // A unit that the admin masked is no reason to fail the others.
        if enablement::is_linked(root, name, id, &unit)?
            && let Err(error) = manager.queue_start(&unit)
        {
            context.output.warn(format!("recovering {name}: {error:#}"));
        }
    }
    Ok(())
}
