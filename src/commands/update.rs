//! `sysctr update NAME...`: the newest image of the same reference, or another one; kept only if the service is well with it.

use std::cell::RefCell;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Serialize;

use super::{
    Context, auto,
    candidate::{Candidate, Wanted},
    image,
    replace::{self, Running},
};
use crate::cli::UpdateArgs;
use sysctr::{
    host::{
        dir::Folder,
        id_ranges,
        lock::StoreLock,
        ostree::{Store, StoredImage},
        policy, quarantine, recovery, settings, source, state,
        systemd::Manager,
        transaction, units,
    },
    model::{
        deployment::Deployment,
        digest::Digest,
        event::Version,
        fault::{Code, Fault},
        name::ContainerName,
        reference::ImageSource,
        retention,
        settings::{Policy, Settings},
        values::Values,
    },
};

/// What came of one container.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    name: ContainerName,
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
    /// What was tried last, for whoever tells of a failure.
    pub tried: RefCell<Option<Version>>,
}

/// Updates each of them by itself; one that fails does not keep the others.
pub fn run(context: &Context, args: &UpdateArgs) -> Result<()> {
    if args.auto {
        return auto::run(context, args);
    }
    if args.check {
        let updater = Updater::new(context, args, context.folder()?)?;
        return updater.each(|name| updater.check(name));
    }
    let (root, lock) = context.begin("update")?;
    let updater = Updater::new(context, args, root)?;
    let store = Store::open_or_create(&lock)?;
    let manager = context.manager()?;
    updater.each(|name| {
        auto::warn_of_hold(&updater, name);
        auto::told(&updater, name, || updater.update(name, &lock, &store, manager.as_ref()))
    })
}

