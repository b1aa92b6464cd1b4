//! Makes the mounts of config.json, each detached at first: it is whole, with its attributes, before it is attached.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_spec::runtime::Mount;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

use super::controls::{Defence, without};
use super::options::{Options, READ_ONLY};
use super::sys::{self, MountAttr};
use super::users::{self, Users};
use super::{cgroup, rootfs};

/// File systems that may be mounted anew; a device's would need the host's word for what is on it.
const FRESH: [&str; 11] =
    ["proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "bpf", "debugfs", "tracefs", "securityfs", "hugetlbfs"];

/// A mount that hangs nowhere yet.
#[derive(Debug)]
pub struct Detached {
    /// its root
    pub mount: OwnedFd,
    /// where it goes, as seen in the container
    pub destination: PathBuf,
    /// empty and ours, so that mount points may be made in it
    pub ours: bool,
    /// to be made read-only once everything is in it
    pub seal: bool,
    /// begins with what the image has there
    pub copy_up: bool,
}

/// What is the same for all mounts of a config.json.
pub struct Maker<'a> {
    /// what a relative source is taken from
    pub dir: &'a Path,
    /// sources that the container may write: below them no symbolic link is followed, or what ran there yesterday would choose what is
    /// mounted today
    pub writable: &'a [PathBuf],
    /// the SELinux label of what a new file system holds
    pub label: Option<&'a str>,
    /// the container's own
    pub users: Option<&'a Users>,
}

impl Maker<'_> {
    /// Makes one mount. Must run before the namespace's mounts are cut off from the host's, so that a `shared` bind mount still has its
    /// peers. None where the source is missing and may be (nofail).
    pub fn make(&self, mount: &Mount) -> Result<Option<Detached>> {
        prepare(mount, self).with_context(|| format!("mounting {}", mount.destination().display()))
    }
}

fn prepare(mount: &Mount, &Maker { dir, writable, label, users }: &Maker) -> Result<Option<Detached>> {
    let options = Options::parse(mount.options().as_deref().unwrap_or_default())?;
    let destination = mount.destination().clone();
    let kind = mount.typ().as_deref().unwrap_or_default();
    if let Some(recursive) = options.bind.or((kind == "bind").then_some(false)) {
        let of_file_system = ["sync", "dirsync", "iversion", "lazytime", "mand"];
        if let Some(fixed) = options.parameters.iter().find(|option| of_file_system.contains(&option.as_str())) {
            bail!("the option {fixed:?} is its file system's, which a bind mount cannot change");
        }
        if let Some(unknown) = options.parameters.first() {
            bail!("unknown option {unknown:?} of a bind mount");
        }
        ensure!(!options.copy_up, "tmpcopyup is an option of a tmpfs, not of a bind mount");
        let source = dir.join(mount.source().as_ref().context("a bind mount without a source")?);
        if options.nofail && !source.exists() {
            return Ok(None);
        }
        let above = writable.iter().filter(|above| source.starts_with(above) && source != **above);
        let above = above.filter(|_| !without(Defence::Sources));
        let within = above.min_by_key(|above| above.as_os_str().len());
        let wanted = mount;
        let mount =
            bind(&source, recursive, within).with_context(|| format!("opening the source {}", source.display()))?;
        users::show(&mount, wanted, &options, users)?;
        // The mounts below came as peers of the host's. Only where the container is to share do they stay so.
        if recursive && options.propagation.is_some_and(|(kind, below)| !below && kind != libc::MS_SHARED) {
            sys::mount_setattr(&mount, MountAttr::of(0, 0, libc::MS_SLAVE), true)
                .context("cutting off what is below")?;
        }
        // As other runtimes do: the container sees what the host mounts below later, and not the other way round.
        let (propagation, below) = options.propagation.unwrap_or((libc::MS_SLAVE, true));
        if !without(Defence::Propagation) {
            sys::mount_setattr(&mount, MountAttr::of(0, 0, propagation), below && recursive)
                .context("setting propagation")?;
        }
        return finish(mount, options, destination, false).map(Some);
    }
    ensure!(
        options.idmap.is_none() && users::own_map(mount).is_none(),
        "only a bind mount can show files under other numbers (idmap)"
    );
    if kind == "cgroup" || kind == "cgroup2" {
        let mut options = options;
        if !options.read_write {
            options.own.set |= READ_ONLY.set;
        }
        if without(Defence::Cgroup) {
            options.own.set &= !READ_ONLY.set;
        }
        return finish(cgroup::own()?, options, destination, false).map(Some);
    }
    ensure!(FRESH.contains(&kind), "the type {kind:?} is not supported");
    let source = mount.source().as_deref().and_then(Path::to_str).unwrap_or(kind);
    ensure!(!options.copy_up || kind == "tmpfs", "tmpcopyup is an option of a tmpfs, not of a {kind}");
    // The kernel gives /proc and /sys labels of their own, and refuses others there and on message queues.
    let label = label.filter(|_| !matches!(kind, "proc" | "sysfs" | "mqueue"));
    let own = users.map(|users| users.parameters(&options.parameters)).transpose()?;
    let mount = labelled(kind, source, own.as_ref().unwrap_or(&options.parameters), label)?;
    match (users, kind) {
        (Some(users), "mqueue") => users.own_mount(&mount, &[])?,
        (Some(users), "devpts") => users.own_mount(&mount, &["ptmx"])?,
        _ => {}
    }
    if let Some((propagation, _)) = options.propagation {
        sys::mount_setattr(&mount, MountAttr::of(0, 0, propagation), false).context("setting propagation")?;
    }
    finish(mount, options, destination, matches!(kind, "tmpfs" | "ramfs")).map(Some)
}

