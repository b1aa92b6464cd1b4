//! linux, but for seccomp: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md>

use serde_json::{Value, json};

use super::{Bundles, WORK, namespaces, user_namespace};

pub fn add(all: &mut Bundles) {
    spaces(all);
    users(all);
    devices(all);
    sysctls(all);
    paths(all);
    resources(all);
    rest(all);
}

/// The file that holds a namespace to join.
fn given(kind: &str) -> String {
    format!("{WORK}/ns/{kind}")
}

fn spaces(all: &mut Bundles) {
    for kind in ["pid", "ipc", "cgroup", "network", "mount"] {
        all.add(format!("namespace-{kind}-absent"), &[("/linux/namespaces", namespaces(kind, None))]);
    }
    let no_host_name = ("/hostname", Value::Null);
    all.add("namespace-uts-absent", &[("/linux/namespaces", namespaces("uts", None)), no_host_name.clone()]);
    all.add("namespaces-only-mount", &[("/linux/namespaces", json!([{"type": "mount"}])), no_host_name]);
    for (kind, file) in [("pid", "pid"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup"), ("network", "net")] {
        let joined = json!({"type": kind, "path": given(file)});
        all.add(format!("namespace-{kind}-joined"), &[("/linux/namespaces", namespaces(kind, Some(joined)))]);
    }
    all.add("namespace-time", &[("/linux/namespaces/-", json!({"type": "time"}))]);
    all.add("namespace-time-joined", &[("/linux/namespaces/-", json!({"type": "time", "path": given("time")}))]);
    let offsets = json!({"boottime": {"secs": 1000, "nanosecs": 5}, "monotonic": {"secs": 100}});
    all.add(
        "namespace-time-offsets",
        &[("/linux/namespaces/-", json!({"type": "time"})), ("/linux/timeOffsets", offsets.clone())],
    );
    all.add("time-offsets-without-namespace", &[("/linux/timeOffsets", offsets)]);
    let wrong = json!({"type": "network", "path": given("ipc")});
    all.add("namespace-of-another-kind", &[("/linux/namespaces", namespaces("network", Some(wrong)))]);
    let missing = json!({"type": "network", "path": "/no/such"});
    all.add("namespace-missing", &[("/linux/namespaces", namespaces("network", Some(missing)))]);
    let file = json!({"type": "network", "path": "/etc/hostname"});
    all.add("namespace-no-namespace", &[("/linux/namespaces", namespaces("network", Some(file)))]);
    all.add("namespace-twice", &[("/linux/namespaces/-", json!({"type": "pid"}))]);
    all.add("namespace-unknown", &[("/linux/namespaces/-", json!({"type": "bogus"}))]);
}

fn users(all: &mut Bundles) {
    all.add("namespace-user", &user_namespace());
    let map = |container: u32, host: u32, size: u32| json!({"containerID": container, "hostID": host, "size": size});
    let two = json!([map(0, 100_000, 1000), map(1000, 300_000, 10)]);
    all.add(
        "namespace-user-two-ranges",
        &[
            ("/linux/namespaces/-", json!({"type": "user"})),
            ("/linux/uidMappings", two.clone()),
            ("/linux/gidMappings", two),
        ],
    );
    all.add("namespace-user-without-mappings", &[("/linux/namespaces/-", json!({"type": "user"}))]);
    all.add("mappings-without-namespace", &user_namespace()[1..]);
    all.add("namespace-user-joined", &[("/linux/namespaces/-", json!({"type": "user", "path": given("user")}))]);
    let mut changes = user_namespace();
    changes.push(("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]})));
    all.add("namespace-user-as-1000", &changes);
    let mut changes = user_namespace();
    changes.push(("/process/user", json!({"uid": 70_000, "gid": 0})));
    all.add("namespace-user-unmapped", &changes);
}

fn devices(all: &mut Bundles) {
    for (name, device) in [
        ("plain", json!({"path": "/dev/probe", "type": "c", "major": 1, "minor": 3})),
        (
            "owned",
            json!({"path": "/dev/probe", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640, "uid": 7, "gid": 8}),
        ),
        ("block", json!({"path": "/dev/probe", "type": "b", "major": 7, "minor": 99, "fileMode": 0o600})),
        ("fifo", json!({"path": "/dev/probe", "type": "p", "fileMode": 0o622})),
        ("unbuffered", json!({"path": "/dev/probe", "type": "u", "major": 1, "minor": 5})),
        ("below", json!({"path": "/dev/net/probe", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666})),
        ("outside-dev", json!({"path": "/tmp/probe", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666})),
        ("in-the-image", json!({"path": "/var/probe", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666})),
        ("default-again", json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600})),
        ("in-anothers-place", json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666})),
        ("over-a-file", json!({"path": "/etc/file", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666})),
        ("relative", json!({"path": "dev/probe", "type": "c", "major": 1, "minor": 3})),
        ("unknown-type", json!({"path": "/dev/probe", "type": "x", "major": 1, "minor": 3})),
        ("without-number", json!({"path": "/dev/probe", "type": "c"})),
        ("set-user-id", json!({"path": "/dev/probe", "type": "c", "major": 1, "minor": 3, "fileMode": 0o4755})),
    ] {
        let look = device["path"].as_str().map(|path| json!(["/probe", format!("look:{path}")]));
        all.add(
            format!("device-{name}"),
            &[("/linux/devices", json!([device])), ("/process/args", look.unwrap_or_default())],
        );
    }
}

