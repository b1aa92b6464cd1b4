//! Directives of the unit that would be lost with the launcher: where it can see one at the cost of a system call, it says so and fails.
//! An image's unit cannot have them (`sysctr install` refuses it), but an admin's drop-in can. `sysctr lint NAME` tells them all.

use std::env;

use anyhow::{Context, Result, bail, ensure};
use caps::CapSet;
use nix::unistd::{geteuid, getgid, getgroups};

/// Fails where systemd started this process as somebody else than root, or with privileges meant for the program.
pub fn none() -> Result<()> {
    // By hand, anyone may try.
    let by_systemd = env::var_os("SYSTEMD_EXEC_PID").is_some_and(|pid| pid == *std::process::id().to_string());
    if !by_systemd {
        return Ok(());
    }
    let instead = |directive: &str, key: &str| {
        format!("{directive} of the unit does not work for a container: use {key} in the image's manifest")
    };
    ensure!(geteuid().is_root(), instead("User= or DynamicUser=", "container.user"));
    ensure!(getgid().as_raw() == 0, instead("Group=", "container.user"));
    // With User=root, root's own groups come along.
    let groups = getgroups().context("reading the groups")?;
    if env::var_os("LOGNAME").is_none() && groups.iter().any(|group| group.as_raw() != 0) {
        bail!(
            "SupplementaryGroups= of the unit does not work for a container: name the groups in the image's /etc/group"
        );
    }
    let ambient = caps::read(None, CapSet::Ambient).context("reading the ambient capabilities")?;
    ensure!(ambient.is_empty(), instead("AmbientCapabilities=", "container.capabilities.add"));
    Ok(())
}
