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
/// A second image has two sockets, named.
const SOCKET: &str =
    "[Socket]\nListenStream=/run/{{name}}/first\nListenStream=127.0.0.1:4711\nFileDescriptorName=door\n";

const WEB_SOCKET: &str = "[Socket]\nListenStream=127.0.0.1:8080\n[Install]\nWantedBy=sockets.target\n";

/// Compiles a program of this folder, statically.
fn compile(source: &str, to: &Path) -> Result<()> {
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
    // A web server behind a socket, in two versions. The program can also be the load on it.
    compile("web.c", &folder.join("web-program"))?;
    for version in ["first", "second"] {
        let manifest = MANIFEST.replace("\"/bin/tiny\"]", &format!("\"/bin/tiny\", \"{version}\"]"));
        let more = [("exports/manifest.json", manifest.as_str()), ("exports/socket.hbs", WEB_SOCKET)];
        image_of("web-program", folder, &format!("web-{version}"), &more)?;
    }
    image(folder, "tiny", &[])?;
    image(folder, "tiny-socket", &[("exports/socket.hbs", SOCKET)])?;
    // For updates: one that is as good, and one that ends before it is ready.
    image(folder, "tiny-next", &[("exports/manifest.json", &MANIFEST.replace("as small as can be", "the next one"))])?;
    image(
        folder,
        "tiny-broken",
        &[("exports/manifest.json", &MANIFEST.replace("\"/bin/tiny\"]", "\"/bin/tiny\", \"end\"]"))],
    )
}

fn image(folder: &Path, name: &str, more: &[(&str, &str)]) -> Result<()> {
    image_of("program", folder, name, more)
}

fn image_of(program: &str, folder: &Path, name: &str, more: &[(&str, &str)]) -> Result<()> {
    let program = fs::read(folder.join(program))?;
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
    if !more.iter().any(|(path, _)| *path == "exports/manifest.json") {
        add("exports/manifest.json", 0o644, MANIFEST.as_bytes())?;
    }
    for (path, text) in more {
        add(path, 0o644, text.as_bytes())?;
    }
    let layer = tar.into_inner()?;

    let to = folder.join(name);
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
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/tiny"], "User": "4711"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}});
    let config = blob("config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    fs::write(to.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
    fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&to, all).with_context(|| format!("writing {}", to.display()))
}
