//! What whole images ask of the host, and what they are refused for.

use super::{
    tests::{rendered, rendered_for},
    *,
};
use serde_json::json;

#[test]
fn the_admins_choice_of_a_runtime_is_no_request_and_is_cleaned_up_after() {
    let rendered = rendered_for(&[], &[], Some("/usr/bin/crun")).expect("files");
    let unit = &rendered.files["etcd.service"];
    for line in [
        "ExecStart=/usr/libexec/sysctr/sysctr-runtime run-with /usr/bin/crun /var/lib/sysctr/containers/etcd/deployments/1",
        "ExecStopPost=-/usr/libexec/sysctr/sysctr-runtime delete-with /usr/bin/crun /var/lib/sysctr/containers/etcd/deployments/1",
        "RequiresMountsFor=/usr/bin/crun",
    ] {
        assert!(unit.lines().any(|known| known == line), "{line} is missing in\n{unit}");
    }
    assert_eq!(rendered.requests, Requests::new());
    // The image's choice is one: it names the bundled launcher with another program.
    let service = "[Service]\nExecStart=/usr/libexec/sysctr/sysctr-runtime run-with /bin/sh /var/lib/sysctr/containers/etcd/deployments/1\n";
    let rendered = rendered_for(&[("service.hbs", service)], &[], Some("/usr/bin/crun")).expect("files");
    assert_eq!(rendered.requests.len(), 1);
}

#[test]
fn what_an_image_reaches_for_is_requested() {
    let manifest = r#"{"version": "2.0", "wants": ["debug-shell.service"], "state": {"folders": [{"path": "/srv/x"}]},
        "container": {"capabilities": {"add": ["NET_ADMIN"]}, "devices": ["/dev/net/tun"], "mounts": [{"source": "/etc", "target": "/host"}]}}"#;
    let rendered = rendered(&[("manifest.json", manifest), ("service.hbs", "[Service]\nExecStart=/bin/sh\n")], &[])
        .expect("files");
    let asked: Vec<&str> = rendered.requests.iter().map(String::as_str).collect();
    assert_eq!(
        asked,
        [
            "capability CAP_NET_ADMIN",
            "device /dev/net/tun",
            "keep state in /srv/x of the host",
            "read and write /etc of the host (as /host)",
            "read and write /srv/x of the host (as /srv/x)",
            "run on the host: ExecStart=/bin/sh (etcd.service)",
            "start along: debug-shell.service (etcd.service)",
        ]
    );
}

#[test]
fn the_last_word_of_a_mounts_options_counts() {
    let manifest = r#"{"version": "2.0", "container": {"mounts": [{"source": "/etc", "target": "/host", "options": ["ro", "rw"]}]}}"#;
    let rendered = rendered(&[("manifest.json", manifest)], &[]).expect("files");
    assert!(rendered.requests.contains("read and write /etc of the host (as /host)"), "{:?}", rendered.requests);
}

