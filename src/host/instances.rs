//! The instances of a container's template units that are running (systemd.unit(5), "Template unit files"). Nothing of sysctr's
//! starts them, so only systemd knows them.

use anyhow::Result;

use super::{dir::Folder, process, systemd::Manager, units};
use crate::model::{deployment::Deployment, layout, name::ContainerName};

/// Those of a deployment's templates; not what answers a connection of its own (`Accept=yes`), which ends with that.
pub fn running(root: &Folder, manager: &Manager, deployment: &Deployment) -> Result<Vec<String>> {
    let files = units::set_files(root, &deployment.name, deployment.id)?;
    let templates = files.iter().filter(|file| layout::is_template(file));
    let patterns: Vec<String> = templates.map(|file| file.replacen("@.", "@*.", 1)).collect();
    if patterns.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = manager.running(&patterns)?;
    let mut kept = Vec::new();
    found.sort();
    for unit in found {
        if !manager.answers_a_connection(&unit)? {
            kept.push(unit);
        }
    }
    Ok(kept)
}

/// The deployments that the instances of a container's own template run, where their launcher noted it.
pub fn deployments(manager: &Manager, name: &ContainerName) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for unit in manager.running(&[format!("{name}@*.service")])? {
        let main = manager.main_process(&unit)?;
        found.extend(main.and_then(|(_, group)| process::deployment(name, &group)));
    }
    Ok(found)
}
