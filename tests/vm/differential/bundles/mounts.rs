//! mounts: <https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts>

use serde_json::{Value, json};

use super::{Bundles, WORK};

/// Every option of the table of Linux mount options.
const OPTIONS: [&str; 57] = [
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "rnoatime",
    "rnodiratime",
    "rnodev",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "unbindable",
];

/// The folder of the host that has two more file systems below.
fn source() -> String {
    format!("{WORK}/source")
}

fn bind(options: &[&str]) -> Value {
    json!({"destination": "/data", "type": "none", "source": source(), "options": options})
}

fn tmpfs(options: &[&str]) -> Value {
    json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options})
}

pub fn add(all: &mut Bundles) {
    for option in OPTIONS {
        all.add(format!("bind-{option}"), &[("/mounts/-", bind(&["rbind", option]))]);
    }
    for option in
        ["ro", "noexec", "noatime", "dirsync", "sync", "lazytime", "iversion", "mand", "rro", "shared", "slave"]
    {
        all.add(format!("tmpfs-{option}"), &[("/mounts/-", tmpfs(&[option]))]);
    }
    for (name, options) in [
        ("mode", &["mode=700"][..]),
        ("size", &["size=64k", "nr_inodes=20"]),
        ("owner", &["uid=7", "gid=8"]),
        ("unknown-option", &["bogus"]),
        ("unknown-value", &["mode=bogus"]),
        ("copy-up", &["tmpcopyup"]),
    ] {
        all.add(format!("tmpfs-{name}"), &[("/mounts/-", tmpfs(options))]);
    }
    binds(all);
    places(all);
    kinds(all);
}

fn binds(all: &mut Bundles) {
    all.add("bind-alone", &[("/mounts/-", bind(&["bind"]))]);
    all.add("bind-recursive", &[("/mounts/-", bind(&["rbind"]))]);
    all.add("bind-ro-nosuid-nodev-noexec", &[("/mounts/-", bind(&["rbind", "ro", "nosuid", "nodev", "noexec"]))]);
    all.add("bind-ro-rw", &[("/mounts/-", bind(&["rbind", "ro", "rw"]))]);
    all.add("bind-rw-ro", &[("/mounts/-", bind(&["rbind", "rw", "ro"]))]);
    all.add("bind-unknown-option", &[("/mounts/-", bind(&["rbind", "bogus"]))]);
    all.add("bind-copy-up", &[("/mounts/-", bind(&["rbind", "tmpcopyup"]))]);
    let mount = |source: &str, destination: &str| json!({"destination": destination, "type": "bind", "source": source, "options": ["bind", "ro"]});
    all.add(
        "bind-by-type-alone",
        &[("/mounts/-", json!({"destination": "/data", "type": "bind", "source": source()}))],
    );
    all.add("bind-file", &[("/mounts/-", mount(&format!("{}/file", source()), "/etc/file"))]);
    all.add("bind-file-over-folder", &[("/mounts/-", mount(&format!("{}/file", source()), "/data"))]);
    all.add("bind-folder-over-file", &[("/mounts/-", mount(&source(), "/etc/file"))]);
    all.add("bind-source-missing", &[("/mounts/-", mount("/no/such", "/data"))]);
    all.add("bind-source-relative", &[("/mounts/-", mount("markers", "/data"))]);
    all.add("bind-from-shared", &[("/mounts/-", mount(&format!("{WORK}/shared"), "/data"))]);
    let shared = json!({"destination": "/data", "type": "bind", "source": format!("{WORK}/shared"),
        "options": ["rbind", "rslave"]});
    all.add("bind-slave-of-shared", &[("/mounts/-", shared)]);
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    for option in ["idmap", "ridmap"] {
        let mut mapped = bind(&["rbind", option]);
        all.add(format!("bind-{option}-unsaid"), &[("/mounts/-", mapped.clone())]);
        mapped["uidMappings"] = map.clone();
        mapped["gidMappings"] = map.clone();
        all.add(format!("bind-{option}"), &[("/mounts/-", mapped)]);
    }
    let mut mapped = bind(&["rbind"]);
    mapped["uidMappings"] = map.clone();
    mapped["gidMappings"] = map;
    all.add("bind-mappings", &[("/mounts/-", mapped)]);
}

fn places(all: &mut Bundles) {
    let at = |destination: &str| json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]});
    for (name, destination) in [
        ("missing", "/no/such/place"),
        ("relative", "data"),
        ("dots", "/data/../etc"),
        ("link", "/to-data"),
        ("link-upwards", "/to-host"),
        ("link-loop", "/loop"),
        ("root", "/"),
        ("in-tmpfs", "/tmp/made/here"),
        ("in-proc", "/proc/self"),
        ("twice", "/tmp"),
    ] {
        all.add(format!("place-{name}"), &[("/mounts/-", at(destination))]);
    }
    all.add("mounts-none", &[("/mounts", json!([]))]);
    all.add("mounts-absent", &[("/mounts", Value::Null)]);
}

fn kinds(all: &mut Bundles) {
    let kind = |kind: &str, options: &[&str]| json!({"destination": "/data", "type": kind, "source": kind, "options": options});
    for (name, mount) in [
        ("ramfs", kind("ramfs", &["mode=700"])),
        ("proc", kind("proc", &["ro"])),
        ("proc-options", kind("proc", &["hidepid=2", "subset=pid"])),
        ("sysfs", kind("sysfs", &[])),
        ("devpts", kind("devpts", &["newinstance"])),
        ("cgroup", kind("cgroup", &[])),
        ("cgroup-writable", kind("cgroup", &["rw", "nosuid"])),
        ("cgroup2", kind("cgroup2", &["ro"])),
        ("unknown", kind("bogus", &[])),
        ("none", json!({"destination": "/data"})),
    ] {
        all.add(format!("kind-{name}"), &[("/mounts/-", mount)]);
    }
    let overlay = json!({"destination": "/data", "type": "overlay", "source": "overlay",
        "options": [format!("lowerdir={}", source()), "upperdir=BUNDLE/upper", "workdir=BUNDLE/work"]});
    all.add("kind-overlay", &[("/mounts/-", overlay)]);
    let overlay = json!({"destination": "/data", "type": "overlay", "source": "overlay",
        "options": [format!("lowerdir={}:{WORK}/shared", source())]});
    all.add("kind-overlay-read-only", &[("/mounts/-", overlay)]);
}
