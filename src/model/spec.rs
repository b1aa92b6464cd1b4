//! The OCI runtime configuration (`config.json`) of a container, made from the image's own config and its manifest
//! ([config.md](https://github.com/opencontainers/runtime-spec/blob/main/config.md)).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use oci_spec::{
    image::ImageConfiguration,
    runtime::{LinuxSeccomp, Spec},
};
use serde_json::{Value as Json, json};

use super::{
    id_range,
    manifest::{Container, Network, Shared, Users},
    name::ContainerName,
    user::User,
};

mod mounts;

pub(super) use mounts::bind;
pub use mounts::{MountPoint, mount_points};

/// What podman and docker grant by default: enough for a daemon that binds a low port and drops to its own user.
pub const DEFAULT_CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Every capability of capabilities(7).
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT \
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE \
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

/// Where programs are looked for, unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Hidden from the container: what tells about the host, or reaches into it.
pub const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Shown to the container, but not writable.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Says to the runtime that the program itself reports readiness.
pub const NOTIFY: &str = "org.sysctr.notify";
/// Says to the runtime that setuid programs of the image count.
pub const SETUID: &str = "org.sysctr.setuid";
/// The container's name, for the runtime's messages.
pub const NAME: &str = "org.sysctr.name";
/// The mount may be missing on the host, as nofail in fstab(5).
pub const NOFAIL: &str = "nofail";

/// What goes into the configuration, already resolved.
#[allow(missing_docs)]
pub struct Inputs<'a> {
    pub name: &'a ContainerName,
    pub image: &'a ImageConfiguration,
    pub container: &'a Container,
    pub user: &'a User,
    /// The manifest's own, rendered.
    pub args: Option<Vec<String>>,
    /// The manifest's own, rendered.
    pub env: BTreeMap<String, String>,
    /// Host folder and where it appears, writable.
    pub state: Vec<(String, String)>,
    /// The filter of system calls.
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// The first number of a range of the host's for its users, where it asks for users of its own.
    pub range: Option<u32>,
}

/// Makes the configuration.
pub fn generate(inputs: &Inputs) -> Result<Spec> {
    let config = inputs.image.config().as_ref();
    let container = inputs.container;
    let args = match &inputs.args {
        Some(args) => args.clone(),
        None => {
            let part = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
            [part(config.and_then(|c| c.entrypoint().as_ref())), part(config.and_then(|c| c.cmd().as_ref()))].concat()
        }
    };
    if args.is_empty() {
        bail!("the image names no program: its config has neither Entrypoint nor Cmd");
    }
    let image_dir = config.and_then(|c| c.working_dir().as_deref()).filter(|dir| !dir.is_empty());
    let cwd = container.workdir.as_deref().or(image_dir).unwrap_or("/");

    let own = Shared::ALL.into_iter().filter(|(kind, _)| !container.share.contains(kind)).map(|(_, name)| name);
    let mut namespaces: Vec<&str> = own.chain(["mount"]).collect();
    if container.network == Network::Private {
        namespaces.push("network");
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs", "readonly": container.readonly != Some(false) },
        "process": {
            "terminal": false,
            "user": { "uid": inputs.user.uid, "gid": inputs.user.gid, "additionalGids": inputs.user.groups },
            "args": args,
            "env": environment(inputs),
            "cwd": cwd,
            "capabilities": capabilities(container, inputs.user.uid)?,
            "noNewPrivileges": true,
        },
        "mounts": mounts::mounts(inputs),
        "linux": {
            "devices": [],
            "maskedPaths": if container.unmasked { &[][..] } else { &MASKED[..] },
            "readonlyPaths": if container.unmasked { &[][..] } else { &READ_ONLY[..] },
        },
        "annotations": { NAME: inputs.name.as_str(), NOTIFY: container.notify.to_string() },
    });
    if container.userns == Users::Auto {
        let first = inputs.range.context("container.userns: no range of the host's user numbers is free")?;
        let map = json!([{ "containerID": 0, "hostID": first, "size": id_range::WIDTH }]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        namespaces.push("user");
    }
    spec["linux"]["namespaces"] = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
    if let Some(filter) = inputs.seccomp {
        spec["linux"]["seccomp"] = serde_json::to_value(filter).context("writing linux.seccomp")?;
    }
    serde_json::from_value(spec).context("making config.json")
}

