//! Two directives at once, where the one changes what the other does.

use serde_json::{Value, json};

use super::{Bundles, WORK, namespaces, seccomp::NEEDED, user_namespace};

pub fn add(all: &mut Bundles) {
    let as_1000 = ("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}));
    let keeps = json!(["CAP_NET_BIND_SERVICE", "CAP_KILL"]);
    let ambient = |set: &[&str]| -> Value {
        set.iter().map(|one| ((*one).to_owned(), keeps.clone())).collect::<serde_json::Map<_, _>>().into()
    };
    let sets = ["bounding", "effective", "permitted", "inheritable", "ambient"];
    all.add("capabilities-of-1000-ambient", &[as_1000.clone(), ("/process/capabilities", ambient(&sets))]);
    all.add("capabilities-of-1000-without-ambient", &[as_1000.clone(), ("/process/capabilities", ambient(&sets[..4]))]);
    all.add(
        "capabilities-of-1000-not-inheritable",
        &[as_1000.clone(), ("/process/capabilities", ambient(&["bounding", "effective", "permitted", "ambient"]))],
    );
    all.add(
        "capabilities-of-1000-with-new-privileges",
        &[as_1000.clone(), ("/process/capabilities", ambient(&sets)), ("/process/noNewPrivileges", json!(false))],
    );
    all.add("cwd-of-1000", &[as_1000.clone(), ("/process/cwd", json!("/tmp"))]);
    all.add("device-for-1000", &[
        as_1000.clone(),
        ("/linux/devices", json!([{"path": "/dev/probe", "type": "c", "major": 1, "minor": 3, "uid": 1000, "gid": 1000, "fileMode": 0o600}])),
        ("/process/args", json!(["/probe", "look:/dev/probe"])),
    ]);
    all.add(
        "limits-of-1000",
        &[as_1000.clone(), ("/process/rlimits", json!([{"type": "RLIMIT_NPROC", "soft": 50, "hard": 60}]))],
    );
    all.add("terminal-of-1000", &[as_1000, ("/process/terminal", json!(true))]);
    all.add(
        "terminal-without-pts",
        &[
            ("/process/terminal", json!(true)),
            ("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}])),
        ],
    );
    all.add("umask-and-cwd", &[("/process/user/umask", json!(0o27)), ("/process/cwd", json!("/data"))]);
    mounts(all);
    files(all);
    spaces(all);
    seccomp(all);
}

fn mounts(all: &mut Bundles) {
    let bind = |source: &str, destination: &str, options: &[&str]| json!({"destination": destination, "type": "bind", "source": format!("{WORK}/{source}"), "options": options});
    let tmpfs = |destination: &str, options: &[&str]| json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options});
    let more = |all: &mut Bundles, name: &str, mounts: Vec<Value>| {
        let changes: Vec<(&str, Value)> = mounts.into_iter().map(|mount| ("/mounts/-", mount)).collect();
        all.add(name, &changes);
    };
    more(all, "mount-under-a-bind", vec![bind("source", "/data", &["bind"]), tmpfs("/data/below", &["mode=700"])]);
    more(all, "mount-in-a-read-only-tmpfs", vec![tmpfs("/run", &["ro"]), bind("source", "/run/a/b", &["bind"])]);
    more(all, "mount-over-a-mount", vec![tmpfs("/data", &["mode=700"]), bind("source", "/data", &["rbind", "ro"])]);
    more(all, "mount-above-a-mount", vec![tmpfs("/data/below", &[]), tmpfs("/data", &["mode=700"])]);
    more(all, "ro-and-rro", vec![bind("source", "/data", &["rbind", "rro", "rw"])]);
    more(all, "rro-and-ro", vec![bind("source", "/data", &["rbind", "ro", "rnoexec"])]);
    more(
        all,
        "dev-bound-from-host",
        vec![json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]})],
    );
    more(all, "proc-again-below-tmp", vec![json!({"destination": "/tmp/proc", "type": "proc", "source": "proc"})]);
    more(
        all,
        "sys-bound-from-host",
        vec![json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]})],
    );
    for (propagation, mount) in [("rshared", "rslave"), ("rprivate", "rshared"), ("rslave", "rprivate")] {
        all.add(
            format!("propagation-{propagation}-of-root-{mount}-of-a-bind"),
            &[
                ("/linux/rootfsPropagation", json!(propagation)),
                ("/mounts/-", bind("shared", "/data", &["rbind", mount])),
            ],
        );
    }
    all.add(
        "root-writable-mount-point-missing",
        &[("/root/readonly", json!(false)), ("/mounts/-", tmpfs("/new/place", &[]))],
    );
    all.add(
        "root-writable-and-propagation",
        &[("/root/readonly", json!(false)), ("/linux/rootfsPropagation", json!("rshared"))],
    );
}

