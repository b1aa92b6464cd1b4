//! User namespaces: root inside is nobody outside, and what lies on disk keeps plain numbers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::exec::{Running, on_terminal};
use crate::manager::Manager;
use crate::support::{Bundle, RUNTIME, one_error};

/// Where the container's users are on the host.
const BASE: u32 = 1_000_000;

/// The same container with users of its own.
fn apart(mut bundle: Bundle) -> Bundle {
    let map = json!([{"containerID": 0, "hostID": BASE, "size": 65_536}]);
    bundle.spec["linux"]["uidMappings"] = map.clone();
    bundle.spec["linux"]["gidMappings"] = map;
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    bundle
}

fn script_in(text: &str) -> Bundle {
    apart(Bundle::script(text))
}

#[test]
fn root_inside_is_nobody_of_the_host() {
    let printed =
        script_in("id -u; id -g; cat /proc/self/uid_map; grep -E '^(Cap(Eff|Bnd)|NoNewPrivs)' /proc/self/status")
            .prints();
    let words: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!(words[..5], ["0", "0", "0", "1000000", "65536"], "{printed}");
    assert!(printed.contains("CapEff:\t0000000000000021\nCapBnd:\t0000000000000021\nNoNewPrivs:\t1"), "{printed}");
}

#[test]
fn all_its_namespaces_belong_to_its_users_and_the_launcher_is_out_of_reach() {
    let printed = script_in("for kind in mnt pid ipc uts cgroup user net; do readlink /proc/self/ns/$kind; done; ls /proc | grep -c '^[0-9]'").prints();
    let own: Vec<String> = ["mnt", "pid", "ipc", "uts", "cgroup", "user"]
        .map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string())
        .to_vec();
    for namespace in &own {
        assert!(!printed.contains(namespace), "{namespace} is the host's: {printed}");
    }
    let net = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(printed.contains(net.to_str().unwrap()), "the host's network was asked for: {printed}");
}

#[test]
fn the_image_and_a_folder_of_state_have_plain_owners_inside_and_on_disk() {
    let host = tempfile::tempdir().unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(host.path().join("old"), "x").unwrap();
    std::os::unix::fs::chown(host.path().join("old"), Some(33), Some(34)).unwrap();
    let script = "stat -c '%u:%g %n' /etc/own /data /data/old; echo y > /data/new; touch /new || echo ro";
    let bundle = apart(Bundle::script(script).binding(host.path(), "/data", &["rbind", "ridmap"]));
    assert_eq!(bundle.prints(), "0:0 /etc/own\n0:0 /data\n33:34 /data/old\nro\n");
    let new = fs::metadata(host.path().join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 0));
    // Without the option it is a folder of strangers.
    let bundle =
        apart(Bundle::script("stat -c %u /data; ls /data || echo closed").binding(host.path(), "/data", &["rbind"]));
    assert_eq!(bundle.prints(), "65534\nclosed\n");
}

#[test]
fn devices_and_new_file_systems_are_the_containers_own() {
    let script = "stat -c '%n %a %u:%g' /dev/null /dev/pts /dev/pts/ptmx /dev/mqueue /tmp /run /dev/seven /dev/net /mine; \
        echo x > /dev/null && head -c 2 /dev/zero | cat -v; touch /tmp/x /dev/shm/x /dev/mqueue/x /run/x && echo wrote; \
        mount | grep -o 'gid=[0-9]*'; ls -d /sys/class/net/lo | cut -d/ -f5; cat /proc/1/comm /proc/keys; \
        echo 1 > /proc/sys/kernel/shmmni || echo ro";
    let mut bundle = script_in(script).with(
        "/linux",
        "devices",
        json!([
            {"path": "/dev/seven", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8},
            {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200}
        ]),
    );
    fs::create_dir(bundle.root().join("mine")).unwrap();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}));
    mounts.push(
        json!({"destination": "/mine", "type": "tmpfs", "source": "tmpfs", "options": ["mode=700", "uid=5", "gid=6"]}),
    );
    let printed = bundle.prints();
    for line in [
        "/dev/null 666 0:0",
        "/dev/pts 755 0:0",
        "/dev/pts/ptmx 666 0:0",
        "/dev/mqueue 1777 0:0",
        "/tmp 1777 0:0",
        "/run 755 0:0",
        "/dev/seven 640 7:8",
        "/dev/net 755 0:0",
        "/mine 700 5:6",
        "^@^@wrote",
        "gid=1000005",
        "lo",
        "sh",
        "ro",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
}

