//! Other versions of the operating system on the same disk (libostree's deployments): each has an /etc of its own, and all share /var. One
//! that is booted again finds the containers of its /etc in /var, or they do not start.
//!
//! ```text
//! /ostree/deploy/OS/deploy/CHECKSUM.N/etc/sysctr/containers/NAME/{active,1,2,...}
//! ```

use anyhow::Result;

use super::dir::Folder;
use crate::model::{layout, name::ContainerName};

const SYSTEMS: &str = "ostree/deploy";

/// The deployments of a container that the /etc of another version names: the one in force there and those that it may go back to.
pub fn named_deployments(root: &Folder, name: &ContainerName) -> Result<Vec<u32>> {
    let mut named = Vec::new();
    let Some(systems) = root.open(SYSTEMS)? else { return Ok(named) };
    for system in systems.names()? {
        let Ok(Some(versions)) = systems.open(&format!("{system}/deploy")) else { continue };
        for version in versions.names()? {
            // Beside each of them lies a file.
            if let Ok(Some(settings)) = versions.open(&format!("{version}/{}", layout::settings(name))) {
                named.extend(settings.names()?.iter().filter_map(|file| file.parse::<u32>().ok()));
                let active = settings.read(layout::ACTIVE).ok().flatten();
                named.extend(active.and_then(|text| text.trim().parse::<u32>().ok()));
            }
        }
    }
    Ok(named)
}
