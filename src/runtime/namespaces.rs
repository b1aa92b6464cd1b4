//! The namespaces a container gets, and those of others that it joins.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{Linux, LinuxNamespaceType};

use super::sys;

/// What clone(2) makes and what setns(2) joins.
#[derive(Debug)]
pub struct Namespaces {
    /// CLONE_NEW* flags
    pub new: u64,
    join: Vec<(LinuxNamespaceType, PathBuf)>,
}

impl Namespaces {
    /// Those of config.json.
    pub fn of(linux: &Linux) -> Self {
        let mut all = Self { new: 0, join: Vec::new() };
        for one in linux.namespaces().iter().flatten() {
            match one.path() {
                // Made by the launcher, see time.rs.
                None if one.typ() == LinuxNamespaceType::Time => {}
                Some(path) => all.join.push((one.typ(), path.clone())),
                None => all.new |= one.typ() as u64,
            }
        }
        all
    }

    /// Joins a pid namespace: children are in it, the caller itself is not.
    pub fn join_for_children(&self) -> Result<()> {
        self.join_those(|kind| kind == LinuxNamespaceType::Pid)
    }

    /// Joins the others, in the child, while the host's paths can still be seen.
    pub fn join(&self) -> Result<()> {
        self.join_those(|kind| kind != LinuxNamespaceType::Pid)?;
        if self.new & libc::CLONE_NEWNET as u64 != 0 {
            sys::loopback_up().context("bringing the loopback device up")?;
        }
        Ok(())
    }

    fn join_those(&self, wanted: impl Fn(LinuxNamespaceType) -> bool) -> Result<()> {
        for (kind, path) in self.join.iter().filter(|(kind, _)| wanted(*kind)) {
            join_one(*kind, path).with_context(|| format!("joining the {kind} namespace {}", path.display()))?;
        }
        Ok(())
    }
}

fn join_one(kind: LinuxNamespaceType, path: &Path) -> Result<()> {
    Ok(setns(File::open(path)?, CloneFlags::from_bits_truncate(kind as i32))?)
}
