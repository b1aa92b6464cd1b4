//! Forty faults, each planted into an image that has none: each is found, at its file.

use super::tests::linted;

const GOOD_MANIFEST: &str = r#"{"version": "2.0", "description": "a program",
    "values": {"port": {"type": "integer", "default": 80, "minimum": 1, "maximum": 65535, "description": "where it listens"},
        "mode": {"type": "enum", "enum": ["a", "b"], "default": "a"}},
    "after": ["etcd"], "requires": ["etcd"], "wants": ["network-online.target"],
    "container": {"args": ["/usr/bin/app", "--port={{values.port}}", "{{values.mode}}"], "env": {"A": "{{name}}"},
        "capabilities": {"drop": ["KILL"]}, "tmpfs": ["/var/cache/app"]},
    "state": {"folders": [{"path": "/var/lib/app/data", "mode": "0700"}]}}"#;
const GOOD_SERVICE: &str = "# what it is\n[Unit]\nDescription={{text description}}\nConditionPathExists=!/run/off\nStartLimitIntervalSec=1min 30s\n\n\
    [Service]\nExecStart={{exec_start}}\nEnvironment=PORT={{values.port}}\nRestart=on-failure\nRestartSec=2\nMemoryMax=1G\n\n\
    [Install]\nWantedBy=multi-user.target\n";
const GOOD_SOCKET: &str = "[Socket]\nListenStream={{values.port}}\nFileDescriptorName=web\nMaxConnections=10\n\n[Install]\nWantedBy=sockets.target\n";
const GOOD_TIMER: &str =
    "[Timer]\nOnCalendar=daily\nPersistent=yes\nRandomizedDelaySec=1h\n\n[Install]\nWantedBy=timers.target\n";
const GOOD_TMPFILES: &str = "d /var/lib/app 0755\nf /run/app 0644 - - - {{values.mode}}\n";
const GOOD_SYSUSERS: &str = "u app - \"A program\"\n";

/// The good image with some of its files changed.
fn with(changes: &[(&str, String)]) -> Vec<String> {
    let good = [
        ("manifest.json", GOOD_MANIFEST),
        ("service.hbs", GOOD_SERVICE),
        ("socket.hbs", GOOD_SOCKET),
        ("timer.hbs", GOOD_TIMER),
        ("tmpfiles.hbs", GOOD_TMPFILES),
        ("sysusers.hbs", GOOD_SYSUSERS),
    ];
    let mut files: Vec<(&str, String)> = good.iter().map(|(file, text)| (*file, (*text).to_owned())).collect();
    for (file, text) in changes {
        files.retain(|(known, _)| known != file);
        files.push((file, text.clone()));
    }
    linted(&files.iter().map(|(file, text)| (*file, text.as_str())).collect::<Vec<_>>())
}

#[test]
fn the_image_without_a_fault_is_clean() {
    let said = with(&[]);
    // It wants etcd to be started, and asks for that.
    assert!(said.iter().all(|line| line.starts_with("note: ")), "{said:#?}");
}