#[test]
fn what_would_lead_around_the_requests_is_refused_or_asked_for() {
    let config = |mounts: &str| {
        format!(
            r#"{{"ociVersion": "1.0.2", "root": {{"path": "rootfs", "readonly": true}}, "mounts": [{mounts}],
            "process": {{"user": {{"uid": 0, "gid": 0}}, "args": ["/a"], "cwd": "/", "noNewPrivileges": true}},
            "linux": {{"namespaces": [{{"type": "mount"}}]}}}}"#
        )
    };
    for (mount, expected) in [
        (r#"{"type": "proc", "source": "proc", "destination": "/p"}"#, "/proc only"),
        (r#"{"type": "sysfs", "source": "sysfs", "destination": "/sys", "options": ["ro", "rrw"]}"#, "\"rrw\""),
        (
            r#"{"type": "bind", "source": "/etc/hosts", "destination": "/h", "options": ["rbind", "ro", "rrw", "nofail"]}"#,
            "\"rrw\"",
        ),
    ] {
        let message = format!("{:#}", rendered(&[("config.json.hbs", &config(mount))], &[]).expect_err(expected));
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    }
    let deep = r#"{"type": "bind", "source": "/srv", "destination": "/host", "options": ["rbind", "ro"]}"#;
    let asked = rendered(&[("config.json.hbs", &config(deep))], &[]).expect("files").requests;
    assert!(
        asked.contains("read and write / of the host (as /host)") || asked.iter().any(|one| one.contains("write /")),
        "{asked:?}"
    );

    let manifest =
        r#"{"version": "2.0", "container": {"user": "5", "notify": true, "capabilities": {"add": ["SETUID"]}}}"#;
    let asked = rendered(&[("manifest.json", manifest)], &[]).expect("files").requests;
    assert!(asked.iter().any(|one| one.contains("readiness as root")), "{asked:?}");
}

#[test]
fn a_config_of_the_images_own_is_judged_as_a_whole() {
    let config = r#"{"ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": true}, "mounts": [],
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/a"], "cwd": "/", "noNewPrivileges": false},
        "linux": {"namespaces": [{"type": "mount"}], "maskedPaths": ["/proc/kcore"], "readonlyPaths": []},
        "annotations": {"org.sysctr.notify": "true", "org.sysctr.setuid": "true"}}"#;
    let rendered = rendered(&[("config.json.hbs", config)], &[]).expect("files");
    let words = [
        "privileges through",
        "as root",
        "processes",
        "inter-process",
        "host name",
        "control groups",
        "kernel's settings",
        "setuid programs of",
        "without a filter of system calls",
    ];
    for word in words {
        assert!(rendered.requests.iter().any(|request| request.contains(word)), "{word}: {:?}", rendered.requests);
    }
}

