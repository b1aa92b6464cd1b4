//! What a config.json may ask of this runtime. Everything else is refused before anything is made: a setting that is silently
//! left out would be a promise not kept.

use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Mount, Process, Spec, User};
use serde_json::Value;

use super::{hooks, schedule, seccomp, sysctl, users};
use crate::model::idmap::IdMap;

/// Refuses a spec that this runtime cannot carry out whole, naming the field.
///
/// Fields: <https://github.com/opencontainers/runtime-spec/blob/main/config.md>
pub fn supported(spec: &Spec) -> Result<()> {
    ensure!(is_known(spec.version()), "ociVersion {:?} is not known: 1.0 to 1.3 are", spec.version());
    ensure!(spec.root().is_some(), "root is missing");
    ensure!(spec.windows().is_none() && spec.solaris().is_none() && spec.vm().is_none(), "it is for another platform");
    ensure!(spec.zos().is_none(), "it is for another platform");
    if let Some(hooks) = spec.hooks() {
        hooks::check(hooks)?;
    }
    let Some(linux) = spec.linux() else { bail!("linux is missing") };
    check_linux(linux)?;
    let has = |kind| namespace(linux, kind);
    ensure!(spec.hostname().is_none() || has(LinuxNamespaceType::Uts), "hostname needs a uts namespace");
    ensure!(spec.domainname().is_none() || has(LinuxNamespaceType::Uts), "domainname needs a uts namespace");
    let Some(process) = spec.process() else { bail!("process is missing") };
    check_process(process)?;
    schedule::check(process.scheduler().as_ref(), process.io_priority().as_ref(), linux.personality().as_ref())?;
    let users = IdMap::of(linux)?;
    if let Some(users) = &users {
        check_user(process.user(), users)?;
        let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
        ensure!(
            !propagation.ends_with("shared"),
            "linux.rootfsPropagation {propagation:?} is not supported with a user namespace"
        );
    }
    for mount in spec.mounts().iter().flatten() {
        check_inside(mount.destination(), "mount destination")?;
        if let Some(map) = users::own_map(mount) {
            map.check("mounts").with_context(|| format!("the mount {}", mount.destination().display()))?;
        }
        ensure!(
            users.is_none() || !is_shared(mount),
            "the mount {} is shared, which its user namespace does not allow",
            mount.destination().display()
        );
        let shared = spec.mounts().iter().flatten().filter(|other| is_shared(other)).map(|other| other.destination());
        if let Some(above) = shared.into_iter().find(|above| below(mount.destination(), above)) {
            bail!(
                "the mount {} would show on the host, since {above:?} above it is shared",
                mount.destination().display()
            );
        }
    }
    Ok(())
}

/// True where the container gets, or joins, a namespace of this kind.
pub fn namespace(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind)
}

fn check_linux(linux: &Linux) -> Result<()> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (index, one) in namespaces.iter().enumerate() {
        let kind = one.typ();
        ensure!(namespaces[..index].iter().all(|other| other.typ() != kind), "namespace {kind} is there twice");
        ensure!(kind != LinuxNamespaceType::User || one.path().is_none(), "joining a user namespace is not supported");
        ensure!(
            kind != LinuxNamespaceType::Mount || one.path().is_none(),
            "joining a mount namespace is not supported"
        );
    }
    ensure!(namespace(linux, LinuxNamespaceType::Mount), "linux.namespaces must have a mount namespace");
    refuse(linux.net_devices(), "linux.netDevices", "a device of the host's would be gone from it after the stop")?;
    refuse(linux.intel_rdt(), "linux.intelRdt", "it is a group of resctrl, which would have to be made and removed")?;
    refuse(linux.memory_policy(), "linux.memoryPolicy", "use NUMAPolicy= and NUMAMask= in the unit")?;
    check_time(linux)?;
    if let Some(resources) = linux.resources() {
        check_resources(resources)?;
    }
    if let Some(seccomp) = linux.seccomp() {
        seccomp::check(seccomp)?;
    }
    for (key, value) in linux.sysctl().iter().flatten() {
        sysctl::check(linux, key, value)?;
    }
    for path in linux.masked_paths().iter().chain(linux.readonly_paths()).flatten() {
        check_inside(Path::new(path), "masked or read-only path")?;
    }
    for device in linux.devices().iter().flatten() {
        check_inside(device.path(), "device")?;
    }
    match linux.rootfs_propagation().as_deref() {
        None | Some("" | "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable") => Ok(()),
        Some(other) => bail!("linux.rootfsPropagation {other:?} is not known"),
    }
}

