//! What the benchmark of imports works on: the image of etcd, a Debian with python3 and apache2 in four layers, packed as gzip and as
//! zstd, and a hundred thousand small files. Made once, in the cache of the tests.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sysctr::model::digest::Digest;

use crate::image::{self, containers::Registry};
use crate::process::run;

const SMALL_FILES: u64 = 100_000;
const FOLDERS: u64 = 1000;

/// An image that is measured, as an OCI folder; the registry has it by the same name.
pub struct Subject {
    /// as the registry calls it
    pub name: &'static str,
    /// what is in it
    pub about: &'static str,
    /// the folder
    pub layout: PathBuf,
    /// the registry has the same with another last layer, tagged `next`
    pub has_next: bool,
}

/// All of them, and a folder that a registry can serve them from.
pub fn subjects() -> Result<(Vec<Subject>, PathBuf)> {
    let etcd = image::containers::image("etcd")?;
    let folder = image::once("bench-images-1", |folder| make(folder, &etcd))?;
    let subject = |name, about, layout, has_next| Subject { name, about, layout, has_next };
    let own = |name: &str| folder.join(name);
    let subjects = vec![
        subject("etcd", "images/etcd", etcd.clone(), false),
        subject("debian", "a Debian with python3 and apache2 in four layers, gzip", own("debian"), true),
        subject("debian-zstd", "the same, zstd", own("debian-zstd"), false),
        subject("small", "100,000 small files in two layers, gzip", own("small"), false),
    ];
    Ok((subjects, own("registry")))
}

fn make(folder: &Path, etcd: &Path) -> Result<()> {
    eprintln!("making the images that are measured, three minutes");
    debian(folder)?;
    let skopeo = |arguments: &[&str]| run(Command::new("skopeo").args(["copy", "--quiet"]).args(arguments)).map(drop);
    let oci = |name: &str, tag: &str| format!("oci:{}:{tag}", folder.join(name).display());
    let zstd = ["--dest-compress-format", "zstd", "--dest-compress-level", "3"];
    skopeo(&[&zstd[..], &[&oci("debian", "latest"), &oci("debian-zstd", "latest")]].concat())?;
    small(&folder.join("small"))?;
    let work = tempfile::tempdir_in(folder)?;
    let registry = Registry::start(&folder.join("registry"), work.path())?;
    let push = |from: &str, name: &str| {
        let to = format!("docker://{}/{name}", registry.address);
        skopeo(&["--preserve-digests", "--dest-tls-verify=false", from, &to])
    };
    push(&format!("oci:{}:latest", etcd.display()), "etcd:latest")?;
    for name in ["debian", "debian-zstd", "small"] {
        push(&oci(name, "latest"), &format!("{name}:latest"))?;
    }
    push(&oci("debian", "next"), "debian:next")
}

/// A base, two layers of packages, and one of an application, of which there is a newer one.
fn debian(folder: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("buildah").tempdir_in(folder)?;
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs"]).arg("--root").arg(work.path().join("root"));
        command.arg("--runroot").arg(work.path().join("run")).args(arguments);
        run(&mut command).map(|said| said.trim().to_owned())
    };
    let base = work.path().join("base.tar");
    run(Command::new("mmdebstrap").args(["--variant=minbase", "--quiet", "--skip=output/dev", "trixie"]).arg(&base))?;
    let container = buildah(&["from", "scratch"])?;
    buildah(&["add", "--quiet", &container, &base.to_string_lossy()])?;
    buildah(&["commit", "--quiet", &container, "localhost/base"])?;
    let context = work.path().join("context");
    fs::create_dir(&context)?;
    let install = "apt-get update -q && apt-get install -qy --no-install-recommends";
    let clean = "apt-get clean && rm -rf /var/lib/apt/lists/*";
    let text = format!(
        "FROM localhost/base\nRUN {install} python3 python3-pip && {clean}\nRUN {install} apache2 && {clean}\nCOPY app /opt/app\n\
         CMD [\"/usr/sbin/apachectl\", \"-DFOREGROUND\"]\n"
    );
    fs::write(context.join("Containerfile"), text)?;
    for tag in ["latest", "next"] {
        fs::create_dir_all(context.join("app"))?;
        for number in 0..40u64 {
            fs::write(context.join(format!("app/part-{number}")), content(number * 7 + tag.len() as u64, 100_000))?;
        }
        let name = format!("localhost/debian:{tag}");
        let tag_option = format!("--tag={name}");
        let fixed = ["bud", "--quiet", "--layers", "--isolation=chroot", "--pull=false"];
        buildah(&[&fixed[..], &[&tag_option, &context.to_string_lossy()]].concat())?;
        buildah(&["push", "--quiet", &name, &format!("oci:{}:{tag}", folder.join("debian").display())])?;
    }
    buildah(&["rm", "--all"]).map(drop)
}

/// Two layers of files of up to 4 KiB.
fn small(layout: &Path) -> Result<()> {
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let blob = |kind: &str, data: &[u8]| -> Result<Value> {
        let digest = digest(data);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), data)?;
        Ok(json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": data.len()}))
    };
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for half in 0..2 {
        let mut tar = tar::Builder::new(Vec::new());
        for number in 0..SMALL_FILES / 2 {
            let number = number * 2 + half;
            let data = content(number, (number % 4096) as usize);
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(data.len() as u64);
            let name = format!("data/{:03}/file-{number}", number % FOLDERS);
            tar.append_data(&mut header, name, &data[..])?;
        }
        let tar = tar.into_inner()?;
        diff_ids.push(digest(&tar));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&tar)?;
        layers.push(blob("layer.v1.tar+gzip", &gzip.finish()?)?);
    }
    let architecture = sysctr::host::source::this_architecture();
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = blob("config.v1+json", config.to_string().as_bytes())?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).context("writing the index")
}

fn digest(data: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(data).into())
}

/// Text that differs from number to number and packs as text does.
fn content(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(format!("{:x} ", state & 0xffff_ffff).as_bytes());
    }
    bytes.truncate(length);
    bytes
}
