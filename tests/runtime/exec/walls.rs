//! What an executed program may do, and what the container sees of it.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command};

use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use super::{Running, on_terminal, printed, until};
use crate::support::Bundle;

const FILTER: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;

#[test]
fn the_program_is_confined_as_the_main_process_is() {
    for sealed in [true, false] {
        let running = Running::new(|bundle| {
            bundle
                .with("/linux", "seccomp", serde_json::from_str(FILTER).unwrap())
                .with("/process", "noNewPrivileges", json!(sealed))
                .with("/process", "rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]))
        });
        let wanted = |file: &str, of: &str, lines: &[&str]| {
            let text = fs::read_to_string(format!("/proc/{of}/{file}")).unwrap_or_default();
            let text = if of == "self" { running.prints(&format!("cat /proc/self/{file}")) } else { text };
            let lines = text.lines().filter(|line| lines.iter().any(|start| line.starts_with(start)));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let main = running.pid.to_string();
        for (file, lines) in [
            ("status", &["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp:", "Seccomp_filters", "Umask"][..]),
            ("status", &["SigBlk"]),
            ("limits", &["Max"]),
        ] {
            let main = wanted(file, &main, lines);
            assert!(!main.is_empty() && wanted(file, "self", lines) == main, "{sealed} {file}: {main:#?}");
        }
        for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup", "user"] {
            let main = fs::read_link(format!("/proc/{main}/ns/{kind}")).unwrap();
            assert_eq!(running.prints(&format!("readlink /proc/self/ns/{kind}")).trim(), main.to_str().unwrap());
        }
        assert!(running.prints("hostname new 2>&1 || true").contains("Function not implemented"));
        assert_eq!(running.prints("readlink /proc/self/root; pwd; cat /etc/own"), "/\n/\nthe image's own\n");
    }
}

#[test]
fn it_runs_where_the_main_process_runs_or_where_config_json_says() {
    let pick = |list: Value| {
        let running = Running::new(|bundle| match list.is_null() {
            true => bundle,
            false => bundle.with("/process", "execCPUAffinity", json!({ "final": list })),
        });
        assert!(
            Command::new("taskset").args(["-pc", "0", &running.pid.to_string()]).output().unwrap().status.success()
        );
        assert!(Command::new("renice").args(["5", "-p", &running.pid.to_string()]).output().unwrap().status.success());
        running.prints("grep Cpus_allowed_list /proc/self/status; cut -d' ' -f19 /proc/self/stat")
    };
    assert_eq!(pick(Value::Null), "Cpus_allowed_list:\t0\n5\n");
    assert_eq!(pick(json!("1")), "Cpus_allowed_list:\t1\n5\n");
}

#[test]
fn only_its_three_streams_are_open_and_none_is_the_callers() {
    let running = Running::new(|bundle| bundle);
    let mine = File::create(running.bundle.path().join("out")).unwrap();
    fcntl_setfd(&mine, FdFlags::empty()).unwrap(); // one that the caller forgot to close
    let (mut command, _pidfd, _request) = running.command(json!({"args": ["ls", "-l", "/proc/self/fd"]}));
    assert!(command.stdout(mine).status().unwrap().success());
    let listed = fs::read_to_string(running.bundle.path().join("out")).unwrap();
    let targets: Vec<&str> = listed.lines().filter_map(|line| line.rsplit_once(" -> ")).map(|it| it.1).collect();
    assert!(targets.len() == 3 && targets.iter().all(|target| target.starts_with("pipe:")), "{listed}");
}

#[test]
fn a_container_that_watches_sees_nothing_of_the_host_in_who_comes_in() {
    // Root in the container, who may even trace, looks at each new process for as long as it can: at its root, its working folder,
    // and its descriptors.
    let watch = "echo up; while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) \
        r=$(ls $p/root/); case \"$r\" in *usr*) echo root $p $r;; esac; \
        ls -l $p/fd | grep -E ' -> /' | grep -vE ' -> (/dev/null|/proc/[0-9]+/fd|/data/seen)$'; readlink $p/cwd | grep -v '^/$'; \
        esac; done; done > /data/seen 2>/dev/null";
    let host = tempfile::tempdir().unwrap();
    let ptrace = json!(["CAP_SYS_PTRACE"]);
    let capable = json!({"bounding": ptrace, "effective": ptrace, "permitted": ptrace});
    let bundle = Bundle::script(watch).binding(host.path(), "/data", &["bind"]);
    let running = Running::of(bundle.with("/process", "capabilities", capable));
    let seen = || fs::read_to_string(host.path().join("seen")).unwrap();
    for _ in 0..40 {
        let (mut command, _pidfd, _request) = running.command(json!({"args": ["true"]}));
        let mine = File::open("/etc").unwrap();
        fcntl_setfd(&mine, FdFlags::empty()).unwrap();
        assert!(command.status().unwrap().success());
    }
    assert_eq!(seen(), "");
    // The control: somebody who comes in as careless programs do is seen.
    let pid = running.pid.to_string();
    let careless = Command::new("nsenter").args(["--target", &pid, "--pid", "sleep", "2"]).status().unwrap();
    assert!(careless.success() && seen().contains("root /proc/"), "{:?}", seen());
}

#[test]
fn a_working_folder_or_accounts_behind_a_link_to_the_hosts_lead_nowhere() {
    let running = Running::new(|bundle| {
        symlink("/dev/null", bundle.root().join("etc/passwd")).unwrap();
        bundle
    });
    for number in 3..12 {
        let output = running.exec_with(json!({"args": ["true"], "workdir": format!("/proc/self/fd/{number}")}));
        assert_eq!(output.status.code(), Some(125), "{number}: {output:?}");
    }
    let output = running.exec_with(json!({"args": ["true"], "user": "web"}));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/etc/passwd of the container is no file"), "{said}");
}

/// A container whose users 0 to 65535 are 100000 to 165535 of the host, made by hand.
fn with_other_users() -> (Running, Child) {
    let bundle = Bundle::script("true");
    drop(bundle.command()); // writes config.json
    fs::set_permissions(bundle.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let root = bundle.root();
    fs::create_dir_all(root.join("dev/pts")).unwrap();
    fs::create_dir(root.join("old")).unwrap();
    let holder = Command::new("unshare").args(["--user", "sleep", "100"]).spawn().unwrap();
    let users = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).unwrap();
    let id = holder.id().to_string();
    until("a user namespace", || users(&id) != users("self"));
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{id}/{map}"), "0 100000 65536").unwrap();
    }
    let inner = format!(
        "mount --bind {0} {0} && cd {0} && mount -t proc proc proc \
         && mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts && pivot_root . old \
         && exec /bin/sh -c 'cd /; /bin/busybox umount -l /old; echo up; exec /bin/sleep 100'",
        root.display()
    );
    let mut command = Command::new("nsenter");
    command.args(["--target", &id, "--user", "--setuid", "0", "--setgid", "0"]);
    command.args([
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--uts",
        "--ipc",
        "--cgroup",
        "sh",
        "-c",
        &inner,
    ]);
    (Running::started(bundle, command), holder)
}

#[test]
fn a_user_namespace_is_joined_and_its_root_owns_what_the_program_gets() {
    let (running, mut holder) = with_other_users();
    let script = "id -u; cat /proc/self/uid_map; stat -L -c %u /proc/self/fd/1; echo x > /proc/self/fd/1; readlink /proc/self/ns/user";
    let wanted = fs::read_link(format!("/proc/{}/ns/user", running.pid)).unwrap().display().to_string();
    for (user, uid) in [(json!(null), 0), (json!("33:44"), 33)] {
        let output = running.exec_with(json!({"args": ["sh", "-c", script], "user": user}));
        let said = printed(output).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(said, format!("{uid} 0 100000 65536 {uid} x {wanted}"));
        let request = json!({"args": ["sh", "-c", "id -u; stat -c %u /dev/pts/0; echo x > /dev/pts/0"], "user": user, "terminal": true});
        let (command, _pidfd, _request) = running.command(request);
        let (code, said) = on_terminal(&command, "true");
        assert_eq!((code, said.replace('\r', "")), (0, format!("{uid}\n{uid}\nx\n")));
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
}