fn finish(mount: OwnedFd, options: Options, destination: PathBuf, ours: bool) -> Result<Detached> {
    let mut own = options.own;
    let seal = ours && own.set & READ_ONLY.set != 0;
    if seal {
        own.set &= !READ_ONLY.set;
    }
    sys::mount_setattr(&mount, own, false).context("setting its options")?;
    sys::mount_setattr(&mount, options.all, true).context("setting the options of it and all below")?;
    Ok(Detached { mount, destination, ours, seal, copy_up: options.copy_up })
}

/// The sources of bind mounts that the container may write to.
pub fn writable_sources(mounts: &[Mount], dir: &Path) -> Vec<PathBuf> {
    let writable = |mount: &&Mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        let bind = mount.typ().as_deref() == Some("bind")
            || options.iter().any(|option| matches!(&**option, "bind" | "rbind"));
        let last = options.iter().rev().find(|option| matches!(&***option, "ro" | "rw"));
        bind && last.is_none_or(|option| option == "rw")
    };
    mounts.iter().filter(writable).filter_map(|mount| Some(dir.join(mount.source().as_ref()?))).collect()
}

/// A copy of the host's mount at `source`, a path that below `within` has no symbolic link.
fn bind(source: &Path, recursive: bool, within: Option<&PathBuf>) -> Result<OwnedFd> {
    let below = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let Some(within) = within else {
        return Ok(open_tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | below)?);
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let folder = openat(CWD, within, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = openat2(folder, source.strip_prefix(within)?, flags, Mode::empty(), resolve)
        .with_context(|| format!("below {}, which the container may write", within.display()))?;
    Ok(copy_with(file, below)?)
}

/// A copy of a single file or folder of the host's, cut off from it.
pub fn of_host(path: &Path) -> Result<OwnedFd> {
    let mount = bind(path, false, None).with_context(|| format!("opening {}", path.display()))?;
    sys::mount_setattr(&mount, MountAttr::of(0, 0, libc::MS_PRIVATE), false)?;
    Ok(mount)
}

/// A copy of the mount at an open file or folder, without what is mounted below.
pub fn copy(file: impl AsFd) -> rustix::io::Result<OwnedFd> {
    copy_with(file, OpenTreeFlags::empty())
}

/// The same with everything mounted below.
pub fn copy_all(file: impl AsFd) -> rustix::io::Result<OwnedFd> {
    copy_with(file, OpenTreeFlags::AT_RECURSIVE)
}

fn copy_with(file: impl AsFd, flags: OpenTreeFlags) -> rustix::io::Result<OwnedFd> {
    let base = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(file, "", base | flags)
}

/// A new instance of a file system that needs no device.
pub fn fresh(kind: &str, source: &str, parameters: &[String]) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).with_context(|| format!("the kernel has no {kind}"))?;
    let configure = || -> rustix::io::Result<OwnedFd> {
        fsconfig_set_string(&context, "source", source)?;
        for parameter in parameters {
            match parameter.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                None => fsconfig_set_flag(&context, parameter.as_str())?,
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    match configure() {
        Ok(mount) => Ok(mount),
        Err(error) => {
            // The kernel's own words name the parameter, where it has any.
            let mut words = [0; 512];
            let length = File::from(context).read(&mut words).unwrap_or(0);
            let words = String::from_utf8_lossy(&words[..length]);
            match words.trim_start_matches("e ").trim() {
                "" => Err(anyhow!(error)),
                words => Err(anyhow!(error).context(words.to_owned())),
            }
        }
    }
}

/// The same, with an SELinux label for all its files.
pub fn labelled(kind: &str, source: &str, parameters: &[String], label: Option<&str>) -> Result<OwnedFd> {
    let context = label.map(|label| format!("context={label}"));
    fresh(kind, source, &parameters.iter().cloned().chain(context).collect::<Vec<_>>())
}

/// An empty folder, to hide another with.
pub fn empty() -> Result<OwnedFd> {
    fresh("tmpfs", "tmpfs", &["nr_inodes=1".into(), "mode=555".into()])
}

/// Attaches all of them in order.
pub fn attach(root: &mut rootfs::RootFs, detached: Vec<Detached>) -> Result<()> {
    for one in detached {
        let place = one.destination.clone();
        root.attach(one).with_context(|| format!("mounting {}", place.display()))?;
    }
    Ok(())
}
