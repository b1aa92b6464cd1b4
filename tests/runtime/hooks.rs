//! Hooks: when they run, as whom, what they are told, and what becomes of a start when one fails.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::manager::Manager;
use crate::support::{Bundle, RUNTIME, one_error};

/// A hook of the host's, a shell script with `$OUT` for a file to write to.
fn hook(script: &str, out: &Path) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": [format!("OUT={}", out.display()), "PATH=/usr/bin:/bin"]}])
}

fn poststop(bundle: &Bundle) -> std::process::Output {
    Command::new(RUNTIME).arg("poststop").arg(bundle.path()).output().unwrap()
}

#[test]
fn each_hook_runs_in_its_turn_and_reads_the_state() {
    let host = tempfile::tempdir().unwrap();
    let out = host.path().join("out");
    let note = |stage: &str| hook(&format!("echo \"{stage} $(cat) $(readlink /proc/self/ns/uts)\" >> $OUT"), &out);
    let mut bundle = Bundle::script("cat /data/out; echo program").binding(host.path(), "/data", &["bind"]);
    bundle.spec["hooks"] = json!({});
    bundle.spec["annotations"] = json!({"key": "of the image"});
    for stage in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.spec["hooks"][stage] = note(stage);
    }
    bundle.spec["hooks"]["startContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer $(cat) inside >> /data/out"], "env": ["PATH=/bin"]}]);
    let printed = bundle.prints();
    assert!(printed.ends_with("program\n"), "{printed}");
    let stages: Vec<&str> = printed.lines().filter_map(|line| line.split(' ').next()).collect();
    // poststart may or may not be there yet when the program looks.
    assert_eq!(stages[..4], ["prestart", "createRuntime", "createContainer", "startContainer"], "{printed}");

    assert!(poststop(&bundle).status.success());
    let text = fs::read_to_string(&out).unwrap();
    let own = fs::read_link("/proc/self/ns/uts").unwrap().display().to_string();
    let name = bundle.path().file_name().unwrap().to_str().unwrap().to_owned();
    for (line, (stage, status, on_host)) in text.lines().zip([
        ("prestart", "creating", true),
        ("createRuntime", "creating", true),
        ("createContainer", "creating", false),
        ("startContainer", "created", false),
        ("poststart", "running", true),
        ("poststop", "stopped", true),
    ]) {
        let rest = line.strip_prefix(&format!("{stage} ")).unwrap_or_else(|| panic!("{stage}: {text}"));
        let (state, namespace) = rest.rsplit_once(' ').unwrap();
        let state: Value = serde_json::from_str(state).unwrap();
        assert_eq!(state["status"], status, "{stage}");
        assert_eq!(state["ociVersion"], "1.0.2");
        assert_eq!(state["id"], name);
        assert_eq!(state["bundle"], bundle.path().to_str().unwrap());
        assert_eq!(state["annotations"]["key"], "of the image");
        assert_eq!(namespace == own, on_host, "{stage}: {namespace}");
        match stage {
            "poststop" => assert!(state.get("pid").is_none()),
            "createContainer" | "startContainer" => assert_eq!(state["pid"], 1),
            _ => assert!(state["pid"].as_u64().unwrap() > 1),
        }
    }
    assert_eq!(text.lines().count(), 6, "{text}");
}

#[test]
fn a_hook_before_the_entry_finds_the_new_root_and_namespaces_by_the_pid() {
    let host = tempfile::tempdir().unwrap();
    let out = host.path().join("out");
    // As hooks that add a device or a library do it: nsenter, then mount below the bundle's rootfs.
    let script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); root=$PWD/rootfs; \
        nsenter -m -t $pid mount -t tmpfs -o size=1m added $root/data && echo mounted > $OUT";
    let mut bundle = Bundle::script("mount | grep /data; grep -c . /proc/self/mountinfo");
    bundle.spec["hooks"] = json!({"createRuntime": hook(script, &out)});
    assert!(bundle.prints().starts_with("added on /data type tmpfs"), "{:?}", fs::read_to_string(&out));
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(bundle.path().to_str().unwrap()));
}

