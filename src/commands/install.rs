//! `sysctr install IMAGE`: pull if absent, check, stage, commit, activate.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    Context,
    candidate::{Candidate, Wanted, read_units},
    image,
    order::{self, Coming},
    run, uninstall,
};
use crate::{
    cli::{InstallArgs, RunArgs},
    output::one_line,
};
use sysctr::{
    host::{
        self, apply, dir::Folder, health, id_ranges, lock::StoreLock, ostree::Store, other_runtime, owned, policy,
        quadlet_files, recovery, settings, state, systemd::Manager, transaction, units, value_files,
    },
    model::{
        deployment::Deployment,
        diff::host_files::Listed,
        fault::{Code, Fault},
        health::Verdict,
        host_files::Content,
        legacy,
        name::ContainerName,
        other_runtime::hints,
        quadlet,
        reference::{ImageName, ImageSource},
        request::Requests,
    },
};

/// What is installed.
struct What {
    name: ContainerName,
    image: ImageSource,
    quadlet: Option<quadlet::Source>,
}

impl What {
    fn of(context: &Context, args: &InstallArgs) -> Result<What> {
        match (&args.quadlet, &args.image) {
            (Some(path), _) => {
                let source = quadlet_files::load(path)?;
                let name = args.name.clone().map_or_else(|| quadlet::name(&source.file), Ok)?;
                let image = quadlet::read(&source, &name)?.image;
                let image: ImageName =
                    image.parse().map_err(|error| anyhow!("{}: Image={image}: {error}", path.display()))?;
                let image = context.named(&image)?;
                Ok(What { name, image, quadlet: Some(source) })
            }
            (None, image) => {
                let image = match (image, &args.rootfs) {
                    (Some(image), _) => context.named(image)?,
                    (None, Some(folder)) => format!("rootfs:{}", folder.display()).parse()?,
                    (None, None) => bail!(Fault::new(Code::Usage, "an image, --rootfs or --quadlet has to be given")),
                };
                Ok(What { name: name(args.name.as_ref(), &image)?, image, quadlet: None })
            }
        }
    }
}

/// What there is to do.
enum Plan {
    NothingToDo,
    /// It is run, and nothing of it stays.
    RunOnce,
    Ready(Box<Candidate>),
}

/// Installs an image.
pub fn run(context: &Context, args: &InstallArgs) -> Result<()> {
    let what = What::of(context, args)?;
    let name = what.name.clone();
    let (root, lock) = context.begin_now("install")?;
    let manager = context.manager()?;
    let store = Store::open_or_create(&lock)?;
    let candidate = match plan(context, args, &what, &root, &lock, &store)? {
        Plan::NothingToDo => {
            context.output.result(&serde_json::json!({"name": name, "changed": false}), || {
                let text = format!("{name} is installed with this image and these values; nothing to do");
                if context.output.quiet { String::new() } else { text }
            })?;
            return if args.now { start(manager.as_ref(), &root, &name).map(drop) } else { Ok(()) };
        }
        Plan::RunOnce => {
            drop((store, lock));
            return run_once(context, args, what);
        }
        Plan::Ready(candidate) => candidate,
    };
    let coming = Coming { candidate: &candidate, enabled: !args.no_enable, before: &[] };
    order::check(context, &root, "installing", &[coming])?;
    if args.dry_run {
        return show(context, &candidate);
    }
    candidate.tell(context);
    candidate.accept(context, &root, &Requests::new(), args.yes, "installing")?;
    for hint in args.runtime.iter().flat_map(|runtime| hints(runtime, &name, &candidate.rendered.spec)) {
        context.output.hint(hint);
    }
    let (deployment, verdict) = apply(context, args, *candidate, &root, &lock, &store, manager.as_ref())?;
    let started = match (verdict, &manager) {
        (Some(verdict), _) => format!(" and started it: {verdict}"),
        (None, Some(_)) if args.now => " and started it".to_owned(),
        (None, Some(_)) => format!("; `systemctl start {name}` starts it"),
        (None, None) => String::new(),
    };
    let document = serde_json::json!({
        "name": name, "changed": true, "image": deployment.image, "digest": deployment.digest, "deployment": deployment.id,
    });
    context.output.result(&document, || match context.output.quiet {
        true => String::new(),
        false => format!("installed {name} from {}{started}", deployment.image),
    })
}

