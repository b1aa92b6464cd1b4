//! The smaller settings of config.json: the root, limits, scheduling, clocks, labels, propagation.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use serde_json::json;

use crate::support::{Bundle, RUNTIME, one_error};

#[test]
fn a_root_to_write_on_forgets_it_and_the_checkout_never_changes() {
    let script = "echo 1 > /new; echo changed > /etc/own; rm /data/old; mkdir -p /usr/x; cat /new /etc/own; ls /data; \
        stat -c '%a %g' /; mount | grep ' on / '";
    let bundle =
        Bundle::script(&format!("{}; true", script.replace("rm ", "busybox rm ").replace("mkdir ", "busybox mkdir ")))
            .with("/root", "readonly", json!(false));
    fs::write(bundle.root().join("data/old"), "").unwrap();
    fs::set_permissions(bundle.root(), fs::Permissions::from_mode(0o751)).unwrap();
    std::os::unix::fs::chown(bundle.root(), None, Some(7)).unwrap();
    let before = tree(&bundle);
    for _ in 0..2 {
        let printed = bundle.prints();
        assert!(printed.starts_with("1\nchanged\n751 7\noverlay on / type overlay (rw,nosuid,nodev"), "{printed}");
        assert_eq!(tree(&bundle), before);
        assert_eq!(fs::read_to_string(bundle.root().join("etc/own")).unwrap(), "the image's own\n");
    }
}

#[test]
fn on_a_root_to_write_on_mount_points_are_made() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("f"), "host\n").unwrap();
    let bundle = Bundle::script("cat /a/b/f").with("/root", "readonly", json!(false));
    assert_eq!(bundle.binding(host.path(), "/a/b", &["bind"]).prints(), "host\n");
    // But not through a link of the image to elsewhere.
    let bundle = Bundle::script("cat /a/b/f").with("/root", "readonly", json!(false));
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), bundle.root().join("a")).unwrap();
    bundle.binding(host.path(), "/a/b", &["bind"]).run();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

fn tree(bundle: &Bundle) -> String {
    let list = Command::new("find").arg(bundle.root()).args(["-printf", "%P %y %m %U %i %T@\n"]).output().unwrap();
    String::from_utf8(list.stdout).unwrap()
}

#[test]
fn scheduler_disk_priority_and_personality_are_the_programs() {
    let script = "set -- $(busybox cut -d')' -f2 /proc/self/stat); eval echo policy \\${39} nice \\${17} priority \\${38}; \
        busybox ionice -p $$; busybox uname -m";
    let bundle = |scheduler, io, domain: &str| {
        Bundle::script(script)
            .with("/process", "scheduler", scheduler)
            .with("/process", "ioPriority", io)
            .with("/linux", "personality", json!({"domain": domain}))
            .prints()
    };
    let printed = bundle(
        json!({"policy": "SCHED_BATCH", "nice": 7}),
        json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
        "LINUX32",
    );
    assert!(printed.starts_with("policy 3 nice 7 priority 0\nidle"), "{printed}");
    assert!(cfg!(not(target_arch = "x86_64")) || printed.ends_with("i686\n"), "{printed}");
    let printed = bundle(
        json!({"policy": "SCHED_FIFO", "priority": 10, "flags": ["SCHED_RESET_ON_FORK"]}),
        json!({"class": "IOPRIO_CLASS_BE", "priority": 6}),
        "LINUX",
    );
    // The shell has it, what it starts has not: that is what the flag is for. `cut` looked at itself.
    assert!(printed.starts_with("policy 0 nice 0"), "{printed}");
    assert!(printed.contains("best-effort: prio 6"), "{printed}");
}

#[test]
fn clocks_of_a_time_namespace_are_moved_and_the_hosts_are_not() {
    let mut bundle = Bundle::script("cat /proc/uptime; readlink /proc/self/ns/time");
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.spec["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 1_000_000_000}, "monotonic": {"secs": 5, "nanosecs": 7}});
    let host = tempfile::tempdir().unwrap();
    let out = host.path().join("out");
    let command = format!("readlink /proc/self/ns/time > {}", out.display());
    bundle.spec["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", command]}]});
    let printed = bundle.prints();
    let own = fs::read_link("/proc/self/ns/time").unwrap().display().to_string();
    let uptime: f64 = printed.split_whitespace().next().unwrap().parse().unwrap();
    assert!(uptime > 1e9, "{printed}");
    assert!(!printed.contains(&own), "{printed}");
    assert_eq!(fs::read_to_string(out).unwrap().trim(), own, "hooks of the host keep its clocks");
}