impl<'a> Updater<'a> {
    pub fn new(context: &'a Context, args: &'a UpdateArgs, root: Folder) -> Result<Updater<'a>> {
        let settings = settings::load(&root)?;
        Ok(Updater { context, args, root, settings, tried: RefCell::default() })
    }

    pub fn each(&self, update: impl Fn(&ContainerName) -> Result<Outcome>) -> Result<()> {
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

    fn source(&self, old: &Deployment) -> Result<ImageSource> {
        match &self.args.to {
            Some(source) => Ok(source.clone()),
            None => old.image.parse().map_err(|error| anyhow!("the image of {}: {error}", old.name)),
        }
    }

    pub fn check(&self, name: &ContainerName) -> Result<Outcome> {
        let (_, old) = state::installed(&self.root, name)?;
        let source = self.source(&old)?;
        let found = source::resolve(&source, &self.settings).with_context(|| format!("checking {name}"))?;
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
        let (container, old) = state::installed(&self.root, name)?;
        recovery::refuse_pending(&container)?;
        let source = self.source(&old)?;
        policy::check(&self.context.root, &source)?;
        let updating = || format!("updating {name}");
        let image = image::pull(self.context, lock, store, &source, &self.settings).with_context(updating)?;
        self.tried.replace(Some(Version { digest: image.digest.clone(), deployment: None }));
        if image.digest != old.digest
            && let Some(cause) = self.held(name, &image.digest)?
        {
            self.context.output.warn(format!(
                "{name} stays as it is: {} failed before ({cause}); `--to {source}` tries it again",
                short(&image.digest)
            ));
            return Ok(self.outcome(name, Kind::Held, &image.digest, old.id));
        }
        let Some(candidate) = self.candidate(&old, &source, image, store).with_context(updating)? else {
            self.say(format!("{name} is up to date ({})", short(&old.digest)));
            return Ok(self.outcome(name, Kind::Unchanged, &old.digest, old.id));
        };
        for value in &candidate.rendered.gone {
            self.context.output.warn(format!("{name}: the new image does not ask for the value {value} any more"));
        }
        let new_files = candidate.rendered.files.iter().map(|(file, text)| (file.clone(), text.clone()));
        let had = units::set_files(&self.root, name, old.id)?;
        let new_files = new_files.filter(|(file, _)| !had.contains(file)).collect();
        if let Some(file) = units::conflict(&self.root, name, &new_files)? {
            bail!(
                "updating {name}: the new image has a file for {}, which is there already and not sysctr's",
                file.display()
            );
        }
        candidate.accept(self.context, &self.root, &old.accepted, self.args.yes, "updating")?;
        let new = self.apply(&old, candidate, lock, store, manager)?;
        if let Err(error) = self.retire(&new, manager) {
            self.context.output.warn(format!("{name}: {error:#}"));
        }
        Ok(self.outcome(name, Kind::Updated, &new.digest, new.id))
    }

    fn retire(&self, new: &Deployment, manager: Option<&Manager>) -> Result<()> {
        let ids = state::deployment_ids(&self.root, &new.name)?;
        let surplus = retention::surplus(&ids, new.id, new.replaces, self.settings.update.keep());
        let surplus = replace::unneeded(&self.root, manager, &new.name, surplus)?;
        replace::retire(&self.root, &new.name, &surplus)
    }

    /// The deployment to come; none where it would be the one in force.
    fn candidate(
        &self,
        old: &Deployment,
        source: &ImageSource,
        image: StoredImage,
        store: &Store,
    ) -> Result<Option<Candidate>> {
        let id = transaction::next_id(&self.root, &old.name)?;
        let wanted = Wanted {
            name: &old.name,
            id,
            source,
            settings: &self.args.settings,
            before: Some(old),
            runtime: old.runtime.as_ref(),
            range: id_ranges::of(&self.root, &old.name)?,
        };
        let candidate = Candidate::render(store, image, &wanted)?;
        let plain =
            |values: &Values| values.iter().map(|(key, value)| (key.clone(), value.value.clone())).collect::<Vec<_>>();
        let same = candidate.image.digest == old.digest
            && candidate.reference == old.image
            && plain(&candidate.rendered.values) == plain(&old.values);
        Ok((!same).then_some(candidate))
    }

    fn apply(
        &self,
        old: &Deployment,
        candidate: Candidate,
        lock: &StoreLock,
        store: &Store,
        manager: Option<&Manager>,
    ) -> Result<Deployment> {
        let name = &old.name;
        let updating = || format!("updating {name}");
        let running =
            Running::look(&self.root, lock, manager, old, self.settings.update.settle(), !self.args.no_restart)?;
        let (staged, new) = candidate.stage(self.context, &self.root, lock, store, manager).with_context(updating)?;
        self.tried.replace(Some(Version { digest: new.digest.clone(), deployment: Some(new.id) }));
        if new.raises_epoch_of(old) && !self.args.yes {
            let message = format!(
                "{name}: the new image keeps its state in format {}, the old one in {}: there may be no way back",
                new.epoch, old.epoch
            );
            bail!(Fault::new(Code::Refused, message).hint("copy the state away first; --yes goes on"));
        }
        if old.raises_epoch_of(&new) {
            bail!(replace::older_format(&new, old));
        }
        let journal = staged.replace(lock, old.id).with_context(updating)?;
        match running.become_new(old, &new) {
            Ok(()) => {
                transaction::finish(&self.root, lock, name)?;
                quarantine::forget(&self.root, lock, name, &new.digest)?;
            }
            Err(error) if self.args.no_rollback || new.raises_epoch_of(old) => {
                transaction::finish(&self.root, lock, name)?;
                let message = format!("deployment {} of {name} is in force, and not well: {error:#}", new.id);
                bail!(Fault::new(Code::NeedsYou, message).hint(format!("`sysctr rollback {name}` goes back")));
            }
            Err(error) => bail!(running.go_back(&journal, old, &new, error)?),
        }
        let idle = match (running.is_up(), manager) {
            (false, Some(_)) if self.args.no_restart => "; the next start is of that one",
            (false, Some(_)) => "; it is not running",
            _ => "",
        };
        self.say(format!("updated {name} to {} (deployment {}){idle}", short(&new.digest), new.id));
        Ok(new)
    }

    /// Why the image is not tried by itself. Who names it wants it.
    fn held(&self, name: &ContainerName, digest: &Digest) -> Result<Option<String>> {
        if self.args.to.is_some() {
            return Ok(None);
        }
        Ok(quarantine::of(&self.root, name, digest)?.map(|one| one.cause))
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

fn short(digest: &Digest) -> String {
    digest.to_string().chars().take("sha256:".len() + 12).collect()
}
