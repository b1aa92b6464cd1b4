//! An image of one static program, `tiny.c`: so small that what is measured or counted is the container and not what runs in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process::run;

/// A user of its own, so that it may report its readiness unasked.
const MANIFEST: &str = r#"{"version": "2.0", "description": "as small as can be",
    "container": {"user": "4711", "args": ["/bin/tiny"], "notify": true}}"#;
/// Root, who names another main process to systemd: with users of its own, and without.
const ATTACK: &str = r#"{"version": "2.0", "description": "names another main process",
    "values": {"victim": {"type": "integer"}},
    "container": {"user": "0", "args": ["/bin/tiny", "MAINPID={{values.victim}}"], "notify": true, "userns": "USERNS"}}"#;
/// A second image has two sockets, named.
const SOCKET: &str =
    "[Socket]\nListenStream=/run/{{name}}/first\nListenStream=127.0.0.1:4711\nFileDescriptorName=door\n";

const LOAD_SOCKET: &str = "[Socket]\nListenStream=127.0.0.1:8080\n[Install]\nWantedBy=sockets.target\n";

const ACCEPT_SOCKET: &str = "[Socket]\nAccept=yes\nListenStream=127.0.0.1:4716\n[Install]\nWantedBy=sockets.target\n";
const ACCEPT_SERVICE: &str =
    "[Service]\nExecStart={{exec_start}}\nStandardInput=socket\nStandardError=journal\nEnvironment=MODE=speak\n";

/// As docs/images.md has them.
const EARLY_SOCKET: &str = "[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target sockets.target\n\
    [Socket]\nListenStream=127.0.0.1:8080\n[Install]\nWantedBy=sockets.target\n";
const EARLY_SERVICE: &str = "[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n\
    [Service]\nExecStart={{exec_start}}\n";

/// Compiles a program of this folder, statically.
pub fn compile(source: &str, to: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm").join(source);
    run(Command::new("gcc").args(["-static", "-Os", "-s", "-Wall", "-o"]).arg(to).arg(source)).map(drop)
}

