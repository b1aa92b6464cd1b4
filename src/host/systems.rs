//! Other versions of the operating system on the same disk (libostree's deployments): each has an /etc of its own, and all share /var. One
//! that is booted again finds the containers of its /etc in /var, or they do not start.
//!
//! ```text
//! /ostree/deploy/OS/deploy/CHECKSUM.N/etc/sysctr/containers/NAME/{active,1,2,...}
//! ```

use std::collections::BTreeSet;

use anyhow::Result;
use rustix::fs;

use super::dir::Folder;
use crate::model::{layout, name::ContainerName};

const SYSTEMS: &str = "ostree/deploy";

/// The deployments of a container that the /etc of another version names: the one in force there and those that it may go back to.
pub fn named_deployments(root: &Folder, name: &ContainerName) -> Result<Vec<u32>> {
    let mut named = Vec::new();
    for etc in others(root)? {
        if let Ok(Some(settings)) = etc.open(below_etc(&layout::settings(name))) {
            named.extend(settings.names()?.iter().filter_map(|file| file.parse::<u32>().ok()));
            let active = settings.read(layout::ACTIVE).ok().flatten();
            named.extend(active.and_then(|text| text.trim().parse::<u32>().ok()));
        }
    }
    Ok(named)
}

/// The containers that the /etc of another version has.
pub fn containers(root: &Folder) -> Result<BTreeSet<ContainerName>> {
    let mut names = BTreeSet::new();
    for etc in others(root)? {
        if let Ok(Some(containers)) = etc.open(below_etc(layout::CONTAINERS)) {
            names.extend(containers.names()?.iter().filter_map(|name| name.parse::<ContainerName>().ok()));
        }
    }
    Ok(names)
}

/// The /etc of each version but the one that is booted.
fn others(root: &Folder) -> Result<Vec<Folder>> {
    let mut found = Vec::new();
    let Some(systems) = root.open(SYSTEMS)? else { return Ok(found) };
    let identity = |etc: &Folder| fs::fstat(etc).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let booted = root.open("etc")?.as_ref().and_then(identity);
    for system in systems.names()? {
        let Ok(Some(versions)) = systems.open(&format!("{system}/deploy")) else { continue };
        // Beside each of them lies a file.
        let etcs =
            versions.names()?.into_iter().filter_map(|version| versions.open(&format!("{version}/etc")).ok().flatten());
        found.extend(etcs.filter(|etc| identity(etc) != booted));
    }
    Ok(found)
}

fn below_etc(path: &str) -> &str {
    path.strip_prefix("etc/").unwrap_or(path)
}
