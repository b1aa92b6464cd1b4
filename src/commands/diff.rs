//! `sysctr diff NAME [A B]`: what differs between two deployments, or between the one in force and what an update would bring.

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Serialize;

use super::{
    Context,
    candidate::{Candidate, Wanted},
    diff_text, image,
};
use crate::cli::DiffArgs;
use sysctr::{
    host::{self, compare, dir::Folder, host_files::InTheWay, id_ranges, ostree::Store, settings, state, transaction},
    model::{
        deployment::Deployment,
        diff::{self, Difference, Identity, Side, files::FilesDifference},
        fault::{Code, Fault},
        name::ContainerName,
        reference::ImageSource,
        retention, spec,
    },
};

/// The document; its keys are part of the command line's contract.
#[derive(Serialize)]
pub struct Shown<'a> {
    pub name: &'a ContainerName,
    #[serde(flatten)]
    pub difference: Difference,
    pub files: FilesDifference,
}

/// Prints it. Nothing is locked, unless an image has to be pulled.
pub fn run(context: &Context, args: &DiffArgs) -> Result<()> {
    let name = &args.name;
    let root = context.folder()?;
    let (_, now) = state::installed(&root, name)?;
    let comparing = || format!("comparing deployments of {name}");
    let (store, old, new) = if args.available || args.image.is_some() {
        let source = match &args.image {
            Some(name) => context.named(name)?,
            None => now.image.parse().map_err(|error| anyhow!("the image of {name}: {error}"))?,
        };
        let (store, new) = available(context, &now, &source)?;
        let old = compare::side(&root, &store, &now).with_context(comparing)?;
        (store, old, new)
    } else {
        let store = Store::open(&context.root)?.context("there is no store")?;
        let (from, to) = chosen(&root, &now, args)?;
        let side = |deployment| compare::side(&root, &store, deployment).with_context(comparing);
        let (old, new) = (side(&from)?, side(&to)?);
        (store, old, new)
    };
    let changes = compare::files(&store, &old.identity.commit, &new.identity.commit).with_context(comparing)?;
    let difference = diff::compare(&old, &new);
    let shown = Shown { name, difference, files: FilesDifference::of(changes, args.files) };
    context.output.result(&shown, || diff_text::of(&shown))
}

/// The two deployments that were named, or the one before and the one in force.
fn chosen(root: &Folder, now: &Deployment, args: &DiffArgs) -> Result<(Deployment, Deployment)> {
    let name = &now.name;
    let known = state::deployments(root, name)?;
    let ids: Vec<u32> = known.iter().map(|one| one.id).collect();
    let Some(from) = args.from.or_else(|| retention::previous(&ids, now.id, now.replaces)) else {
        let message = format!("{name} has only deployment {}, and nothing to compare it with", now.id);
        bail!(Fault::new(Code::Failed, message).hint("--available shows what an update would bring"));
    };
    let find = |id: u32| {
        let there = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let missing = || Fault::new(Code::Failed, format!("{name} has no deployment {id}"));
        known.iter().find(|one| one.id == id).cloned().ok_or_else(|| missing().hint(format!("there is: {there}")))
    };
    Ok((find(from)?, find(args.to.unwrap_or(now.id))?))
}

/// What an update to this image would bring: pulled and rendered, not staged.
fn available(context: &Context, now: &Deployment, source: &ImageSource) -> Result<(Store, Side)> {
    let name = &now.name;
    let (root, lock) = context.begin("diff")?;
    let store = Store::open_or_create(&lock)?;
    let looking = || format!("looking what an update of {name} would bring");
    let image = image::pull(context, &lock, &store, source, &settings::load(&root)?).with_context(looking)?;
    let id = transaction::next_id(&root, name)?;
    let runtime = now.runtime.as_ref();
    let range = id_ranges::of(&root, name, &[])?;
    let quadlet = now.quadlet.as_ref();
    let overrides = &now.overrides;
    let wanted = Wanted {
        root: &root,
        name,
        id,
        source,
        settings: &[],
        unset: &[],
        before: Some(now),
        runtime,
        overrides,
        range,
        quadlet,
    };
    let candidate = Candidate::render(&store, image, &wanted).with_context(looking)?;
    let labels = candidate.image.config.config().as_ref().and_then(|config| config.labels().clone());
    let identity = Identity {
        deployment: None,
        image: candidate.reference.clone(),
        digest: candidate.image.digest.clone(),
        version: labels.unwrap_or_default().remove("org.opencontainers.image.version"),
        created: None,
        commit: candidate.image.commit.clone(),
    };
    let mut host_files = Vec::new();
    let own = host::host_files::own_places(&root, name)?;
    for file in &candidate.rendered.host_files {
        // What is there already would stay as it is.
        if !file.optional || host::host_files::in_the_way(&root, &own, file)? == InTheWay::Nothing {
            host_files.push(file.clone());
        }
    }
    let config = serde_json::from_str(&spec::to_text(&candidate.rendered.spec)?).context("reading config.json")?;
    let side = Side {
        identity,
        requests: candidate.requests(&root)?,
        values: candidate.rendered.values,
        units: candidate
            .rendered
            .files
            .into_iter()
            .map(|(file, text)| (file, diff::units::without_number(&text, id)))
            .collect(),
        host_files: host::host_files::records(&host_files),
        config,
        packages: compare::packages(&store, &candidate.image),
    };
    Ok((store, side))
}
