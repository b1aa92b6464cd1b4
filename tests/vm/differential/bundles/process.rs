//! root, hostname, annotations, process: <https://github.com/opencontainers/runtime-spec/blob/main/config.md>

use serde_json::{Value, json};

use super::{Bundles, CAPABILITIES, namespaces};

pub fn add(all: &mut Bundles) {
    container(all);
    program(all);
    user(all);
    limits(all);
    capabilities(all);
    scheduling(all);
}

fn container(all: &mut Bundles) {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0", "0.1.0", "2.0.0", "bogus"] {
        all.add(format!("version-{}", version.replace('.', "-")), &[("/ociVersion", json!(version))]);
    }
    all.add("root-writable", &[("/root/readonly", json!(false))]);
    all.add("root-unsaid", &[("/root/readonly", Value::Null)]);
    all.add("root-absolute", &[("/root/path", json!("BUNDLE/rootfs"))]);
    all.add("root-missing", &[("/root/path", json!("nowhere"))]);
    all.add("hostname-absent", &[("/hostname", Value::Null)]);
    all.add("hostname-without-namespace", &[("/linux/namespaces", namespaces("uts", None))]);
    all.add("hostname-too-long", &[("/hostname", json!("x".repeat(65)))]);
    all.add("domainname", &[("/domainname", json!("example.org"))]);
    all.add("annotations", &[("/annotations", json!({"org.example.key": "value"}))]);
    all.add("unknown-field", &[("/org.example", json!({"a": 1}))]);
    all.add("process-missing", &[("/process", Value::Null)]);
}

fn program(all: &mut Bundles) {
    let args: [(&str, Value); 12] = [
        ("by-path", json!(["probe"])),
        ("relative", json!(["./probe"])),
        ("by-link", json!(["/etc/to-probe"])),
        ("several", json!(["/probe", "", "a b", "\u{e9}\"\\"])),
        ("status-7", json!(["/probe", "exit:7"])),
        ("missing", json!(["/no/such"])),
        ("missing-in-path", json!(["no-such"])),
        ("interpreter-missing", json!(["/bin/broken"])),
        ("no-program", json!(["/bin/garbage"])),
        ("not-executable", json!(["/bin/forbidden"])),
        ("a-folder", json!(["/data"])),
        ("empty", json!([])),
    ];
    for (name, args) in args {
        all.add(format!("args-{name}"), &[("/process/args", args)]);
    }
    for (name, cwd) in [
        ("tmp", "/tmp"),
        ("link", "/to-data"),
        ("link-upwards", "/to-host"),
        ("missing", "/no/such"),
        ("file", "/etc/file"),
        ("relative", "tmp"),
        ("of-proc", "/proc/self/cwd"),
        ("leaked-descriptor", "/proc/self/fd/7"),
        ("dots", "/tmp/../data"),
    ] {
        all.add(format!("cwd-{name}"), &[("/process/cwd", json!(cwd))]);
    }
    for (name, env) in [
        ("none", Value::Null),
        ("twice", json!(["PATH=/bin", "A=1", "A=2"])),
        ("empty-value", json!(["PATH=/bin", "A="])),
        ("no-equals", json!(["PATH=/bin", "A"])),
        ("home", json!(["PATH=/bin", "HOME=/data"])),
        ("not-ascii", json!(["PATH=/bin", "A=\u{e9} \n$B"])),
    ] {
        all.add(format!("env-{name}"), &[("/process/env", env)]);
    }
    // The host's, through a descriptor: a root in the container owns it just as well.
    all.add("args-chmod-of-stdin", &[("/process/args", json!(["/probe", "chmod:/proc/self/fd/0"]))]);
    all.add("terminal", &[("/process/terminal", json!(true))]);
    let size = json!({"height": 40, "width": 120});
    all.add("terminal-size", &[("/process/terminal", json!(true)), ("/process/consoleSize", size.clone())]);
    all.add("size-without-terminal", &[("/process/consoleSize", size)]);
}

fn user(all: &mut Bundles) {
    all.add("user-uid", &[("/process/user/uid", json!(1000))]);
    all.add("user-gid", &[("/process/user/gid", json!(1000))]);
    all.add("user-nobody", &[("/process/user", json!({"uid": 65534, "gid": 65534}))]);
    all.add("user-largest", &[("/process/user", json!({"uid": 4_294_967_294_u32, "gid": 4_294_967_294_u32}))]);
    all.add("user-groups", &[("/process/user/additionalGids", json!([5, 1000, 5]))]);
    all.add("user-umask", &[("/process/user/umask", json!(0o77))]);
    all.add("user-umask-zero", &[("/process/user/umask", json!(0))]);
    all.add("no-new-privileges-off", &[("/process/noNewPrivileges", json!(false))]);
    all.add("no-new-privileges-unsaid", &[("/process/noNewPrivileges", Value::Null)]);
}