fn files(all: &mut Bundles) {
    let bind =
        json!({"destination": "/data", "type": "bind", "source": format!("{WORK}/source"), "options": ["rbind"]});
    all.add(
        "masked-in-a-bind",
        &[("/mounts/-", bind.clone()), ("/linux/maskedPaths", json!(["/data/below", "/data/file"]))],
    );
    all.add("read-only-in-a-bind", &[("/mounts/-", bind.clone()), ("/linux/readonlyPaths", json!(["/data/below"]))]);
    all.add("read-only-above-a-mount", &[("/mounts/-", bind), ("/linux/readonlyPaths", json!(["/data"]))]);
    all.add(
        "masked-device-asked-for",
        &[
            ("/linux/maskedPaths", json!(["/dev/probe"])),
            ("/linux/devices", json!([{"path": "/dev/probe", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}])),
            ("/process/args", json!(["/probe", "look:/dev/probe"])),
        ],
    );
    all.add(
        "masked-without-proc",
        &[
            ("/mounts", json!([{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}])),
            ("/linux/maskedPaths", json!(["/proc/keys", "/data"])),
        ],
    );
    all.add(
        "sysctl-read-only-and-masked",
        &[("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})), ("/linux/maskedPaths", json!(["/proc/sys/net"]))],
    );
    all.add(
        "root-writable-read-only-path",
        &[("/root/readonly", json!(false)), ("/linux/readonlyPaths", json!(["/etc"]))],
    );
}

fn spaces(all: &mut Bundles) {
    let joined =
        |kind: &str, file: &str| namespaces(kind, Some(json!({"type": kind, "path": format!("{WORK}/ns/{file}")})));
    all.add(
        "hostname-in-a-joined-namespace",
        &[("/linux/namespaces", joined("uts", "uts")), ("/hostname", json!("joined"))],
    );
    all.add(
        "sysctl-in-a-joined-network",
        &[
            ("/linux/namespaces", joined("network", "net")),
            ("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "9"})),
            ("/process/args", json!(["/probe", "sysctl:net.ipv4.ip_unprivileged_port_start"])),
        ],
    );
    all.add("host-pid-and-proc", &[("/linux/namespaces", namespaces("pid", None)), ("/linux/maskedPaths", json!([]))]);
    all.add(
        "host-ipc-and-mqueue",
        &[("/linux/namespaces", namespaces("ipc", None)), ("/linux/readonlyPaths", json!(["/dev/mqueue"]))],
    );
    all.add(
        "host-cgroup-and-writable-mount",
        &[
            ("/linux/namespaces", namespaces("cgroup", None)),
            ("/mounts/6/options", json!(["rw", "nosuid", "noexec", "nodev"])),
        ],
    );
    all.add(
        "host-network-and-sysfs",
        &[
            ("/linux/namespaces", namespaces("network", None)),
            ("/mounts/5/options", json!(["nosuid", "noexec", "nodev"])),
        ],
    );
    let with_user = |more: Vec<(&'static str, Value)>| user_namespace().into_iter().chain(more).collect::<Vec<_>>();
    all.add(
        "user-namespace-and-devices",
        &with_user(vec![
            ("/linux/devices", json!([{"path": "/dev/probe", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}])),
            ("/process/args", json!(["/probe", "look:/dev/probe"])),
        ]),
    );
    all.add("user-namespace-and-bind", &with_user(vec![(
        "/mounts/-",
        json!({"destination": "/data", "type": "bind", "source": format!("{WORK}/source"), "options": ["rbind", "ro"]}),
    )]));
    all.add(
        "user-namespace-on-the-hosts-network",
        &with_user(vec![
            ("/linux/namespaces/5", json!({"type": "user"})),
            ("/linux/namespaces/6", json!({"type": "time"})),
        ]),
    );
    all.add("user-namespace-and-sysctl", &with_user(vec![("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))]));
    all.add("user-namespace-and-terminal", &with_user(vec![("/process/terminal", json!(true))]));
    all.add("user-namespace-writable-root", &with_user(vec![("/root/readonly", json!(false))]));
}

fn seccomp(all: &mut Bundles) {
    let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": NEEDED, "action": "SCMP_ACT_ALLOW"}]});
    let caps = json!(["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]);
    let sets = json!({"bounding": caps, "effective": caps, "permitted": caps});
    all.add("seccomp-and-capabilities", &[("/linux/seccomp", filter.clone()), ("/process/capabilities", sets.clone())]);
    all.add(
        "seccomp-and-host-pid",
        &[("/linux/seccomp", filter.clone()), ("/linux/namespaces", namespaces("pid", None))],
    );
    let mut with_user = user_namespace();
    with_user.push(("/linux/seccomp", filter.clone()));
    all.add("seccomp-in-a-user-namespace", &with_user);
    all.add(
        "seccomp-and-new-privileges",
        &[("/linux/seccomp", filter), ("/process/noNewPrivileges", json!(false)), ("/process/capabilities", sets)],
    );
}
