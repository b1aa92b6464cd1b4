//! `sysctr settle`: looks after what an operation left behind. `sysctr-failed@NAME.service` runs it when the service of an update on probation
//! failed, `sysctr-settle.service` when the time of one is over and after a boot.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Context, probation};
use sysctr::{
    host::{
        clock, dir::Folder, events, health, lock::StoreLock, probation as record, recovered, settings, state,
        systemd::Manager,
    },
    model::{
        deployment::Deployment,
        event::{self, Event, Operation, Version},
        fault::{Code, Fault},
        name::ContainerName,
        probation::{AtFailure, Service},
    },
};

/// How long a service that was recovered at boot may take until it is up.
const START: Duration = Duration::from_secs(300);
/// How long one that failed may take until it is down.
const DOWN: Duration = Duration::from_secs(30);

/// Looks at one that failed, or at all.
pub fn run(context: &Context, failed: Option<&ContainerName>) -> Result<()> {
    let root = context.folder()?;
    let Some(manager) = context.manager()? else { bail!("settling: systemd does not run this system") };
    let names = match failed {
        // An operation that is under way judges for itself; so does one that waited for it.
        Some(name) if state::container(&root, name)?.is_none_or(|container| container.journal.is_some()) => {
            return Ok(());
        }
        Some(name) => vec![name.clone()],
        None => state::names(&root)?,
    };
    let on_probation = names.iter().any(|name| !matches!(record::load(&root, name), Ok(None)));
    let mut worst = None;
    if on_probation {
        // What failed within its time counts, however long somebody else is at work.
        let (root, lock) = context.begin_at_last("settle")?;
        for name in &names {
            if let Err(error) = look(context, &root, &lock, &manager, name) {
                context.output.warn(format!("{name}: {error:#}"));
                worst = Some(name);
            }
        }
    }
    if failed.is_none() {
        for name in recovered::take()? {
            tell_health(context, &root, &manager, &name);
        }
    }
    match worst {
        Some(name) => bail!(
            Fault::new(
                Code::NeedsYou,
                format!("the probation of {name} could not be dealt with, the warning says why")
            )
            .hint(format!("`systemctl status {name}` and `sysctr show {name}` tell how it is"))
        ),
        None => Ok(()),
    }
}

/// Counts what there is to count, goes back if that is too much, and ends what is over.
fn look(context: &Context, root: &Folder, lock: &StoreLock, manager: &Manager, name: &ContainerName) -> Result<()> {
    let Some(mut probation) = record::load(root, name)? else { return Ok(()) };
    if probation.boot.is_none() {
        // It could not be noted when the update was done.
        let Some(begun) = record::begin(root, lock, name, None)? else { return Ok(()) };
        probation = begun;
    }
    let before = probation.clone();
    let verdict = probation.look(&come_to_rest(manager, name)?, &clock::now());
    let save = || if probation == before { Ok(()) } else { record::save(root, lock, name, &probation) };
    match verdict {
        // Going back needs no record of how it came to that.
        AtFailure::GoBack(cause) => probation::go_back(context, root, lock, manager, name, &probation, &cause),
        AtFailure::Over => {
            record::end(root, lock, name)?;
            manager.reload()
        }
        AtFailure::Nothing | AtFailure::Counted => {
            save().and_then(|()| probation::start_timer(manager, name, &probation))
        }
    }
}

/// The service, which may be on its way down: it told us of its failure in the midst of that.
fn come_to_rest(manager: &Manager, name: &ContainerName) -> Result<Service> {
    let end = Instant::now() + DOWN;
    loop {
        let service = manager.failures(&name.service_unit())?;
        if service.state != "deactivating" || Instant::now() >= end {
            return Ok(service);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A boot that took something back did not wait for what it started.
fn tell_health(context: &Context, root: &Folder, manager: &Manager, name: &ContainerName) {
    let settle = settings::load(root).map(|settings| settings.update.settle()).unwrap_or_default();
    let Ok((_, now)) = state::installed(root, name) else { return };
    let Err(error) = is_well(manager, &now, settle) else { return };
    // What a machine that goes down takes with it says nothing of the service.
    if manager.goes_down() {
        return;
    }
    let now = Some(Version { digest: now.digest, deployment: Some(now.id) });
    let cause = Some(format!("after the boot that recovered it: {error:#}"));
    let (operation, result) = (Operation::Recovery, event::Result::NeedsYou);
    let told = Event { container: name.clone(), operation, result, from: None, to: now, unasked: true, cause };
    events::tell(&context.root, &told);
}

fn is_well(manager: &Manager, now: &Deployment, settle: Duration) -> Result<()> {
    let unit = &now.name.service_unit();
    let end = Instant::now() + START;
    loop {
        match manager.state(unit)?.active.as_str() {
            // Nobody wanted it.
            "inactive" => return Ok(()),
            "active" => return health::judge(manager, now, settle).map(drop).context("its health"),
            "failed" => bail!("{unit} failed to start"),
            _ if Instant::now() >= end => bail!("{unit} is not up after {} s", START.as_secs()),
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}