#[test]
fn a_network_of_its_own_is_its_roots() {
    let mut bundle = script_in("cat /sys/class/net/lo/flags /proc/sys/net/ipv4/ip_unprivileged_port_start; stat -c %u /proc/sys/net/ipv4/ip_forward")
        .with("/linux", "sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "7"}));
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
    assert_eq!(bundle.prints(), "0x9\n7\n0\n");
}

#[test]
fn a_writable_root_belongs_to_it_and_the_checkout_never_changes() {
    let script = "touch /new && echo x >> /etc/own && stat -c '%u:%g' / /new /etc/own; rm /etc/own; ls /etc";
    let bundle = script_in(script).with("/root", "readonly", json!(false));
    std::os::unix::fs::symlink("busybox", bundle.root().join("bin/rm")).unwrap();
    assert_eq!(bundle.prints(), "0:0\n0:0\n0:0\n");
    assert_eq!(fs::read_to_string(bundle.root().join("etc/own")).unwrap(), "the image's own\n");
}

#[test]
fn credentials_and_sockets_arrive_for_root_and_for_another_user() {
    for uid in [0, 998] {
        let dir = format!("/run/credentials/sysctr-users-{}-{uid}.service", std::process::id());
        fs::create_dir_all(&dir).unwrap();
        fs::write(format!("{dir}/token"), "secret\n").unwrap();
        fs::set_permissions(format!("{dir}/token"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o500)).unwrap();
        let script = "cat $CREDENTIALS_DIRECTORY/token; stat -c '%u %a' $CREDENTIALS_DIRECTORY/token; cat <&3; echo $LISTEN_PID; id -u";
        let bundle = script_in(script).with("/process", "user", json!({"uid": uid, "gid": uid}));
        bundle.command();
        let (path, own) = (bundle.path().display(), bundle.root().join("etc/own"));
        let run = format!(
            "LISTEN_PID=$$ LISTEN_FDS=1 CREDENTIALS_DIRECTORY={dir} exec {RUNTIME} run {path} 3<{}",
            own.display()
        );
        let output = Command::new("sh").args(["-c", &run]).output().unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, format!("secret\n{uid} 400\nthe image's own\n1\n{uid}\n"), "{:?}", output.stderr);
    }
}

#[test]
fn it_is_handed_over_as_any_container_and_runs_as_its_own_user_of_the_host() {
    let manager = Manager::new();
    fs::set_permissions(manager.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let bundle = script_in("test -w $NOTIFY_SOCKET && exec sleep 60").with(
        "",
        "annotations",
        json!({"org.sysctr.notify": "true"}),
    );
    let mut command = bundle.command();
    let mut launcher = command.env("NOTIFY_SOCKET", manager.path()).spawn().unwrap();
    let pid = manager.main_pid();
    let status = |field: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        text.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
    };
    assert_eq!(status("PPid:"), std::process::id().to_string());
    let barrier = manager.next();
    // Held until the manager has answered.
    let end = Instant::now() + Duration::from_secs(10);
    while status("Uid:") != "1000000\t1000000\t1000000\t1000000" {
        assert!(Instant::now() < end, "init stays {}", status("Uid:"));
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(barrier);
    manager.answer_barrier();
    assert!(launcher.wait().unwrap().success());
    let alive = status("State:");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(Pid::from_raw(pid), None).unwrap();
    assert!(!alive.starts_with('Z'), "the program could not write to the socket");
}

#[test]
fn a_file_system_that_cannot_be_mapped_is_refused_with_its_name() {
    let bundle = script_in("true");
    let root = bundle.root().display().to_string();
    let over = format!("mount -t overlay none -o lowerdir={root}:/var/empty {root}");
    let ramfs = format!("mount -t ramfs none {root}/../state");
    fs::create_dir_all("/var/empty").unwrap();
    let state = bundle.path().join("state");
    fs::create_dir(&state).unwrap();
    let bundle = bundle.binding(&state, "/data", &["rbind", "ridmap"]);
    for (mount, words) in [(over, "mounting the root file system"), (ramfs, "mounting /data: its file system (ramfs)")]
    {
        let line = format!("{mount} && exec \"$@\"");
        let output = bundle.started_by(&["unshare", "-m", "sh", "-c", &line, "sh", RUNTIME]).output().unwrap();
        let error = one_error(&output.stderr);
        assert!(error.contains(words) && error.contains("does not support idmapped mounts"), "{error}");
    }
    assert!(bundle.run().status.success());
}

#[test]
fn what_is_protected_cannot_be_bared_again_whatever_it_is_capable_of() {
    let all = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_CHOWN"]);
    let capable = |bundle: Bundle| {
        bundle.with("/process", "capabilities", json!({"bounding": all, "effective": all, "permitted": all}))
    };
    let attempts = "mount -o remount,rw,bind / && echo writable; busybox umount /sys/firmware && echo bared; \
        mount -o remount,rw,bind /proc/sys && echo settings; echo tried";
    assert_eq!(apart(capable(Bundle::script(attempts))).prints(), "tried\n");
    // The control: the host's root in a container, which has asked for that capability, does all of it.
    assert_eq!(capable(Bundle::script(attempts)).prints(), "writable\nbared\nsettings\ntried\n");
}

#[test]
fn what_takes_rights_on_the_host_is_done_for_it() {
    let script = "cat /proc/self/oom_score_adj; grep -E 'Max (open files|cpu time)' /proc/self/limits; hostname; cat /proc/self/stat | cut -d' ' -f19";
    let mut bundle = script_in(script);
    bundle.spec["process"]["oomScoreAdj"] = json!(321);
    bundle.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]);
    bundle.spec["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": -5});
    let words: Vec<String> = bundle.prints().split_whitespace().map(str::to_owned).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(words[0], "321");
    assert!(words.windows(5).any(|part| part == ["Max", "open", "files", "64", "128"]), "{words:?}");
    assert_eq!(words[words.len() - 2..], ["inside", "-5"], "{words:?}");
}

