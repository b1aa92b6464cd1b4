//! The bundles: one plain container, and that container with one directive of the specification changed at a time, then some
//! in pairs where one directive changes what another does.

mod hooks;
mod linux;
mod mounts;
mod pairs;
mod process;
mod seccomp;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The folder in the machine that everything lies in.
pub const WORK: &str = "/var/lib/differential";

/// A container to run by each runtime.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Letters, digits and '-'.
    pub name: String,
    /// Its config.json.
    pub spec: Value,
    /// The folder in the machine that its root file system is copied from; without one, the common small tree.
    pub tree: Option<String>,
}

/// Collects bundles that differ from the plain one.
#[derive(Debug, Default)]
struct Bundles(Vec<Bundle>);

impl Bundles {
    /// The plain bundle with changes: JSON pointers and what they become. Null removes; a pointer that ends in `/-` appends.
    fn add(&mut self, name: impl Into<String>, changes: &[(&str, Value)]) {
        let name = name.into();
        let mut spec = plain();
        for (pointer, value) in changes {
            let text = value.to_string().replace("BUNDLE", &format!("{WORK}/run/{name}"));
            let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            change(&mut spec, pointer, value).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
        self.0.push(Bundle { name, spec, tree: None });
    }
}

/// Every bundle but those of images.
pub fn all() -> Vec<Bundle> {
    let mut all = Bundles::default();
    all.add("plain", &[]);
    process::add(&mut all);
    mounts::add(&mut all);
    linux::add(&mut all);
    seccomp::add(&mut all);
    hooks::add(&mut all);
    pairs::add(&mut all);
    all.0
}

/// A container as an install made it, with the probe as its program.
pub fn of_image(name: &str, config: &str, tree: &str) -> Result<Bundle> {
    let mut spec = serde_json::from_str(config).with_context(|| format!("reading the config.json of {name}"))?;
    change(&mut spec, "/process/args", json!(["/probe"]))?;
    Ok(Bundle { name: format!("image-{name}"), spec, tree: Some(tree.to_owned()) })
}

fn change(spec: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let (parent, key) = pointer.rsplit_once('/').with_context(|| format!("{pointer:?} is no pointer"))?;
    let mut place = spec;
    for part in parent.split('/').skip(1) {
        place = match part.parse::<usize>() {
            Ok(index) if place.is_array() => place.get_mut(index).context("no such element")?,
            _ => &mut place[part],
        };
    }
    match (key, value) {
        ("-", value) => match place {
            Value::Array(all) => all.push(value),
            other => *other = json!([value]),
        },
        (key, Value::Null) => drop(place.as_object_mut().context("not an object")?.remove(key)),
        (key, value) => match key.parse::<usize>() {
            Ok(index) if place.is_array() => place[index] = value,
            _ => place[key] = value,
        },
    }
    Ok(())
}

const CAPABILITIES: [&str; 11] = [
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

/// What a service without wishes gets, more or less.
fn plain() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "inside",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/probe"],
            "env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES}
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
        ],
        "linux": {
            "namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}, {"type": "network"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/scsi", "/proc/timer_list", "/sys/devices/virtual/powercap", "/sys/firmware"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// The namespaces of the plain bundle without one kind, and with `more`.
fn namespaces(without: &str, more: Option<Value>) -> Value {
    let kinds = ["mount", "pid", "ipc", "uts", "cgroup", "network"];
    let kept = kinds.into_iter().filter(|kind| *kind != without).map(|kind| json!({"type": kind}));
    kept.chain(more).collect()
}

/// A user namespace whose root is the host's 100000.
fn user_namespace() -> Vec<(&'static str, Value)> {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    vec![
        ("/linux/namespaces/-", json!({"type": "user"})),
        ("/linux/uidMappings", map.clone()),
        ("/linux/gidMappings", map),
    ]
}

#[test]
fn there_are_at_least_150_bundles_and_no_two_are_the_same() {
    let all = all();
    assert!(all.len() >= 150, "{}", all.len());
    for (index, one) in all.iter().enumerate() {
        assert!(one.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{}", one.name);
        for other in &all[..index] {
            assert!(one.name != other.name && one.spec != other.spec, "{} and {}", one.name, other.name);
        }
    }
}
