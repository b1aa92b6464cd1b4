//! `sysctr update NAME...`: the newest image of the same reference, or another one; kept only if the service is well with it.

use std::cell::RefCell;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    Context, auto,
    candidate::read_units,
    prepare::{Next, Prepared},
    probation,
    replace::{self, Running},
    snapshot, together,
};
use crate::cli::UpdateArgs;
use sysctr::{
    host::{
        self, dir::Folder, lock::StoreLock, ostree::Store, quarantine, settings, source, state, systemd::Manager,
        transaction, value_files,
    },
    model::{
        deployment::Deployment,
        digest::Digest,
        event::Version,
        fault::{Code, Fault},
        name::ContainerName,
        retention,
        settings::{Policy, Settings},
        values::Setting,
    },
};

/// What came of one container.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub name: ContainerName,
    pub result: Kind,
    pub digest: Option<Digest>,
    pub deployment: Option<u32>,
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Kind {
    Unchanged,
    /// There is something newer, and nobody asked for it to be taken.
    Available,
    Updated,
    /// The image failed before.
    Held,
    /// Its policy is `hold`, and it was not named.
    OnHold,
    RolledBack,
    Refused,
    Failed,
}

/// The parts of an update that all containers share.
pub struct Updater<'a> {
    pub context: &'a Context,
    pub args: &'a UpdateArgs,
    pub root: Folder,
    pub settings: Settings,
    /// Values for the containers that are updated.
    pub given: Vec<Setting>,
    /// Users' ranges of those that are prepared, which no record on disk tells yet.
    pub ranges: RefCell<Vec<u32>>,
    /// What was tried last, for whoever tells of a failure.
    pub tried: RefCell<Option<Version>>,
}

impl<'a> Updater<'a> {
    pub fn new(context: &'a Context, args: &'a UpdateArgs, root: Folder) -> Result<Updater<'a>> {
        let settings = settings::load(&root)?;
        let values = &args.values;
        let given = value_files::gather(&values.settings, &values.set_file, &values.values_files)?;
        Ok(Updater { context, args, root, settings, given, ranges: RefCell::default(), tried: RefCell::default() })
    }
}

/// Updates each of them by itself, where one that fails does not keep the others, or with `--together` all of them as one.
pub fn run(context: &Context, args: &UpdateArgs) -> Result<()> {
    if args.auto {
        return auto::run(context, args);
    }
    if args.check {
        let updater = Updater::new(context, args, context.folder()?)?;
        return updater.each(|name| updater.check(name));
    }
    let (root, lock) = context.begin_now("update")?;
    let updater = Updater::new(context, args, root)?;
    let store = Store::open_or_create(&lock)?;
    let manager = context.manager()?;
    if args.together {
        return together::run(&updater, &lock, &store, manager.as_ref());
    }
    updater.each(|name| {
        auto::warn_of_hold(&updater, name);
        auto::told(&updater, name, || updater.update(name, &lock, &store, manager.as_ref()))
    })
}