fn check_process(process: &Process) -> Result<()> {
    ensure!(process.args().as_ref().is_some_and(|args| !args.is_empty()), "process.args is empty");
    let user = process.user();
    let ids = [user.uid(), user.gid()].into_iter().chain(user.additional_gids().iter().flatten().copied());
    // To the kernel this number says "leave it as it is", and it is root's.
    ensure!(ids.into_iter().all(|id| id != u32::MAX), "process.user: {} is nobody's number", u32::MAX);
    ensure!(process.cwd().is_absolute(), "process.cwd {:?} is not absolute", process.cwd());
    let limits = process.rlimits().as_deref().unwrap_or_default();
    for (index, one) in limits.iter().enumerate() {
        let twice = limits[..index].iter().any(|other| other.typ() == one.typ());
        ensure!(!twice, "process.rlimits has {} twice", one.typ());
        ensure!(one.soft() <= one.hard(), "process.rlimits: the soft limit {} is above the hard one", one.typ());
    }
    Ok(())
}

/// Nobody could become a user that the namespace does not have.
fn check_user(user: &User, users: &IdMap) -> Result<()> {
    let uid = user.uid();
    ensure!(users.user(uid).is_some(), "process.user.uid {uid} is not in linux.uidMappings");
    for gid in [user.gid()].into_iter().chain(user.additional_gids().iter().flatten().copied()) {
        ensure!(users.group(gid).is_some(), "process.user: group {gid} is not in linux.gidMappings");
    }
    Ok(())
}

/// The versions of the specification, with what follows a patch number: "1.0.2", "1.3.0-rc.1".
fn is_known(version: &str) -> bool {
    let mut parts = version.split('.');
    parts.next() == Some("1")
        && parts.next().is_some_and(|minor| matches!(minor, "0" | "1" | "2" | "3"))
        && parts.next().is_some()
}

fn check_time(linux: &Linux) -> Result<()> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else { return Ok(()) };
    let mut namespaces = linux.namespaces().iter().flatten();
    ensure!(
        namespaces.any(|one| one.typ() == LinuxNamespaceType::Time && one.path().is_none()),
        "linux.timeOffsets needs a time namespace of the container's own"
    );
    for (clock, offset) in offsets {
        ensure!(
            matches!(clock.as_str(), "monotonic" | "boottime"),
            "linux.timeOffsets: the clock {clock:?} is neither monotonic nor boottime"
        );
        let nanoseconds = offset.nanosecs().unwrap_or_default();
        ensure!(
            nanoseconds < 1_000_000_000,
            "linux.timeOffsets: {nanoseconds} nanoseconds of {clock} are a second or more"
        );
    }
    Ok(())
}

/// Limits belong to the unit (MemoryMax= and so on). Device rules are let through: the unit's DeviceAllow= does that work.
fn check_resources(resources: &LinuxResources) -> Result<()> {
    let Value::Object(fields) = serde_json::to_value(resources)? else { return Ok(()) };
    for (name, value) in fields {
        ensure!(
            name == "devices" || is_unset(&value),
            "linux.resources.{name} is not applied here: set it in the unit (MemoryMax=, CPUQuota=, TasksMax=, ...)"
        );
    }
    Ok(())
}

fn is_shared(mount: &Mount) -> bool {
    mount.options().iter().flatten().any(|option| option == "shared" || option == "rshared")
}

fn below(path: &Path, above: &Path) -> bool {
    path != above && path.starts_with(above)
}

fn check_inside(path: &Path, what: &str) -> Result<()> {
    ensure!(path.is_absolute(), "{what} {path:?} is not absolute");
    ensure!(!path.components().any(|part| part == Component::ParentDir), "{what} {path:?} has a '..'");
    Ok(())
}

/// Refuses a field that says something.
fn refuse<T: serde::Serialize>(field: &Option<T>, name: &str, why: &str) -> Result<()> {
    ensure!(is_blank(&serde_json::to_value(field)?), "{name} is not supported: {why}");
    Ok(())
}

/// As [`is_blank`], of limits: other tools write 0 and -1 where they set none.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Number(number) => matches!(number.as_i64(), Some(0 | -1)),
        Value::Array(items) => items.is_empty(),
        // A swappiness of 0 is a wish like any other.
        Value::Object(fields) => {
            fields.iter().all(|(key, value)| is_unset(value) && (key != "swappiness" || value.is_null()))
        }
        other => is_blank(other),
    }
}