#[test]
fn what_runs_in_it_later_is_one_of_its_users_too() {
    let running = Running::new(apart);
    let output = running.command(json!({"args": ["sh", "-c", "id -u; cat /proc/self/uid_map; stat -c %u /etc/own; cat /proc/1/comm; readlink /proc/1/root; ls /dev/stdout"]})).0.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!(words[..6], ["0", "0", "1000000", "65536", "0", "sleep"], "{printed} {:?}", output.stderr);
    let (command, _pidfd, _request) = running
        .command(json!({"args": ["sh", "-c", "tty; stat -c %u /dev/pts/0"], "terminal": true, "interactive": true}));
    let (code, said) = on_terminal(&command, "true");
    assert_eq!((code, said.replace('\r', "").as_str()), (0, "/dev/pts/0\n0\n"));
}

#[test]
fn somebody_may_wait_for_it_with_and_without_a_terminal() {
    let session = |bundle: &Bundle, options: &[&str]| {
        let mut command = bundle.command();
        command.arg("--session").args(options);
        command
    };
    let output = session(&script_in("echo out; echo err > /dev/stderr; exit 7"), &[]).output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..], &output.stderr[..]), (Some(7), &b"out\n"[..], &b"err\n"[..]));
    let output = session(&apart(Bundle::running(&["/bin/nothing"])), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    let bundle = script_in("tty; stat -c '%u %a' /dev/console /dev/pts/0; echo console > /dev/console; exit 3")
        .with("/process", "terminal", json!(true))
        .with("/process", "user", json!({"uid": 33, "gid": 33}));
    let (code, said) = on_terminal(&session(&bundle, &["--interactive"]), "stty rows 33 cols 77");
    assert_eq!((code, said.replace('\r', "").as_str()), (3, "/dev/pts/0\n33 620\n33 620\nconsole\n"));
}

#[test]
fn a_failure_is_told_once_and_leaves_nothing() {
    let plain = || script_in("true");
    for (bundle, words) in [
        (plain().binding("/etc".as_ref(), "/no/such", &["bind"]), "the mount point /no/such is missing"),
        (plain().binding("/no/source".as_ref(), "/data", &["bind", "idmap"]), "opening the source /no/source"),
        (apart(Bundle::running(&["/bin/nothing"])), "program \"/bin/nothing\" not found"),
        (plain().with("/process", "cwd", json!("/no")), "working directory \"/no\" is missing"),
        (
            plain().with("/process", "user", json!({"uid": 70_000, "gid": 0})),
            "process.user.uid 70000 is not in linux.uidMappings",
        ),
        (
            plain().with("/linux", "gidMappings", json!([])),
            "linux.gidMappings: a user namespace needs at least one range",
        ),
        (plain().binding("/etc".as_ref(), "/data", &["bind", "rshared"]), "/data is shared"),
        (
            Bundle::running(&["true"]).binding("/etc".as_ref(), "/data", &["bind", "idmap"]),
            "the option idmap needs a user namespace",
        ),
    ] {
        let error = bundle.fails();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_mount_may_have_numbers_of_its_own() {
    let host = tempfile::tempdir().unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut bundle = Bundle::script("stat -c '%u:%g' /data").binding(host.path(), "/data", &["rbind", "idmap"]);
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let mount = bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount["uidMappings"] = map.clone();
    mount["gidMappings"] = map;
    assert_eq!(bundle.prints(), "1000:1000\n");
}
