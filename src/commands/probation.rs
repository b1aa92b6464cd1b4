//! An update that may still be taken back by itself: begins with the update, ends with its time, or goes back.

use anyhow::Result;
use rustix::io::Errno;

use super::{Context, replace::Running};
use sysctr::{
    host::{
        clock,
        dir::Folder,
        events,
        lock::StoreLock,
        probation::{self, Counted},
        settings, state,
        systemd::Manager,
        transaction,
    },
    model::{
        deployment::Deployment,
        event::{self, Event, Operation, Version},
        name::ContainerName,
        probation::{AtBoot, Probation},
    },
};

/// After an update that is well: its time begins. Below another root it does with the first boot.
pub fn begin(context: &Context, running: &Running) {
    let Running { root, lock, name, .. } = *running;
    let Some(manager) = running.manager else { return };
    let other = if running.is_up() { None } else { manager.failures(&name.service_unit()).ok() };
    // The update is done whatever comes of this: the record is there.
    let begun = probation::begin(root, lock, name, other.as_ref()).and_then(|begun| match begun {
        Some(probation) => {
            forget(Some(manager), name, probation.replaces);
            start_timer(manager, name, &probation)
        }
        None => Ok(()),
    });
    if let Err(error) = begun {
        context.output.warn(format!("{name} stays on probation until the next boot: {error:#}"));
    }
}

/// Lets the service manager call us when the time is over; once for each.
pub fn start_timer(manager: &Manager, name: &ContainerName, probation: &Probation) -> Result<()> {
    let timer = timer(name, probation.deployment);
    if manager.state(&timer)?.active == "active" {
        return Ok(());
    }
    let description = format!("End of the probation of {name}");
    manager.start_timer(&timer, &description, probation.left(&clock::now()).max(1))
}

/// It starts an instance of `units/sysctr-probation@.service`.
fn timer(name: &ContainerName, deployment: u32) -> String {
    format!("sysctr-probation@{name}-{deployment}.timer")
}

/// A deployment is not in force any more: its timer goes. Left alone it would elapse and find nothing to do.
pub fn forget(manager: Option<&Manager>, name: &ContainerName, deployment: u32) {
    let _ = manager.map(|manager| manager.stop(&timer(name, deployment)));
}

/// At boot, before any of them starts: what brings the machine down again and again is taken back, in files. Gives those.
pub fn count_boot(context: &Context, root: &Folder, lock: &StoreLock, manager: &Manager) -> Result<Vec<ContainerName>> {
    let counted = probation::count_boot(root, lock)?;
    let mut back = Vec::new();
    for Counted { name, result } in &counted {
        let Some(probation) = probation::load(root, name)?.filter(|_| *result == AtBoot::TooMany) else { continue };
        let cause = format!("the machine booted {} times within its probation", probation.boots);
        let taken = probation::take_back(root, lock, name, &cause, &[]);
        let done = taken.and_then(|_| transaction::finish(root, lock, name));
        tell(context, root, name, &probation, &cause, done.as_ref().err());
        match done {
            Ok(()) => back.push(name.clone()),
            Err(error) => context.output.warn(format!("taking back the update of {name}: {error:#}")),
        }
    }
    if !counted.is_empty() {
        manager.reload()?;
    }
    Ok(back)
}

/// Puts the deployment before it back in force, as a rollback does, and lets it run. The journal of the system tells of it.
pub fn go_back(
    context: &Context,
    root: &Folder,
    lock: &StoreLock,
    manager: &Manager,
    name: &ContainerName,
    probation: &Probation,
    cause: &str,
) -> Result<()> {
    let restore = || -> Result<()> {
        let settle = settings::load(root).map(|settings| settings.update.settle()).unwrap_or_default();
        let bad = state::deployment(root, name, probation.deployment)?;
        let mut running = Running::look(root, lock, Some(manager), &bad, settle, true)?;
        running.revive()?;
        let (_, good) = probation::take_back(root, lock, name, cause, &running.ran())?;
        let restored = running.become_new(&bad, &good);
        transaction::finish(root, lock, name)?;
        forget(Some(manager), name, bad.id);
        restored
    };
    let restored = restore();
    let is_for_good = restored.as_ref().is_err_and(|error| !is_full(error));
    if is_for_good && probation::load(root, name)?.is_some() {
        // It cannot go back: at the next failure it could not either.
        probation::end(root, lock, name)?;
        manager.reload()?;
    }
    tell(context, root, name, probation, cause, restored.as_ref().err());
    restored
}

/// Whether there was no room, which there may be at the next failure or at the end of the time.
fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(&(Errno::NOSPC | Errno::DQUOT))))
}

fn tell(
    context: &Context,
    root: &Folder,
    name: &ContainerName,
    probation: &Probation,
    cause: &str,
    failure: Option<&anyhow::Error>,
) {
    let version = |id| state::deployment(root, name, id).ok().map(version);
    let told = Event {
        container: name.clone(),
        operation: Operation::Probation,
        result: if failure.is_none() { event::Result::RolledBack } else { event::Result::NeedsYou },
        from: version(probation.deployment),
        to: version(probation.replaces),
        unasked: true,
        cause: Some(failure.map_or(cause.to_owned(), |error| format!("{cause}; and going back: {error:#}"))),
    };
    events::tell(&context.root, &told);
}

fn version(deployment: Deployment) -> Version {
    Version { digest: deployment.digest, deployment: Some(deployment.id) }
}