/// The name that was given, or that of the image's repository.
pub fn name(given: Option<&ContainerName>, image: &ImageSource) -> Result<ContainerName> {
    if let Some(name) = given {
        return Ok(name.clone());
    }
    let last = image.repository_name();
    let bad = |error| {
        Fault::new(Code::Failed, format!("naming the container after the image: {error}"))
            .hint("choose one with --name")
    };
    Ok(last.parse().map_err(bad)?)
}

fn plan(
    context: &Context,
    args: &InstallArgs,
    what: &What,
    root: &Folder,
    lock: &StoreLock,
    store: &Store,
) -> Result<Plan> {
    let What { name, image: source, quadlet } = what;
    // Asked again by a pull; an image that is there already was perhaps pulled under another policy.
    policy::check(&context.root, source)?;
    args.runtime.as_ref().map_or(Ok(()), |runtime| other_runtime::check(root, runtime))?;
    let container = state::container(root, name)?;
    container.as_ref().map_or(Ok(()), recovery::refuse_pending)?;
    let installed = container.and_then(|container| container.active);
    if installed.is_none()
        && let Some(file) = units::taken(root, &name.service_unit())?
    {
        bail!(taken(name, &file));
    }
    let image = match store.find(source)? {
        Some(image) => image,
        None => image::pull(context, lock, store, source, &settings::load(root)?)?,
    };
    if legacy::is_run_once(&image.config) && installed.is_none() && quadlet.is_none() {
        return Ok(Plan::RunOnce);
    }
    let id = transaction::next_id(root, name)?;
    let wanted = Wanted {
        root,
        name,
        id,
        source,
        settings: &value_files::gather(&args.values.settings, &args.values.set_file, &args.values.values_files)?,
        unset: &[],
        before: None,
        runtime: args.runtime.as_ref(),
        overrides: &args.container.overrides()?,
        range: id_ranges::of(root, name, &[])?,
        quadlet: quadlet.as_ref(),
    };
    let mut candidate = Candidate::render(store, image, &wanted)?;
    if installed.is_none()
        && let Some(file) = units::conflict(root, name, &candidate.rendered.files)?
    {
        bail!(taken(name, &file));
    }
    if let Some(id) = installed {
        let current = state::deployment(root, name, id)?;
        if candidate.is(&current, root)? {
            return Ok(Plan::NothingToDo);
        }
        let message =
            format!("{name} is installed already, with another image, other values, another runtime or other options");
        bail!(Fault::new(Code::Failed, message).hint(format!(
            "uninstall it first, or choose another name with --name; `sysctr show {name}` tells what is there"
        )));
    }
    candidate.settle_host_files(root, args.replace)?;
    Ok(Plan::Ready(Box::new(candidate)))
}

/// An image that says of itself that it is run once and leaves nothing.
fn run_once(context: &Context, args: &InstallArgs, what: What) -> Result<()> {
    let What { name, image, .. } = what;
    if args.dry_run {
        return context.output.result(&serde_json::json!({"name": name, "runOnce": true}), || {
            format!("would run {image} once; nothing of it would stay")
        });
    }
    if args.runtime.is_some() {
        bail!("installing {name}: the image is run once (its label atomic.run), which only the bundled runtime does");
    }
    if !args.container.overrides()?.is_empty() {
        bail!(
            "installing {name}: the image is run once (its label atomic.run); `sysctr run` takes --mount and its like"
        );
    }
    context.output.note(format!("{image} is run once, and nothing of it stays (its label atomic.run)"));
    run::run(context, &RunArgs::once(ImageName::Full(image), name, args.values.clone(), args.yes))
}

/// The failure that says who has the name.
fn taken(name: &ContainerName, file: &Path) -> Fault {
    let message = format!("the name {name} is taken by {}, which is not sysctr's", file.display());
    Fault::new(Code::Failed, message).hint("choose another one with --name")
}