fn sysctls(all: &mut Bundles) {
    for (name, key, value) in [
        ("net", "net.ipv4.ip_forward", "1"),
        ("net-slashes", "net/ipv4/ip_unprivileged_port_start", "7"),
        ("shm", "kernel.shm_rmid_forced", "1"),
        ("msg", "kernel.msgmax", "9000"),
        ("sem", "kernel.sem", "32000 1024000000 500 32000"),
        ("mqueue", "fs.mqueue.msg_max", "20"),
        ("domain", "kernel.domainname", "example.org"),
        ("hosts", "kernel.printk_ratelimit", "5"),
        ("hosts-vm", "vm.stat_interval", "1"),
        ("missing", "net.bogus", "1"),
        ("bad-value", "net.ipv4.ip_forward", "bogus"),
        ("upwards", "net/../kernel/printk_ratelimit", "5"),
    ] {
        all.add(
            format!("sysctl-{name}"),
            &[
                ("/linux/sysctl", json!({key: value})),
                ("/process/args", json!(["/probe", format!("sysctl:{}", key.replace('/', "."))])),
            ],
        );
    }
    let without = ("/linux/namespaces", namespaces("network", None));
    all.add("sysctl-net-of-host", &[("/linux/sysctl", json!({"net.ipv4.ip_forward": "0"})), without]);
    all.add(
        "sysctl-hostname",
        &[
            ("/linux/sysctl", json!({"kernel.hostname": "other"})),
            ("/process/args", json!(["/probe", "sysctl:kernel.hostname"])),
        ],
    );
}

fn paths(all: &mut Bundles) {
    all.add("masked-none", &[("/linux/maskedPaths", Value::Null)]);
    all.add("read-only-none", &[("/linux/readonlyPaths", Value::Null)]);
    for (name, path) in [
        ("folder", "/data"),
        ("file", "/etc/file"),
        ("fifo", "/etc/fifo"),
        ("device", "/dev/zero"),
        ("missing", "/no/such"),
        ("link", "/to-data"),
        ("link-upwards", "/to-host"),
        ("root", "/"),
        ("relative", "data"),
        ("dots", "/data/../etc/file"),
        ("mount", "/tmp"),
        ("all-of-proc", "/proc"),
    ] {
        if path != "/" {
            all.add(format!("masked-{name}"), &[("/linux/maskedPaths", json!([path]))]);
        }
        all.add(format!("read-only-{name}"), &[("/linux/readonlyPaths", json!([path]))]);
    }
    all.add("masked-and-read-only", &[("/linux/maskedPaths/-", json!("/proc/sys"))]);
}

fn resources(all: &mut Bundles) {
    for (name, resources) in [
        ("devices", json!({"devices": [{"allow": false, "access": "rwm"}]})),
        (
            "devices-allowed",
            json!({"devices": [{"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]}),
        ),
        ("memory", json!({"memory": {"limit": 1_073_741_824}})),
        ("cpu", json!({"cpu": {"shares": 512}})),
        ("pids", json!({"pids": {"limit": 500}})),
        ("io", json!({"blockIO": {"weight": 500}})),
        ("huge-pages", json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]})),
        ("network", json!({"network": {"classID": 1_048_577}})),
        ("rdma", json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}})),
        ("unified", json!({"unified": {"memory.high": "1073741824"}})),
        ("empty", json!({"memory": {}, "cpu": {}, "devices": []})),
    ] {
        all.add(format!("resources-{name}"), &[("/linux/resources", resources)]);
    }
    let seen = namespaces("cgroup", None);
    for (name, path) in [("absolute", "/own/path"), ("relative", "own"), ("of-systemd", "own.slice:prefix:name")] {
        all.add(
            format!("cgroups-path-{name}"),
            &[("/linux/cgroupsPath", json!(path)), ("/linux/namespaces", seen.clone())],
        );
    }
}

fn rest(all: &mut Bundles) {
    for kind in ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable", "bogus"] {
        all.add(format!("propagation-{kind}"), &[("/linux/rootfsPropagation", json!(kind))]);
    }
    for domain in ["LINUX", "LINUX32", "BOGUS"] {
        all.add(format!("personality-{}", domain.to_lowercase()), &[("/linux/personality", json!({"domain": domain}))]);
    }
    all.add("mount-label-empty", &[("/linux/mountLabel", json!(""))]);
    all.add("mount-label", &[("/linux/mountLabel", json!("system_u:object_r:container_file_t:s0"))]);
    all.add("intel-rdt", &[("/linux/intelRdt", json!({"closID": "bogus"}))]);
    all.add("net-devices", &[("/linux/netDevices", json!({"bogus0": {}}))]);
    all.add("memory-policy", &[("/linux/memoryPolicy", json!({"mode": "MPOL_DEFAULT"}))]);
    all.add("linux-missing", &[("/linux", Value::Null)]);
}
