//! One deployment takes the place of another in the running system: reload, one restart job, health; and back again if that fails.

use std::{cell::Cell, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use sysctr::{
    host::{
        apply, dependents, dir::Folder, enablement, health, instances, lock::StoreLock, process, quarantine, space,
        start_limit, state, systemd::Manager, systems, transaction, units,
    },
    model::{
        deployment::{Deployment, Journal},
        fault::{Code, Fault},
        health::Verdict,
        layout,
        name::ContainerName,
    },
};

/// What is needed to change what runs.
pub struct Running<'a> {
    pub root: &'a Folder,
    pub lock: &'a StoreLock,
    /// None where systemd does not run this system, or nothing is to be restarted.
    pub manager: Option<&'a Manager>,
    pub name: &'a ContainerName,
    /// How long the service has to stay up.
    pub settle: Duration,
    /// Whether what runs is touched at all.
    restart: bool,
    /// Units that are running now, of the container and of those that require it.
    before: Before,
    /// It was stopped, with all that could start it.
    stopped: Cell<bool>,
    /// By what the service was found to be well when it was last restarted.
    pub verdict: Cell<Option<Verdict>>,
}

#[derive(Default)]
struct Before {
    own: Vec<String>,
    /// Of the container's templates; they run what it is, too.
    instances: Vec<String>,
    dependents: Vec<String>,
}