/// Writes the OCI folders `tiny` and `tiny-socket` into `folder`, and the program itself.
pub fn images(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    compile("tiny.c", &folder.join("program"))?;
    // Another program in the same image, which tells all that systemd passed.
    compile("passed.c", &folder.join("passed-program"))?;
    image_of("passed-program", folder, "passed", &[])?;
    // And behind a socket, an instance for each connection.
    let more = [("exports/socket.hbs", ACCEPT_SOCKET), ("exports/service@.hbs", ACCEPT_SERVICE)];
    image_of("passed-program", folder, "per-connection", &more)?;
    // A web server behind a socket, in two versions. The program can also be the load on it.
    compile("load.c", &folder.join("load-program"))?;
    for version in ["first", "second"] {
        let manifest = MANIFEST.replace("\"/bin/tiny\"]", &format!("\"/bin/tiny\", \"{version}\"]"));
        let more = [("exports/manifest.json", manifest.as_str()), ("exports/socket.hbs", LOAD_SOCKET)];
        image_of("load-program", folder, &format!("load-{version}"), &more)?;
    }
    // The same, off until someone connects, which may be early in the boot.
    let more = [("exports/socket.hbs", EARLY_SOCKET), ("exports/service.hbs", EARLY_SERVICE)];
    image_of("load-program", folder, "on-demand", &more)?;
    image(folder, "tiny", &[])?;
    image(folder, "tiny-socket", &[("exports/socket.hbs", SOCKET)])?;
    // And a value of which a connection tells what the program was handed.
    let secret =
        r#""values": {"secret": {"type": "string", "secret": true, "description": "of the API"}}, "container""#;
    let secret = MANIFEST.replace("\"container\"", secret);
    image(folder, "tiny-secret", &[("exports/manifest.json", &secret), ("exports/socket.hbs", SOCKET)])?;
    image(folder, "tiny-apart", &[("exports/manifest.json", &ATTACK.replace("USERNS", "auto"))])?;
    image(folder, "tiny-root", &[("exports/manifest.json", &ATTACK.replace("USERNS", "host"))])?;
    // For updates: one that is as good, and one that ends before it is ready.
    image(folder, "tiny-next", &[("exports/manifest.json", &MANIFEST.replace("as small as can be", "the next one"))])?;
    // Some that have nothing but the program in common, so that old ones leave objects that nothing needs.
    for number in 0..4 {
        let manifest = MANIFEST.replace("as small as can be", &format!("version {number}"));
        image(folder, &format!("version-{number}"), &[("exports/manifest.json", &manifest)])?;
    }
    // And one that wants more than those before it.
    let asking = MANIFEST.replace("\"notify\"", "\"capabilities\": {\"add\": [\"NET_ADMIN\"]}, \"notify\"");
    image(folder, "tiny-asking", &[("exports/manifest.json", &asking)])?;
    image(
        folder,
        "tiny-broken",
        &[("exports/manifest.json", &MANIFEST.replace("\"/bin/tiny\"]", "\"/bin/tiny\", \"end\"]"))],
    )?;
    with_word(folder, "tiny-silent", "silent")?;
    with_word(folder, "tiny-crash", "crash")?;
    with_word(folder, "tiny-value", "{{values.word}}")?;
    // State in two formats, and one that changes it and fails.
    for (number, more) in [(1, ""), (2, ""), (2, ", \"crash\"")] {
        let state =
            format!(r#""state": {{"epoch": {number}, "folders": [{{"path": "/var/lib/app/data"}}]}}, "container""#);
        let args = format!("\"/bin/tiny\", \"format-{number}\"{more}]");
        let manifest = MANIFEST.replace("\"container\"", &state).replace("\"/bin/tiny\"]", &args);
        let name = format!("tiny-format-{number}{}", if more.is_empty() { "" } else { "-crash" });
        image(folder, &name, &[("exports/manifest.json", &manifest), ("exports/socket.hbs", SOCKET)])?;
    }
    // And two that an update takes for good: one fails soon after it, the other one only behind a boot.
    let failing = MANIFEST.replace("\"/bin/tiny\"]", "\"/bin/tiny\", \"crash\"]");
    image(folder, "tiny-failing", &[("exports/manifest.json", &failing)])?;
    let once = MANIFEST
        .replace("\"/bin/tiny\"]", "\"/bin/tiny\", \"once\"]")
        .replace("\"container\"", "\"state\": {\"folders\": [{\"path\": \"/var/lib/app/data\"}]}, \"container\"");
    let service = "[Service]\nEnvironment=BOOT=%b\nExecStart={{exec_start}}\nRestart=on-failure\n[Install]\nWantedBy=multi-user.target\n";
    old_images(folder)?;
    for (name, word) in [("instances-1", "X_N=1"), ("instances-2", "X_N=2"), ("instances-bad", "end")] {
        let manifest = MANIFEST.replace("\"/bin/tiny\"]", &format!("\"/bin/tiny\", \"{word}\"]"));
        let service = "[Service]\nExecStart={{exec_start}}\n";
        image(folder, name, &[("exports/manifest.json", &manifest), ("exports/service@.hbs", service)])?;
    }
    image(folder, "tiny-once", &[("exports/manifest.json", &once), ("exports/service.hbs", service)])?;
    ordered(folder)
}

/// Images that name others in their manifests, or have something to say about the boot.
fn ordered(folder: &Path) -> Result<()> {
    let with = |more: &str| MANIFEST.replace("\"container\"", &format!("{more}, \"container\""));
    let manifest = |text: &str, name: &str| image(folder, name, &[("exports/manifest.json", text)]);
    manifest(&with(r#""requires": ["front"], "after": ["front"]"#), "order-behind")?;
    manifest(&with(r#""after": ["behind"], "before": ["front.service"]"#), "order-between")?;
    let essential = with(r#""essential": true"#).replace("\"/bin/tiny\"]", "\"/bin/tiny\", \"end\"]");
    manifest(&essential, "order-essential")?;
    let mounts = r#""mounts": [{"source": "/srv/order", "target": "/mnt"}], "notify""#;
    manifest(&MANIFEST.replace("\"notify\"", mounts), "order-mount")?;
    let early = with(r#""state": {"folders": [{"path": "/var/lib/early/data"}]}"#);
    let service = "[Unit]\nDefaultDependencies=no\nBefore=network-pre.target docker.service\nWants=network-pre.target\n\
        [Service]\nExecStart={{exec_start}}\n[Install]\nWantedBy=sysinit.target\n";
    image(folder, "order-early", &[("exports/manifest.json", &early), ("exports/service.hbs", service)])
}

/// Images in atomic's format: a service, and one that is run once.
fn old_images(folder: &Path) -> Result<()> {
    let service = "[Unit]\nDescription=An old $NAME\n[Service]\nExecStart=$EXEC_START\nExecStop=$EXEC_STOP\nRestart=on-crash\n\
        WorkingDirectory=$DESTDIR\nType=notify\nNotifyAccess=all\nRuntimeDirectory=${NAME}\n[Install]\nWantedBy=multi-user.target\n";
    let config = r#"{"ociVersion": "0.3.0", "platform": {"os": "linux", "arch": "amd64"},
        "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["/bin/tiny"$WORDS], "env": ["PATH=/bin", "ID=$UUID"], "cwd": "/"},
        "root": {"path": "rootfs", "readonly": true}, "hooks": {},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["private"]},
            {"destination": "/data", "type": "bind", "source": "${STATE_DIRECTORY}/${NAME}", "options": ["rbind", "rw", "mode=755"]},
            {"destination": "/host", "type": "bind", "source": "/", "options": ["rbind", "rslave", "ro"]}],
        "linux": {"capabilities": ["CAP_KILL", "CAP_NET_BIND_SERVICE"], "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 512, "soft": 256}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "pids": {"limit": 77}}, "seccomp": {},
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]}}"#;
    let manifest = r#"{"version": "1.0", "defaultValues": {"WORDS": ""}, "renameFiles": {"/usr/local/bin/ctl": "/usr/local/bin/${NAME}ctl"},
        "installedFilesTemplate": ["/usr/local/bin/oldctl"]}"#;
    let mut files = [
        ("exports/manifest.json", manifest),
        ("exports/service.template", service),
        ("exports/config.json.template", config),
        (
            "exports/tmpfiles.template",
            "d ${STATE_DIRECTORY}/${NAME} 0700 ${HOST_UID} ${HOST_GID} - -\nd /var/run - - - - -\n",
        ),
        ("exports/hostfs/usr/local/bin/ctl", "#!/bin/sh\necho $NAME\n"),
    ];
    let program = folder.join("program");
    let config = config.replace("$WORDS", ", \"end\"");
    let once = [("exports/config.json.template", config.as_str()), files[3]];
    // And what is to go with it: of its state only where that is purged.
    let lines = format!("{}R /srv/$NAME\nR ${{STATE_DIRECTORY}}/$NAME/cache\n", files[3].1);
    files[3].1 = &lines;
    write(&folder.join("old"), &program, &files, json!({"Cmd": ["/bin/tiny"]}))?;
    write(&folder.join("once"), &program, &once, json!({"Labels": {"atomic.run": "once"}}))
}

/// The program's argument, and a value that can be that argument.
fn with_word(folder: &Path, name: &str, word: &str) -> Result<()> {
    let value = r#""values": {"word": {"type": "string", "default": "X_A=1"}}, "container""#;
    let manifest = MANIFEST.replace("\"container\"", value);
    let manifest = manifest.replace("\"/bin/tiny\"]", &format!("\"/bin/tiny\", \"{word}\"]"));
    image(folder, name, &[("exports/manifest.json", &manifest)])
}

fn image(folder: &Path, name: &str, more: &[(&str, &str)]) -> Result<()> {
    image_of("program", folder, name, more)
}

fn image_of(program: &str, folder: &Path, name: &str, more: &[(&str, &str)]) -> Result<()> {
    let own = more.iter().any(|(path, _)| *path == "exports/manifest.json");
    let more: Vec<_> =
        (!own).then_some(("exports/manifest.json", MANIFEST)).into_iter().chain(more.iter().copied()).collect();
    write(&folder.join(name), &folder.join(program), &more, json!({"Cmd": ["/bin/tiny"], "User": "4711"}))
}

/// Writes an OCI folder with one image: a program as /bin/tiny, these files, and this config.
pub fn write(to: &Path, program: &Path, files: &[(&str, &str)], config: Value) -> Result<()> {
    let program = fs::read(program)?;
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, content: &[u8]| -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        Ok(tar.append_data(&mut header, path, content)?)
    };
    add("bin/tiny", 0o755, &program)?;
    for (path, text) in files {
        add(path, 0o644, text.as_bytes())?;
    }
    let layer = tar.into_inner()?;

    fs::create_dir_all(to.join("blobs/sha256"))?;
    let blob = |kind: &str, bytes: &[u8]| -> Result<Value> {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(to.join("blobs/sha256").join(&hex), bytes)?;
        let kind = format!("application/vnd.oci.image.{kind}");
        Ok(json!({"mediaType": kind, "size": bytes.len(), "digest": format!("sha256:{hex}")}))
    };
    let layer = blob("layer.v1.tar", &layer)?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({"architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}});
    let config = blob("config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    fs::write(to.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
    fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(to, all).with_context(|| format!("writing {}", to.display()))
}
