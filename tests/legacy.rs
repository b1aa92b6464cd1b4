//! Images of atomic's format through the real program: each row of docs/legacy.md that is about more than a text.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::host::{Host, Image, assert_same};
use serde_json::{Value, json};

const SERVICE: &str = "[Unit]\nDescription=The relay $NAME\n\n[Service]\nExecStart=$EXEC_START\nExecStop=$EXEC_STOP\nRestart=on-crash\n\
    WorkingDirectory=$DESTDIR\nRuntimeDirectory=${NAME}\n\n[Install]\nWantedBy=multi-user.target\n";
const CONFIG: &str = r#"{"ociVersion": "0.3.0", "platform": {"os": "linux", "arch": "amd64"},
    "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["/bin/app", "--to=$RECEIVER", "--port=$PORT"],
        "env": ["PATH=/bin", "ID=$UUID"], "cwd": "/", "noNewPrivileges": true},
    "root": {"path": "rootfs", "readonly": true}, "hooks": {},
    "mounts": [{"destination": "/data", "type": "bind", "source": "${STATE_DIRECTORY}/${NAME}", "options": ["rbind", "rw", "mode=755"]}
        $ADDTL_MOUNTS],
    "linux": {"capabilities": ["CAP_KILL"], "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]}}"#;

fn relay() -> Image {
    let defaults = json!({"PORT": "8081", "ADDTL_MOUNTS": ""});
    Image::new()
        .manifest(json!({"version": "1.0", "defaultValues": defaults}))
        .export("service.template", SERVICE)
        .export("config.json.template", CONFIG)
        .export("tmpfiles.template", "d ${STATE_DIRECTORY}/${NAME} 0700 ${HOST_UID} ${HOST_GID} - -\n")
}

fn config(host: &Host, id: u32) -> Value {
    let path = format!("var/lib/sysctr/containers/relay/deployments/{id}/config.json");
    serde_json::from_str(&host.read(&path)).unwrap()
}

#[test]
fn an_old_image_installs_updates_and_goes_without_a_trace() {
    let host = Host::new();
    host.does(&["pull", &host.image("warm", &Image::new())]);
    let before = host.tree();
    let image = host.image("relay", &relay());
    host.refuses(1, &["/exports/config.json.template, line 2", "RECEIVER", "missing"], &["install", "--yes", &image]);
    host.refuses(4, &["run without a filter of system calls"], &["-q", "install", "--set", "RECEIVER=Pluto", &image]);
    assert_same(&before, &host.tree(), "refused");
    let outcome = host.sysctr(&["install", "--yes", "--set", "RECEIVER=Pluto", &image]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for word in ["note: ", "0.3.0", "Restart=on-crash", "linux.capabilities", "linux.rlimits"] {
        assert!(outcome.err.contains(word), "{word}: {outcome:?}");
    }
    let unit = host.read("etc/systemd/system.attached/relay.service");
    let launch = "ExecStart=/usr/libexec/sysctr/sysctr-runtime run /var/lib/sysctr/containers/relay/deployments/1\n";
    assert!(
        unit.contains("Description=The relay relay\n")
            && unit.contains(launch)
            && unit.contains("Restart=on-failure\n"),
        "{unit}"
    );
    assert_eq!(host.read("etc/tmpfiles.d/sysctr-relay.conf"), "d /var/lib/relay 0700 0 0 - -\n");
    let first = config(&host, 1);
    assert_eq!(first["process"]["args"], json!(["/bin/app", "--to=Pluto", "--port=8081"]));
    let uuid = first["process"]["env"][1].clone();
    assert!(uuid.as_str().unwrap().len() == "ID=".len() + 36, "{uuid}");
    // Once more is nothing to do; with other values it says what is there.
    assert!(host.does(&["install", "--set", "RECEIVER=Pluto", &image]).contains("nothing to do"));
    host.refuses(1, &["relay is installed already"], &["install", "--set", "RECEIVER=Mars", &image]);
    // An update keeps what was given, and the UUID.
    let mounts = r#"ADDTL_MOUNTS=, {"destination": "/srv", "type": "bind", "source": "/srv", "options": ["rbind", "ro", "rro"]}"#;
    host.does(&["update", "--yes", "relay", "--set", mounts]);
    let second = config(&host, 2);
    assert_eq!((&second["process"]["args"], &second["process"]["env"][1]), (&first["process"]["args"], &uuid));
    assert_eq!(second["mounts"][1]["source"], "/srv");
    host.does(&["rollback", "relay"]);
    assert!(host.read("etc/systemd/system.attached/relay.service").contains("deployments/1\n"));
    host.does(&["uninstall", "relay"]);
    assert_same(&before, &host.tree(), "uninstalled");
}

#[test]
fn a_name_that_somebody_has_is_told_with_the_file() {
    let host = Host::new();
    host.write("etc/systemd/system/relay.service", "[Service]\nExecStart=/bin/true\n");
    let image = host.image("relay", &relay());
    host.refuses(
        1,
        &["the name relay is taken by", "relay.service"],
        &["install", "--yes", "--set", "RECEIVER=x", &image],
    );
}

#[test]
fn an_image_that_is_run_once_is_not_installed() {
    let host = Host::new();
    let image = host.image("relay", &relay().config("Labels", json!({"atomic.run": "once"})));
    let shown = host.json(&["install", "--dry-run", &image]);
    assert_eq!(shown, json!({"name": "relay", "runOnce": true}));
    // Below another root nothing runs.
    let outcome = host.sysctr(&["install", "--yes", &image]);
    assert!(outcome.code == 1 && outcome.err.contains("only the running system can"), "{outcome:?}");
    assert!(!host.at("etc/systemd/system.attached").exists());
}

#[test]
fn lint_tells_what_is_changed_and_asked_for() {
    let host = Host::new();
    let image = host.image("relay", &relay());
    host.does(&["pull", &image]);
    let found = host.json(&["lint", &image]);
    assert_eq!(found["ok"], true);
    let text = found.to_string();
    for word in ["Restart=on-crash", "linux.capabilities", "run without a filter"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}
