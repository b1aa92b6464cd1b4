//! Golden units, and gaps that must not pass.

use super::*;
use serde_json::json;

use super::unit::LOADERS_VARIABLES;
use crate::model::directives::{Class, Directive};

const CONFIG: &str = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
    "config": {"Entrypoint": ["/usr/bin/etcd"], "User": "etcd", "StopSignal": "SIGQUIT", "Volumes": {"/data": {}}}}"#;

pub(super) fn rendered(exports: &[(&str, &str)], settings: &[&str]) -> Result<Rendered> {
    rendered_for(exports, settings, None)
}

pub(super) fn rendered_for(exports: &[(&str, &str)], settings: &[&str], runtime: Option<&str>) -> Result<Rendered> {
    rendered_with(CONFIG, exports, settings, runtime)
}

pub(super) fn rendered_with(
    config: &str,
    exports: &[(&str, &str)],
    settings: &[&str],
    runtime: Option<&str>,
) -> Result<Rendered> {
    let runtime: Option<RuntimePath> = runtime.map(|path| path.parse().expect("a path"));
    let exports = exports.iter().map(|(file, text)| ((*file).to_owned(), text.as_bytes().to_vec())).collect();
    let settings: Vec<Setting> = settings.iter().map(|text| text.parse().expect("a setting")).collect();
    render(&Inputs {
        name: &"etcd".parse().expect("a name"),
        id: 1,
        image: "registry.example/etcd:3.5",
        digest: &Digest::from_sha256([0xab; 32]),
        config: &serde_json::from_str(config)?,
        exports: &exports,
        hostfs: &BTreeMap::new(),
        passwd: "etcd:x:2379:2379::/var/lib/etcd:/bin/false\n",
        group: "",
        settings: &settings,
        before: None,
        runtime: runtime.as_ref(),
        range: Some(1_000_000),
        overrides: &Default::default(),
        uuid: "5a5a5a5a-0000-4000-8000-000000000000",
        is_there: &|_| true,
    })
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
RequiresMountsFor=/var/lib/etcd/data

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
fn state_lies_where_it_is_judged_to_lie() {
    let rendered_at = |path: &str| {
        let folders = json!({"version": "2.0", "state": {"folders": [{"path": path, "target": "/data"}]}});
        rendered(&[("manifest.json", &folders.to_string())], &[])
    };
    let rendered_to = |path| rendered_at(path).expect("files").files[layout::TMPFILES].clone();
    assert_eq!(rendered_to("/var/lib/etcd/a b%"), "d \"/var/lib/etcd/a b%%\" 0700 2379 2379 -\n");
    for path in ["/etc/\\cron.d", "/etc/\"cron.d\"", "/etc/'cron.d'"] {
        let message = format!("{:#}", rendered_at(path).expect_err(path));
        assert!(message.contains("state.folders") && message.contains(&format!("{path:?}")), "{message}");
        let config = CONFIG.replace("/data", &path.replace('\\', "\\\\").replace('"', "\\\""));
        let message = format!("{:#}", rendered_with(&config, &[], &[], None).expect_err(path));
        assert!(message.contains("the image's volumes") && message.contains(&format!("{path:?}")), "{message}");
    }
}

#[test]
fn a_value_may_leave_a_unit_out() {
    let manifest = r#"{"version": "2.0", "values": {"on_demand": {"type": "boolean", "default": false}}}"#;
    let socket = "{{#if values.on_demand}}\n[Socket]\nListenStream=80\n{{/if}}\n";
    let exports = [("manifest.json", manifest), ("socket.hbs", socket)];
    let has = |settings: &[&str]| rendered(&exports, settings).expect("units").files.contains_key("etcd.socket");
    assert!(!has(&[]));
    assert!(has(&["on_demand=true"]));
    let error = rendered(&[("service.hbs", "\n")], &[]).expect_err("no service");
    assert!(format!("{error:#}").contains("no ExecStart="), "{error:#}");
}

#[test]
fn a_config_of_the_images_own_has_the_capabilities_of_the_manifest() {
    let manifest = r#"{"version": "2.0", "container": {"capabilities": {"add": ["SYS_ADMIN"], "drop": ["KILL"]}}}"#;
    let config = r#"{"ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": true}, "mounts": [],
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/a"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {"bounding": {{json capabilities}}}},
        "linux": {"namespaces": [{"type": "mount"}], "seccomp": {{json seccomp}}}}"#;
    let rendered = rendered(&[("manifest.json", manifest), ("config.json.hbs", config)], &[]).expect("files");
    let text = spec::to_text(&rendered.spec).expect("text");
    assert!(text.contains("CAP_SYS_ADMIN") && text.contains("CAP_CHOWN") && !text.contains("CAP_KILL"), "{text}");
    assert!(rendered.requests.iter().any(|request| request.contains("SYS_ADMIN")), "{:?}", rendered.requests);
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
        (vec![], vec!["x=1"], "the value x"),
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
fn a_unit_with_a_directive_that_cannot_work_is_refused_with_the_reason() {
    for directive in directives::all().filter(|one| matches!(one.class, Class::Refused | Class::Launcher)) {
        let unit = format!("[Service]\nExecStart={{{{exec_start}}}}\n{} = strict\n", directive.name);
        let message = format!("{:#}", rendered(&[("service.hbs", &unit)], &[]).expect_err(directive.name));
        for word in ["/exports/service.hbs, line 3: ", directive.name, directive.why] {
            assert!(message.contains(word), "{message:?} does not say {word:?}");
        }
    }
    let known = |one: &Directive| matches!(one.class, Class::Plain | Class::Sysctr);
    for directive in directives::all().filter(known).filter(|one| one.name != "ExecStart") {
        let unit = format!("[Service]\nExecStart={{{{exec_start}}}}\n{}=1\n", directive.name);
        let rendered = rendered(&[("service.hbs", &unit)], &[]).expect(directive.name);
        let asked = rendered.requests.iter().any(|request| request.contains(&format!("{}=1", directive.name)));
        let by_value = ["Type", "Nice", "RuntimeDirectory", "StateDirectory", "LogsDirectory", "CacheDirectory"];
        assert!(asked != directive.free || by_value.contains(&directive.name), "{}: {asked}", directive.name);
    }
}

#[test]
fn every_container_has_a_filter_of_system_calls_unless_it_is_asked_for() {
    let container = |text: &str| format!(r#"{{"version": "2.0", "container": {{{text}}}}}"#);
    let filter = |rendered: &Rendered| rendered.spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    let plain = rendered(&[], &[]).expect("files");
    assert_eq!((filter(&plain).is_some(), plain.requests.len()), (true, 0));
    let named = rendered(&[("manifest.json", &container(r#""seccomp": "default""#))], &[]).expect("files");
    assert_eq!((filter(&named), named.requests.len()), (filter(&plain), 0));
    // What an accepted capability is for, it can do: no second request.
    let more =
        rendered(&[("manifest.json", &container(r#""capabilities": {"add": ["SYS_TIME"]}"#))], &[]).expect("files");
    assert!(filter(&more).is_some() && filter(&more) != filter(&plain));
    assert_eq!(more.requests, Requests::from(["capability CAP_SYS_TIME".to_owned()]));
    let none = rendered(&[("manifest.json", &container(r#""seccomp": "unconfined""#))], &[]).expect("files");
    assert_eq!(filter(&none), None);
    assert_eq!(none.requests, Requests::from(["run without a filter of system calls (seccomp)".to_owned()]));
}

#[test]
fn who_may_make_device_nodes_opens_only_the_listed_ones() {
    let manifest = |text: &str| format!(r#"{{"version": "2.0", "container": {{{text}}}}}"#);
    let lines = |text: &str, service: Option<&str>| -> (Vec<String>, Requests) {
        let manifest = manifest(text);
        let exports =
            [("manifest.json", manifest.as_str())].into_iter().chain(service.map(|text| ("service.hbs", text)));
        let rendered = rendered(&exports.collect::<Vec<_>>(), &[]).expect("files");
        let lines = rendered.files["etcd.service"].lines().filter(|line| line.starts_with("Device")).map(str::to_owned);
        (lines.collect(), rendered.requests)
    };
    let (unit, requests) = lines(r#""capabilities": {"add": ["MKNOD"]}, "devices": ["/dev/net/tun"]"#, None);
    assert_eq!(unit, ["DevicePolicy=closed", "DeviceAllow=/dev/net/tun rwm"]);
    assert_eq!(requests, Requests::from(["capability CAP_MKNOD".to_owned(), "device /dev/net/tun".to_owned()]));
    assert_eq!(lines(r#""devices": ["/dev/net/tun"]"#, None).0, Vec::<String>::new());
    let own = "[Service]\nExecStart={{exec_start}}\nDevicePolicy=auto\n";
    let (unit, requests) = lines(r#""capabilities": {"add": ["MKNOD"]}"#, Some(own));
    assert_eq!((unit, requests.len()), (vec!["DevicePolicy=auto".to_owned()], 2));

    // In a config.json of the image's own the numbers say which device it is, and any set of capabilities counts.
    let config = r#"{"ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": true}, "mounts": [],
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/a"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {"permitted": ["CAP_MKNOD"], "inheritable": ["CAP_MKNOD"], "ambient": ["CAP_MKNOD"]}},
        "linux": {"namespaces": [{"type": "mount"}], "devices": [
            {"path": "/dev/x", "type": "b", "major": 7, "minor": 3}, {"path": "/dev/y", "type": "c", "major": 10, "minor": 200},
            {"path": "/dev/z", "type": "p"}]}}"#;
    let rendered = rendered(&[("config.json.hbs", config)], &[]).expect("files");
    let lines: Vec<&str> = rendered.files["etcd.service"].lines().filter(|line| line.starts_with("Device")).collect();
    assert_eq!(lines, ["DevicePolicy=closed", "DeviceAllow=/dev/block/7:3 rwm", "DeviceAllow=/dev/char/10:200 rwm"]);
}

#[test]
fn an_argument_that_is_one_condition_may_come_to_nothing() {
    let manifest = r#"{"version": "2.0", "values": {"a": {"type": "string", "default": ""}}, "container": {"args":
        ["/x", "{{#if values.a}}--a={{values.a}}{{/if}}", "{{values.a}}", "{{#unless values.a}}--none{{/unless}}"]}}"#;
    let args = |settings: &[&str]| {
        let rendered = rendered(&[("manifest.json", manifest)], settings).expect("files");
        rendered.spec.process().as_ref().and_then(|process| process.args().clone()).expect("arguments")
    };
    assert_eq!(args(&[]), ["/x", "", "--none"]);
    assert_eq!(args(&["a=b"]), ["/x", "--a=b", "b"]);
}
