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
        self.bring_loopback_up()
    }

    /// Joins them for a while: a child is in them from its birth, which in a user namespace of its own could not join them any more.
    pub fn visit(&self) -> Result<Visit> {
        let kinds = self.join.iter().map(|(kind, _)| *kind).filter(|kind| *kind != LinuxNamespaceType::Pid);
        let own = |kind: LinuxNamespaceType| Ok((kind, File::open(format!("/proc/self/ns/{}", file_of(kind)))?));
        let visit = Visit(kinds.map(own).collect::<Result<_>>()?);
        self.join_those(|kind| kind != LinuxNamespaceType::Pid)?;
        Ok(visit)
    }

    /// In a new network namespace.
    pub fn bring_loopback_up(&self) -> Result<()> {
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

/// The way back to a process's own namespaces.
pub struct Visit(Vec<(LinuxNamespaceType, File)>);

impl Visit {
    /// Back to them.
    pub fn leave(self) -> Result<()> {
        for (kind, own) in self.0 {
            setns(own, CloneFlags::from_bits_retain(kind as i32))
                .with_context(|| format!("leaving the container's {kind} namespace"))?;
        }
        Ok(())
    }
}

/// What a namespace is called in /proc/PID/ns.
fn file_of(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Time => "time",
    }
}

fn join_one(kind: LinuxNamespaceType, path: &Path) -> Result<()> {
    Ok(setns(File::open(path)?, CloneFlags::from_bits_truncate(kind as i32))?)
}