#[test]
fn the_roots_propagation_is_as_asked() {
    for (asked, tag) in [("shared", "shared:"), ("rshared", "shared:"), ("unbindable", "unbindable"), ("private", "- ")]
    {
        let printed = Bundle::script("grep ' / / ' /proc/self/mountinfo || head -n 1 /proc/self/mountinfo")
            .with("/linux", "rootfsPropagation", json!(asked))
            .prints();
        assert!(printed.contains(tag), "{asked}: {printed}");
    }
}

#[test]
fn a_tmpfs_can_begin_with_what_the_image_has() {
    let bundle = || {
        let mut bundle = Bundle::script(
            "cd /data; cat sub/file link; stat -c '%a %u %g %n' sub sub/file; echo x > sub/new && cat sub/new",
        );
        let data = bundle.root().join("data");
        fs::create_dir(data.join("sub")).unwrap();
        fs::write(data.join("sub/file"), "of the image\n").unwrap();
        fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        std::os::unix::fs::chown(data.join("sub"), None, Some(9)).unwrap();
        symlink("sub/file", data.join("link")).unwrap();
        symlink("/etc/shadow", data.join("away")).unwrap();
        let mount =
            json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "mode=755"]});
        bundle.spec["mounts"].as_array_mut().unwrap().push(mount);
        bundle
    };
    let printed = bundle().prints();
    assert_eq!(printed, "of the image\nof the image\n755 0 9 sub\n751 0 0 sub/file\nx\n");
    let wrong = bundle().binding("/etc".as_ref(), "/tmp", &["bind", "tmpcopyup"]).fails();
    assert!(wrong.contains("tmpcopyup is an option of a tmpfs"), "{wrong}");
}

#[test]
fn a_bind_mount_can_be_made_writable_with_all_below_it() {
    let host = tempfile::tempdir().unwrap();
    let flags = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(host.path()), host.path(), None::<&str>, flags, None::<&str>).unwrap();
    let read_only = flags | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
    nix::mount::mount(None::<&str>, host.path(), None::<&str>, read_only, None::<&str>).unwrap();
    let run = |options: &[&str]| {
        Bundle::script("echo x > /data/f && echo written || echo refused")
            .binding(host.path(), "/data", options)
            .prints()
    };
    let printed = (run(&["rbind"]), run(&["rbind", "rrw"]));
    nix::mount::umount2(host.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!((printed.0.as_str(), printed.1.as_str()), ("refused\n", "written\n"));
}

#[test]
fn without_the_right_to_raise_limits_the_error_says_so_and_how_it_can_be_done() {
    for (key, value, words) in [
        (
            "rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 5000}]),
            ["RLIMIT_NOFILE to 10:5000, above the unit's own 4000", "CAP_SYS_RESOURCE"],
        ),
        ("oomScoreAdj", json!(-500), ["oomScoreAdj to -500: lower than", "OOMScoreAdjust="]),
    ] {
        let bundle = Bundle::running(&["true"]).with("/process", key, value);
        bundle.command(); // writes config.json
        let run = format!("ulimit -n 4000; exec {RUNTIME} run {}", bundle.path().display());
        let output = Command::new("setpriv").args(["--bounding-set=-sys_resource", "sh", "-c", &run]).output().unwrap();
        let error = one_error(&output.stderr);
        assert!(words.iter().all(|words| error.contains(words)), "{error}");
    }
}

#[test]
fn an_oom_score_is_the_programs() {
    assert_eq!(
        Bundle::script("cat /proc/self/oom_score_adj").with("/process", "oomScoreAdj", json!(700)).prints(),
        "700\n"
    );
}

#[test]
fn every_version_of_the_specification_that_it_knows_is_taken() {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0"] {
        Bundle::running(&["true"]).with("", "ociVersion", json!(version)).prints();
    }
}

#[test]
fn labels_that_this_kernel_cannot_give_are_refused() {
    if fs::metadata("/sys/fs/selinux/enforce").is_ok() {
        return;
    }
    for (place, key) in [("/process", "selinuxLabel"), ("/linux", "mountLabel")] {
        let error = Bundle::running(&["true"]).with(place, key, json!("system_u:object_r:container_t:s0")).fails();
        assert!(error.contains(key) && error.contains("this kernel runs without SELinux"), "{error}");
    }
}

