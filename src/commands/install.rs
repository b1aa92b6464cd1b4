//! `sysctr install IMAGE`: pull if absent, check, stage, commit, activate.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Context, image, uninstall};
use crate::{cli::InstallArgs, output::one_line};
use sysctr::{
    host::{
        apply,
        dir::Folder,
        lock::StoreLock,
        ostree::{Store, StoredImage},
        owned, policy, settings, state,
        systemd::Manager,
        transaction::{self, Parts, Staged},
        units,
    },
    model::{
        deployment::{Deployment, Record},
        fault::{Code, Fault},
        name::ContainerName,
        render::{self, Rendered},
        request::Requests,
        spec,
        values::Values,
    },
};

/// Bytes of a passwd(5) or group(5) that are still believed.
const ACCOUNTS_LIMIT: u64 = 1 << 20;

/// What there is to do.
enum Plan {
    NothingToDo,
    Ready(Box<Ready>),
}

/// Everything decided and asked; nothing written but the image in the store.
struct Ready {
    name: ContainerName,
    id: u32,
    image: StoredImage,
    rendered: Rendered,
}

/// Installs an image.
pub fn run(context: &Context, args: &InstallArgs) -> Result<()> {
    let name = name(args)?;
    let (root, lock) = context.begin("install")?;
    let manager = context.manager()?;
    let store = Store::open_or_create(&lock)?;
    let ready = match plan(context, args, &name, &root, &lock, &store)? {
        Plan::NothingToDo => {
            context.output.result(&serde_json::json!({"name": name, "changed": false}), || {
                let text = format!("{name} is installed with this image and these values; nothing to do");
                if context.output.quiet { String::new() } else { text }
            })?;
            return if args.now { start(manager.as_ref(), &root, &name) } else { Ok(()) };
        }
        Plan::Ready(ready) => ready,
    };
    if args.dry_run {
        return show(context, &ready);
    }
    accept(context, args, &root, &ready)?;
    let deployment = ready.apply(context, args, &root, &lock, &store, manager.as_ref())?;
    let started = match (args.now, &manager) {
        (true, Some(_)) => " and started".to_owned(),
        (_, Some(_)) => format!("; `systemctl start {name}` starts it"),
        (_, None) => String::new(),
    };
    let document = serde_json::json!({
        "name": name, "changed": true, "image": deployment.image, "digest": deployment.digest, "deployment": deployment.id,
    });
    context.output.result(&document, || match context.output.quiet {
        true => String::new(),
        false => format!("installed {name} from {}{started}", deployment.image),
    })
}

fn name(args: &InstallArgs) -> Result<ContainerName> {
    if let Some(name) = &args.name {
        return Ok(name.clone());
    }
    let last = args.image.repository_name();
    let bad = |error| {
        Fault::new(Code::Failed, format!("naming the container after the image: {error}"))
            .hint("choose one with --name")
    };
    Ok(last.parse().map_err(bad)?)
}

