//! The program as it is started: who it is, what it may do, what it gets, and how its end is told.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{Bundle, RUNTIME};

#[test]
fn it_has_no_new_privileges_and_only_the_capabilities_named() {
    let printed = Bundle::script("grep -E '^(NoNewPrivs|Cap)' /proc/self/status").prints();
    let wanted = ["CapInh:\t0000000000000000", "CapPrm:\t0000000000000021", "CapEff:\t0000000000000021"];
    for line in wanted.into_iter().chain(["CapBnd:\t0000000000000021", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"]) {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
}

#[test]
fn without_capabilities_named_it_has_none() {
    let mut bundle = Bundle::script("grep -E '^Cap(Eff|Bnd)' /proc/self/status");
    bundle.spec["process"].as_object_mut().unwrap().remove("capabilities");
    assert_eq!(bundle.prints(), "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n");
}

#[test]
fn another_user_keeps_what_is_ambient() {
    let bind = json!(["CAP_NET_BIND_SERVICE"]);
    let printed = Bundle::script("id -u; id -g; id -G; umask; grep -E '^Cap(Eff|Amb)' /proc/self/status")
        .with("/process", "user", json!({"uid": 998, "gid": 997, "additionalGids": [5, 6], "umask": 0o27}))
        .with(
            "/process",
            "capabilities",
            json!({"bounding": bind, "effective": bind, "permitted": bind, "inheritable": bind, "ambient": bind}),
        )
        .prints();
    assert_eq!(printed, "998\n997\n997 5 6\n0027\nCapEff:\t0000000000000400\nCapAmb:\t0000000000000400\n");
}

#[test]
fn a_program_of_root_alone_runs_as_root_and_as_nobody_else() {
    let bundle = Bundle::running(&["true"]);
    fs::set_permissions(bundle.root().join("bin/busybox"), fs::Permissions::from_mode(0o700)).unwrap();
    bundle.prints();
    let error = bundle.with("/process", "user", json!({"uid": 998, "gid": 998})).fails();
    assert!(error.contains("may not be executed by user 998"), "{error}");
}

#[test]
fn signals_are_as_the_launcher_was_given_them() {
    let bundle = Bundle::running(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    bundle.command(); // writes config.json
    // As systemd executes a service by default, and with IgnoreSIGPIPE=no.
    let mut seen = std::collections::BTreeSet::new();
    for trap in ["trap '' PIPE", "trap - PIPE", "trap '' PIPE HUP USR1"] {
        let of = |what: String| {
            let output = Command::new("sh").args(["-c", &format!("{trap}; exec {what}")]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let plain = of("grep -E '^Sig(Blk|Ign)' /proc/self/status".into());
        let ours = of(format!("{RUNTIME} run {}", bundle.path().display()));
        assert_eq!(ours, plain, "{trap}");
        seen.insert(plain);
    }
    assert_eq!(seen.len(), 3, "a plain program sees no difference: {seen:?}");
}

/// Runs the launcher as systemd does: its environment names it as the process that systemd executed.
fn as_systemd(bundle: &Bundle, environment: &str) -> std::process::Output {
    bundle.command();
    let run = format!(
        "exec env -i SYSTEMD_EXEC_PID=$$ PATH=/usr/local/bin:/usr/bin {environment} {RUNTIME} run {}",
        bundle.path().display()
    );
    Command::new("sh").args(["-c", &run]).output().unwrap()
}

#[test]
fn what_the_unit_sets_wins_over_config_json_and_the_hosts_own_stays_behind() {
    let bundle = Bundle::running(&["env"]).with("/process", "env", json!(["PATH=/bin", "A=image", "LANG=x"]));
    let output = as_systemd(&bundle, "A=unit B='c d' LANG=C.UTF-8 MANAGERPIDFDID=7");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed, "PATH=/bin\nLANG=x\nA=unit\nB=c d\nSYSTEMD_EXEC_PID=1\n");
    assert!(String::from_utf8(as_systemd(&bundle, "PATH=/nowhere").stderr).unwrap().contains("PATH is /nowhere"));
}

#[test]
fn a_failed_start_ends_with_systemds_own_code_where_systemd_started_it() {
    let with = |parent, key, value| Bundle::running(&["true"]).with(parent, key, value);
    for (bundle, code) in [
        (with("/process", "args", json!(["/bin/nothing"])), 203),
        (with("/process", "cwd", json!("/no")), 200),
        (with("/process", "user", json!({"uid": 998, "gid": 998})).binding("/no".as_ref(), "/data", &["bind"]), 226),
        (
            with("/process", "rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 9e12 as u64, "hard": 9e12 as u64}])),
            205,
        ),
        (with("/root", "path", json!("none")), 226),
        (with("/process", "cwd", json!("relative")), 1),
    ] {
        let output = as_systemd(&bundle, "");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(bundle.run().status.code(), Some(1), "by hand");
    }
}

#[test]
fn folders_of_the_unit_are_there_writable_at_their_paths_and_new_ones_are_the_users() {
    let host = tempfile::Builder::new().prefix("sysctr-test-").tempdir_in("/run").unwrap();
    let (new, full) = (host.path().join("new"), host.path().join("full"));
    fs::create_dir(&new).unwrap();
    fs::create_dir(&full).unwrap();
    fs::write(full.join("kept"), "").unwrap();
    let run = json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]});
    let script = "echo $RUNTIME_DIRECTORY; IFS=:; for d in $RUNTIME_DIRECTORY; do stat -c %u:%g $d; done; touch ${RUNTIME_DIRECTORY%%:*}/made && ls ${RUNTIME_DIRECTORY##*:}";
    let mut bundle = Bundle::script(script).with("/process", "user", json!({"uid": 998, "gid": 997}));
    bundle.spec["mounts"].as_array_mut().unwrap().push(run);
    let both = format!("{}:{}", new.display(), full.display());
    let output = as_systemd(&bundle, &format!("RUNTIME_DIRECTORY={both}"));
    assert_eq!(
        String::from_utf8(output.stdout.clone()).unwrap(),
        format!("{both}\n998:997\n0:0\nkept\n"),
        "{output:?}"
    );
    assert!(new.join("made").exists());
    let other = tempfile::Builder::new().prefix("sysctr-test-").tempdir_in("/var/tmp").unwrap();
    let output = as_systemd(&bundle, &format!("LOGS_DIRECTORY={}", other.path().display()));
    assert_eq!(output.status.code(), Some(240), "{output:?}");
    assert!(crate::support::one_error(&output.stderr).contains("LogsDirectory=: the image has no folder /var/tmp/"));
}

#[test]
fn nobodys_number_is_no_user() {
    // To setresuid(2) it says "leave it as it is": the program would run as root.
    let error = Bundle::running(&["id"]).with("/process", "user", json!({"uid": u32::MAX, "gid": 0})).fails();
    assert!(error.contains("nobody's number"), "{error}");
}

#[test]
fn its_environment_is_config_jsons_alone_whatever_the_launchers_is() {
    use std::os::unix::ffi::OsStrExt;
    let bundle = Bundle::running(&["env"]).with("/process", "env", json!(["PATH=/bin", "A=b c"]));
    let mut command = bundle.command();
    command.env("SECRET", "x").env("NOT_UTF8", std::ffi::OsStr::from_bytes(b"\xff\xfe")).env_remove("INVOCATION_ID");
    let output = command.env_remove("JOURNAL_STREAM").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "PATH=/bin\nA=b c\n", "{output:?}");
}

#[test]
fn limits_are_set() {
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    assert_eq!(Bundle::script("ulimit -Sn; ulimit -Hn").with("/process", "rlimits", limits).prints(), "100\n200\n");
}

#[test]
fn a_limit_that_cannot_be_set_is_named() {
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 9_000_000_000_000_u64, "hard": 9_000_000_000_000_u64}]);
    let error = Bundle::running(&["true"]).with("/process", "rlimits", limits).fails();
    assert!(error.contains("RLIMIT_NOFILE"), "{error}");
}

