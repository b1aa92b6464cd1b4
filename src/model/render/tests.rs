//! Golden units, and gaps that must not pass.

use super::*;

const CONFIG: &str = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
    "config": {"Entrypoint": ["/usr/bin/etcd"], "User": "etcd", "StopSignal": "SIGQUIT", "Volumes": {"/data": {}}}}"#;

fn rendered(exports: &[(&str, &str)], settings: &[&str]) -> Result<Rendered> {
    rendered_for(exports, settings, None)
}

fn rendered_for(exports: &[(&str, &str)], settings: &[&str], runtime: Option<&str>) -> Result<Rendered> {
    let runtime: Option<RuntimePath> = runtime.map(|path| path.parse().expect("a path"));
    let exports = exports.iter().map(|(file, text)| ((*file).to_owned(), text.as_bytes().to_vec())).collect();
    let settings: Vec<Setting> = settings.iter().map(|text| text.parse().expect("a setting")).collect();
    render(&Inputs {
        name: &"etcd".parse().expect("a name"),
        id: 1,
        image: "registry.example/etcd:3.5",
        digest: &Digest::from_sha256([0xab; 32]),
        config: &serde_json::from_str(CONFIG)?,
        exports: &exports,
        passwd: "etcd:x:2379:2379::/var/lib/etcd:/bin/false\n",
        group: "",
        settings: &settings,
        runtime: runtime.as_ref(),
    })
}

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
fn an_image_without_exports_gets_a_whole_service() {
    let rendered = rendered(&[], &[]).expect("files");
    let digest = "ab".repeat(32);
    let expected = format!(
        "[Unit]
Description=etcd (registry.example/etcd:3.5)
After=sysctr-recover.service
Requires=sysctr-recover.service
RequiresMountsFor=/var/lib/sysctr/containers/etcd/deployments/1

[Service]
Type=notify
ExecStart=/usr/libexec/sysctr/sysctr-runtime run /var/lib/sysctr/containers/etcd/deployments/1
Restart=on-failure
NotifyAccess=all
Delegate=yes
KillMode=mixed
OOMPolicy=stop
UnsetEnvironment={LOADERS_VARIABLES}
SyslogIdentifier=etcd
KillSignal=SIGQUIT
LogExtraFields=SYSCTR_IMAGE=registry.example/etcd:3.5
LogExtraFields=SYSCTR_DIGEST=sha256:{digest}

[Install]
WantedBy=multi-user.target
"
    );
    assert_eq!(rendered.files["etcd.service"], expected);
    assert_eq!(rendered.files[layout::TMPFILES], "d /var/lib/etcd/data 0755 2379 2379 -\n");
    assert_eq!(rendered.requests, Requests::new());
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
    ];
    for word in words {
        assert!(rendered.requests.iter().any(|request| request.contains(word)), "{word}: {:?}", rendered.requests);
    }
}

#[test]
fn a_mistake_is_named_with_its_file_and_place() {
    for (exports, settings, expected) in [
        (
            vec![("manifest.json", "{\"version\": \"2.0\",\n \"x\": 1}")],
            vec![],
            "/exports/manifest.json: unknown field `x`",
        ),
        (vec![("service.hbs", "[Unit]\nDescription={{gone}}\n")], vec![], "/exports/service.hbs, line 2"),
        (vec![("service.hbs", "Description=x\n")], vec![], "line 1"),
        (vec![("config.json.hbs", "{")], vec![], "/exports/config.json.hbs"),
        (vec![("service.template", "")], vec![], "/exports/service.template"),
        (vec![("tmpfiles.hbs", "f /etc/cron.d/x")], vec![], "/exports/tmpfiles.hbs"),
        (vec![], vec!["x=1"], "--set x"),
        (vec![("manifest.json", r#"{"version": "2.0", "container": {"user": "gone"}}"#)], vec![], "\"gone\""),
        (
            vec![(
                "manifest.json",
                r#"{"version": "2.0", "state": {"folders": [{"path": "/run/etcd"}, {"path": "/run/etcd/b"}]}}"#,
            )],
            vec![],
            "/run/etcd/b lies in /run/etcd",
        ),
    ] {
        let message = format!("{:#}", rendered(&exports, &settings).expect_err(expected));
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    }
}

#[test]
fn hooks_are_requested_in_full_and_those_after_a_stop_are_the_units() {
    let config = r#"{"ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": false},
        "process": {"user": {"uid": 5, "gid": 5}, "args": ["/a"], "cwd": "/", "noNewPrivileges": true},
        "hooks": {"createRuntime": [{"path": "/usr/bin/net", "args": ["net", "up"], "env": ["A=b"]}],
            "startContainer": [{"path": "/bin/inside"}], "poststop": [{"path": "/usr/bin/net", "args": ["net", "down"]}]},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}],
            "maskedPaths": MASKED, "readonlyPaths": READ_ONLY}}"#;
    let list = |paths: &[&str]| serde_json::to_string(paths).expect("a list");
    let config = config.replace("MASKED", &list(&spec::MASKED)).replace("READ_ONLY", &list(&spec::READ_ONLY));
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