fn limits(all: &mut Bundles) {
    for (kind, soft, hard) in [
        ("CPU", 100_u64, 200_u64),
        ("FSIZE", 1 << 30, 1 << 31),
        ("DATA", 1 << 30, 1 << 31),
        ("STACK", 4 << 20, 8 << 20),
        ("CORE", 0, 0),
        ("RSS", 1 << 30, 1 << 31),
        ("NPROC", 500, 600),
        ("NOFILE", 64, 128),
        ("MEMLOCK", 4096, 8192),
        ("AS", 1 << 33, 1 << 34),
        ("LOCKS", 10, 20),
        ("SIGPENDING", 10, 20),
        ("MSGQUEUE", 1000, 2000),
        ("NICE", 0, 0),
        ("RTPRIO", 0, 0),
        ("RTTIME", 100_000, 200_000),
    ] {
        let limit = json!([{"type": format!("RLIMIT_{kind}"), "soft": soft, "hard": hard}]);
        all.add(format!("rlimit-{}", kind.to_lowercase()), &[("/process/rlimits", limit)]);
    }
    let limit = |kind: &str, soft: u64, hard: u64| json!({"type": kind, "soft": soft, "hard": hard});
    let core = |soft, hard| limit("RLIMIT_CORE", soft, hard);
    all.add("rlimit-twice", &[("/process/rlimits", json!([core(0, 0), core(0, 1)]))]);
    all.add("rlimit-unknown", &[("/process/rlimits", json!([limit("RLIMIT_BOGUS", 1, 1)]))]);
    all.add("rlimit-soft-above-hard", &[("/process/rlimits", json!([core(2, 1)]))]);
}

fn capabilities(all: &mut Bundles) {
    all.add("capabilities-absent", &[("/process/capabilities", Value::Null)]);
    all.add("capabilities-empty", &[("/process/capabilities", json!({}))]);
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        all.add(
            format!("capabilities-only-{set}"),
            &[("/process/capabilities", json!({set: ["CAP_KILL", "CAP_CHOWN"]}))],
        );
        let pointer = format!("/process/capabilities/{set}");
        let fewer =
            if matches!(set, "inheritable" | "ambient") { json!(["CAP_KILL"]) } else { json!(CAPABILITIES[..4]) };
        all.add(format!("capabilities-changed-{set}"), &[(&pointer, fewer)]);
    }
    let makes = json!(["CAP_MKNOD"]);
    all.add(
        "capability-mknod",
        &[
            ("/process/capabilities", json!({"bounding": makes, "effective": makes, "permitted": makes})),
            ("/process/args", json!(["/probe", "device"])),
        ],
    );
    let three = json!(["CAP_KILL", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]);
    let sets =
        json!({"bounding": three, "effective": three, "permitted": three, "inheritable": three, "ambient": three});
    all.add("capabilities-in-all-sets", &[("/process/capabilities", sets)]);
    all.add("capabilities-unknown", &[("/process/capabilities/bounding/-", json!("CAP_BOGUS"))]);
    all.add("capabilities-lower-case", &[("/process/capabilities/bounding", json!(["cap_kill"]))]);
    all.add("capabilities-without-prefix", &[("/process/capabilities/bounding", json!(["KILL"]))]);
}

fn scheduling(all: &mut Bundles) {
    for score in [0, 200, 1000, 2000] {
        all.add(format!("oom-score-{score}"), &[("/process/oomScoreAdj", json!(score))]);
    }
    for (name, scheduler) in [
        ("other", json!({"policy": "SCHED_OTHER", "nice": 5})),
        ("batch", json!({"policy": "SCHED_BATCH", "nice": 3})),
        ("idle", json!({"policy": "SCHED_IDLE"})),
        ("fifo", json!({"policy": "SCHED_FIFO", "priority": 7})),
        ("round-robin", json!({"policy": "SCHED_RR", "priority": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]})),
        (
            "deadline",
            json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 9_000_000, "period": 10_000_000}),
        ),
        ("unknown", json!({"policy": "SCHED_BOGUS"})),
    ] {
        all.add(format!("scheduler-{name}"), &[("/process/scheduler", scheduler)]);
    }
    for (name, class, priority) in
        [("best-effort", "IOPRIO_CLASS_BE", 7), ("idle", "IOPRIO_CLASS_IDLE", 0), ("realtime", "IOPRIO_CLASS_RT", 2)]
    {
        all.add(
            format!("io-priority-{name}"),
            &[("/process/ioPriority", json!({"class": class, "priority": priority}))],
        );
    }
    all.add("cpu-affinity-of-exec", &[("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}))]);
    all.add("apparmor-empty", &[("/process/apparmorProfile", json!(""))]);
    all.add("apparmor-profile", &[("/process/apparmorProfile", json!("bogus"))]);
    all.add("selinux-empty", &[("/process/selinuxLabel", json!(""))]);
    all.add("selinux-label", &[("/process/selinuxLabel", json!("system_u:system_r:container_t:s0"))]);
}