fn show(context: &Context, candidate: &Candidate) -> Result<()> {
    let root = context.folder()?;
    let requests = candidate.requests(&root)?;
    let config = serde_json::to_value(&candidate.rendered.spec).context("writing config.json")?;
    let host_files = &candidate.rendered.host_files;
    let placed: Vec<Listed> = host::host_files::records(host_files).iter().map(Listed::of).collect();
    let document = serde_json::json!({
        "name": candidate.name, "image": candidate.image.name(), "digest": candidate.image.digest, "values": candidate.rendered.values,
        "requests": requests, "files": candidate.rendered.files, "hostFiles": placed, "config": config,
    });
    context.output.result(&document, || {
        let mut text = format!("would install {} (deployment {})\n", candidate.name, candidate.id);
        for (file, content) in &candidate.rendered.files {
            text.push_str(&format!("\n--- {file}\n{content}"));
        }
        for file in host_files {
            text.push_str(&format!("\n--- {}", file.path));
            text.push_str(&match &file.content {
                Content::File { bytes, mode } => format!(" ({mode:04o})\n{}", readable(bytes)),
                Content::Link { target } => format!(" -> {}\n", one_line(target)),
                Content::Folder { mode } => format!("/ ({mode:04o})\n"),
            });
        }
        for request in &requests {
            text.push_str(&format!("\nrequests: {request}"));
        }
        text
    })
}

/// A file for the host, as far as a terminal can show it.
fn readable(content: &[u8]) -> String {
    let text = std::str::from_utf8(content).ok();
    let text =
        text.filter(|text| text.len() <= 1 << 16 && !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
    text.map_or_else(|| format!("({} bytes)\n", content.len()), |text| format!("{}\n", text.trim_end_matches('\n')))
}

/// Stages, commits and activates. A failure before the commit leaves nothing; one after it is undone.
fn apply(
    context: &Context,
    args: &InstallArgs,
    candidate: Candidate,
    root: &Folder,
    lock: &StoreLock,
    store: &Store,
    manager: Option<&Manager>,
) -> Result<(Deployment, Option<Verdict>)> {
    let (staged, record) = candidate.stage(context, root, lock, store)?;
    read_units(context, root, &[&record]).with_context(|| format!("installing {}", record.name))?;
    let name = record.name.clone();
    let enable = !args.no_enable;
    let made = staged.commit(lock, enable).with_context(|| format!("installing {name}"))?;

    let activated = activate(root, manager, &record).and_then(|()| match args.now {
        true => start(manager, root, &name),
        false => Ok(None),
    });
    let error = match activated {
        Ok(verdict) => {
            transaction::finish(root, lock, &name)?;
            return Ok((record, verdict));
        }
        Err(error) => error,
    };
    undo(root, lock, manager, &record, &made).map_err(|undoing| {
        let message = format!("installing {name}: {error:#}; and undoing it: {undoing:#}");
        Fault::new(Code::NeedsYou, message).hint(format!("`sysctr uninstall {name}` removes what is left"))
    })?;
    Err(error.context(format!("installing {name}, which is undone")))
}

/// Everything behind the commit that is more than our own files.
fn activate(root: &Folder, manager: Option<&Manager>, record: &Deployment) -> Result<()> {
    apply::sysusers(manager.is_some(), &record.name, root)?;
    apply::tmpfiles(manager.is_some(), &record.name, root)?;
    manager.map_or(Ok(()), Manager::reload)
}

/// Starts what the container's units ask for: sockets, timers and paths first, and the service where no timer or path and no
/// connection is to start it; that one has to be well then.
fn start(manager: Option<&Manager>, root: &Folder, name: &ContainerName) -> Result<Option<Verdict>> {
    let Some(manager) = manager else { bail!("starting {name}: systemd does not run this system") };
    let (_, deployment) = state::installed(root, name)?;
    let (services, starters): (Vec<&String>, Vec<&String>) =
        deployment.units.iter().partition(|unit| unit.ends_with(".service"));
    starters.iter().try_for_each(|unit| manager.start(unit))?;
    let accepts = units::accepts(root, name, deployment.id)?;
    match accepts || starters.iter().any(|unit| unit.ends_with(".timer") || unit.ends_with(".path")) {
        true => Ok(None),
        false => {
            services.into_iter().try_for_each(|unit| manager.start(unit))?;
            health::judge(manager, &deployment, settings::load(root)?.update.settle()).map(Some)
        }
    }
}

fn undo(
    root: &Folder,
    lock: &StoreLock,
    manager: Option<&Manager>,
    record: &Deployment,
    made: &[String],
) -> Result<()> {
    let Some(container) = state::container(root, &record.name)? else { return Ok(()) };
    uninstall::remove(root, lock, manager, &container, record, false)?;
    owned::purge_all(root, &record.name, made.iter().map(String::as_str))
}