impl<'a> Running<'a> {
    /// Looks at what runs. Has to be asked before anything changes.
    pub fn look(
        root: &'a Folder,
        lock: &'a StoreLock,
        manager: Option<&'a Manager>,
        deployment: &'a Deployment,
        settle: Duration,
        restart: bool,
    ) -> Result<Running<'a>> {
        let name = &deployment.name;
        let mut before = Before::default();
        if let Some(manager) = manager.filter(|_| restart) {
            for unit in &deployment.units {
                if is_up(manager, unit)? && !(unit.ends_with(".service") && manager.is_oneshot(unit)?) {
                    before.own.push(unit.clone());
                }
            }
            for unit in instances::running(root, manager, deployment)? {
                if !(unit.ends_with(".service") && manager.is_oneshot(&unit)?) {
                    before.instances.push(unit);
                }
            }
            before.dependents = dependents::of(manager, &name.service_unit(), &deployment.units)?;
        }
        Ok(Running {
            root,
            lock,
            manager,
            name,
            settle,
            restart,
            before,
            stopped: Cell::default(),
            verdict: Cell::default(),
        })
    }

    /// Whether the service runs.
    pub fn is_up(&self) -> bool {
        self.before.own.contains(&self.name.service_unit())
    }

    /// The units that ran, in the order in which they can be started: what requires the service is the last.
    pub fn ran(&self) -> Vec<String> {
        let own = layout::starters_first(self.before.own.iter().chain(&self.before.instances));
        own.into_iter().chain(&self.before.dependents).cloned().collect()
    }

    /// Stops the service, its instances, and what could start them again.
    pub fn stop(&self, deployment: &Deployment) -> Result<()> {
        let Some(manager) = self.manager else { return Ok(()) };
        self.stopped.set(true);
        let units = layout::starters_first(deployment.units.iter().chain(&self.before.instances));
        units.into_iter().try_for_each(|unit| manager.stop(unit))?;
        self.is_down(deployment)
    }

    /// Fails if somebody started it meanwhile.
    pub fn is_down(&self, deployment: &Deployment) -> Result<()> {
        let Some(manager) = self.manager else { return Ok(()) };
        for unit in &deployment.units {
            let state = manager.state(unit)?.active;
            ensure!(["inactive", "failed"].contains(&state.as_str()), "{unit} is {state}, and has to be down");
        }
        Ok(())
    }

    /// What was stopped, and is still the same, runs again.
    pub fn start_again(&self, deployment: &Deployment) -> Result<()> {
        let Some(manager) = self.manager.filter(|_| self.stopped.take()) else { return Ok(()) };
        self.ran().iter().try_for_each(|unit| manager.start(unit))?;
        if self.is_up() {
            health::judge(manager, deployment, self.settle)?;
        }
        dependents::come_back(manager, &self.before.dependents, self.settle)
    }

    /// Leaves it to others, which are updated too, to bring their own units back, and to `later` ones what requires those as well.
    pub fn leave_to(&mut self, units: &[String], later: &[Running]) {
        let theirs = |unit: &String| units.contains(unit) || later.iter().any(|it| it.before.dependents.contains(unit));
        self.before.dependents.retain(|unit| !theirs(unit));
    }

    /// The service is to run, though it failed and does not.
    pub fn revive(&mut self) -> Result<()> {
        let Some(manager) = self.manager else { return Ok(()) };
        let service = self.name.service_unit();
        if !self.is_up() && manager.state(&service)?.active == "failed" && !manager.is_oneshot(&service)? {
            self.before.own.push(service);
        }
        Ok(())
    }

    /// Lets what runs become `new`, whose files are placed already, and waits until it is well.
    pub fn become_new(&self, old: &Deployment, new: &Deployment) -> Result<()> {
        become_all(&[Change { running: self, old, new }]).map_err(|(_, error)| error)
    }

    /// What has to be there before systemd reads the new units.
    fn make_ready(&self) -> Result<()> {
        apply::sysusers(self.manager.is_some(), self.name, self.root)?;
        apply::tmpfiles(self.manager.is_some(), self.name, self.root)?;
        if self.is_up() { start_limit::lift(self.name) } else { Ok(()) }
    }

    fn restart(&self, manager: &Manager, old: &Deployment, new: &Deployment) -> Result<()> {
        let service = self.name.service_unit();
        let starter = |unit: &&String| !unit.ends_with(".service");
        for unit in old.units.iter().filter(starter).filter(|unit| !new.units.contains(unit)) {
            manager.stop(unit)?;
        }
        // A socket that stays as it is stays open: its connections wait for the new program.
        let mut changed = Vec::new();
        let stopped = self.stopped.take();
        for unit in new.units.iter().filter(starter) {
            let went_down = stopped && self.before.own.contains(unit);
            if went_down || !old.units.contains(unit) || !units::is_same(self.root, self.name, unit, old.id, new.id)? {
                changed.push(unit);
            }
        }
        if changed.iter().any(|unit| unit.ends_with(".socket")) && is_up(manager, &service)? {
            // systemd opens no socket of a service that runs
            manager.stop(&service)?;
        }
        for unit in changed.iter().filter(|_| !self.before.own.is_empty()) {
            manager.restart(unit)?;
        }
        // What waited for a connection or for its time waits no more.
        let waited = !self.before.own.is_empty() && !new.units.iter().any(|unit| starter(&unit));
        if self.is_up() || (waited && enablement::is_enabled(self.root, self.name, new.id)?) {
            self.restart_service(manager, new)?;
        }
        self.restart_instances(manager, old, new)
    }

    fn restart_service(&self, manager: &Manager, new: &Deployment) -> Result<()> {
        let service = self.name.service_unit();
        manager.reset_failed(&service);
        // With another one that it requires it was restarted already, or it was never stopped.
        match running(Some(manager), self.name)? == Some(new.id) {
            true => manager.start(&service)?,
            false => manager.restart(&service)?,
        }
        self.verdict.set(Some(health::judge(manager, new, self.settle)?));
        // Those that went down with it come back with it.
        dependents::come_back(manager, &self.before.dependents, self.settle)
    }

    fn restart_instances(&self, manager: &Manager, old: &Deployment, new: &Deployment) -> Result<()> {
        let templates = units::set_files(self.root, self.name, new.id)?;
        let mut restarted = Vec::new();
        for unit in &self.before.instances {
            let template = layout::template_of(unit);
            if !templates.contains(&template) {
                manager.stop(unit)?;
            } else if unit.ends_with(".service") || !units::is_same(self.root, self.name, &template, old.id, new.id)? {
                manager.reset_failed(unit);
                manager.restart(unit)?;
                restarted.push(unit.clone());
            }
        }
        dependents::stay_up(manager, &restarted, "an instance of it", self.settle)
    }

    /// After `cause`: puts `old` back in force and in the place of `new`, and remembers that the image of `new` failed.
    pub fn go_back(
        &self,
        journal: &Journal,
        old: &Deployment,
        new: &Deployment,
        cause: anyhow::Error,
    ) -> Result<Fault> {
        let name = self.name;
        let cause = format!("{cause:#}");
        let needs_you = |error: anyhow::Error| {
            let message = format!("updating {name}: {cause}; and going back: {error:#}");
            Fault::new(Code::NeedsYou, message)
                .hint(format!("`systemctl status {name}` and `sysctr show {name}` tell how it is"))
        };
        // The journal stays until the old one runs: cut short here, recovery does it again, and takes nothing away beneath a program.
        let back = || -> Result<()> {
            if journal.state {
                self.stop(new)?;
            }
            transaction::go_back(self.root, self.lock, name, journal)?;
            self.become_new(new, old)
        };
        // First: cut short behind it, the next timer must not try that image again. Room for it was set aside.
        let noted = space::release(self.root, name)
            .and_then(|()| quarantine::add_failed(self.root, self.lock, new, old, &cause));
        let back = back();
        back.and(noted)
            .and_then(|()| transaction::finish(self.root, self.lock, name))
            .and_then(|()| transaction::discard_staged(self.root, self.lock, name).map(drop))
            .map_err(needs_you)?;
        let again = match self.verdict.take() {
            Some(verdict) => format!("deployment {} runs again: {verdict}", old.id),
            None => format!("deployment {} is in force again", old.id),
        };
        let message = format!("updating {name} to deployment {} failed and was rolled back: {cause}; {again}", new.id);
        Ok(Fault::new(Code::RolledBack, message)
            .hint(format!("`journalctl -u {name}` tells more; a newer image or `--to` tries again")))
    }
}

