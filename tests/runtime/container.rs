//! What a container sees, and what it cannot change.

use std::fs;

use serde_json::json;

use crate::support::Bundle;

#[test]
fn the_image_is_read_only_without_devices_and_without_setuid() {
    let bundle = Bundle::script("mount | head -n 1; touch /new || cat /etc/own; touch /tmp/new && echo tmp");
    let printed = bundle.prints();
    let root = printed.lines().next().unwrap();
    assert!(root.contains("(ro,nosuid,nodev"), "{root}");
    assert!(printed.ends_with("the image's own\ntmp\n"), "{printed}");
    assert!(!bundle.root().join("new").exists());
}

#[test]
fn setuid_counts_only_where_the_deployment_says_so() {
    let bundle = Bundle::script("mount | head -n 1").with("", "annotations", json!({"org.sysctr.setuid": "true"}));
    let root = bundle.prints();
    assert!(root.contains("(ro,nodev"), "{root}");
}

#[test]
fn it_has_a_pid_a_host_name_and_a_cgroup_view_of_its_own() {
    let printed =
        Bundle::script("echo $$; hostname; grep ^0: /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.procs").prints();
    assert_eq!(printed, "1\ninside\n0::/\n/sys/fs/cgroup/cgroup.procs\n");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), "inside\n");
}

#[test]
fn host_namespaces_that_are_not_named_stay_the_hosts() {
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(Bundle::running(&["readlink", "/proc/self/ns/net"]).prints().trim(), host.to_str().unwrap());
}

#[test]
fn namespaces_of_another_are_joined_by_path() {
    let mut other =
        std::process::Command::new("unshare").args(["-n", "-p", "--kill-child", "sleep", "60"]).spawn().unwrap();
    let place = |kind: &str| format!("/proc/{}/ns/{kind}", other.id());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    // pid_for_children can be read once the new namespace has its first process.
    while fs::read_link(place("net")).unwrap() == own || fs::read_link(place("pid_for_children")).is_err() {
        assert!(std::time::Instant::now() < deadline, "unshare made no namespaces");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut bundle = Bundle::script("readlink /proc/self/ns/net; readlink /proc/self/ns/pid; echo $$");
    bundle.spec["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "uts"}, {"type": "network", "path": place("net")},
        {"type": "pid", "path": place("pid_for_children")}
    ]);
    let wanted =
        [place("net"), place("pid_for_children")].map(|path| fs::read_link(path).unwrap().display().to_string());
    let printed = bundle.run();
    other.kill().unwrap();
    other.wait().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..2], wanted, "{printed}");
    assert_ne!(lines[2], "1", "it is not the first process there");
}

#[test]
fn a_new_network_has_loopback_and_takes_its_own_sysctls() {
    let mut bundle =
        Bundle::script("ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /sys/class/net/lo/flags")
            .with("/linux", "sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "7"}));
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
    assert_eq!(bundle.prints(), "lo\n7\n0x9\n"); // IFF_UP | IFF_LOOPBACK
    assert_ne!(fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap(), "7\n");
}

#[test]
fn masked_paths_show_nothing_and_read_only_ones_take_nothing() {
    let script = "cat /proc/keys /proc/timer_list && ls -A /sys/firmware && echo masked; echo 1 > /proc/sys/kernel/shmmni || echo ro";
    assert_eq!(Bundle::script(script).prints(), "masked\nro\n");
}

#[test]
fn dev_holds_the_usual_devices_and_those_asked_for() {
    let list = "stat -c '%n %a %t:%T %u' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/net/tun; \
        readlink /dev/ptmx; ls -d /dev/pts/ptmx; echo x > /dev/null; head -c 3 /dev/zero | cat -v";
    let device = json!([{"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 7}]);
    let printed = Bundle::script(list).with("/linux", "devices", device).prints();
    for line in ["/dev/null 666 1:3 0", "/dev/tty 666 5:0 0", "/dev/net/tun 640 a:c8 7", "pts/ptmx", "/dev/pts/ptmx"] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    assert!(printed.contains("^@^@^@"), "{printed}");
}

#[test]
fn a_container_without_mounts_still_has_its_devices() {
    let mut bundle = Bundle::script("echo x > /dev/null && stat -c %t:%T /dev/full");
    bundle.spec["mounts"] = json!([]);
    bundle.spec["linux"].as_object_mut().unwrap().retain(|key, _| key == "namespaces");
    assert_eq!(bundle.prints(), "1:7\n");
}

#[test]
fn bind_mounts_keep_to_their_options() {
    let host = tempfile::tempdir().unwrap();
    let script = "echo x > /data/w; cat /data/w; mount | grep ' /data '";
    let printed =
        Bundle::script(script).binding(host.path(), "/data", &["rbind", "nosuid", "nodev", "noexec"]).prints();
    assert!(printed.starts_with("x\n") && printed.contains("nosuid,nodev,noexec"), "{printed}");
    let refused =
        Bundle::script("echo y > /data/w || cat /data/w").binding(host.path(), "/data", &["rbind", "ro"]).prints();
    assert_eq!(refused, "x\n");
    assert_eq!(fs::read_to_string(host.path().join("w")).unwrap(), "x\n");
}

#[test]
fn a_file_system_asked_read_only_is_so_after_its_mount_points_were_made() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("f"), "shared\n").unwrap();
    let mut bundle = Bundle::script("cat /run/a/b/f; touch /run/x || echo ro");
    let run = json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "mode=755"]});
    bundle.spec["mounts"].as_array_mut().unwrap().push(run);
    assert_eq!(bundle.binding(host.path(), "/run/a/b", &["bind"]).prints(), "shared\nro\n");
}

