//! Each kind of problem is found, with its file, and a clean image has none.

use super::*;
use crate::model::digest::Digest;

const CONFIG: &str = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
    "config": {"Entrypoint": ["/usr/bin/app"]}}"#;

pub(super) fn linted(exports: &[(&str, &str)]) -> Vec<String> {
    linted_with("", exports)
}

pub(in crate::model) fn linted_with(passwd: &str, exports: &[(&str, &str)]) -> Vec<String> {
    let exports = exports.iter().map(|(file, text)| ((*file).to_owned(), text.as_bytes().to_vec())).collect();
    let problems = image(&Inputs {
        runtime: None,
        range: None,
        name: &"app".parse().expect("a name"),
        id: 1,
        image: "registry.example/app:1",
        digest: &Digest::from_sha256([0xab; 32]),
        config: &serde_json::from_str(CONFIG).expect("a config"),
        exports: &exports,
        hostfs: &BTreeMap::new(),
        passwd,
        group: "",
        settings: &[],
        before: None,
        overrides: &Default::default(),
        uuid: "",
        is_there: &|_| true,
    })
    .problems;
    problems.iter().map(|one| format!("{}: {}: {}", one.level.word(), one.file, one.detail)).collect()
}

/// Each line begins and goes on as expected, in this order.
fn says(exports: &[(&str, &str)], expected: &[(&str, &str)]) {
    let lines = linted(exports);
    let as_expected = lines.len() == expected.len()
        && lines.iter().zip(expected).all(|(line, (start, word))| line.starts_with(start) && line.contains(word));
    assert!(as_expected, "{lines:#?} are not {expected:#?}");
}

#[test]
fn an_image_without_fault_is_clean() {
    says(&[], &[]);
    let manifest = r#"{"version": "2.0", "values": {"port": {"type": "integer"}, "name": {"type": "string"}},
        "container": {"args": ["/usr/bin/app", "{{values.port}}", "{{values.name}}"]}}"#;
    says(&[("manifest.json", manifest), ("service.hbs", "[Service]\nExecStart={{exec_start}}\nMemoryMax=1G\n")], &[]);
}

#[test]
fn every_file_with_a_fault_is_named() {
    let exports = [
        ("service.hbs", "[Unit]\nDescription={{gone}}\n"),
        ("socket.hbs", "[Socket]\nListenStream\n"),
        ("tmpfiles.hbs", "f /etc/cron.d/x"),
        ("services.hbs", ""),
    ];
    says(
        &exports,
        &[
            ("warning: /exports/services.hbs: ", "no such file"),
            ("error: /exports/service.hbs, line 2", "\"gone\""),
            ("error: /exports/socket.hbs, line 2", "ListenStream"),
            ("error: /exports/tmpfiles.hbs: ", "/etc/cron.d"),
        ],
    );
    says(&[("manifest.json", "{\"version\": \"2.0\",\n \"x\": 1}")], &[("error: /exports/manifest.json: ", "line 2")]);
    says(&[("config.json.hbs", "{")], &[("error: /exports/config.json.hbs: ", "EOF")]);
}

#[test]
fn every_directive_that_cannot_work_is_named_with_its_line() {
    let service = "[Service]\nExecStart={{exec_start}}\nUser=app\nRetsart=always\nSystemCallFilter=~@swap\nPrivateTmp=yes\nX-Mine=1\n";
    says(
        &[("service.hbs", service)],
        &[
            ("error: /exports/service.hbs, line 3: User=", "; use container.user"),
            ("error: /exports/service.hbs, line 4: Retsart=", "typing error"),
            ("error: /exports/service.hbs, line 5: SystemCallFilter=", "; use linux.seccomp"),
            ("error: /exports/service.hbs, line 6: PrivateTmp=", "; leave it out"),
        ],
    );
}

#[test]
fn what_it_asks_for_is_noted_where_it_is_asked() {
    let manifest = r#"{"version": "2.0", "container": {"mounts": [{"source": "/srv", "target": "/srv"}]}}"#;
    let service = "[Service]\nExecStart={{exec_start}}\nExecStartPre=/bin/x\n";
    says(
        &[("manifest.json", manifest), ("service.hbs", service)],
        &[
            ("note: /exports/manifest.json: asks: read and write /srv of the host (as /srv);", "accept"),
            ("note: /exports/service.hbs: asks: run on the host: ExecStartPre=/bin/x;", "accept"),
        ],
    );
}