/// A fault: the file, what is replaced in it by what, and what is to be said, at which level.
type Fault = (&'static str, &'static str, &'static str, &'static str, &'static str);

const FAULTS: [Fault; 44] = [
    ("manifest.json", "\"version\": \"2.0\"", "\"version\": \"3.0\"", "error", "\"3.0\""),
    ("manifest.json", "\"description\": \"a program\"", "\"descripton\": \"a program\"", "error", "descripton"),
    ("manifest.json", "\"type\": \"integer\"", "\"type\": \"number\"", "error", "number"),
    ("manifest.json", "\"default\": 80", "\"default\": 0", "error", "from 1 to 65535"),
    ("manifest.json", "\"minimum\": 1", "\"minimum\": 70000", "error", "more than the maximum"),
    ("manifest.json", "\"default\": \"a\"", "\"default\": \"c\"", "error", "one of a, b"),
    ("manifest.json", "{{values.port}}", "{{values.prot}}", "error", "values.prot"),
    ("manifest.json", "\"drop\": [\"KILL\"]", "\"drop\": [\"KIL\"]", "error", "KIL"),
    ("manifest.json", "/var/lib/app/data", "/var/lib/app/../data", "error", "shortest form"),
    ("manifest.json", "\"0700\"", "\"rwx\"", "error", "not octal"),
    ("manifest.json", "\"args\": [", "\"network\": \"none\", \"args\": [", "error", "none"),
    ("manifest.json", "/var/lib/app/data", "/etc/systemd/system", "error", "/etc/systemd"),
    ("manifest.json", "\"0700\"", "\"0777\"", "warning", "everybody"),
    ("manifest.json", "\"drop\": [\"KILL\"]", "\"drop\": [\"NET_ADMIN\"]", "warning", "no container has it"),
    ("manifest.json", "\"drop\": [\"KILL\"]", "\"add\": [\"CHOWN\"]", "warning", "anyway"),
    ("manifest.json", "\"drop\": [\"KILL\"]", "\"add\": [\"SYS_ADMIN\"]", "warning", "root of the host"),
    (
        "manifest.json",
        "\"drop\": [\"KILL\"]",
        "\"add\": [\"KILL\"], \"drop\": [\"KILL\"]",
        "warning",
        "added and dropped",
    ),
    ("manifest.json", "\"env\":", "\"seccomp\": \"unconfined\", \"env\":", "warning", "every system call"),
    ("manifest.json", "\"env\":", "\"readonly\": false, \"env\":", "warning", "state.folders or container.tmpfs"),
    (
        "manifest.json",
        "\"env\":",
        "\"mounts\": [{\"source\": \"/etc\", \"target\": \"/host\"}], \"env\":",
        "warning",
        "all of /etc",
    ),
    (
        "manifest.json",
        "\"env\":",
        "\"mounts\": [{\"source\": \"/etc/x\", \"target\": \"/x\"}], \"env\":",
        "warning",
        "\"ro\"",
    ),
    (
        "manifest.json",
        "\"env\":",
        "\"mounts\": [{\"source\": \"/run/docker.sock\", \"target\": \"/d\"}], \"env\":",
        "warning",
        "root of the host",
    ),
    ("manifest.json", "/var/cache/app", "/tmp", "warning", "one in every container"),
    ("manifest.json", "/var/cache/app", "/var/lib/app/data", "warning", "one of them is lost"),
    ("manifest.json", "\"after\": [\"etcd\"], ", "", "warning", "at the same time"),
    ("manifest.json", "\"after\": [\"etcd\"]", "\"after\": [\"etcd\", \"etcd\"]", "warning", "twice"),
    (
        "manifest.json",
        "\"after\": [\"etcd\"]",
        "\"after\": [\"etcd\"], \"before\": [\"etcd\"]",
        "warning",
        "stands in both",
    ),
    (
        "manifest.json",
        "\"mode\": {",
        "\"unused\": {\"type\": \"string\", \"default\": \"x\"}, \"mode\": {",
        "warning",
        "no template uses it",
    ),
    ("manifest.json", "\"maximum\": 65535,", "\"maximum\": 65535, \"required\": true,", "warning", "never used"),
    ("service.hbs", "{{text description}}", "{{text descripton}}", "error", "descripton"),
    ("service.hbs", "{{values.port}}", "{{{values.port}}}", "error", "is refused"),
    ("service.hbs", "MemoryMax=1G", "PrivateTmp=yes", "error", "PrivateTmp"),
    ("service.hbs", "MemoryMax=1G", "MemroyMax=1G", "error", "MemroyMax"),
    ("service.hbs", "RestartSec=2", "RestartSec=soon", "error", "is no time"),
    ("service.hbs", "Restart=on-failure", "Restart=on-crash", "error", "none of systemd's"),
    ("service.hbs", "[Install]", "[Instal]", "error", "is no section"),
    ("service.hbs", "StartLimitIntervalSec", "StartLimitIntervallSec", "error", "is no directive of [Unit]"),
    ("service.hbs", "{{exec_start}}", "/usr/bin/app", "warning", "write {{exec_start}}"),
    ("socket.hbs", "ListenStream={{values.port}}\n", "", "error", "says not when to start"),
    ("socket.hbs", "MaxConnections=10", "Accept=yes", "error", "service@.hbs"),
    ("timer.hbs", "OnCalendar=daily", "OnCalender=daily", "error", "is no directive of [Timer]"),
    ("timer.hbs", "Persistent=yes", "Persistent=always", "error", "neither yes nor no"),
    ("tmpfiles.hbs", "d /var/lib/app 0755", "d /etc/cron.d/app 0755", "error", "/etc/cron"),
    ("sysusers.hbs", "u app -", "u app 0", "error", "uid or gid 0"),
];

#[test]
fn each_planted_fault_is_found() {
    let texts = |file: &str| match file {
        "manifest.json" => GOOD_MANIFEST,
        "service.hbs" => GOOD_SERVICE,
        "socket.hbs" => GOOD_SOCKET,
        "timer.hbs" => GOOD_TIMER,
        "tmpfiles.hbs" => GOOD_TMPFILES,
        _ => GOOD_SYSUSERS,
    };
    for (file, good, bad, level, words) in FAULTS {
        assert!(texts(file).contains(good), "{good} is not in {file}");
        let said = with(&[(file, texts(file).replacen(good, bad, 1))]);
        let start = format!("{level}: /exports/{file}");
        let found = said.iter().any(|line| line.starts_with(&start) && line.contains(words));
        assert!(found, "{bad} in {file}: {words:?} is not in\n{said:#?}");
    }
}

#[test]
fn files_that_mean_nothing_are_named() {
    let said = with(&[("services.hbs", String::new())]);
    assert!(said[0].starts_with("warning: /exports/services.hbs"), "{said:#?}");
    let said = with(&[("config.json.hbs", "{".to_owned())]);
    assert!(said.iter().any(|line| line.starts_with("error: /exports/config.json.hbs")), "{said:#?}");
}
