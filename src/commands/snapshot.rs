//! State in a newer format: before an update brings it there, it is kept as it is, with the service down. What cannot be kept is refused,
//! or accepted by whoever is asked.

use anyhow::{Result, bail, ensure};

use super::{
    replace::{self, Running},
    update::Updater,
};
use sysctr::{
    host::{
        snapshot::{self, Plan},
        state,
        systemd::Manager,
        transaction::{self, Staged},
        units,
    },
    model::{
        deployment::{Deployment, Journal},
        fault::{Code, Fault},
        layout,
    },
};

/// What is going to be kept; none where nothing can be, and that was accepted.
pub fn plan(updater: &Updater, old: &Deployment, new: &Deployment, manager: Option<&Manager>) -> Result<Option<Plan>> {
    let why = match cannot_stop(updater, old, new, manager)? {
        Some(why) => why,
        None => match snapshot::plan(&updater.root, old, updater.settings.update.snapshot())? {
            Ok(plan) => return Ok(Some(plan)),
            Err(why) => why,
        },
    };
    let message = format!(
        "the new image keeps its state in format {}, the old one in {}, and there is no way back: {why}",
        new.epoch, old.epoch
    );
    if updater.args.yes {
        updater.context.output.warn(format!("{}: {message}", old.name));
        return Ok(None);
    }
    if updater.context.output.can_ask() {
        eprintln!("{}: {message}", old.name);
        if updater.context.output.confirm("Go on without a way back?")? {
            return Ok(None);
        }
    }
    let fault = Fault::new(Code::Refused, format!("updating {}: {message}", old.name));
    bail!(fault.hint("copy the state away first; --yes goes on"))
}

/// Why whoever writes there cannot be stopped.
fn cannot_stop(
    updater: &Updater,
    old: &Deployment,
    new: &Deployment,
    manager: Option<&Manager>,
) -> Result<Option<String>> {
    for id in [old.id, new.id] {
        if units::set_files(&updater.root, &old.name, id)?.iter().any(|file| layout::is_template(file)) {
            return Ok(Some("it has a template unit, whose instances share the state".to_owned()));
        }
    }
    let Some(manager) = manager.filter(|_| updater.args.no_restart) else { return Ok(None) };
    for unit in &old.units {
        if replace::is_up(manager, unit)? {
            return Ok(Some(format!("with --no-restart {unit} stays up, and state is copied while it is down")));
        }
    }
    Ok(None)
}

/// Keeps the state of `old`, and lets `new` take its place in files. Whatever fails, the old one runs again.
pub fn replace(running: &Running, staged: Staged, old: &Deployment, new: &Deployment, plan: Plan) -> Result<Journal> {
    let (root, lock, name) = (running.root, running.lock, running.name);
    let kept = staged
        .announce(lock, old.id, &running.ran())
        .and_then(|()| running.stop(old))
        .and_then(|()| snapshot::take(root, lock, name, old.id, new.id, plan))
        .and_then(|()| running.is_down(old));
    if let Err(cause) = kept {
        let undone = snapshot::forget(root, name, old.id).and_then(|()| transaction::finish(root, lock, name));
        undone.and_then(|()| running.start_again(old)).map_err(|error| replace::needs_you(&cause, &error))?;
        return Err(cause);
    }
    let replaced = staged.replace(lock, old.id, &running.ran());
    if let Err(cause) = &replaced
        && is_undone(running)?
    {
        let undone = snapshot::forget(root, name, old.id);
        undone.and_then(|()| running.start_again(old)).map_err(|error| replace::needs_you(cause, &error))?;
    }
    replaced
}

/// Else it is left half-way, and what is kept is still needed.
fn is_undone(running: &Running) -> Result<bool> {
    Ok(state::container(running.root, running.name)?.is_some_and(|container| container.journal.is_none()))
}

/// Puts an earlier deployment in force with the state that is kept beside it. Where that fails before the commit, the one of before runs
/// again.
pub fn roll_back(running: &Running, old: &Deployment, new: &Deployment) -> Result<()> {
    let journal = make_way(running, old, new)?;
    let placed = transaction::roll_back_as_announced(running.root, running.lock, running.name, &journal);
    if let Err(cause) = &placed
        && is_undone(running)?
    {
        running.start_again(old).map_err(|error| replace::needs_you(cause, &error))?;
    }
    placed
}

/// Before an earlier deployment and the state that is kept beside it come back: the service is down, and there is a place for the state of
/// `old`. Where that fails, it runs again.
fn make_way(running: &Running, old: &Deployment, new: &Deployment) -> Result<Journal> {
    let (root, lock, name) = (running.root, running.lock, running.name);
    for id in [old.id, new.id] {
        let templates = units::set_files(root, name, id)?.iter().any(|file| layout::is_template(file));
        ensure!(
            !templates,
            "deployment {id} has a template unit, whose instances share the state that would be put back"
        );
    }
    let journal = transaction::announce_rollback(root, lock, name, old.id, new.id, &running.ran())?;
    let ready = running
        .stop(old)
        .and_then(|()| snapshot::prepare(root, lock, name, old.id, new.id))
        .and_then(|()| running.is_down(old));
    if let Err(cause) = &ready {
        let undone = transaction::finish(root, lock, name);
        undone.and_then(|()| running.start_again(old)).map_err(|error| replace::needs_you(cause, &error))?;
    }
    ready.map(|()| journal)
}