#[test]
fn precedence_over_other_services_is_asked_for_wherever_it_is_said() {
    let asked = |process: &str| {
        let config = format!(
            r#"{{"ociVersion": "1.2.0", "root": {{"path": "rootfs", "readonly": true}},
            "process": {{"user": {{"uid": 5, "gid": 5}}, "args": ["/a"], "cwd": "/", "noNewPrivileges": true{process}}},
            "linux": {{"namespaces": [{{"type": "mount"}}]}}}}"#
        );
        rendered(&[("config.json.hbs", &config)], &[]).expect("files").requests
    };
    let limit = |name: &str, hard: u64| {
        asked(&format!(r#", "rlimits": [{{"type": "RLIMIT_{name}", "soft": 0, "hard": {hard}}}]"#))
    };
    let plain = asked("");
    for (asked, expected) in [
        (asked(r#", "oomScoreAdj": -500"#), "OOMScoreAdjust=-500"),
        (asked(r#", "scheduler": {"policy": "SCHED_OTHER", "nice": -5}"#), "Nice=-5"),
        (limit("RTPRIO", 1), "LimitRTPRIO=1"),
        (limit("NICE", 21), "LimitNICE=21"),
    ] {
        assert_eq!(asked.difference(&plain).collect::<Vec<_>>(), [expected]);
    }
    for free in [
        asked(r#", "oomScoreAdj": 5"#),
        asked(r#", "scheduler": {"policy": "SCHED_BATCH", "nice": 5}"#),
        limit("RTPRIO", 0),
        limit("NICE", 20),
        limit("NOFILE", 100_000),
    ] {
        assert_eq!(free, plain);
    }
    let of_line = |line: &str| {
        let service = format!("[Service]\nExecStart={{{{exec_start}}}}\n{line}\n");
        rendered(&[("service.hbs", &service)], &[]).expect("files").requests.into_iter().collect::<Vec<_>>()
    };
    for line in ["LimitRTPRIO=99", "LimitNICE=40", "OOMScoreAdjust=-500", "Nice=-1", "Nice=0x1"] {
        assert_eq!(of_line(line), [format!("{line} (etcd.service)")]);
    }
    for free in ["Nice=", "Nice=0", "Nice=+19"] {
        assert_eq!(of_line(free), Vec::<String>::new(), "{free}");
    }
}

#[test]
fn hooks_are_requested_in_full_and_those_after_a_stop_are_the_units() {
    let config = r#"{"ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": false},
        "process": {"user": {"uid": 5, "gid": 5}, "args": ["/a"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {"bounding": CAPABILITIES}},
        "hooks": {"createRuntime": [{"path": "/usr/bin/net", "args": ["net", "up"], "env": ["A=b"]}],
            "startContainer": [{"path": "/bin/inside"}], "poststop": [{"path": "/usr/bin/net", "args": ["net", "down"]}]},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}],
            "maskedPaths": MASKED, "readonlyPaths": READ_ONLY, "seccomp": {{json seccomp}}}}"#;
    let list = |paths: &[&str]| serde_json::to_string(paths).expect("a list");
    let config = config.replace("MASKED", &list(&spec::MASKED)).replace("READ_ONLY", &list(&spec::READ_ONLY));
    let config = config.replace("CAPABILITIES", &list(&spec::DEFAULT_CAPABILITIES));
    let rendered = rendered(&[("config.json.hbs", &config)], &[]).expect("files");
    let requests: Vec<&str> = rendered.requests.iter().map(String::as_str).collect();
    assert_eq!(
        requests,
        [
            "run on the host: \"A=b\" /usr/bin/net \"up\" (createRuntime hook)",
            "run on the host: /usr/bin/net \"down\" (poststop hook)"
        ]
    );
    let line =
        "ExecStopPost=/usr/libexec/sysctr/sysctr-runtime poststop /var/lib/sysctr/containers/etcd/deployments/1\n";
    assert!(rendered.files["etcd.service"].contains(line), "{}", rendered.files["etcd.service"]);
}

#[test]
fn a_root_to_write_on_needs_no_request() {
    let manifest = r#"{"version": "2.0", "container": {"readonly": false}}"#;
    let rendered = rendered(&[("manifest.json", manifest)], &[]).expect("files");
    assert_eq!(rendered.spec.root().as_ref().and_then(|root| root.readonly()), Some(false));
    assert_eq!(rendered.requests, Requests::new());
}

#[test]
fn a_profile_of_the_image_is_asked_for_by_its_content() {
    let manifest = r#"{"version": "2.0", "container": {"seccomp": "calls.json"}}"#;
    let with = |profile: &str| rendered(&[("manifest.json", manifest), ("calls.json", profile)], &[]);
    let asked = |profile: &str| with(profile).expect("files").requests.into_iter().collect::<Vec<_>>();
    let first = asked(r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}"#);
    let second = asked(r#"{"defaultAction": "SCMP_ACT_LOG"}"#);
    assert!(
        first.len() == 1 && first[0].starts_with("use a filter of system calls of its own (seccomp, "),
        "{first:?}"
    );
    assert_ne!(first, second);
    for (profile, words) in [("{", "/exports/calls.json: "), (r#"{"defaultAction": "SCMP_ACT_ERRNO", "x": 1}"#, "`x`")]
    {
        let message = format!("{:#}", with(profile).expect_err(words));
        assert!(message.contains(words), "{message:?} does not say {words:?}");
    }
    let message = format!("{:#}", rendered(&[("manifest.json", manifest)], &[]).expect_err("no such file"));
    assert!(message.starts_with("/exports/manifest.json: container.seccomp"), "{message}");
}

#[test]
fn root_of_a_user_namespace_may_report_readiness_and_a_map_of_the_hosts_root_is_a_request() {
    let manifest = r#"{"version": "2.0", "container": {"user": "0", "notify": true, "userns": "auto"}}"#;
    let asked = rendered(&[("manifest.json", manifest)], &[]).expect("files").requests;
    assert!(asked.is_empty(), "{asked:?}");
    let plain = manifest.replace("auto", "host");
    assert_eq!(rendered(&[("manifest.json", &plain)], &[]).expect("files").requests.len(), 1);
    let own = |host: &str| {
        let map = format!(r#"[{{"containerID": 0, "hostID": {host}, "size": 65536}}]"#);
        let spec = rendered(&[("manifest.json", manifest)], &[]).expect("files").spec;
        let mut spec = serde_json::to_value(spec).expect("json");
        spec["linux"]["uidMappings"] = json!("MAP");
        spec["linux"]["gidMappings"] = json!("MAP");
        let text = spec.to_string().replace("\"MAP\"", &map);
        rendered(&[("manifest.json", manifest), ("config.json.hbs", &text)], &[]).expect("files").requests
    };
    assert!(own("{{range}}").is_empty(), "{:?}", own("{{range}}"));
    let asked = own("0").into_iter().collect::<Vec<_>>();
    assert!(asked.len() == 2 && asked[0].starts_with("map the host's root"), "{asked:?}");
}