fn plan(
    context: &Context,
    args: &InstallArgs,
    name: &ContainerName,
    root: &Folder,
    lock: &StoreLock,
    store: &Store,
) -> Result<Plan> {
    // Asked again by a pull; an image that is there already was perhaps pulled under another policy.
    policy::check(&context.root, &args.image)?;
    let container = state::container(root, name)?;
    container.as_ref().map_or(Ok(()), transaction::refuse_pending)?;
    let installed = container.and_then(|container| container.active);
    if installed.is_none()
        && let Some(file) = units::taken(root, &name.service_unit())?
    {
        bail!(taken(name, &file));
    }
    let image = match store.find(&args.image)? {
        Some(image) => image,
        None => image::pull(context, lock, store, &args.image, &settings::load(root)?)?,
    };
    let exports = store.read_exports(&image)?;
    let exports = exports.into_iter().map(|(path, bytes)| (path.to_string_lossy().into_owned(), bytes)).collect();
    let account = |path| -> Result<String> {
        let bytes = store.read_file(&image, Path::new(path), ACCOUNTS_LIMIT)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let id = transaction::next_id(root, name)?;
    let reference = args.image.to_string();
    let inputs = render::Inputs {
        name,
        id,
        image: &reference,
        digest: &image.digest,
        config: &image.config,
        exports: &exports,
        passwd: &account("etc/passwd")?,
        group: &account("etc/group")?,
        settings: &args.settings,
    };
    let rendered = render::render(&inputs).with_context(|| format!("rendering {}", args.image))?;
    if installed.is_none()
        && let Some(file) = units::conflict(root, name, &rendered.files)?
    {
        bail!(taken(name, &file));
    }
    if let Some(id) = installed {
        let current = state::deployment(root, name, id)?;
        // Who gave a value does not matter, as long as it is the same.
        let plain = |values: &Values| values.values().map(|value| value.value.clone()).collect::<Vec<_>>();
        if current.digest == image.digest && plain(&current.values) == plain(&rendered.values) {
            return Ok(Plan::NothingToDo);
        }
        let message = format!("{name} is installed already, with another image or other values");
        bail!(Fault::new(Code::Failed, message).hint(format!(
            "uninstall it first, or choose another name with --name; `sysctr show {name}` tells what is there"
        )));
    }
    Ok(Plan::Ready(Box::new(Ready { name: name.clone(), id, image, rendered })))
}

/// The failure that says who has the name.
fn taken(name: &ContainerName, file: &Path) -> Fault {
    let message = format!("the name {name} is taken by {}, which is not sysctr's", file.display());
    Fault::new(Code::Failed, message).hint("choose another one with --name")
}

/// Shows the image's requests, and asks unless they are accepted already.
fn accept(context: &Context, args: &InstallArgs, root: &Folder, ready: &Ready) -> Result<()> {
    let accepted = settings::load(root)?.requests.accept;
    let requests = requests(root, ready)?;
    let open: Vec<&String> = requests.iter().filter(|request| !accepted.contains(request)).collect();
    if open.is_empty() {
        return Ok(());
    }
    // Who is not asked finds them in the error, or has accepted them.
    if context.output.can_ask() || (args.yes && !context.output.quiet && !context.output.json) {
        eprintln!("{} requests what an image may not do unasked:", args.image);
        open.iter().for_each(|request| eprintln!("  {}", one_line(request)));
    }
    if args.yes || context.output.confirm("Accept?")? {
        return Ok(());
    }
    let message = format!("installing {}: its requests were not accepted: {}", ready.name, list(&open));
    bail!(Fault::new(Code::Refused, message).hint("--yes accepts them"))
}

fn list(requests: &[&String]) -> String {
    requests.iter().map(|request| request.as_str()).collect::<Vec<_>>().join("; ")
}

/// The requests of the texts, and those that depend on what lies on this host.
fn requests(root: &Folder, ready: &Ready) -> Result<Requests> {
    let Ready { name, rendered, .. } = ready;
    let mut requests = rendered.requests.clone();
    let homes = rendered.homes(name);
    for source in rendered.spec.mounts().iter().flatten().filter_map(|mount| mount.source().as_ref()?.to_str()) {
        owned::refuse_links(root, name, source)?;
    }
    for folder in rendered.state.iter().map(|folder| &folder.path).chain(&homes) {
        if owned::is_foreign(root, name, folder)? {
            requests.insert(format!("take over {folder} of the host, which is there already"));
        }
    }
    Ok(requests)
}

fn show(context: &Context, ready: &Ready) -> Result<()> {
    let root = context.folder()?;
    let requests = requests(&root, ready)?;
    let config = serde_json::to_value(&ready.rendered.spec).context("writing config.json")?;
    let document = serde_json::json!({
        "name": ready.name, "image": ready.image.name(), "digest": ready.image.digest, "values": ready.rendered.values,
        "requests": requests, "files": ready.rendered.files, "config": config,
    });
    context.output.result(&document, || {
        let mut text = format!("would install {} (deployment {})\n", ready.name, ready.id);
        for (file, content) in &ready.rendered.files {
            text.push_str(&format!("\n--- {file}\n{content}"));
        }
        for request in &requests {
            text.push_str(&format!("\nrequests: {request}"));
        }
        text
    })
}

impl Ready {
    /// Stages, commits and activates. A failure before the commit leaves nothing; one after it is undone.
    fn apply(
        self,
        context: &Context,
        args: &InstallArgs,
        root: &Folder,
        lock: &StoreLock,
        store: &Store,
        manager: Option<&Manager>,
    ) -> Result<Deployment> {
        let accepted = requests(root, &self)?;
        let Ready { name, id, image, rendered } = self;
        let is_file = |source: &str| context.root.join(source.trim_start_matches('/')).is_file();
        let mount_points = spec::mount_points(&rendered.spec, is_file);
        let labels = image.config.config().as_ref().and_then(|config| config.labels().clone()).unwrap_or_default();
        let record = Deployment {
            version: Deployment::VERSION,
            name: name.clone(),
            id,
            image: args.image.to_string(),
            digest: image.digest.clone(),
            commit: image.commit.clone(),
            image_version: labels.get("org.opencontainers.image.version").cloned(),
            created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            values: rendered.values,
            accepted,
            units: rendered.files.keys().filter(|file| sysctr::model::layout::is_unit(file)).cloned().collect(),
            state: rendered.state,
            mount_points: Vec::new(),
        };
        let config_json = spec::to_text(&rendered.spec)?;
        let parts = Parts { image: &image, record: record.clone(), config_json, files: rendered.files, mount_points };
        let staging = || format!("staging {name}");
        let staged = Staged::write(root, lock, store, parts).with_context(staging)?;
        if manager.is_some() {
            units::verify(root, &name, id).with_context(staging)?;
        }
        let enable = !args.no_enable;
        let made = staged.commit(lock, enable).with_context(|| format!("installing {name}"))?;

        let activated = activate(root, manager, &record).and_then(|()| match args.now {
            true => start(manager, root, &name),
            false => Ok(()),
        });
        let Err(error) = activated else {
            transaction::finish(root, lock, &name)?;
            return Ok(record);
        };
        undo(root, lock, manager, &record, &made).map_err(|undoing| {
            let message = format!("installing {name}: {error:#}; and undoing it: {undoing:#}");
            Fault::new(Code::NeedsYou, message).hint(format!("`sysctr uninstall {name}` removes what is left"))
        })?;
        Err(error.context(format!("installing {name}, which is undone")))
    }
}

/// Everything behind the commit that is more than our own files.
fn activate(root: &Folder, manager: Option<&Manager>, record: &Deployment) -> Result<()> {
    apply::sysusers(manager.is_some(), &record.name, root)?;
    apply::tmpfiles(manager.is_some(), &record.name, root)?;
    manager.map_or(Ok(()), Manager::reload)
}

/// Starts what the container's units ask for: sockets, timers and paths first, and the service where no timer or path is to start it.
fn start(manager: Option<&Manager>, root: &Folder, name: &ContainerName) -> Result<()> {
    let Some(manager) = manager else { bail!("starting {name}: systemd does not run this system") };
    let (_, deployment) = state::installed(root, name)?;
    let (services, starters): (Vec<&String>, Vec<&String>) =
        deployment.units.iter().partition(|unit| unit.ends_with(".service"));
    starters.iter().try_for_each(|unit| manager.start(unit))?;
    match starters.iter().any(|unit| unit.ends_with(".timer") || unit.ends_with(".path")) {
        true => Ok(()),
        false => services.iter().try_for_each(|unit| manager.start(unit)),
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
