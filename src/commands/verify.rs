//! `sysctr verify [NAME...]`: is what lies on disk what was installed?

use anyhow::{Context as _, Result, bail};

use super::Context;
use sysctr::{
    host::{
        dir::Folder,
        fsck::Report,
        host_files,
        ostree::Store,
        state::{self, Container},
        units,
    },
    model::{
        fault::{Code, Fault},
        layout,
        name::ContainerName,
    },
};

/// Checks the store and every container, or the named containers only.
pub fn run(context: &Context, names: &[ContainerName]) -> Result<()> {
    let root = context.folder()?;
    let containers = match names {
        [] => state::containers(&root)?,
        names => names.iter().map(|name| Ok(state::installed(&root, name)?.0)).collect::<Result<_>>()?,
    };
    let mut report = Report::default();
    let store = Store::open(&context.root)?;
    if let Some(store) = &store
        && names.is_empty()
    {
        store.verify(&mut report)?;
    }
    for container in &containers {
        verify_container(&root, store.as_ref(), container, &mut report)
            .with_context(|| format!("verifying {}", container.name))?;
    }
    let ok = report.problems.is_empty();
    let document = serde_json::json!({"ok": ok, "checked": report.checked, "problems": report.problems});
    context.output.result(&document, || {
        let problems = report.problems.iter();
        let mut text: String = problems.map(|it| format!("{}: {}: {}\n", it.kind, it.subject, it.detail)).collect();
        if ok && !context.output.quiet {
            text = format!("{} objects and files checked, all as installed", report.checked);
        }
        text
    })?;
    if ok {
        return Ok(());
    }
    bail!(Fault::new(Code::Failed, format!("verify found {}", super::image::count(report.problems.len(), "problem"))))
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
                use std::os::fd::AsFd;
                let added = &deployment.mount_points;
                store.verify_checkout(&deployment.commit, rootfs.as_fd(), added, rootfs.path(), report)?;
            }
            (None, _) => report.add("checkout", path, "it is missing"),
            (_, None) => report.add("checkout", path, "its image is not in the store"),
        }
    }
    Ok(())
}