/// True for what other tools write where they mean nothing: null, false, "", [], {} and objects of only these.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_blank),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn minimal() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": true},
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/"},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
        })
    }

    fn check(spec: Value) -> Result<()> {
        supported(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_minimal_spec_is_supported() {
        check(minimal()).unwrap();
    }

    #[test]
    fn what_other_tools_leave_empty_is_no_reason_to_refuse() {
        let mut spec = minimal();
        spec["hooks"] = json!({"prestart": []});
        spec["linux"]["resources"] =
            json!({"devices": [{"allow": false, "access": "rwm"}], "memory": {"disableOOMKiller": false}});
        check(spec).unwrap();
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_name() {
        for (pointer, key, value, word) in [
            ("", "ociVersion", json!("2.0.0"), "ociVersion"),
            ("", "hooks", json!({"prestart": [{"path": "bin/x"}]}), "prestart hook"),
            ("", "hooks", json!({"poststop": [{"path": "/bin/x", "timeout": 0}]}), "no positive timeout"),
            ("", "ociVersion", json!("1.4.0"), "1.0 to 1.3"),
            ("", "hostname", json!("x"), "uts"),
            ("/process", "args", json!([]), "args"),
            ("/process", "cwd", json!("tmp"), "cwd"),
            ("/process", "user", json!({"uid": 4294967295_u32, "gid": 0}), "nobody's number"),
            ("/process", "user", json!({"uid": 0, "gid": 4294967295_u32}), "nobody's number"),
            ("/process", "user", json!({"uid": 5, "gid": 5, "additionalGids": [4294967295_u32]}), "nobody's number"),
            ("/process", "scheduler", json!({"policy": "SCHED_OTHER", "priority": 5}), "scheduler.priority"),
            ("/process", "scheduler", json!({"policy": "SCHED_BATCH", "nice": 20}), "scheduler.nice"),
            ("/process", "scheduler", json!({"policy": "SCHED_FIFO", "runtime": 5}), "SCHED_DEADLINE"),
            ("/process", "ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "ioPriority"),
            ("/process", "rlimits", json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]), "above the hard one"),
            (
                "/process",
                "rlimits",
                json!([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]),
                "twice",
            ),
            ("/linux", "personality", json!({"domain": "LINUX", "flags": ["X"]}), "personality.flags"),
            ("/linux", "timeOffsets", json!({"monotonic": {"secs": 1}}), "time namespace"),
            ("/linux", "intelRdt", json!({"closID": "x"}), "resctrl"),
            ("/linux", "netDevices", json!({"eth1": {"name": "eth0"}}), "netDevices"),
            ("/linux", "namespaces", json!([{"type": "pid"}]), "mount namespace"),
            ("/linux", "namespaces", json!([{"type": "mount"}, {"type": "user"}]), "linux.uidMappings"),
            ("/linux", "namespaces", json!([{"type": "mount"}, {"type": "user", "path": "/x"}]), "joining a user"),
            ("/linux", "uidMappings", json!([{"containerID": 0, "hostID": 9, "size": 1}]), "needs a user namespace"),
            ("/linux", "resources", json!({"pids": {"limit": 5}}), "resources.pids"),
            ("/linux", "seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "SCMP_ACT_NOTIFY"),
            ("/linux", "seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO"}), "refuses execve"),
            (
                "/linux",
                "seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_KILL"}]}),
                "refuses execve",
            ),
            ("/linux", "sysctl", json!({"kernel.panic": "1"}), "host's"),
            ("/linux", "sysctl", json!({"net.ipv4.ip_forward": "1"}), "net namespace"),
            ("/linux", "sysctl", json!({"net/../../kernel/panic": "1"}), "sysctl"),
            ("/linux", "maskedPaths", json!(["/proc/../etc"]), "'..'"),
            ("", "mounts", json!([{"destination": "data", "type": "bind"}]), "not absolute"),
            (
                "",
                "mounts",
                json!([{"destination": "/a", "type": "bind", "options": ["rshared"]}, {"destination": "/a/b", "type": "tmpfs"}]),
                "would show on the host",
            ),
        ] {
            let mut spec = minimal();
            spec.pointer_mut(pointer).unwrap()[key] = value;
            let error = check(spec).expect_err(key).to_string();
            assert!(error.contains(word), "{key}: {error}");
        }
    }
}
