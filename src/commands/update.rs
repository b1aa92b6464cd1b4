//! `sysctr update NAME...`: the newest image of the same reference, or another one; kept only if the service is well with it.

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Serialize;

use super::{
    Context,
    candidate::{Candidate, Wanted},
    image,
    replace::{self, Running},
};
use crate::cli::UpdateArgs;
use sysctr::{
    host::{
        dir::Folder,
        lock::StoreLock,
        ostree::{Store, StoredImage},
        policy, quarantine, recovery, settings, source, state,
        systemd::Manager,
        transaction,
    },
    model::{
        deployment::Deployment,
        digest::Digest,
        fault::{Code, Fault},
        name::ContainerName,
        reference::ImageSource,
        retention,
        settings::Settings,
        values::Values,
    },
};

/// What came of one container.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    name: ContainerName,
    result: Kind,
    digest: Option<Digest>,
    deployment: Option<u32>,
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Unchanged,
    /// With `--check`: there is something newer.
    Available,
    Updated,
    /// The image failed before.
    Held,
    RolledBack,
    Failed,
}

/// The parts of an update that all containers share.
struct Updater<'a> {
    context: &'a Context,
    args: &'a UpdateArgs,
    root: Folder,
    settings: Settings,
}

/// Updates each of them by itself; one that fails does not keep the others.
pub fn run(context: &Context, args: &UpdateArgs) -> Result<()> {
    if args.check {
        let updater = Updater { context, args, root: context.folder()?, settings: settings::load(&context.folder()?)? };
        return updater.each(|name| updater.check(name));
    }
    let (root, lock) = context.begin("update")?;
    let settings = settings::load(&root)?;
    let updater = Updater { context, args, root, settings };
    let store = Store::open_or_create(&lock)?;
    let manager = context.manager()?;
    updater.each(|name| updater.update(name, &lock, &store, manager.as_ref()))
}

impl Updater<'_> {
    fn each(&self, update: impl Fn(&ContainerName) -> Result<Outcome>) -> Result<()> {
        let mut names = self.args.names.clone();
        names.sort();
        names.dedup();
        if self.args.all {
            let installed = state::containers(&self.root)?.into_iter().filter(|one| one.active.is_some());
            names = installed.map(|one| one.name).collect();
        }
        for name in &self.args.names {
            state::installed(&self.root, name)?;
        }
        if let [name] = &names[..] {
            let outcome = update(name)?;
            return self.context.output.result(&[outcome], String::new);
        }
        let mut outcomes = Vec::new();
        for name in &names {
            outcomes.push(update(name).unwrap_or_else(|error| {
                let rolled_back = Fault::code_of(&error) == Some(Code::RolledBack);
                self.context.output.warn(format!("{error:#}"));
                let result = if rolled_back { Kind::RolledBack } else { Kind::Failed };
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
        let (back, failed) = (count(Kind::RolledBack), count(Kind::Failed));
        self.context.output.result(&outcomes, String::new)?;
        match (back, failed) {
            (0, 0) => Ok(()),
            (0, failed) => bail!("{failed} of {} updates failed; the warnings say why", outcomes.len()),
            (back, failed) => bail!(Fault::new(
                Code::RolledBack,
                format!(
                    "of {} updates {back} failed and were rolled back, and {failed} could not begin",
                    outcomes.len()
                )
            )),
        }
    }

    fn source(&self, old: &Deployment) -> Result<ImageSource> {
        match &self.args.to {
            Some(source) => Ok(source.clone()),
            None => old.image.parse().map_err(|error| anyhow!("the image of {}: {error}", old.name)),
        }
    }

    fn check(&self, name: &ContainerName) -> Result<Outcome> {
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

    fn update(
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
        if let Some(cause) = self.held(name, &image.digest)? {
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
        candidate.accept(self.context, &self.root, &old.accepted, self.args.yes, "updating")?;
        let new = self.apply(&old, candidate, lock, store, manager)?;
        let surplus =
            retention::surplus(&state::deployment_ids(&self.root, name)?, new.id, self.settings.update.keep());
        replace::retire(&self.root, name, &surplus)?;
        Ok(self.outcome(name, Kind::Updated, &new.digest, new.id))
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
            before: Some(&old.values),
            runtime: old.runtime.as_ref(),
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
        if new.epoch > old.epoch && !old.state.is_empty() && !self.args.yes {
            let message = format!(
                "{name}: the new image keeps its state in format {}, the old one in {}: there may be no way back",
                new.epoch, old.epoch
            );
            bail!(Fault::new(Code::Refused, message).hint("copy the state away first; --yes goes on"));
        }
        let journal = staged.replace(lock, old.id).with_context(updating)?;
        match running.become_new(old, &new) {
            Ok(()) => transaction::finish(&self.root, lock, name)?,
            Err(error) if self.args.no_rollback || new.epoch > old.epoch => {
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

    fn say(&self, line: String) {
        if !self.context.output.json {
            self.context.output.say(line);
        }
    }

    fn outcome(&self, name: &ContainerName, result: Kind, digest: &Digest, deployment: u32) -> Outcome {
        Outcome { name: name.clone(), result, digest: Some(digest.clone()), deployment: Some(deployment), error: None }
    }
}

fn short(digest: &Digest) -> String {
    digest.to_string().chars().take("sha256:".len() + 12).collect()
}