impl Updater<'_> {
    /// Those that are to be updated; each is installed.
    pub fn names(&self) -> Result<Vec<ContainerName>> {
        let mut names = self.args.names.clone();
        names.sort();
        names.dedup();
        if self.args.all || self.args.auto {
            let installed = state::containers(&self.root)?.into_iter().filter(|one| one.active.is_some());
            names = installed.map(|one| one.name).collect();
        }
        for name in &self.args.names {
            state::installed(&self.root, name)?;
        }
        Ok(names)
    }

    pub fn each(&self, update: impl Fn(&ContainerName) -> Result<Outcome>) -> Result<()> {
        let names = self.names()?;
        let update = |name: &ContainerName| {
            let passed_over = self.args.names.is_empty() && self.settings.policy(name) == Policy::Hold;
            if passed_over { auto::on_hold(self, name) } else { update(name) }
        };
        if let [name] = &names[..] {
            let outcome = update(name)?;
            return self.context.output.result(&[outcome], String::new);
        }
        let mut worst = None;
        let mut outcomes = Vec::new();
        for name in &names {
            outcomes.push(update(name).unwrap_or_else(|error| {
                let code = Fault::code_of(&error);
                worst = worst.max(code.map(badness));
                self.context.output.warn(format!("{error:#}"));
                let result = match code {
                    Some(Code::RolledBack) => Kind::RolledBack,
                    Some(Code::Refused) => Kind::Refused,
                    _ => Kind::Failed,
                };
                Outcome {
                    name: name.clone(),
                    result,
                    digest: None,
                    deployment: None,
                    error: Some(format!("{error:#}")),
                }
            }));
        }
        let count = |kind| outcomes.iter().filter(|one| one.result == kind).count();
        let (back, refused, failed) = (count(Kind::RolledBack), count(Kind::Refused), count(Kind::Failed));
        self.context.output.result(&outcomes, String::new)?;
        if back + refused + failed == 0 {
            return Ok(());
        }
        let code = worst.map_or(Code::Failed, |(_, code)| code);
        let mut came = vec![format!("{back} were rolled back"), format!("{failed} failed")];
        if refused > 0 {
            came.insert(1, format!("{refused} refused"));
        }
        let message = format!("of {} updates {}", outcomes.len(), came.join(" and "));
        bail!(Fault::new(code, message).hint("the warnings above say why"))
    }

    pub fn check(&self, name: &ContainerName) -> Result<Outcome> {
        let (_, old) = state::installed(&self.root, name)?;
        let source = self.source(&old)?;
        let found = source::resolve(&source, &self.root, &self.settings).with_context(|| format!("checking {name}"))?;
        let outcome = |result| self.outcome(name, result, &found.digest, old.id);
        if found.digest == old.digest {
            self.say(format!("{name} is up to date ({})", short(&old.digest)));
            return Ok(outcome(Kind::Unchanged));
        }
        if self.held(name, &found.digest)?.is_some() {
            self.say(format!("{name}: {} failed before and is held back", short(&found.digest)));
            return Ok(outcome(Kind::Held));
        }
        self.say(format!("{name}: {} is available ({} is installed)", short(&found.digest), short(&old.digest)));
        Ok(outcome(Kind::Available))
    }

    pub fn update(
        &self,
        name: &ContainerName,
        lock: &StoreLock,
        store: &Store,
        manager: Option<&Manager>,
    ) -> Result<Outcome> {
        let Next { old, candidate } = match self.prepare(name, lock, store)? {
            Prepared::Nothing(outcome) => return Ok(outcome),
            Prepared::Ready(next) => *next,
        };
        let new = self.apply(&old, candidate, lock, store, manager)?;
        if let Err(error) = self.retire(&new, manager) {
            self.context.output.warn(format!("{name}: {error:#}"));
        }
        Ok(self.outcome(name, Kind::Updated, &new.digest, new.id))
    }

    /// Drops the deployments that are too many now.
    pub fn retire(&self, new: &Deployment, manager: Option<&Manager>) -> Result<()> {
        let ids = state::deployment_ids(&self.root, &new.name)?;
        let surplus = retention::surplus(&ids, new.id, new.replaces, self.settings.update.keep());
        let surplus = replace::unneeded(&self.root, manager, &new.name, surplus)?;
        replace::retire(&self.root, &new.name, &surplus)
    }

    fn apply(
        &self,
        old: &Deployment,
        candidate: super::candidate::Candidate,
        lock: &StoreLock,
        store: &Store,
        manager: Option<&Manager>,
    ) -> Result<Deployment> {
        let name = &old.name;
        let updating = || format!("updating {name}");
        let running =
            Running::look(&self.root, lock, manager, old, self.settings.update.settle(), !self.args.no_restart)?;
        let (staged, new) = candidate.stage(self.context, &self.root, lock, store).with_context(updating)?;
        read_units(self.context, &self.root, &[&new]).with_context(updating)?;
        self.tried.replace(Some(Version { digest: new.digest.clone(), deployment: Some(new.id) }));
        if old.raises_epoch_of(&new) {
            bail!(replace::older_format(&new, old));
        }
        let raises = new.raises_epoch_of(old);
        let kept = if raises { snapshot::plan(self, old, &new, manager)? } else { None };
        let comes_back = !self.args.no_rollback && (!raises || kept.is_some());
        // Going back unasked would take away what was written since.
        let probation = (comes_back && !raises).then_some(&self.settings.update);
        host::probation::prepare(&self.root, lock, &new, old, probation).with_context(updating)?;
        let has_way_back = kept.is_some();
        let journal = match kept {
            // of an earlier time
            None if raises => {
                host::snapshot::forget(&self.root, name, old.id)?;
                staged.replace(lock, old.id, &running.ran())
            }
            None => staged.replace(lock, old.id, &running.ran()),
            Some(plan) => snapshot::replace(&running, staged, old, &new, plan),
        };
        let journal = journal.with_context(updating)?;
        match running.become_new(old, &new) {
            Ok(()) => {
                probation::begin(self.context, &running);
                transaction::finish(&self.root, lock, name).with_context(|| transaction::half_done(name))?;
                // Done is done: a note that stays only holds back an image that nobody asks for by name.
                if let Err(error) = quarantine::forget(&self.root, lock, name, &new.digest) {
                    self.context.output.warn(format!("{name}: {error:#}"));
                }
            }
            Err(error) if !comes_back => {
                transaction::finish(&self.root, lock, name)?;
                let message = format!("deployment {} of {name} is in force, and not well: {error:#}", new.id);
                bail!(Fault::new(Code::NeedsYou, message).hint(format!("`sysctr rollback {name}` goes back")));
            }
            Err(error) => bail!(running.go_back(&journal, old, &new, error)?),
        }
        let way_back = if has_way_back { "; a rollback puts its state of before back" } else { "" };
        let judged = self.judged(&running);
        self.say(format!("updated {name} to {} (deployment {}){judged}{way_back}", short(&new.digest), new.id));
        Ok(new)
    }

    /// What the service was judged by, or why it was not.
    pub fn judged(&self, running: &Running) -> String {
        match (running.verdict.take(), running.manager) {
            (Some(verdict), _) => format!(": {verdict}"),
            (None, Some(_)) if self.args.no_restart => "; the next start is of that one".to_owned(),
            (None, Some(_)) => "; it is not running".to_owned(),
            (None, None) => String::new(),
        }
    }

    pub fn say(&self, line: String) {
        if !self.context.output.json {
            self.context.output.say(line);
        }
    }

    pub fn outcome(&self, name: &ContainerName, result: Kind, digest: &Digest, deployment: u32) -> Outcome {
        Outcome { name: name.clone(), result, digest: Some(digest.clone()), deployment: Some(deployment), error: None }
    }
}

/// Which of several failures the exit code tells of, and that code.
fn badness(code: Code) -> (u8, Code) {
    match code {
        Code::NeedsYou => (3, code),
        Code::RolledBack => (2, code),
        Code::Refused => (1, code),
        _ => (0, Code::Failed),
    }
}

/// As much of a digest as a person compares.
pub fn short(digest: &Digest) -> String {
    digest.to_string().chars().take("sha256:".len() + 12).collect()
}
