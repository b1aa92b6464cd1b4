//! The default filter of system calls, tried from inside.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sysctr::model::{seccomp, spec::DEFAULT_CAPABILITIES};

use crate::support::Bundle;

const EPERM: i32 = 1;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;

/// What the filter itself says to a program that lacks no capability.
const REFUSED: [(&str, i32); 14] = [
    ("bpf", EPERM),
    ("perf_event_open", EPERM),
    ("sethostname", EPERM),
    ("open_by_handle_at", EPERM),
    ("init_module", EPERM),
    ("swapon", EPERM),
    ("userfaultfd", EPERM),
    ("kcmp", EPERM),
    ("acct", EPERM),
    ("settimeofday", EPERM),
    ("add_key", ENOSYS),
    ("io_uring_setup", ENOSYS),
    ("another personality", ENOSYS),
    ("socket of the audit", EINVAL),
];

/// What the filter lets through: what becomes of these is the kernel's to say.
const ALLOWED: [&str; 6] =
    ["getppid", "personality of now", "socket", "unshare nothing", "mount", "new mount namespace"];

fn default_filter(capabilities: &[&str]) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let held: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
    serde_json::to_value(seccomp::default(architecture, &held).unwrap()).unwrap()
}

/// What the calls give in a container with these capabilities and this filter.
fn tried(capabilities: &[&str], filter: Option<Value>) -> BTreeMap<String, i32> {
    let mut bundle = Bundle::running(&["/calls"]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtime/calls.c");
    let built =
        Command::new("cc").args(["-static", "-o"]).args([&bundle.root().join("calls"), &source]).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    bundle.spec["process"]["capabilities"] =
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
    if let Some(filter) = filter {
        bundle.spec["linux"]["seccomp"] = filter;
        bundle.prepares();
    }
    let line =
        |line: &str| line.rsplit_once(' ').map(|(name, errno)| (name.to_owned(), errno.parse().unwrap())).unwrap();
    bundle.prints().lines().map(line).collect()
}

#[test]
fn the_default_filter_refuses_what_it_names_even_to_who_has_the_capability() {
    let more = [
        "SYS_ADMIN",
        "DAC_READ_SEARCH",
        "SYS_MODULE",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_TIME",
        "BPF",
        "PERFMON",
        "AUDIT_WRITE",
    ];
    let more: Vec<String> = more.map(|name| format!("CAP_{name}")).to_vec();
    let all: Vec<&str> = DEFAULT_CAPABILITIES.into_iter().chain(more.iter().map(String::as_str)).collect();
    let without = tried(&all, None);
    let under = tried(&all, Some(default_filter(&DEFAULT_CAPABILITIES)));
    assert_eq!(under.len(), REFUSED.len() + ALLOWED.len());
    for (name, errno) in REFUSED {
        assert_eq!(under[name], errno, "{name}");
        // The control: without the filter it gives something else, but where the kernel lacks the call.
        assert!(without[name] != errno || without[name] == ENOSYS, "{name} gives {errno} without the filter too");
    }
    for name in ALLOWED {
        assert_eq!(under[name], without[name], "{name}");
    }
    // Who was granted the capabilities has the calls that they are for.
    let granted = tried(&all, Some(default_filter(&all)));
    for name in [
        "bpf",
        "sethostname",
        "open_by_handle_at",
        "init_module",
        "kcmp",
        "acct",
        "settimeofday",
        "socket of the audit",
    ] {
        assert_eq!(granted[name], without[name], "{name}");
    }
    assert_eq!(granted["swapon"], EPERM);
}

#[test]
fn a_container_of_the_defaults_reaches_none_of_them() {
    let calls = tried(&DEFAULT_CAPABILITIES, Some(default_filter(&DEFAULT_CAPABILITIES)));
    for (name, errno) in REFUSED.into_iter().chain([("mount", EPERM), ("new mount namespace", EPERM)]) {
        assert_eq!(calls[name], errno, "{name}");
    }
    for name in ["getppid", "personality of now", "socket", "unshare nothing"] {
        assert_eq!(calls[name], 0, "{name}");
    }
}

#[test]
fn the_default_filter_is_in_force() {
    let bundle = Bundle::script("grep Seccomp /proc/self/status");
    let bundle = bundle.with("/linux", "seccomp", default_filter(&DEFAULT_CAPABILITIES));
    bundle.prepares();
    let printed = bundle.prints();
    assert!(printed.contains("Seccomp:\t2\n"), "{printed}");
}

#[test]
fn a_filter_need_not_allow_what_the_launcher_does_to_its_descriptors() {
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["close_range", "no_call_of_this_kernel"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    ]});
    for sealed in [false, true] {
        let bundle = Bundle::script("grep Seccomp: /proc/self/status; ls /proc/self/fd")
            .with("/linux", "seccomp", filter.clone())
            .with("/process", "noNewPrivileges", json!(sealed));
        assert_eq!(bundle.prints(), "Seccomp:\t2\n0\n1\n2\n3\n");
    }
}