/// The text of config.json, the same for the same configuration: the sets of capabilities have no order of their own.
pub fn to_text(spec: &Spec) -> Result<String> {
    let mut json = serde_json::to_value(spec).context("writing config.json")?;
    if let Some(sets) = json.pointer_mut("/process/capabilities").and_then(Json::as_object_mut) {
        for names in sets.values_mut().filter_map(Json::as_array_mut) {
            names.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        }
    }
    Ok(serde_json::to_string_pretty(&json).context("writing config.json")? + "\n")
}

/// The image's variables, then the manifest's; PATH and HOME where neither has them.
fn environment(inputs: &Inputs) -> Vec<String> {
    let mut variables =
        BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("HOME".to_owned(), inputs.user.home.clone())]);
    let image = inputs.image.config().as_ref().and_then(|config| config.env().clone()).unwrap_or_default();
    let pairs =
        image.iter().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
    variables.extend(pairs.chain(inputs.env.clone()));
    variables.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// The five sets. A program that is not root gets only what its manifest adds, as ambient capabilities.
fn capabilities(container: &Container, uid: u32) -> Result<Json> {
    let (set, add) = (bounding(container)?, added(container)?);
    Ok(match uid {
        0 => json!({ "bounding": set, "effective": set, "permitted": set, "inheritable": [], "ambient": [] }),
        _ => json!({ "bounding": set, "effective": add, "permitted": add, "inheritable": add, "ambient": add }),
    })
}

/// Whether the program says itself when it is ready.
pub fn notifies(spec: &Spec) -> bool {
    spec.annotations().as_ref().and_then(|all| all.get(NOTIFY)).is_some_and(|given| given == "true")
}

/// All that the container can ever hold.
pub fn bounding(container: &Container) -> Result<Vec<String>> {
    let drop = full_names(&container.capabilities.drop).context("container.capabilities.drop")?;
    let mut set: Vec<String> = DEFAULT_CAPABILITIES.map(str::to_owned).into_iter().chain(added(container)?).collect();
    set.retain(|name| !drop.contains(name));
    set.sort();
    set.dedup();
    Ok(set)
}

/// Every capability that there is.
pub fn every_capability() -> impl Iterator<Item = String> {
    CAPABILITIES.split_whitespace().map(|name| format!("CAP_{name}"))
}

fn added(container: &Container) -> Result<Vec<String>> {
    full_names(&container.capabilities.add).context("container.capabilities.add")
}

fn full_names(names: &[String]) -> Result<Vec<String>> {
    names.iter().map(|name| capability(name)).collect()
}

