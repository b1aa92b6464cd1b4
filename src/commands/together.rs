//! `sysctr update A B --together`: all of them or none. Everything is staged before anything changes, and each is well before it is said
//! that any was updated.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

use super::{
    auto,
    candidate::read_units,
    order::{self, Coming},
    prepare::{Next, Prepared},
    probation,
    replace::{Change, Running, become_all},
    update::{Kind, Outcome, Updater, short},
};
use sysctr::{
    host::{
        self, dropins, enablement, events,
        group::{self, Member},
        lock::StoreLock,
        ostree::Store,
        quarantine, space,
        systemd::Manager,
        transaction,
    },
    model::{
        deployment::{Deployment, Journal},
        event::{self, Event, Operation},
        fault::{Code, Fault},
        graph::{self, Units},
        layout,
        name::ContainerName,
        unit::UnitFile,
    },
};

/// The deployments in force and those to come, in the order of their units.
struct Group<'a> {
    updater: &'a Updater<'a>,
    lock: &'a StoreLock,
    running: Vec<Running<'a>>,
    old: Vec<Deployment>,
    new: Vec<Deployment>,
}

/// Updates all of them as one.
pub fn run(updater: &Updater, lock: &StoreLock, store: &Store, manager: Option<&Manager>) -> Result<()> {
    if group::is_open(&updater.root)? {
        // Its record decides what becomes of those.
        bail!(
            Fault::new(Code::NeedsYou, "an update of several containers was left half-way")
                .hint("mend what the warning names, then try again")
        );
    }
    let mut next = BTreeMap::new();
    let mut outcomes = Vec::new();
    for name in updater.names()? {
        match updater.prepare(&name, lock, store).context("nothing is updated")? {
            Prepared::Nothing(outcome) => outcomes.push(outcome),
            Prepared::Ready(one) => drop(next.insert(name, *one)),
        }
    }
    if outcomes.iter().any(|one| one.result == Kind::Held) {
        updater.context.output.warn("nothing is updated: all of them or none");
        let kept = |one: &Next| updater.outcome(&one.old.name, Kind::Unchanged, &one.old.digest, one.old.id);
        outcomes.extend(next.values().map(kept));
        next.clear();
    }
    if !next.is_empty() {
        let updated = update(updater, next, lock, store, manager)?;
        outcomes.extend(updated.iter().map(|new| updater.outcome(&new.name, Kind::Updated, &new.digest, new.id)));
    }
    outcomes.sort_by(|one: &Outcome, other| one.name.cmp(&other.name));
    updater.context.output.result(&outcomes, String::new)
}

fn update(
    updater: &Updater,
    mut next: BTreeMap<ContainerName, Next>,
    lock: &StoreLock,
    store: &Store,
    manager: Option<&Manager>,
) -> Result<Vec<Deployment>> {
    let root = &updater.root;
    let order = order(updater, &next)?;
    let mut coming = Vec::new();
    for (name, Next { old, candidate }) in &next {
        let enabled = enablement::is_enabled(root, name, old.id)?;
        coming.push(Coming { candidate, enabled, before: &old.units });
    }
    order::check(updater.context, root, "updating", &coming)?;
    let words = words(&order);
    let (settle, restart) = (updater.settings.update.settle(), !updater.args.no_restart);
    let (mut old, mut new, mut members) = (Vec::new(), Vec::new(), Vec::new());
    for one in order.iter().filter_map(|name| next.remove(name)) {
        let staged = one.candidate.stage(updater.context, root, lock, store);
        let (staged, record) = staged.with_context(|| format!("updating {words}: nothing is updated"))?;
        refuse_other_format(&one.old, &record)?;
        members.push(Member { staged, from: one.old.id, ran: Vec::new() });
        old.push(one.old);
        new.push(record);
    }
    let staged: Vec<_> = new.iter().collect();
    read_units(updater.context, root, &staged).with_context(|| format!("updating {words}: nothing is updated"))?;
    let all: Vec<String> = old.iter().chain(&new).flat_map(|one| one.units.clone()).collect();
    let mut running = Vec::new();
    for one in &old {
        running.push(Running::look(root, lock, manager, one, settle, restart)?);
    }
    for at in 0..running.len() {
        if let (_, [one, later @ ..]) = running.split_at_mut(at) {
            one.leave_to(&all, later);
        }
    }
    for (member, running) in members.iter_mut().zip(&running) {
        member.ran = running.ran();
    }
    for (at, (one, old)) in new.iter().zip(&old).enumerate() {
        if let Err(error) = host::probation::prepare(root, lock, one, old, Some(&updater.settings.update)) {
            new[..at].iter().try_for_each(|done| host::probation::drop_stale(root, &done.name))?;
            return Err(error).with_context(|| format!("updating {words}: nothing is updated"));
        }
    }
    let journals = group::replace(root, lock, members).with_context(|| format!("updating {words}"))?;
    let group = Group { updater, lock, running, old: old.clone(), new: new.clone() };
    if let Err((at, cause)) = become_all(&group.changes()) {
        let words = format!("{}: {cause:#}", new[at].name);
        let fault = group.go_back(&journals, at, cause);
        group.tell(event::Result::of_code(Some(fault.code())), Some(&words));
        bail!(fault);
    }
    for running in &group.running {
        probation::begin(updater.context, running);
    }
    group::keep(root, lock, &journals).with_context(|| transaction::half_done(&new[0].name))?;
    group.tell(event::Result::Updated, None);
    for (new, running) in new.iter().zip(&group.running) {
        let forgotten = quarantine::forget(root, lock, &new.name, &new.digest);
        if let Err(error) = forgotten.and_then(|()| updater.retire(new, manager)) {
            updater.context.output.warn(format!("{}: {error:#}", new.name));
        }
        updater.say(format!(
            "updated {} to {} (deployment {}){}",
            new.name,
            short(&new.digest),
            new.id,
            updater.judged(running)
        ));
    }
    Ok(new)
}

