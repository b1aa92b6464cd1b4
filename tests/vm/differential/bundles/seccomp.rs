//! linux.seccomp: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp>

use serde_json::{Value, json};

use super::{Bundles, namespaces};

/// What the probe itself cannot do without, for filters that refuse by default.
pub const NEEDED: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "clone",
    "close",
    "execve",
    "exit",
    "exit_group",
    "fcntl",
    "fstat",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getpgid",
    "getpid",
    "getppid",
    "getrandom",
    "getresgid",
    "getresuid",
    "getrlimit",
    "getsid",
    "gettid",
    "getuid",
    "ioctl",
    "ioprio_get",
    "lseek",
    "lstat",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "open",
    "openat",
    "prctl",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_getattr",
    "set_robust_list",
    "set_tid_address",
    "stat",
    "statfs",
    "sysinfo",
    "umask",
    "uname",
    "unlink",
    "wait4",
    "write",
    "writev",
    // what a runtime itself does between loading the filter and the program
    "capset",
    "chdir",
    "close_range",
    "dup3",
    "epoll_ctl",
    "epoll_pwait",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fchown",
    "fstatfs",
    "nanosleep",
    "openat2",
    "pipe2",
    "sched_yield",
    "sendmsg",
    "setgid",
    "setgroups",
    "setresgid",
    "setresuid",
    "setsid",
    "setuid",
    "sigaltstack",
    "tgkill",
];

fn rule(names: &[&str], action: &str) -> Value {
    json!({"names": names, "action": action})
}

/// Lets everything through but for the rules.
fn but(rules: &[Value]) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

fn default(action: &str) -> Value {
    json!({"defaultAction": action, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule(NEEDED, "SCMP_ACT_ALLOW")]})
}

pub fn add(all: &mut Bundles) {
    let mut filter = |name: &str, seccomp: Value| all.add(format!("seccomp-{name}"), &[("/linux/seccomp", seccomp)]);
    for action in ["ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "TRACE", "LOG", "ALLOW", "NOTIFY", "BOGUS"] {
        let name = action.to_lowercase().replace('_', "-");
        let calls = ["mount", "acct", "keyctl"];
        filter(&format!("action-{name}"), but(&[rule(&calls, &format!("SCMP_ACT_{action}"))]));
    }
    for action in ["ERRNO", "LOG", "KILL", "TRACE"] {
        filter(&format!("default-{}", action.to_lowercase()), default(&format!("SCMP_ACT_{action}")));
    }
    let mut number = default("SCMP_ACT_ERRNO");
    number["defaultErrnoRet"] = json!(38);
    filter("default-errno-38", number);
    let mut number = rule(&["mount", "acct"], "SCMP_ACT_ERRNO");
    number["errnoRet"] = json!(95);
    filter("errno-95", but(&[number.clone()]));
    number["errnoRet"] = json!(0);
    filter("errno-0", but(&[number]));

    let compare = |op: &str, value: u64, two: Option<u64>| {
        let mut arg = json!({"index": 1, "value": value, "op": format!("SCMP_CMP_{op}")});
        if let Some(two) = two {
            arg["valueTwo"] = json!(two);
        }
        json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [arg]})
    };
    for op in ["NE", "LT", "LE", "EQ", "GE", "GT"] {
        filter(&format!("compare-{}", op.to_lowercase()), but(&[compare(op, 10, None)]));
    }
    filter("compare-masked-eq", but(&[compare("MASKED_EQ", 0xff, Some(10))]));
    filter("compare-large", but(&[compare("EQ", (1 << 32) + 10, None)]));
    filter("compare-largest", but(&[compare("EQ", u64::MAX, None)]));
    let args = |args: Value| json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": args});
    let arg = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    filter("two-arguments", but(&[args(json!([arg(1, 11), arg(2, 1)]))]));
    filter("one-argument-twice", but(&[args(json!([arg(1, 9), arg(1, 11)]))]));
    filter("argument-out-of-range", but(&[args(json!([arg(6, 1)]))]));
    filter("two-rules-of-one-call", but(&[args(json!([arg(1, 9)])), args(json!([arg(1, 10)]))]));
    let mut other = args(json!([arg(1, 9)]));
    other["errnoRet"] = json!(71);
    filter("two-rules-two-numbers", but(&[args(json!([arg(1, 10)])), other]));
    filter("unknown-call", but(&[rule(&["bogus_call", "mount"], "SCMP_ACT_ERRNO")]));
    filter("no-rules", but(&[]));
    filter("rule-as-the-default", but(&[rule(&["mount"], "SCMP_ACT_ALLOW")]));

    for (name, architectures) in [
        ("absent", Value::Null),
        ("native", json!(["SCMP_ARCH_X86_64"])),
        ("three", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])),
        ("foreign", json!(["SCMP_ARCH_AARCH64"])),
        ("unknown", json!(["SCMP_ARCH_BOGUS"])),
    ] {
        let mut seccomp = but(&[rule(&["mount", "getpid"], "SCMP_ACT_ERRNO")]);
        seccomp["architectures"] = architectures;
        filter(&format!("architectures-{name}"), seccomp);
    }
    for flag in ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV", "BOGUS"] {
        let mut seccomp = but(&[rule(&["mount"], "SCMP_ACT_ERRNO")]);
        seccomp["flags"] = json!([format!("SECCOMP_FILTER_FLAG_{flag}")]);
        filter(&format!("flag-{}", flag.to_lowercase().replace('_', "-")), seccomp);
    }
    let mut seccomp = but(&[rule(&["mount"], "SCMP_ACT_ERRNO")]);
    seccomp["listenerPath"] = json!("/run/no-listener");
    filter("listener", seccomp);
    with_privileges(all);
}

/// The filter goes into force at another moment where new privileges can be had.
fn with_privileges(all: &mut Bundles) {
    let seccomp = ("/linux/seccomp", but(&[rule(&["mount", "acct"], "SCMP_ACT_ERRNO")]));
    let off = ("/process/noNewPrivileges", json!(false));
    let user = ("/process/user", json!({"uid": 1000, "gid": 1000}));
    all.add("seccomp-with-new-privileges", &[seccomp.clone(), off.clone()]);
    all.add("seccomp-with-new-privileges-as-1000", &[seccomp.clone(), off, user.clone()]);
    all.add("seccomp-as-1000", &[seccomp.clone(), user]);
    all.add("seccomp-in-the-hosts-namespaces", &[seccomp, ("/linux/namespaces", namespaces("pid", None))]);
    // What a runtime does after the filter is in force must not be what the filter refuses.
    for (name, call) in
        [("execve", "execve"), ("capset", "capset"), ("setuid", "setresuid"), ("close-range", "close_range")]
    {
        let filter = but(&[rule(&[call], "SCMP_ACT_ERRNO")]);
        all.add(format!("seccomp-refuses-{name}"), &[("/linux/seccomp", filter.clone())]);
        all.add(
            format!("seccomp-refuses-{name}-with-new-privileges"),
            &[("/linux/seccomp", filter), ("/process/noNewPrivileges", json!(false))],
        );
    }
}
