//! The process of a running container, held by a pidfd: its number may be another's by the time somebody uses it.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::model::{layout, name::ContainerName};

/// Where cgroup v2 is mounted; the second place in a hybrid layout.
const HIERARCHY: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Set by the launcher on the unit's control group.
const DEPLOYMENT: &str = "trusted.sysctr.deployment";

/// A process in a container.
#[derive(Debug)]
pub struct Inside {
    /// It stays this process's, whatever becomes of its number.
    pub pidfd: OwnedFd,
    /// From the root of the hierarchy.
    pub cgroup: String,
    /// Its user and group, as the host numbers them.
    pub user: (u32, u32),
}

/// The container's process of a service with this main process and control group. Where a launcher waits for the container, that is its
/// child. Nothing outside of the unit's control group is taken for it.
pub fn of_service(main: u32, group: &str) -> Result<Inside> {
    let inside = open(main, group)?;
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt"));
    // Ours may be another than the launcher's: a unit that calls us can have one of its own.
    let host: Vec<PathBuf> =
        [namespace(1).ok(), fs::read_link("/proc/self/ns/mnt").ok()].into_iter().flatten().collect();
    if !host.contains(&namespace(main)?) {
        return alive(inside);
    }
    let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap_or_default();
    let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    match children.find(|child| namespace(*child).is_ok_and(|its| !host.contains(&its))) {
        Some(child) => alive(open(child, group)?),
        None => bail!("its main process {main} is not in a container"),
    }
}

fn open(pid: u32, group: &str) -> Result<Inside> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process number")?;
    let pidfd = pidfd_open(number, PidfdFlags::empty()).with_context(|| format!("opening process {pid}"))?;
    let text =
        fs::read_to_string(format!("/proc/{pid}/cgroup")).with_context(|| format!("looking at process {pid}"))?;
    let cgroup = text.lines().find_map(|line| line.strip_prefix("0::")).context("the host has no cgroup v2")?;
    let ours = cgroup == group || cgroup.strip_prefix(group).is_some_and(|below| below.starts_with('/'));
    ensure!(ours, "process {pid} is not in the control group {group} of its unit");
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let effective = |key: &str| {
        let numbers = status.lines().find_map(|line| line.strip_prefix(key))?;
        numbers.split_whitespace().nth(1)?.parse().ok()
    };
    let user = effective("Uid:").zip(effective("Gid:")).with_context(|| format!("whose is process {pid}?"))?;
    Ok(Inside { pidfd, cgroup: cgroup.to_owned(), user })
}

/// What was read of a number was this process's if it lives still.
fn alive(inside: Inside) -> Result<Inside> {
    let ended = poll(&mut [PollFd::new(&inside.pidfd, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0;
    ensure!(!ended, "it has just ended");
    Ok(inside)
}

/// The deployment that runs in this control group, as its launcher noted it there; none where it could not.
pub fn deployment(name: &ContainerName, group: &str) -> Option<u32> {
    let mut value = [0; 4096];
    let length = HIERARCHY.iter().find_map(|root| {
        let place = PathBuf::from(root).join(group.trim_start_matches('/'));
        rustix::fs::getxattr(place, DEPLOYMENT, &mut value).ok()
    })?;
    let path = Path::new(std::str::from_utf8(&value[..length]).ok()?);
    let id: u32 = path.file_name()?.to_str()?.parse().ok()?;
    path.ends_with(Path::new(&layout::deployment(name, id)).strip_prefix(layout::STATE).ok()?).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_outside_of_the_units_control_group_is_not_entered() {
        let error = of_service(std::process::id(), "/system.slice/none.service").expect_err("it is not in there");
        assert!(error.to_string().contains("not in the control group"), "{error}");
        let own = fs::read_to_string("/proc/self/cgroup").expect("read");
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup v2").to_owned();
        let error = of_service(std::process::id(), &own).expect_err("it is in no container");
        assert!(error.to_string().contains("not in a container"), "{error}");
    }
}
