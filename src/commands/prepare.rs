//! What every update begins with: the image is pulled, the deployment to come rendered, and its requests are accepted. Nothing changes
//! but the store.

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::{
    candidate::{Candidate, Wanted},
    image,
    order::{self, Coming},
    update::{Kind, Outcome, Updater, short},
};
use sysctr::{
    host::{
        enablement, id_ranges,
        lock::StoreLock,
        ostree::{Store, StoredImage},
        policy, quarantine, recovery, state, transaction, units,
    },
    model::{
        deployment::Deployment, digest::Digest, event::Version, name::ContainerName, overrides::Overrides,
        reference::ImageSource, values::Source,
    },
};

/// What an update comes to.
pub enum Prepared {
    /// It is up to date, or what there is failed before.
    Nothing(Outcome),
    Ready(Box<Next>),
}

/// The deployment in force and the one to come.
pub struct Next {
    pub old: Deployment,
    pub candidate: Candidate,
}

impl Updater<'_> {
    pub fn prepare(&self, name: &ContainerName, lock: &StoreLock, store: &Store) -> Result<Prepared> {
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
            return Ok(Prepared::Nothing(self.outcome(name, Kind::Held, &image.digest, old.id)));
        }
        let Some(mut candidate) = self.candidate(&old, &source, image, store).with_context(updating)? else {
            self.say(format!("{name} is up to date ({})", short(&old.digest)));
            return Ok(Prepared::Nothing(self.outcome(name, Kind::Unchanged, &old.digest, old.id)));
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
        candidate.settle_host_files(&self.root, self.args.replace).with_context(updating)?;
        candidate.tell(self.context);
        // Of several as one, all are looked at together.
        if !self.args.together {
            let enabled = enablement::is_enabled(&self.root, name, old.id)?;
            let coming = Coming { candidate: &candidate, enabled, before: &old.units };
            order::check(self.context, &self.root, "updating", &[coming])?;
        }
        candidate.accept(self.context, &self.root, &old.accepted, self.args.yes, "updating")?;
        Ok(Prepared::Ready(Box::new(Next { old, candidate })))
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
        for name in &self.args.unset {
            let given = old.values.get(name).is_some_and(|value| value.source == Source::Admin);
            ensure!(given, "--unset {name}: no such value was given");
            ensure!(!self.given.iter().any(|one| one.key == *name), "--unset {name}: it is given, too");
        }
        let before = if self.args.revert { Overrides::default() } else { old.overrides.clone() };
        let wanted = Wanted {
            root: &self.root,
            name: &old.name,
            id,
            source,
            settings: &self.given,
            unset: &self.args.unset,
            before: Some(old),
            runtime: old.runtime.as_ref(),
            overrides: &before.and(&self.args.container.overrides()?),
            range: id_ranges::of(&self.root, &old.name, &self.ranges.borrow())?,
            quadlet: old.quadlet.as_ref(),
        };
        let candidate = Candidate::render(store, image, &wanted)?;
        self.ranges.borrow_mut().extend(candidate.range);
        let same = candidate.reference == old.image && candidate.is(old, &self.root)?;
        Ok((!same).then_some(candidate))
    }

    /// The image that was asked for, or the reference that is installed.
    pub fn source(&self, old: &Deployment) -> Result<ImageSource> {
        match &self.args.to {
            Some(name) => self.context.named(name),
            None => old.image.parse().map_err(|error| anyhow!("the image of {}: {error}", old.name)),
        }
    }

    /// Why the image is not tried by itself. Who names it wants it.
    pub fn held(&self, name: &ContainerName, digest: &Digest) -> Result<Option<String>> {
        if self.args.to.is_some() {
            return Ok(None);
        }
        Ok(quarantine::of(&self.root, name, digest)?.map(|one| one.cause))
    }
}
