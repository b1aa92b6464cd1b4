//! `sysctr uninstall NAME...`: stop, disable, remove. The image, declared state and system users stay.

use anyhow::{Context as _, Result};

use super::{
    Context, probation,
    replace::{self, Running},
};
use crate::cli::UninstallArgs;
use sysctr::{
    host::{
        apply,
        dir::Folder,
        health,
        lock::StoreLock,
        owned, recovery, settings,
        state::{self, Container},
        systemd::Manager,
        transaction,
    },
    model::{
        deployment::Deployment,
        fault::{Code, Fault},
        name::ContainerName,
    },
};

/// Uninstalls all of them, or none where one of them is not installed.
pub fn run(context: &Context, args: &UninstallArgs) -> Result<()> {
    let (root, lock) = context.begin_now("uninstall")?;
    let mut names = args.names.clone();
    names.sort();
    names.dedup();
    let chosen = names.iter().map(|name| state::installed(&root, name)).collect::<Result<Vec<_>>>()?;
    chosen.iter().try_for_each(|(container, _)| recovery::refuse_pending(container))?;
    if args.dry_run {
        return would(context, args, &root, &chosen);
    }
    let manager = context.manager()?;
    let mut removed = Vec::new();
    let done = chosen.iter().try_for_each(|(container, deployment)| {
        remove(&root, &lock, manager.as_ref(), container, deployment, args.purge)?;
        removed.push(&container.name);
        context.output.say(format!("uninstalled {}{}", container.name, kept(&root, &container.name, deployment)?));
        Ok(())
    });
    // Those before one that failed are gone all the same.
    if done.is_ok() || !removed.is_empty() {
        context.output.result(&serde_json::json!({"removed": removed}), String::new)?;
    }
    done
}

fn would(context: &Context, args: &UninstallArgs, root: &Folder, chosen: &[(Container, Deployment)]) -> Result<()> {
    let names: Vec<_> = chosen.iter().map(|(container, _)| &container.name).collect();
    let state = chosen.iter().flat_map(|(_, deployment)| &deployment.state).filter(|_| args.purge);
    let mut folders: Vec<String> = state.map(|folder| folder.path.clone()).collect();
    for (_, deployment) in chosen.iter().filter(|_| !context.offline()) {
        let lines = apply::removals(root, deployment, args.purge)?;
        folders.extend(lines.lines().filter_map(|line| line.split_ascii_whitespace().nth(1).map(str::to_owned)));
    }
    context.output.result(&serde_json::json!({"wouldRemove": names, "wouldDelete": folders}), || {
        let names = names.iter().map(|name| format!("would stop, disable and remove {name}\n"));
        names.chain(folders.iter().map(|folder| format!("would delete {folder}\n"))).collect()
    })
}

/// Stops a container and removes it whole.
pub fn remove(
    root: &Folder,
    lock: &StoreLock,
    manager: Option<&Manager>,
    container: &Container,
    deployment: &Deployment,
    purge: bool,
) -> Result<()> {
    let name = &container.name;
    let settle = settings::load(root).map(|settings| settings.update.settle()).unwrap_or_default();
    let running = Running::look(root, lock, manager, deployment, settle, true)?;
    let uninstalling = || format!("uninstalling {name}");
    // Noted before anything stops: where there is no room for that, it all runs on.
    transaction::announce_uninstall(root, lock, container, purge, &running.ran()).with_context(uninstalling)?;
    let gone = running.stop(deployment).and_then(|()| transaction::commit_uninstall(root, lock, container));
    if let Err(cause) = gone {
        let undone = transaction::finish(root, lock, name);
        undone.and_then(|()| running.start_again(deployment)).map_err(|error| replace::needs_you(&cause, &error))?;
        return Err(cause).with_context(uninstalling);
    }
    let removed = manager.map_or(Ok(()), |_| apply::remove_tmpfiles(root, deployment, purge));
    let paths = deployment.state.iter().map(|folder| folder.path.as_str()).filter(|_| purge);
    let purged = owned::purge_all(root, name, paths);
    transaction::remove_files(root, name).with_context(|| transaction::half_done(name))?;
    if let Some(manager) = manager {
        manager.reload()?;
        deployment.units.iter().for_each(|unit| manager.reset_failed(unit));
        let _ = health::forget(name);
        probation::forget(Some(manager), name, deployment.id);
    }
    let gone = || Fault::new(Code::NeedsYou, format!("{name} is uninstalled")).hint("delete it by hand");
    purged.and(removed).with_context(gone)
}

/// Words about state that is still there.
fn kept(root: &Folder, name: &ContainerName, deployment: &Deployment) -> Result<String> {
    let mut kept = Vec::new();
    for folder in &deployment.state {
        if root.open(folder.path.trim_start_matches('/'))?.is_some()
            && !owned::is_foreign(root, name, &folder.path).unwrap_or(false)
        {
            kept.push(folder.path.as_str());
        }
    }
    Ok(if kept.is_empty() { String::new() } else { format!("; its state stays in {}", kept.join(", ")) })
}
