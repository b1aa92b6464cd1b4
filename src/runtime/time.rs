//! A time namespace of the container's own, with linux.timeOffsets.
//!
//! Its offsets can be set only before the first process is in it, so it cannot be one of clone(2)'s: the launcher makes it for
//! its children, has one child, and takes the host's back.

use std::fs::File;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxTimeOffset};

/// CLONE_NEWTIME, which nix does not name.
const NEW: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// While it is held, children are in a new time namespace.
#[derive(Debug)]
pub struct TimeNamespace {
    own: File,
}

impl TimeNamespace {
    /// The one of config.json, if it wants a new one.
    pub fn for_children(linux: &Linux) -> Result<Option<Self>> {
        let of_its_own = |namespace: &&oci_spec::runtime::LinuxNamespace| {
            namespace.typ() == LinuxNamespaceType::Time && namespace.path().is_none()
        };
        if linux.namespaces().iter().flatten().find(of_its_own).is_none() {
            return Ok(None);
        }
        let own = File::open("/proc/self/ns/time").context("this kernel has no time namespaces")?;
        unshare(NEW).context("making a time namespace")?;
        let offsets: String = linux.time_offsets().iter().flatten().map(line).collect();
        if !offsets.is_empty() {
            std::fs::write("/proc/self/timens_offsets", offsets).context("setting linux.timeOffsets")?;
        }
        Ok(Some(Self { own }))
    }

    /// Back to the caller's own one for children to come.
    pub fn leave(self) -> Result<()> {
        setns(self.own, NEW).context("leaving the container's time namespace")
    }
}

fn line((clock, offset): (&String, &LinuxTimeOffset)) -> String {
    format!("{clock} {} {}\n", offset.secs().unwrap_or_default(), offset.nanosecs().unwrap_or_default())
}