#[test]
fn what_is_missing_is_named() {
    let here = std::path::Path::new("/etc");
    for (bundle, words) in [
        (
            Bundle::running(&["true"]).binding(here, "/no/such", &["bind"]),
            "the mount point /no/such is missing in the image",
        ),
        (Bundle::running(&["true"]).binding(here, "/etc/own", &["bind"]), "is a folder, the other is not"),
        (
            Bundle::running(&["true"]).binding("/no/source".as_ref(), "/data", &["bind"]),
            "opening the source /no/source",
        ),
        (Bundle::running(&["true"]).binding(here, "/data", &["bind", "frob"]), "unknown option \"frob\""),
        (Bundle::running(&["/bin/nothing"]), "program \"/bin/nothing\" not found in the image"),
        (Bundle::running(&["nothing"]), "program \"nothing\" not found in the image, PATH is /bin"),
        (Bundle::running(&["/etc"]), "program \"/etc\" is no file"),
        (Bundle::running(&["/etc/own"]), "program \"/etc/own\" may not be executed by user 0"),
        (Bundle::running(&["true"]).with("/process", "cwd", json!("/no")), "working directory \"/no\" is missing"),
        (Bundle::running(&["true"]).with("/root", "path", json!("none")), "opening the root file system none"),
        (Bundle::running(&["true"]).with("/process", "apparmorProfile", json!("x")), "AppArmor"),
    ] {
        let error = bundle.fails();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn an_install_can_ask_whether_a_start_could_work() {
    let prepare = |bundle: &Bundle| {
        bundle.command(); // writes config.json
        std::process::Command::new(crate::support::RUNTIME).arg("prepare").arg(bundle.path()).output().unwrap()
    };
    let bundle = Bundle::running(&["true"]);
    assert!(prepare(&bundle).status.success());
    let refused = prepare(&bundle.with("/linux", "intelRdt", json!({"closID": "x"})));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && text.contains("linux.intelRdt") && text.lines().count() == 1, "{text}");
}

#[test]
fn the_image_is_as_before_after_a_failure_and_the_next_start_works() {
    let mut bundle = Bundle::running(&["/bin/nothing"]);
    let tree = || {
        let list =
            std::process::Command::new("find").arg(bundle.root()).args(["-printf", "%P %y %m %i %T@\n"]).output();
        String::from_utf8(list.unwrap().stdout).unwrap()
    };
    let (before, mounts) = (tree(), fs::read_to_string("/proc/self/mountinfo").unwrap());
    bundle.fails();
    assert_eq!(tree(), before);
    let path = bundle.path().to_str().unwrap().to_owned();
    assert!(!mounts.contains(&path) && !fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&path));
    assert_eq!(processes_naming(&path), 0);
    bundle.spec["process"]["args"] = json!(["true"]);
    bundle.prints();
}

/// How many processes have this in their command line.
fn processes_naming(text: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    all.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}
