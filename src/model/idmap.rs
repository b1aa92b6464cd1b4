//! The maps of user namespaces: which numbers of the host a container's users and groups are.
//!
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#user-namespace-mappings>, user_namespaces(7)

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

/// So many ranges of a kernel's map there are at most.
const MOST: usize = 340;

/// A container's users and groups as the host numbers them.
#[derive(Debug, Clone)]
pub struct IdMap {
    /// of users
    pub users: Vec<LinuxIdMapping>,
    /// of groups
    pub groups: Vec<LinuxIdMapping>,
}

impl IdMap {
    /// That of the configuration's own user namespace, if it has one.
    pub fn of(linux: &Linux) -> Result<Option<Self>> {
        let given = |ranges: &Option<Vec<LinuxIdMapping>>| ranges.clone().unwrap_or_default();
        let map = Self { users: given(linux.uid_mappings()), groups: given(linux.gid_mappings()) };
        let namespace = linux.namespaces().iter().flatten().any(|one| one.typ() == LinuxNamespaceType::User);
        if !namespace {
            ensure!(map.users.is_empty(), "linux.uidMappings needs a user namespace in linux.namespaces");
            ensure!(map.groups.is_empty(), "linux.gidMappings needs a user namespace in linux.namespaces");
            return Ok(None);
        }
        map.check("linux")?;
        Ok(Some(map))
    }

    /// Refuses what the kernel would refuse. `place` is where it stands in the configuration.
    pub fn check(&self, place: &str) -> Result<()> {
        check(&self.users).with_context(|| format!("{place}.uidMappings"))?;
        check(&self.groups).with_context(|| format!("{place}.gidMappings"))
    }

    /// The host's number of a user.
    pub fn user(&self, id: u32) -> Option<u32> {
        outside(&self.users, id)
    }

    /// The host's number of a group.
    pub fn group(&self, id: u32) -> Option<u32> {
        outside(&self.groups, id)
    }
}

/// The lines that the kernel takes in /proc/PID/uid_map and gid_map.
pub fn lines(ranges: &[LinuxIdMapping]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.container_id(), range.host_id(), range.size())).collect()
}

fn outside(ranges: &[LinuxIdMapping], id: u32) -> Option<u32> {
    let within = |range: &&LinuxIdMapping| id.checked_sub(range.container_id()).is_some_and(|at| at < range.size());
    ranges.iter().find(within).map(|range| range.host_id() + (id - range.container_id()))
}

fn check(ranges: &[LinuxIdMapping]) -> Result<()> {
    ensure!(!ranges.is_empty(), "a user namespace needs at least one range");
    ensure!(ranges.len() <= MOST, "the kernel takes at most {MOST} ranges, not {}", ranges.len());
    for (index, range) in ranges.iter().enumerate() {
        ensure!(range.size() > 0, "the range from {} on has no size", range.container_id());
        for first in [range.container_id(), range.host_id()] {
            // The last number of all means nobody to the kernel.
            let fits = first.checked_add(range.size()).is_some();
            ensure!(fits, "the range of {} from {first} on ends behind the last number", range.size());
        }
        for other in &ranges[..index] {
            let apart = |one: u32, two: u32| one >= two + other.size() || two >= one + range.size();
            ensure!(
                apart(range.container_id(), other.container_id()) && apart(range.host_id(), other.host_id()),
                "two ranges overlap at {} and {} (host {} and {})",
                other.container_id(),
                range.container_id(),
                other.host_id(),
                range.host_id()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(users: serde_json::Value) -> Result<Option<IdMap>> {
        let linux = json!({"namespaces": [{"type": "user"}], "uidMappings": users, "gidMappings": users});
        IdMap::of(&serde_json::from_value(linux).expect("linux"))
    }

    fn range(container: u32, host: u32, size: u32) -> serde_json::Value {
        json!({"containerID": container, "hostID": host, "size": size})
    }

    #[test]
    fn numbers_inside_have_numbers_outside() {
        let map = map(json!([range(0, 100_000, 1000), range(1000, 300_000, 10)])).expect("good").expect("there");
        let outside: Vec<_> = [0, 999, 1000, 1009, 1010].into_iter().map(|id| map.user(id)).collect();
        assert_eq!(outside, [Some(100_000), Some(100_999), Some(300_000), Some(300_009), None]);
        assert_eq!(lines(&map.groups), "0 100000 1000\n1000 300000 10\n");
    }

    #[test]
    fn a_map_that_the_kernel_refuses_is_refused_before() {
        for (users, words) in [
            (json!([]), "at least one range"),
            (json!([range(0, 1000, 0)]), "no size"),
            (json!([range(0, u32::MAX - 1, 2)]), "behind the last"),
            (json!([range(0, 1000, 10), range(9, 5000, 10)]), "overlap"),
            (json!([range(0, 1000, 10), range(10, 1009, 10)]), "overlap"),
        ] {
            let error = format!("{:#}", map(users).expect_err(words));
            assert!(error.contains(words) && error.contains("linux.uidMappings"), "{words}: {error}");
        }
        let alone = serde_json::from_value(json!({"uidMappings": [range(0, 1, 1)]})).expect("linux");
        assert!(IdMap::of(&alone).is_err());
    }
}
