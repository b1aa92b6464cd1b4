//! What a container has mounted, and where its checkout has to have a place for that.

use std::{collections::BTreeMap, path::Path};

use oci_spec::runtime::Spec;
use serde_json::{Value as Json, json};

use super::{Inputs, NOFAIL};
use crate::model::{
    manifest::{Mount, Network, Users},
    name::ContainerName,
    request,
};

/// A path inside the root file system that must be there to mount upon; the checkout gets it at install, as it is read-only later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum MountPoint {
    Folder(String),
    File(String),
    /// A folder that is made where nothing else of the image stands in the way.
    FolderIfFree(String),
}

/// Later entries take the place of earlier ones with the same destination; a folder comes before what lies in it.
pub(super) fn mounts(inputs: &Inputs) -> Vec<Json> {
    let tmpfs = |path: &str, mode: &str| mount("tmpfs", "tmpfs", path, &["nosuid", "nodev", mode]);
    let mut mounts = vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        tmpfs("/run", "mode=755"),
        tmpfs("/tmp", "mode=1777"),
        tmpfs("/var/tmp", "mode=1777"),
    ];
    // What is mounted there instead is all there: nothing of these hides a part of it.
    let given = &inputs.container.mounts;
    mounts.retain(|mount| {
        let place = mount["destination"].as_str().unwrap_or_default();
        !given.iter().any(|given| place != given.target && request::is_below(place, &given.target))
    });
    if inputs.container.network == Network::Host {
        for file in HOST_FILES {
            mounts.push(mount("bind", file, file, &["bind", "ro", "nosuid", "nodev", "noexec", NOFAIL]));
        }
    }
    mounts.extend(inputs.container.tmpfs.iter().map(|path| tmpfs(path, "mode=1777")));
    mounts.extend(inputs.container.devices.iter().map(|path| bind(path, path, &["nosuid", "noexec"])));
    // On disk its owners are plain numbers: the range may be another one on another host.
    let mapped = (inputs.container.userns == Users::Auto).then_some("ridmap");
    let state: Vec<&str> = ["rw", "rnosuid", "rnodev"].into_iter().chain(mapped).collect();
    mounts.extend(inputs.state.iter().map(|(host, inside)| bind(host, inside, &state)));
    mounts.extend(inputs.container.mounts.iter().map(bind_given));

    let mut order: BTreeMap<String, Json> = BTreeMap::new();
    for mount in mounts {
        order.insert(mount["destination"].as_str().unwrap_or_default().to_owned(), mount);
    }
    order.into_values().collect()
}

/// A file or folder of the host, with everything that is mounted below it.
pub(in crate::model) fn bind(source: &str, path: &str, options: &[&str]) -> Json {
    mount("bind", source, path, &[&["rbind"], options].concat())
}

/// A mount that somebody chose.
fn bind_given(given: &Mount) -> Json {
    let read_only = given.options.iter().rev().find(|option| matches!(option.as_str(), "ro" | "rw"));
    // What is mounted below it on the host comes along, and is as read-only as it is.
    let below = (read_only.map(String::as_str) == Some("ro")).then_some("rro");
    let has = |name: &str| given.options.iter().any(|option| option == name);
    let usual = [("suid", "rnosuid"), ("dev", "rnodev")].into_iter().filter(|(unless, _)| !has(unless));
    let own = given.options.iter().map(String::as_str).filter(|option| !matches!(*option, "suid" | "dev"));
    let own = own.map(|option| if option == "idmap" { "ridmap" } else { option });
    let options: Vec<&str> = usual.map(|(_, option)| option).chain(own).chain(below).collect();
    bind(&given.source, &given.target, &options)
}

/// What a program on the host's network reads of the host's /etc.
const HOST_FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];
/// Files of every host, also of a tree that lacks them until it boots.
const FILES: [&str; 3] = ["/etc/hosts", "/etc/resolv.conf", "/etc/machine-id"];

fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Json {
    json!({ "type": kind, "source": source, "destination": destination, "options": options })
}

/// Where the checkout needs a file or folder: to mount upon, and to start in. What lies on one of our own tmpfs or in /dev and /sys the
/// runtime makes.
///
/// A unit or a drop-in of it may have StateDirectory=NAME and its like at any time: those folders are there from the beginning.
pub fn mount_points(name: &ContainerName, spec: &Spec, is_file: impl Fn(&str) -> bool) -> Vec<MountPoint> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let fresh = mounts.iter().filter(|mount| matches!(mount.typ().as_deref(), Some("tmpfs" | "proc" | "sysfs")));
    let fresh: Vec<String> = fresh.map(|mount| text(mount.destination())).collect();
    let on_disk = |path: &String| !fresh.iter().any(|parent| path != parent && request::is_below(path, parent));

    let points = mounts.iter().map(|mount| {
        let source = mount.source().as_deref().map(text).unwrap_or_default();
        let bound = mount.typ().as_deref() == Some("bind");
        let path = text(mount.destination());
        match bound && (FILES.contains(&source.as_str()) || is_file(&source)) {
            true => MountPoint::File(path),
            false => MountPoint::Folder(path),
        }
    });
    let start = spec.process().iter().map(|process| MountPoint::Folder(text(process.cwd())));
    // Of /run only where an own configuration has no tmpfs there.
    let own = ["/var/lib", "/var/cache", "/var/log", "/etc", "/run"]
        .map(|parent| MountPoint::FolderIfFree(format!("{parent}/{name}")));
    // Mounted by every runtime, whether config.json says so or not.
    let dev = [MountPoint::FolderIfFree("/dev".to_owned())];
    points.chain(start).chain(own).chain(dev).filter(|point| on_disk(point.path()) && point.path() != "/").collect()
}

impl MountPoint {
    /// Where it is, from the image's root.
    pub fn path(&self) -> &String {
        let (MountPoint::Folder(path) | MountPoint::File(path) | MountPoint::FolderIfFree(path)) = self;
        path
    }
}