#[test]
fn what_is_for_executed_processes_alone_leaves_the_first_one_as_it_is() {
    let bundle = Bundle::script("grep Cpus_allowed_list /proc/self/status");
    let before = bundle.prints();
    assert_eq!(bundle.with("/process", "execCPUAffinity", json!({"initial": "0", "final": "0"})).prints(), before);
}

#[test]
fn the_checkout_is_not_touched_by_owners_of_the_overlay() {
    let bundle =
        Bundle::script("busybox chown 5 /etc/own; stat -c %u /etc/own").with("/root", "readonly", json!(false));
    assert_eq!(bundle.prints(), "5\n");
    assert_eq!(fs::metadata(bundle.root().join("etc/own")).unwrap().uid(), 0);
}

#[test]
fn capabilities_that_cannot_be_given_are_warned_of_and_the_rest_is_given() {
    let sets = json!(["CAP_KILL", "CAP_FROM_THE_FUTURE", "CAP_SYS_RESOURCE"]);
    let bundle = Bundle::script("grep CapEff /proc/self/status").with(
        "/process",
        "capabilities",
        json!({"bounding": sets, "effective": sets, "permitted": sets}),
    );
    let mut command = bundle.started_by(&["setpriv", "--bounding-set=-sys_resource", RUNTIME]);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "CapEff:\t0000000000000020\n", "{output:?}");
    let warned = String::from_utf8(output.stderr).unwrap();
    for words in
        ["warning: the capability \"CAP_FROM_THE_FUTURE\" is not known", "does not get CAP_SYS_RESOURCE: the unit"]
    {
        assert!(warned.contains(words), "{warned}");
    }
    let error = Bundle::running(&["true"]).with("/process", "capabilities", json!({"bounding": "KILL"})).run();
    assert!(!error.status.success());
}

#[test]
fn without_a_umask_named_it_is_the_units() {
    let script = "umask; umask 0";
    let bundle = |user| Bundle::script(script).with("/process", "user", user);
    let under = |bundle: &Bundle| {
        let output = bundle.started_by(&["sh", "-c", "umask 027; exec \"$@\"", "sh", RUNTIME]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(under(&bundle(json!({"uid": 0, "gid": 0}))), "0027\n");
    assert_eq!(under(&bundle(json!({"uid": 0, "gid": 0, "umask": 0o77}))), "0077\n");
}

#[test]
fn flags_and_options_have_the_specifications_names() {
    let scheduler = json!({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    Bundle::running(&["true"]).with("/process", "scheduler", scheduler).prints();
    let host = tempfile::tempdir().unwrap();
    let same = ["noiversion", "rnorelatime", "rnostrictatime", "nolazytime"];
    Bundle::running(&["true"]).binding(host.path(), "data", &[&["rbind"], &same[..]].concat()).prints();
    let error = Bundle::running(&["true"]).binding(host.path(), "/data", &["bind", "sync"]).fails();
    assert!(error.contains("the option \"sync\" is its file system's"), "{error}");
}

#[test]
fn a_device_on_a_root_to_write_on_is_the_hosts_or_an_error() {
    let device = |path: &str| json!([{"path": path, "type": "c", "major": 1, "minor": 5}]);
    let bundle = |path: &str| {
        let mut bundle = Bundle::script(&format!("head -c 3 {path} | cat -v"))
            .with("/root", "readonly", json!(false))
            .with("/linux", "devices", device(path));
        bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/tmp");
        bundle
    };
    let error = bundle("/data/none").fails();
    assert!(error.contains("making the device /data/none") && error.contains("the host has none"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zero");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let zero = nix::sys::stat::makedev(1, 5);
    nix::sys::stat::mknod(&path, nix::sys::stat::SFlag::S_IFCHR, mode, zero).unwrap();
    let printed = bundle(path.to_str().unwrap()).prints();
    assert!(printed.starts_with("^@^@^@"), "{printed}");
}

#[test]
fn a_device_goes_where_config_json_has_it_though_it_cannot_be_used_there() {
    let device = json!([{"path": "/tmp/zero", "type": "c", "major": 1, "minor": 5}]);
    let mut bundle = Bundle::script("stat -c %t:%T /tmp/zero").with("/linux", "devices", device);
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.iter_mut().find(|mount| mount["destination"] == "/tmp").unwrap()["options"] = json!(["nodev"]);
    assert_eq!(bundle.prints(), "1:5\n");
}