/// The full name of a capability, `CAP_` before it or not, in any case.
pub fn capability(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if !CAPABILITIES.split_whitespace().any(|known| known == short) {
        bail!("{name:?} is no capability");
    }
    Ok(format!("CAP_{short}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::manifest::Manifest;

    fn spec(image: &str, manifest: &str, uid: u32) -> Result<Spec> {
        let image: ImageConfiguration = serde_json::from_str(image)?;
        let manifest = Manifest::parse(manifest)?;
        let user = User { uid, gid: uid, groups: vec![], home: "/".into() };
        generate(&Inputs {
            name: &"a".parse().expect("a name"),
            image: &image,
            container: &manifest.container,
            user: &user,
            args: manifest.container.args.clone(),
            env: manifest.container.env.clone(),
            state: vec![("/var/lib/a".into(), "/var/lib/a".into())],
            seccomp: None,
            range: Some(1_000_000),
        })
    }

    const IMAGE: &str = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Entrypoint": ["/a"], "Cmd": ["b"], "Env": ["X=1", "PATH=/bin"], "WorkingDir": "/srv"}}"#;

    #[test]
    fn the_image_config_alone_makes_a_contained_process() {
        let spec = spec(IMAGE, r#"{"version": "2.0"}"#, 0).expect("a spec");
        let process = spec.process().as_ref().expect("a process");
        assert_eq!(process.args().as_deref(), Some(&["/a".to_owned(), "b".to_owned()][..]));
        assert_eq!(process.env().as_deref(), Some(&["HOME=/".to_owned(), "PATH=/bin".into(), "X=1".into()][..]));
        assert_eq!(process.cwd().to_string_lossy(), "/srv");
        assert_eq!(process.no_new_privileges(), Some(true));
        assert_eq!(spec.root().as_ref().and_then(|root| root.readonly()), Some(true));
    }

    #[test]
    fn users_of_its_own_are_mapped_and_state_is_shown_as_theirs() {
        let manifest = r#"{"version": "2.0", "container": {"userns": "auto",
            "mounts": [{"source": "/srv", "target": "/srv"}, {"source": "/opt", "target": "/opt", "options": ["idmap"]}]}}"#;
        let spec = serde_json::to_value(spec(IMAGE, manifest, 0).expect("a spec")).expect("json");
        let map = json!([{"containerID": 0, "hostID": 1_000_000, "size": 65_536}]);
        assert_eq!((&spec["linux"]["uidMappings"], &spec["linux"]["gidMappings"]), (&map, &map));
        assert!(spec["linux"]["namespaces"].as_array().expect("a list").contains(&json!({"type": "user"})));
        let mapped = |place: &str| {
            let mounts = spec["mounts"].as_array().expect("a list");
            let mount = mounts.iter().find(|mount| mount["destination"] == place).expect(place);
            mount["options"].as_array().expect("a list").contains(&json!("ridmap"))
        };
        let shown = ["/var/lib/a", "/opt", "/srv", "/etc/hosts"].map(mapped);
        assert_eq!(shown, [true, true, false, false]);
    }

    #[test]
    fn what_is_shared_and_mounted_of_the_host_is_as_it_is_there() {
        let manifest = r#"{"version": "2.0", "container": {"share": ["pid", "cgroup"], "unmasked": true, "mounts": [
            {"source": "/dev", "target": "/dev", "options": ["dev", "suid", "rslave"]},
            {"source": "/sys", "target": "/sys", "options": ["rslave"]},
            {"source": "/srv", "target": "/srv", "options": ["rshared"]}]}}"#;
        let spec = serde_json::to_value(spec(IMAGE, manifest, 0).expect("a spec")).expect("json");
        let kinds: Vec<&str> = spec["linux"]["namespaces"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|one| one["type"].as_str())
            .collect();
        assert_eq!(kinds, ["ipc", "uts", "mount"]);
        assert_eq!((&spec["linux"]["maskedPaths"], &spec["linux"]["readonlyPaths"]), (&json!([]), &json!([])));
        let mounts = spec["mounts"].as_array().expect("a list");
        let options = |place: &str| {
            mounts.iter().find(|mount| mount["destination"] == place).map(|mount| mount["options"].clone())
        };
        assert_eq!(options("/dev"), Some(json!(["rbind", "rslave"])));
        assert_eq!(options("/sys"), Some(json!(["rbind", "rnosuid", "rnodev", "rslave"])));
        assert_eq!(options("/srv"), Some(json!(["rbind", "rnosuid", "rnodev", "rshared"])));
        // What every container has there would hide the host's.
        for place in ["/dev/pts", "/dev/shm", "/dev/mqueue", "/sys/fs/cgroup"] {
            assert_eq!(options(place), None, "{place}");
        }
        assert!(options("/proc").is_some() && options("/run").is_some());
        let bad = r#"{"version": "2.0", "container": {"share": ["mount"]}}"#;
        assert!(Manifest::parse(bad).expect_err("no such namespace").to_string().contains("mount"));
    }

    #[test]
    fn a_user_that_is_not_root_holds_only_what_was_added() {
        let manifest =
            r#"{"version": "2.0", "container": {"capabilities": {"add": ["net_admin"], "drop": ["CAP_KILL"]}}}"#;
        let spec = spec(IMAGE, manifest, 5).expect("a spec");
        let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref()).expect("capabilities");
        assert_eq!(sets.effective().as_ref().map(|set| set.len()), Some(1));
        assert_eq!(sets.bounding().as_ref().map(|set| set.len()), Some(11));
        let bad = r#"{"version": "2.0", "container": {"capabilities": {"add": ["fly"]}}}"#;
        assert!(format!("{:#}", super::tests::spec(IMAGE, bad, 0).expect_err("no capability")).contains("\"fly\""));
    }

    #[test]
    fn mount_points_are_what_the_checkout_must_have() {
        let manifest = r#"{"version": "2.0", "container": {"mounts": [{"source": "/run/x", "target": "/run/x"}, {"source": "/srv", "target": "/srv"}]}}"#;
        let spec = spec(IMAGE, manifest, 0).expect("a spec");
        let points = mount_points(&"a".parse().expect("a name"), &spec, |_| false);
        assert!(
            points.contains(&MountPoint::Folder("/srv".into()))
                && points.contains(&MountPoint::Folder("/var/lib/a".into()))
        );
        assert!(points.contains(&MountPoint::File("/etc/hosts".into())));
        for kind in ["/var/cache", "/var/log", "/etc"] {
            assert!(points.contains(&MountPoint::FolderIfFree(format!("{kind}/a"))), "{kind}");
        }
        assert!(
            !points
                .iter()
                .any(|point| matches!(point, MountPoint::Folder(path) if path == "/run/x" || path == "/dev/pts"))
        );
    }
}