#[test]
fn a_value_that_breaks_a_file_is_found_before_an_admin_gives_it() {
    let manifest = r#"{"version": "2.0", "values": {"dir": {"type": "path", "default": "/var/lib/app"}}}"#;
    let tmpfiles = ("tmpfiles.hbs", "d {{values.dir}} 0700\n");
    says(
        &[("manifest.json", manifest), tmpfiles],
        &[("warning: /exports/manifest.json: values.dir: with ", "pattern")],
    );
    let narrow = manifest.replace("\"path\",", "\"path\", \"pattern\": \"/[a-z/]+\",");
    says(&[("manifest.json", &narrow), tmpfiles], &[]);
    let odd = r#"{"version": "2.0", "values": {"x": {"type": "string", "pattern": "[0-9]{30}"}}}"#;
    says(&[("manifest.json", odd)], &[("warning: /exports/manifest.json: values.x: ", "--set x=")]);
}

#[test]
fn a_drop_in_that_does_not_reach_the_program_is_named() {
    let unit = |path: &str, text: &str| (path.to_owned(), UnitFile::parse(path, text).expect("a unit"));
    let own = unit("/a", &format!("[Service]\nExecStart={} run /x\nMemoryMax=1G\n", layout::RUNTIME));
    assert_eq!(installed(std::slice::from_ref(&own)), []);
    let files =
        [own, unit("/b", "[Service]\nUser=x\nPrivateTmp=yes\n"), unit("/c", "[Service]\nUser=\nExecStart=/bin/x\n")];
    let found = installed(&files);
    let found: Vec<(Level, &str, &str)> = found
        .iter()
        .map(|one| (one.level, one.file.as_str(), one.detail.split('=').next().unwrap_or_default()))
        .collect();
    assert_eq!(found, [(Level::Error, "/b", "PrivateTmp"), (Level::Warning, "/c", "ExecStart")]);
}

#[test]
fn a_profile_of_system_calls_is_a_known_file_and_read() {
    let manifest = r#"{"version": "2.0", "container": {"seccomp": "calls.json"}}"#;
    let exports = |profile| [("manifest.json", manifest), ("calls.json", profile)];
    says(
        &exports(r#"{"defaultAction": "SCMP_ACT_LOG"}"#),
        &[("note: /exports/manifest.json", "of its own (seccomp, ")],
    );
    says(&exports(r#"{"action": "SCMP_ACT_LOG"}"#), &[("error: /exports/calls.json", "`action`")]);
    let none = r#"{"version": "2.0", "container": {"seccomp": "unconfined"}}"#;
    says(
        &[("manifest.json", none)],
        &[
            ("warning: /exports/manifest.json: container.seccomp", "name a profile"),
            ("note: /exports/manifest.json", "without a filter of system calls"),
        ],
    );
}

#[test]
fn what_systemd_says_is_told_at_the_template() {
    let units = [("app.service", ""), ("app@.socket", "")].map(|(unit, text)| (unit.to_owned(), text.to_owned()));
    let mut judgement = Judgement { problems: Vec::new(), units: units.into_iter().collect() };
    let lines = [
        "/tmp/x/app.service:5: Failed to parse service type, ignoring: bogus",
        "app@.socket: Unit has no Listen setting. Refusing.",
        "app.service: Command /usr/bin/x is not executable: No such file or directory",
        "other.service: nobody's",
    ];
    judgement.add_systemds(&lines.map(str::to_owned));
    let said: Vec<String> =
        judgement.problems.iter().map(|one| format!("{} {}: {}", one.level.word(), one.file, one.detail)).collect();
    assert_eq!(
        said,
        [
            "error /exports/service.hbs: systemd says: line 5 once it is filled in: Failed to parse service type, ignoring: bogus",
            "error /exports/socket@.hbs: systemd says: Unit has no Listen setting. Refusing.",
            "warning /exports/service.hbs: systemd says: Command /usr/bin/x is not executable: No such file or directory",
        ]
    );
}

#[test]
fn an_old_image_has_a_stand_in_for_what_its_files_ask_for() {
    let manifest = r#"{"installedFilesTemplate": ["/etc/app.conf"]}"#;
    let said = linted(&[("manifest.json", manifest), ("hostfs/etc/app.conf", "a=$NOBODY_GIVES_IT\n")]);
    assert!(said.iter().all(|line| line.starts_with("note: ")), "{said:#?}");
}

#[test]
fn a_file_for_the_host_that_nothing_places_is_told() {
    let manifest = r#"{"version": "2.0", "hostFiles": [{"path": "/etc/a", "source": "a"}]}"#;
    says(
        &[("manifest.json", manifest), ("hostfs/a", ""), ("hostfs/etc/b", "")],
        &[
            ("warning: /exports/hostfs/etc/b: ", "no entry of hostFiles"),
            ("note: /exports/manifest.json: asks: put the file /etc/a", ""),
        ],
    );
}