#[test]
fn a_seccomp_filter_holds_with_and_without_new_privileges_allowed() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NATIVE"],
        "syscalls": [
            {"names": ["sethostname", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}
        ]
    });
    for (sealed, prepared) in [(true, false), (true, true), (false, false), (false, true)] {
        let bundle =
            Bundle::script("hostname new 2>&1; kill -USR1 1 2>&1; kill -0 1 && grep Seccomp: /proc/self/status")
                .with("/linux", "seccomp", profile.clone())
                .with("/process", "noNewPrivileges", json!(sealed));
        if prepared {
            bundle.prepares();
            assert!(bundle.path().join("seccomp.bpf").exists());
        }
        let printed = bundle.prints();
        assert!(printed.contains("Function not implemented") && printed.contains("Input/output error"), "{printed}");
        assert!(printed.contains("Seccomp:\t2"), "{printed}");
    }
}

#[test]
fn a_prepared_filter_counts_only_while_it_is_whole_and_config_jsons_own() {
    let profile = |errno: u32| {
        json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]})
    };
    let bundle = Bundle::script("hostname new 2>&1 || true").with("/linux", "seccomp", profile(38));
    bundle.prepares();
    let file = bundle.path().join("seccomp.bpf");
    let whole = fs::read(&file).unwrap();
    let bundle = bundle.with("/linux", "seccomp", profile(5));
    assert!(bundle.prints().contains("Input/output error"), "a filter of another profile was taken");
    for length in [0, 10, whole.len() - 8, whole.len() - 3] {
        fs::write(&file, &whole[..length]).unwrap();
        let bundle = bundle.prints();
        assert!(bundle.contains("Input/output error"), "{length}: {bundle}");
    }
    // A prepared filter is really what is loaded: an empty allowance under the right header lets the call through.
    bundle.prepares();
    let own = fs::read(&file).unwrap();
    let end = own.iter().position(|byte| *byte == b'\n').unwrap();
    let header = String::from_utf8(own[..end].to_vec()).unwrap();
    let mut words: Vec<&str> = header.splitn(4, ' ').collect();
    words[2] = "8";
    let allow_all = [6u16.to_ne_bytes().as_slice(), &[0, 0], &0x7fff_0000u32.to_ne_bytes()].concat();
    fs::write(&file, [words.join(" ").as_bytes(), b"\n", &allow_all].concat()).unwrap();
    assert!(!bundle.prints().contains("Input/output error"));
}

