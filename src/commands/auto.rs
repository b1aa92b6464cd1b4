//! `sysctr update --auto`: each container as its policy says, within the window. And the telling of every update to the system's journal.

use anyhow::Result;

use super::{
    Context,
    update::{Kind, Outcome, Updater},
};
use crate::cli::UpdateArgs;
use sysctr::{
    host::{events, ostree::Store, quarantine, state},
    model::{
        deployment::Deployment,
        event::{self, Event, Operation, Version},
        fault::{Code, Fault},
        name::ContainerName,
        settings::Policy,
    },
};

/// What sysctr-update.service runs.
pub fn run(context: &Context, args: &UpdateArgs) -> Result<()> {
    let looking = Updater::new(context, args, context.folder()?)?;
    let installed = state::containers(&looking.root)?;
    for name in looking.settings.container.keys() {
        if !installed.iter().any(|one| one.name == *name && one.active.is_some()) {
            context.output.warn(format!("the settings have [container.{name}], and no such container is installed"));
        }
    }
    let is_auto = |updater: &Updater, name: &ContainerName| updater.settings.policy(name) == Policy::Auto;
    if !is_open(&looking) || !installed.iter().any(|one| is_auto(&looking, &one.name)) {
        return looking.each(|name| check(&looking, name));
    }
    let (root, lock) = context.begin("update")?;
    let updater = Updater::new(context, args, root)?;
    let store = Store::open_or_create(&lock)?;
    let manager = context.manager()?;
    updater.each(|name| {
        // Those before may have taken their time.
        if is_auto(&updater, name) && is_open(&updater) {
            return told(&updater, name, || updater.update(name, &lock, &store, manager.as_ref()));
        }
        check(&updater, name)
    })
}

fn is_open(updater: &Updater) -> bool {
    updater.settings.update.window.as_ref().is_none_or(|window| window.is_open(chrono::Local::now().naive_local()))
}

/// Passes over a container.
pub fn on_hold(updater: &Updater, name: &ContainerName) -> Result<Outcome> {
    let (_, old) = state::installed(&updater.root, name)?;
    updater.say(format!("{name} is on hold"));
    Ok(updater.outcome(name, Kind::OnHold, &old.digest, old.id))
}

/// Who names a container wants it, and may have forgotten that it is on hold.
pub fn warn_of_hold(updater: &Updater, name: &ContainerName) {
    if updater.settings.policy(name) == Policy::Hold && !updater.args.names.is_empty() {
        updater.context.output.warn(format!("{name} is on hold by its policy, and is updated since it was named"));
    }
}

/// Says what there is, and why it is not taken.
fn check(updater: &Updater, name: &ContainerName) -> Result<Outcome> {
    let outcome = told(updater, name, || updater.check(name))?;
    if let (Kind::Available, Policy::Auto, Some(window)) =
        (outcome.result, updater.settings.policy(name), &updater.settings.update.window)
    {
        updater.context.output.say(format!("{name} is updated between {window} only"));
    }
    Ok(outcome)
}

/// Does it, and tells the system's journal what came of it, unless nothing did.
pub fn told(updater: &Updater, name: &ContainerName, update: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    let from = state::installed(&updater.root, name).ok().map(|(_, old)| version(&old));
    updater.tried.take();
    let outcome = update();
    let of = |outcome: &Outcome| {
        let deployment = outcome.deployment.filter(|_| outcome.result == Kind::Updated);
        outcome.digest.clone().map(|digest| Version { digest, deployment })
    };
    let (result, to, cause) = match &outcome {
        Ok(done) => match done.result {
            Kind::Updated => (event::Result::Updated, of(done), None),
            Kind::Available => (event::Result::Available, of(done), None),
            Kind::Held => (event::Result::Held, of(done), None),
            Kind::Unchanged | Kind::OnHold | Kind::RolledBack | Kind::Refused | Kind::Failed => return outcome,
        },
        Err(error) => {
            let tried = updater.tried.take();
            let code = Fault::code_of(error);
            // The record has the cause alone.
            let failed = tried.as_ref().filter(|_| code == Some(Code::RolledBack));
            let cause = failed.and_then(|to| quarantine::of(&updater.root, name, &to.digest).ok().flatten());
            let cause = cause.map_or_else(|| format!("{error:#}"), |failed| failed.cause);
            (event::Result::of_code(code), tried, Some(cause))
        }
    };
    let (operation, unasked) = (Operation::Update, updater.args.auto);
    let event = Event { container: name.clone(), operation, result, from, to, unasked, cause };
    events::tell(&updater.context.root, &event);
    outcome
}

/// What an entry says of a deployment.
pub fn version(deployment: &Deployment) -> Version {
    Version { digest: deployment.digest.clone(), deployment: Some(deployment.id) }
}
