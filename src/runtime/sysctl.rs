//! linux.sysctl: kernel parameters of the container's own namespaces.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::check::namespace;
use super::controls::{Defence, without};
use super::mounts;
use super::rootfs::RootFs;

/// Only what belongs to a namespace that the container has of its own: anything else would set the host's.
pub fn check(linux: &Linux, key: &str, value: &str) -> Result<()> {
    let name = path(key);
    if without(Defence::SysctlNames) {
        return Ok(());
    }
    let clean = !name.split('/').any(|part| part.is_empty() || part == "." || part == "..") && !value.contains('\0');
    let kind = match name.as_str() {
        "kernel/domainname" | "kernel/hostname" => LinuxNamespaceType::Uts,
        "kernel/sem" => LinuxNamespaceType::Ipc,
        _ if name.starts_with("kernel/shm") || name.starts_with("kernel/msg") => LinuxNamespaceType::Ipc,
        _ if name.starts_with("fs/mqueue/") => LinuxNamespaceType::Ipc,
        _ if name.starts_with("net/") => LinuxNamespaceType::Network,
        _ => bail!("sysctl {key:?} is the host's, not the container's"),
    };
    ensure!(clean, "sysctl {key:?} is no name of one");
    ensure!(namespace(linux, kind), "sysctl {key:?} needs a {kind} namespace of the container's own");
    Ok(())
}

/// Writes them through a /proc of this process's own, which no image and no other mount can have changed.
pub fn set(linux: &Linux, root: &RootFs) -> Result<()> {
    let Some(all) = linux.sysctl().as_ref().filter(|all| !all.is_empty()) else { return Ok(()) };
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut proc = mounts::fresh("proc", "proc", &[])?;
    if without(Defence::OwnProc) {
        proc = root.open("/proc".as_ref(), OFlags::DIRECTORY)?;
        resolve = ResolveFlags::empty();
    }
    for (key, value) in all {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat2(&proc, format!("sys/{}", path(key)), flags, Mode::empty(), resolve);
        let write = || -> Result<()> { Ok(File::from(file?).write_all(value.as_bytes())?) };
        write().with_context(|| format!("setting the sysctl {key} to {value:?}"))?;
    }
    Ok(())
}

/// The path below /proc/sys. As in sysctl.d(5): where a slash comes first, dots are part of names (`net/ipv4/conf/eth0.5/forwarding`),
/// else dots and slashes change places (`net.ipv4.conf.eth0/5.forwarding`).
fn path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('/') => key.to_owned(),
        _ => key
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn dots_and_slashes_are_read_as_sysctl_reads_them() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.5/forwarding", "net/ipv4/conf/eth0.5/forwarding"),
            ("net.ipv4.conf.eth0/5.forwarding", "net/ipv4/conf/eth0.5/forwarding"),
        ] {
            assert_eq!(super::path(key), path);
        }
    }
}