#[test]
fn no_descriptor_of_the_hosts_reaches_it() {
    let bundle = Bundle::script("ls /proc/self/fd");
    bundle.command();
    let run = format!("exec 9</etc/passwd 3</etc; exec {RUNTIME} run {}", bundle.path().display());
    let output = Command::new("sh").args(["-c", &run]).output().unwrap();
    // 3 is the folder that ls itself is reading.
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "0\n1\n2\n3\n");
}

#[test]
fn passed_sockets_arrive_with_their_names_and_the_programs_own_pid() {
    let bundle = Bundle::script("cat <&3 && cat <&4; env | grep LISTEN; ls /proc/1/fd");
    bundle.command();
    let own = bundle.root().join("etc/own").display().to_string();
    let dir = bundle.path().display();
    let run = |pid: &str| {
        let run = format!(
            "LISTEN_PID={pid} LISTEN_FDS=2 LISTEN_FDNAMES=one:two exec {RUNTIME} run {dir} 3<{own} 4<{own} 5<{own} 6<{own}"
        );
        let output = Command::new("sh").args(["-c", &run]).stderr(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // 5 is the folder that ls itself is reading.
    let printed = run("$$");
    assert!(printed.starts_with("the image's own\nthe image's own\n"), "{printed}");
    for line in ["LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=one:two", "4"] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    assert!(!printed.lines().any(|line| line == "6"), "{printed}");
    assert!(!run("1").contains("LISTEN"), "sockets for another process were taken");
}

#[test]
fn a_socket_that_was_promised_and_is_not_there_is_an_error() {
    let bundle = Bundle::running(&["true"]);
    bundle.command();
    let run = format!("LISTEN_PID=$$ LISTEN_FDS=20 exec {RUNTIME} run {}", bundle.path().display());
    let output = Command::new("sh").args(["-c", &run]).output().unwrap();
    assert!(crate::support::one_error(&output.stderr).contains("LISTEN_FDS is 20, but descriptor"));
}

#[test]
fn credentials_are_there_read_only_at_the_same_path_for_root_and_for_another_user() {
    for uid in [0, 998] {
        let dir = format!("/run/credentials/sysctr-test-{}-{uid}.service", std::process::id());
        fs::create_dir_all(&dir).unwrap();
        fs::write(format!("{dir}/token"), "secret\n").unwrap();
        fs::set_permissions(format!("{dir}/token"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o500)).unwrap();
        let script =
            "cat $CREDENTIALS_DIRECTORY/token; touch $CREDENTIALS_DIRECTORY/x 2>&1; echo $CREDENTIALS_DIRECTORY";
        let bundle = Bundle::script(script).with("/process", "user", json!({"uid": uid, "gid": uid}));
        let output = bundle.command().env("CREDENTIALS_DIRECTORY", &dir).output().unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.starts_with("secret\n") && printed.contains("Read-only file system"), "{uid}: {printed}");
        assert!(printed.ends_with(&format!("{dir}\n")), "{printed}");
    }
}

#[test]
fn the_launcher_ends_as_the_container_does() {
    assert_eq!(Bundle::script("exit 7").run().status.code(), Some(7));
    let killed = Bundle::script("kill -9 $$").with("/linux", "namespaces", json!([{"type": "mount"}, {"type": "uts"}]));
    assert_eq!(killed.run().status.code(), Some(128 + 9));
}

#[test]
fn a_launcher_that_waits_passes_signals_on() {
    let bundle = Bundle::script("trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done");
    let mut launcher = bundle.command().stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
    kill(Pid::from_raw(launcher.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(launcher.wait().unwrap().code(), Some(9));
}

#[test]
fn a_container_does_not_outlive_a_launcher_that_waits() {
    let bundle = Bundle::script("echo up; while :; do sleep 0.1; done");
    let mut launcher = bundle.command().stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(launcher.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    launcher.kill().unwrap();
    assert_eq!(launcher.wait().unwrap().signal(), Some(9));
    // The pipe ends only when the last process of the container is gone.
    assert_eq!(printed.read_line(&mut line).unwrap(), 0);
}