#[test]
fn a_hook_that_fails_ends_the_start_and_is_named() {
    let host = tempfile::tempdir().unwrap();
    for stage in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let mark = host.path().join(stage);
        let mut bundle =
            Bundle::script(&format!("echo up > /data/{stage}; sleep 100")).binding(host.path(), "/data", &["bind"]);
        bundle.spec["hooks"] = json!({stage: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
        let error = bundle.fails();
        assert!(error.ends_with(&format!("the {stage} hook /bin/sh ended with exit status: 3")), "{error}");
        assert!(stage == "poststart" || !mark.exists(), "{stage}: the program ran");
        bundle.spec["hooks"] = json!({stage: [{"path": "/no/such"}]});
        let error = bundle.fails();
        assert!(error.contains(&format!("the {stage} hook /no/such: No such file")), "{error}");
    }
}

#[test]
fn a_hook_that_takes_longer_than_its_timeout_is_ended() {
    for stage in ["createRuntime", "createContainer", "startContainer"] {
        let mut bundle = Bundle::running(&["true"]);
        // Standard output stays open for as long as anything that it started runs.
        let waits =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", "sleep 100; true"], "env": ["PATH=/bin"], "timeout": 1}]);
        bundle.spec["hooks"] = json!({stage: waits});
        let begun = std::time::Instant::now();
        let error = bundle.fails();
        assert!(error.contains("did not end within 1 seconds"), "{error}");
        assert!(begun.elapsed().as_secs() < 20);
    }
}

#[test]
fn systemd_hears_ready_only_after_the_last_hook_and_never_when_it_failed() {
    let host = tempfile::tempdir().unwrap();
    let out = host.path().join("out");
    for (script, good) in [("echo done > $OUT", true), ("exit 1", false)] {
        let (mut bundle, manager) = (Bundle::running(&["sleep", "60"]), Manager::new());
        bundle.spec["hooks"] = json!({"poststart": hook(script, &out)});
        let mut command = bundle.command();
        let launcher =
            command.env("NOTIFY_SOCKET", manager.path()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(manager.main_pid());
        manager.answer_barrier();
        let text = manager.next().text;
        if good {
            assert_eq!(text, "READY=1");
            assert_eq!(fs::read_to_string(&out).unwrap(), "done\n");
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        } else {
            assert!(text.starts_with("STATUS=") && text.contains("the poststart hook"), "{text}");
        }
        manager.answer_barrier();
        assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::Signaled(..)));
        let output = launcher.wait_with_output().unwrap();
        assert_eq!(output.status.success(), good);
        if !good {
            assert!(one_error(&output.stderr).contains("the poststart hook"));
        }
    }
}

#[test]
fn hooks_of_the_container_run_as_its_program_does_and_those_of_the_host_with_their_own_environment() {
    let host = tempfile::tempdir().unwrap();
    let out = host.path().join("out");
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]});
    let mut bundle = Bundle::running(&["true"])
        .with("/process", "user", json!({"uid": 998, "gid": 997}))
        .with("/linux", "seccomp", profile);
    let inside = "id -u; id -g; hostname x 2>&1; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; pwd";
    bundle.spec["hooks"] = json!({
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", inside], "env": ["PATH=/bin"]}],
        "createRuntime": hook("env > $OUT; pwd >> $OUT; ls /proc/self/fd >> $OUT", &out),
    });
    bundle.command(); // writes config.json
    // A descriptor of the launcher's must not reach a hook.
    let run = format!("exec {RUNTIME} run {} 9</etc", bundle.path().display());
    let output = Command::new("sh").args(["-c", &run]).env("SECRET", "x").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with("998\n997\n"), "{printed} {}", String::from_utf8_lossy(&output.stderr));
    for line in ["Function not implemented", "NoNewPrivs:\t1", "Seccomp:\t2", "/\n"] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    let text = fs::read_to_string(&out).unwrap();
    assert!(!text.contains("SECRET") && text.contains("OUT="), "{text}");
    assert!(text.contains(bundle.path().to_str().unwrap()) && text.ends_with("\n0\n1\n2\n3\n"), "{text}");
}

#[test]
fn every_hook_after_the_stop_runs_though_one_fails() {
    let host = tempfile::tempdir().unwrap();
    let out = host.path().join("out");
    let mut bundle = Bundle::running(&["true"]);
    let mut all = hook("exit 1", &out);
    all.as_array_mut().unwrap().extend(hook("echo second >> $OUT", &out).as_array().unwrap().clone());
    bundle.spec["hooks"] = json!({"poststop": all});
    bundle.prints();
    assert!(!out.exists(), "the launcher ran what is the unit's to run");
    let output = poststop(&bundle);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&out).unwrap(), "second\n");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: the poststop hook /bin/sh ended with"));
}
