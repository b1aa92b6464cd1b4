//! Whole sets of units, kept as they were: those of every image in images/, of a set of kinds of unit and value, and of old images.

use super::{tests::rendered_with, *};

const CONFIG: &str = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
    "config": {"Entrypoint": ["/usr/bin/program"]}}"#;

/// A set's name, its files and its settings.
type Own = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const OWN: [Own; 3] = [
    (
        "socket-and-instances",
        &[
            (
                "socket.hbs",
                "[Socket]\nListenStream={{values.port}}\nAccept=yes\n\n[Install]\nWantedBy=sockets.target\n",
            ),
            ("service@.hbs", "[Service]\nExecStart={{exec_start}}\nEnvironment=\"WHO={{values.who}}\"\n"),
            (
                "manifest.json",
                r#"{"version": "2.0", "description": "50% of \"it\"", "values": {"port": {"type": "integer", "default": 80}, "who": {"type": "string"}}}"#,
            ),
        ],
        &["who=a b $HOME %n"],
    ),
    (
        "timer-path-and-target",
        &[
            ("timer.hbs", "[Timer]\nOnCalendar={{values.when}}\n\n[Install]\nWantedBy=timers.target\n"),
            ("path.hbs", "[Path]\nPathChanged={{values.dir}}\n"),
            ("target.hbs", "[Unit]\nDescription=all of {{name}}\nAfter={{args after}}\n"),
            (
                "service.hbs",
                "[Service]\nType=oneshot\nExecStart={{exec_start}}\n{{#if (eq values.when \"daily\")}}Nice=5\n{{/if}}",
            ),
            (
                "manifest.json",
                r#"{"version": "2.0", "after": ["a", "b.target"], "values": {"when": {"type": "string", "default": "daily"}, "dir": {"type": "path"}}}"#,
            ),
        ],
        &["dir=/srv/a b"],
    ),
    (
        "secret-and-host-lines",
        &[
            ("tmpfiles.hbs", "f /run/etcd 0644 - - - {{values.text}}\n"),
            ("sysusers.hbs", "u etcd - \"{{description}}\"\n"),
            (
                "manifest.json",
                r#"{"version": "2.0", "description": "a program", "values": {"key": {"type": "string", "secret": true}, "text": {"type": "string"}},
                    "container": {"args": ["/a", "{{values.key}}"]}, "state": {"folders": [{"path": "/var/lib/etcd"}]}}"#,
            ),
        ],
        &["key=hunter2", "text=100% \\ sure"],
    ),
];

/// The same in the format of atomic's system containers: every key of its manifest, every file of it.
const OLD: [Own; 3] = [
    (
        "old-service",
        &[
            (
                "manifest.json",
                r#"{"version": "1.0", "defaultValues": {"PORT": 80, "WHO": "a b $HOME %n", "ON": true}, "useLinks": false,
                    "renameFiles": {"/etc/old": "${CONF_DIRECTORY}/$NAME"}, "installedFilesTemplate": ["/etc/etcd/conf"], "hasContainerService": true}"#,
            ),
            (
                "service.template",
                "[Unit]\nDescription=$NAME of $$5 for $WHO, $ON\nAfter=network.target\n\n[Service]\nType=forking\nPIDFile=$PIDFILE\n\
                    ExecStartPre=$EXEC_STARTPRE\nExecStart=$EXEC_START\nExecStop=$EXEC_STOP\nExecStopPost=$EXEC_STOPPOST\n\
                    WorkingDirectory=$DESTDIR\nRestart=on-crash\nEnvironment=PORT=${PORT}\nRuntimeDirectory=${NAME}\n\n\
                    [Install]\nWantedBy=multi-user.target\n",
            ),
            (
                "config.json.template",
                r#"{"ociVersion": "0.3.0", "process": {"args": ["/usr/bin/program", "$PORT"], "user": {}, "cwd": "/", "env": ["PATH=/bin"]},
                    "root": {"path": "rootfs", "readonly": true}, "mounts": [{"destination": "/data", "type": "bind",
                    "source": "${STATE_DIRECTORY}/$NAME", "options": ["rbind", "rw"]}], "linux": {"capabilities": ["CAP_KILL"],
                    "resources": {"memory": {"limit": 1000000}, "pids": {"limit": 7}}, "seccomp": {},
                    "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]}}"#,
            ),
            (
                "tmpfiles.template",
                "d /var/run - - - - -\nd ${STATE_DIRECTORY}/$NAME/ 0700 $HOST_UID $HOST_GID - -\nL /var/run/x - - - - /etc/x\nR /srv/$NAME\n",
            ),
            ("hostfs/etc/old/conf", "port=$PORT $$\n"),
            ("hostfs/etc/old/plain", "port=$PORT\n"),
        ],
        &["PORT=81"],
    ),
    (
        "old-files",
        &[
            ("manifest.json", r#"{"noContainerService": true, "useLinks": true}"#),
            ("hostfs/usr/local/bin/tool", "#!/bin/sh\n"),
        ],
        &[],
    ),
    (
        "old-config",
        &[(
            "config.json",
            r#"{"ociVersion": "1.0.0-rc5", "process": {"args": ["/usr/bin/program"], "cwd": "/", "env": ["PATH=/bin"]},
                "root": {"path": "rootfs"}, "mounts": [{"destination": "/srv", "type": "bind", "source": "/srv/x", "options": ["bind", "ro"]}],
                "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]}}"#,
        )],
        &[],
    ),
];

fn content(content: &Content) -> String {
    match content {
        Content::File { bytes, mode } => format!("({mode:04o}) {:?}", String::from_utf8_lossy(bytes)),
        other => format!("{other:?}"),
    }
}

fn compare(name: &str, rendered: Result<Rendered>) {
    let rendered = rendered.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let text: String = rendered.files.iter().map(|(file, text)| format!("==> {file}\n{text}\n")).collect();
    let requests: String = rendered.requests.iter().map(|words| format!("asks: {words}\n")).collect();
    let files: String =
        rendered.host_files.iter().map(|file| format!("places: {} {}\n", file.path, content(&file.content))).collect();
    let notes: String = rendered.notes.iter().map(|words| format!("note: {words}\n")).collect();
    let text = text + &requests + &files + &notes;
    assert!(!text.contains("hunter2"));
    let path = format!("{}/src/model/render/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("writing");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == text, "{name} is not {path}:\n{text}\nUPDATE_GOLDEN=1 cargo test --lib golden keeps it");
}

#[test]
fn the_units_of_every_image_are_what_they_were() {
    let images = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
    let mut seen = 0;
    for folder in std::fs::read_dir(images).expect("images").flatten().map(|entry| entry.path()) {
        let name = folder.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let Ok(files) = std::fs::read_dir(folder.join("exports")) else { continue };
        let exports: Vec<(String, String)> = files
            .flatten()
            .filter(|entry| entry.path().is_file())
            .map(|entry| {
                let text = std::fs::read_to_string(entry.path()).expect("text");
                // Their users are made with the image; this one is there.
                let user = format!("\"user\": \"{name}\"");
                (entry.file_name().to_string_lossy().into_owned(), text.replace(&user, "\"user\": \"etcd\""))
            })
            .collect();
        let exports: Vec<(&str, &str)> = exports.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        compare(&name, rendered_with(CONFIG, &exports, &[], None));
        seen += 1;
    }
    assert!(seen >= 3, "{seen} images");
}

#[test]
fn units_and_values_of_every_kind_are_what_they_were() {
    for (name, exports, settings) in OWN.into_iter().chain(OLD) {
        compare(name, rendered_with(CONFIG, exports, settings, None));
    }
}