/// The containers in the order of their new units and the admin's drop-ins.
fn order(updater: &Updater, next: &BTreeMap<ContainerName, Next>) -> Result<Vec<ContainerName>> {
    let mut texts: BTreeMap<ContainerName, Units> = BTreeMap::new();
    for (name, one) in next {
        let files = one.candidate.rendered.files.iter().filter(|(file, _)| layout::is_unit(file));
        let files = files.map(|(file, text)| Ok((file.clone(), UnitFile::parse(file, text)?)));
        let mut units = files.collect::<Result<Units>>()?;
        let service = name.service_unit();
        let drop_ins = dropins::of_service(&updater.root, name)?.into_iter();
        units.extend(
            drop_ins
                .filter(|(path, _)| !path.ends_with(&format!("/{service}")))
                .map(|(_, text)| (service.clone(), text)),
        );
        texts.insert(name.clone(), units);
    }
    Ok(graph::order(&texts).map_err(|cycle| {
        Fault::new(Code::Failed, format!("updating {}: {cycle}", words(next.keys())))
            .hint("nothing is updated; After=, Before= and Requires= of their units say so; without --together it goes")
    })?)
}

/// Going back over a format would need the state of all of them at one moment.
fn refuse_other_format(old: &Deployment, new: &Deployment) -> Result<()> {
    if !new.raises_epoch_of(old) && !old.raises_epoch_of(new) {
        return Ok(());
    }
    let name = &new.name;
    let message = format!(
        "updating {name}: the new image keeps its state in format {}, the old one in {}, and so it cannot be one with others",
        new.epoch, old.epoch
    );
    bail!(Fault::new(Code::Failed, message).hint(format!("nothing is updated; `sysctr update {name}` goes by itself")))
}

impl Group<'_> {
    fn changes(&self) -> Vec<Change<'_>> {
        let parts = self.running.iter().zip(self.old.iter().zip(&self.new));
        parts.map(|(running, (old, new))| Change { running, old, new }).collect()
    }

    /// An entry of the system's journal for each.
    fn tell(&self, result: event::Result, cause: Option<&str>) {
        for (old, new) in self.old.iter().zip(&self.new) {
            let told = Event {
                container: new.name.clone(),
                operation: Operation::Update,
                result,
                from: Some(auto::version(old)),
                to: Some(auto::version(new)),
                unasked: false,
                cause: cause.map(str::to_owned),
            };
            events::tell(&self.updater.context.root, &told);
        }
    }

    /// After `cause` at one of them: puts the old ones back in force, the last one first, and in their places, and remembers which
    /// image failed.
    fn go_back(&self, journals: &[(ContainerName, Journal)], at: usize, cause: anyhow::Error) -> Fault {
        let (root, failed, cause) = (&self.updater.root, &self.new[at], format!("{cause:#}"));
        let names = words(self.new.iter().map(|new| &new.name));
        // Their records stay until the old ones run: cut short here, recovery does it again.
        let back = || -> Result<()> {
            for (name, journal) in journals.iter().rev() {
                transaction::go_back(root, self.lock, name, journal)?;
            }
            let back =
                self.changes().into_iter().map(|Change { running, old, new }| Change { running, old: new, new: old });
            become_all(&back.collect::<Vec<_>>()).map_err(|(_, error)| error)
        };
        // First: cut short behind it, the next timer must not try that image again. Room for it was set aside.
        let noted = space::release(root, &failed.name)
            .and_then(|()| quarantine::add_failed(root, self.lock, failed, &self.old[at], &cause));
        let back = back();
        if let Err(error) = back.and(noted).and_then(|()| group::give_up(root, self.lock, journals)) {
            let message = format!("updating {names} failed at {}: {cause}; and going back: {error:#}", failed.name);
            return Fault::new(Code::NeedsYou, message)
                .hint(format!("`sysctr list` tells how they are, `systemctl status {}` more", failed.name));
        }
        let message = format!("updating {names} failed at {}, and all were rolled back: {cause}", failed.name);
        Fault::new(Code::RolledBack, message)
            .hint(format!("`journalctl -u {0}` tells more; a newer image of {0} or `--to` tries again", failed.name))
    }
}

/// `a, b and c`
fn words<'a>(names: impl IntoIterator<Item = &'a ContainerName>) -> String {
    let names: Vec<&str> = names.into_iter().map(ContainerName::as_str).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}
