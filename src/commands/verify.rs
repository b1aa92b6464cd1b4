//! `sysctr verify [NAME...]`: is what lies on disk what was installed?

use std::{os::fd::AsFd, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{Context, image};
use crate::cli::VerifyArgs;
use sysctr::{
    host::{
        dir::Folder,
        fsck::Report,
        host_files,
        lock::StoreLock,
        ostree::Store,
        settings,
        state::{self, Container},
        units,
    },
    model::{
        fault::{Code, Fault},
        layout,
        name::ContainerName,
    },
};

/// Whoever removes something is done by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a repair came to.
#[derive(Default)]
struct Repaired {
    /// problems that there were
    total: usize,
    /// why something could not be put right
    failures: Vec<String>,
}

/// Checks the store and every container, or the named containers only.
pub fn run(context: &Context, args: &VerifyArgs) -> Result<()> {
    let mut repaired = Repaired::default();
    if args.repair {
        let (root, lock) = context.begin("verify")?;
        let before = check(context, &root, &args.names)?;
        if !before.problems.is_empty() {
            repaired = repair(context, &root, &lock, args, &before)?;
        }
    }
    let report = check_surely(context, &args.names)?;
    for failure in &repaired.failures {
        context.output.warn(failure);
    }
    let ok = report.problems.is_empty();
    let mut document = serde_json::json!({"ok": ok, "checked": report.checked, "problems": report.problems});
    if args.repair {
        document["repaired"] = repaired.total.into();
    }
    context.output.result(&document, || {
        let problems = report.problems.iter();
        let mut text: String = problems.map(|it| format!("{}: {}: {}\n", it.kind, it.subject, it.detail)).collect();
        if ok && !context.output.quiet {
            let mended = if args.repair { format!(", {} put right", repaired.total) } else { String::new() };
            text = format!("{} objects and files checked{mended}, all as installed", report.checked);
        }
        text
    })?;
    if ok {
        return Ok(());
    }
    bail!(Fault::new(Code::Failed, format!("verify found {}", image::count(report.problems.len(), "problem"))))
}

fn containers(root: &Folder, names: &[ContainerName]) -> Result<Vec<Container>> {
    match names {
        [] => state::containers(root),
        names => names.iter().map(|name| Ok(state::installed(root, name)?.0)).collect(),
    }
}

/// What is removed while it is looked at looks broken: what is found is looked for again while nobody is at work. Whoever only looks waits
/// for nobody before that, and recovers nothing.
fn check_surely(context: &Context, names: &[ContainerName]) -> Result<Report> {
    let root = context.folder()?;
    let found = check(context, &root, names)?;
    if found.problems.is_empty() {
        return Ok(found);
    }
    match StoreLock::acquire(&context.root, "verify", context.wait.unwrap_or(PATIENCE)) {
        Ok(_lock) => check(context, &root, names),
        // on a disk that is read-only, or while somebody is at work for too long
        Err(_) => Ok(found),
    }
}

fn check(context: &Context, root: &Folder, names: &[ContainerName]) -> Result<Report> {
    let containers = containers(root, names)?;
    let mut report = Report::default();
    let store = Store::open(&context.root)?;
    if let Some(store) = &store
        && names.is_empty()
    {
        store.verify(&mut report)?;
    }
    for container in &containers {
        verify_container(root, store.as_ref(), container, &mut report)
            .with_context(|| format!("verifying {}", container.name))?;
    }
    Ok(report)
}

/// The objects first: what a checkout has is put back from them.
fn repair(context: &Context, root: &Folder, lock: &StoreLock, args: &VerifyArgs, found: &Report) -> Result<Repaired> {
    let mut repaired = Repaired { total: found.problems.len(), ..Repaired::default() };
    let Some(store) = Store::open(&context.root)? else { return Ok(repaired) };
    if !found.broken.is_empty() {
        let settings = settings::load(root)?;
        repaired.failures = image::repair(context, lock, &store, found, args.from.as_ref(), &settings)?;
    }
    for container in containers(root, &args.names)? {
        let Some(active) = container.active.filter(|_| container.journal.is_none()) else { continue };
        let name = &container.name;
        for deployment in state::deployments(root, name)? {
            let rootfs = format!("{}/rootfs", layout::deployment(name, deployment.id));
            let Some(rootfs) = root.open(&rootfs)? else { continue };
            let (commit, added) = (&deployment.commit, &deployment.mount_points);
            let mended = store.mend_checkout(lock, commit, rootfs.as_fd(), added, rootfs.path());
            repaired.failures.extend(mended.err().map(|error| format!("{error:#}")));
        }
        let placed = place_again(context, root, name, active);
        repaired.failures.extend(placed.err().map(|error| format!("{name}: {error:#}")));
    }
    Ok(repaired)
}

fn place_again(context: &Context, root: &Folder, name: &ContainerName, active: u32) -> Result<()> {
    let mut misplaced = Report::default();
    units::verify_placed(root, name, active, &mut misplaced)?;
    host_files::verify(root, name, active, &mut misplaced)?;
    if misplaced.problems.is_empty() {
        return Ok(());
    }
    // Those that are missing come back, what somebody edited stays.
    host_files::switch(root, name, Some(active), active)?;
    units::place(root, name, active)?;
    context.manager()?.map_or(Ok(()), |manager| manager.reload())
}

/// Each deployment that is in force or was; one that is being staged has no record yet. What is pending is no fault: a container that is
/// being removed may lack anything, one that is being placed any placed file.
fn verify_container(root: &Folder, store: Option<&Store>, container: &Container, report: &mut Report) -> Result<()> {
    let name = &container.name;
    let Some(active) = container.active else { return Ok(()) };
    if container.journal.is_none() {
        units::verify_placed(root, name, active, report)?;
        host_files::verify(root, name, active, report)?;
    }
    if !state::deployment_ids(root, name)?.contains(&active) {
        report.add("deployment", layout::deployment(name, active), "it is in force, and not there");
    }
    for deployment in state::deployments(root, name)? {
        let path = format!("{}/rootfs", layout::deployment(name, deployment.id));
        match (root.open(&path)?, store) {
            (Some(rootfs), Some(store)) => {
                let added = &deployment.mount_points;
                store.verify_checkout(&deployment.commit, rootfs.as_fd(), added, rootfs.path(), report)?;
            }
            (None, _) => report.add("checkout", path, "it is missing"),
            (_, None) => report.add("checkout", path, "its image is not in the store"),
        }
    }
    Ok(())
}