/// One deployment in the place of another; the new one's files are placed already.
pub struct Change<'a> {
    pub running: &'a Running<'a>,
    pub old: &'a Deployment,
    pub new: &'a Deployment,
}

/// Lets what runs become the new deployments, one after the other, each when the one before it is well. The failure says at which one.
pub fn become_all(changes: &[Change]) -> Result<(), (usize, anyhow::Error)> {
    for (at, change) in changes.iter().enumerate() {
        change.running.make_ready().map_err(|error| (at, error))?;
    }
    let Some((first, manager)) = changes.first().and_then(|one| Some((one, one.running.manager?))) else {
        return Ok(());
    };
    manager.reload().map_err(|error| (0, error))?;
    let restarting = changes.iter().enumerate().filter(|_| first.running.restart);
    let mut restarted = restarting.map(|(at, one)| (at, one.running.restart(manager, one.old, one.new)));
    let changed = restarted.try_for_each(|(at, done)| done.map_err(|error| (at, error)));
    let mut lifted = false;
    for (at, change) in changes.iter().enumerate() {
        lifted |= start_limit::restore(change.running.name).map_err(|error| (at, error))?;
    }
    if lifted {
        manager.reload().map_err(|error| (0, error))?;
    }
    changed
}

/// Whether a unit runs, or is about to.
pub fn is_up(manager: &Manager, unit: &str) -> Result<bool> {
    Ok(matches!(manager.state(unit)?.active.as_str(), "active" | "activating" | "reloading"))
}

/// Those of them that nothing needs: neither the running service, an instance of it, nor a unit or drop-in of the admin's, nor another version of the
/// operating system.
pub fn unneeded(root: &Folder, manager: Option<&Manager>, name: &ContainerName, surplus: Vec<u32>) -> Result<Vec<u32>> {
    if surplus.is_empty() {
        return Ok(surplus);
    }
    let mut named = units::named_deployments(root, name)?;
    named.extend(systems::named_deployments(root, name)?);
    named.extend(running(manager, name)?);
    if let Some(manager) = manager {
        named.extend(instances::deployments(manager, name)?);
    }
    Ok(surplus.into_iter().filter(|id| !named.contains(id)).collect())
}

/// The deployment that runs, where its launcher noted it.
pub fn running(manager: Option<&Manager>, name: &ContainerName) -> Result<Option<u32>> {
    let main = manager.map(|manager| manager.main_process(&name.service_unit())).transpose()?.flatten();
    Ok(main.and_then(|(_, group)| process::deployment(name, &group)))
}

/// Drops deployments.
pub fn retire(root: &Folder, name: &ContainerName, surplus: &[u32]) -> Result<()> {
    surplus.iter().try_for_each(|id| transaction::discard(root, name, *id)).context("dropping old deployments")
}

/// An earlier deployment, or the failure that says what there is.
pub fn earlier(root: &Folder, now: &Deployment, wanted: Option<u32>) -> Result<Deployment> {
    let (name, active) = (&now.name, now.id);
    let mut ids = state::deployment_ids(root, name)?;
    let sets = units::set_ids(root, name)?;
    ids.retain(|id| sets.contains(id));
    let others: Vec<String> = ids.iter().filter(|id| **id != active).map(u32::to_string).collect();
    let id = wanted.or_else(|| sysctr::model::retention::previous(&ids, active, now.replaces));
    match id {
        Some(id) if ids.contains(&id) => state::deployment(root, name, id),
        Some(id) => {
            bail!(Fault::new(Code::Failed, format!("{name} has no deployment {id}")).hint(match others.is_empty() {
                true => format!("it has only {active}, which is in force"),
                false => format!("there is also: {}", others.join(", ")),
            }))
        }
        None => bail!(Fault::new(Code::Failed, format!("{name} has no earlier deployment than {active}")).hint(
            match others.is_empty() {
                true => "an update makes one".to_owned(),
                false => format!("--to goes to {}", others.join(", ")),
            }
        )),
    }
}

/// Nothing changed, and what ran does not run.
pub fn needs_you(cause: &anyhow::Error, error: &anyhow::Error) -> Fault {
    Fault::new(Code::NeedsYou, format!("{cause:#}; and starting it again: {error:#}"))
}

/// The failure that says so: what an older program would find is not what it wrote.
pub fn older_format(new: &Deployment, old: &Deployment) -> Fault {
    let message = format!(
        "deployment {} of {} keeps its state in format {}, and what is there may be of format {}",
        new.id, new.name, new.epoch, old.epoch
    );
    Fault::new(Code::Failed, message).hint("put a copy of the state of then in place, and install that image anew")
}
