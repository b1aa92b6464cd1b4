//! What the tests of images share: a Debian base, image layouts made by hand, a real registry on loopback.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

pub mod controls;
pub mod host;
pub mod store;

use std::{
    fs::{self, File},
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Runs a program to its end; its whole output is in the error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{program} {arguments:?}: {}\n{out}{err}", output.status);
    Ok(out.into_owned())
}

fn cache() -> PathBuf {
    let folder = std::env::var_os("SYSCTR_TEST_CACHE").map_or_else(|| "/var/cache/sysctr-tests".into(), PathBuf::from);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A minimal Debian 12 as a tar file, made once.
pub fn debian() -> PathBuf {
    let folder = cache();
    let path = folder.join("bookworm-minbase.tar");
    let lock = File::create(folder.join("bookworm-minbase.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if !path.exists() {
        let fresh = folder.join(format!("{}.bookworm-minbase.tar", std::process::id()));
        run("mmdebstrap", &["--variant=minbase", "bookworm", fresh.to_str().unwrap()]).unwrap();
        fs::rename(&fresh, &path).unwrap();
    }
    path
}

#[derive(Clone, Copy, Debug)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// One entry of a layer made by hand.
pub struct Entry<'a> {
    pub path: &'a str,
    pub kind: tar::EntryType,
    pub mode: u32,
    pub owner: (u64, u64),
    pub link: &'a str,
    pub content: &'a [u8],
    pub xattrs: &'a [(&'a str, &'a [u8])],
}

pub fn dir(path: &str, mode: u32) -> Entry<'_> {
    Entry { path, kind: tar::EntryType::Directory, mode, owner: (0, 0), link: "", content: b"", xattrs: &[] }
}

pub fn file<'a>(path: &'a str, mode: u32, content: &'a [u8]) -> Entry<'a> {
    Entry { path, kind: tar::EntryType::Regular, mode, owner: (0, 0), link: "", content, xattrs: &[] }
}

pub fn link<'a>(path: &'a str, target: &'a str) -> Entry<'a> {
    Entry { path, kind: tar::EntryType::Symlink, mode: 0o777, owner: (0, 0), link: target, content: b"", xattrs: &[] }
}

pub fn hardlink<'a>(path: &'a str, target: &'a str) -> Entry<'a> {
    Entry { kind: tar::EntryType::Link, mode: 0o644, ..link(path, target) }
}

/// The tar of these entries, whose paths may be anything.
pub fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let records: Vec<(String, &[u8])> =
            entry.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), *value)).collect();
        if !records.is_empty() {
            builder.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), *value))).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(1);
        header.set_size(entry.content.len() as u64);
        header.as_mut_bytes()[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
        header.as_mut_bytes()[157..157 + entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_cksum();
        builder.append(&header, entry.content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn sha256(data: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// An image layout written by hand, so that a test decides about every byte.
pub struct Layout {
    pub folder: PathBuf,
}

impl Layout {
    pub fn new(folder: &Path) -> Layout {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { folder: folder.to_owned() }
    }

    pub fn blob(&self, media_type: &str, data: &[u8]) -> Value {
        let digest = sha256(data);
        fs::write(self.folder.join("blobs/sha256").join(&digest[7..]), data).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": data.len()})
    }

    /// Adds an image and gives its manifest's descriptor.
    pub fn image(&self, architecture: &str, layers: &[(Vec<u8>, Packing)]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| sha256(tar)).collect();
        let config = json!({"architecture": architecture, "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": {"Cmd": ["/bin/sh"], "Labels": {"a": "b"}}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layers: Vec<Value> = layers.iter().map(|(tar, packing)| self.layer(tar, *packing)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers});
        self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())
    }

    pub fn layer(&self, tar: &[u8], packing: Packing) -> Value {
        let kind = "application/vnd.oci.image.layer.v1.tar";
        match packing {
            Packing::Plain => self.blob(kind, tar),
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).unwrap();
                self.blob(&format!("{kind}+gzip"), &encoder.finish().unwrap())
            }
            Packing::Zstd => self.blob(&format!("{kind}+zstd"), &zstd::encode_all(tar, 3).unwrap()),
        }
    }

    /// Names what `index.json` lists; `None` leaves an entry without a name.
    pub fn index(&self, entries: &[(Option<&str>, &Value)]) {
        let named = entries.iter().map(|(name, descriptor)| {
            let mut descriptor = (*descriptor).clone();
            if let Some(name) = name {
                descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            }
            descriptor
        });
        let index = json!({"schemaVersion": 2, "manifests": named.collect::<Vec<_>>()});
        fs::write(self.folder.join("index.json"), index.to_string()).unwrap();
    }

    /// Pushes what the layout names `tag`, byte for byte.
    pub fn push(&self, tag: &str, registry: &Registry, name: &str) {
        let from = format!("oci:{}:{tag}", self.folder.display());
        let to = format!("docker://{}/{name}", registry.host());
        let login = registry.login.as_ref().map(|(user, password)| format!("--dest-creds={user}:{password}"));
        let fixed = ["copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false"];
        let arguments = fixed.into_iter().chain(login.as_deref()).chain([from.as_str(), to.as_str()]);
        run("skopeo", &arguments.collect::<Vec<_>>()).unwrap();
    }

    pub fn tar(&self, path: &Path) {
        run("tar", &["-C", self.folder.to_str().unwrap(), "-cf", path.to_str().unwrap(), "."]).unwrap();
    }
}

/// A running `docker-registry`, ended with the test.
pub struct Registry {
    child: Child,
    pub port: u16,
    address: String,
    pub folder: PathBuf,
    pub login: Option<(String, String)>,
}

impl Registry {
    pub fn start(folder: &Path) -> Registry {
        Registry::with_auth(folder, None, "")
    }

    /// Asks for this user and password.
    pub fn with_login(folder: &Path, user: &str, password: &str) -> Registry {
        let line = run("htpasswd", &["-Bbn", user, password]).unwrap();
        let file = folder.join("htpasswd");
        fs::write(&file, line.trim()).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        Registry::with_auth(folder, Some((user.to_owned(), password.to_owned())), &auth)
    }

    /// `auth` is a piece of the registry's own configuration.
    pub fn with_auth(folder: &Path, login: Option<(String, String)>, auth: &str) -> Registry {
        Registry::at("127.0.0.1", folder, login, auth)
    }

    /// Listens with TLS on an address that is not loopback; gives the file of its certificate.
    pub fn with_tls(address: &str, folder: &Path) -> (Registry, PathBuf) {
        let (key, certificate) = tls_files(address, folder);
        let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        (Registry::at(address, folder, None, &tls), certificate)
    }

    /// The same, and wants to see a certificate: the one whose file and key are given back is good.
    pub fn with_mutual_tls(address: &str, folder: &Path) -> (Registry, PathBuf, PathBuf) {
        let (client, key) = (folder.join("client.cert"), folder.join("client.key"));
        let subject = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=client"];
        let files = ["-keyout", key.to_str().unwrap(), "-out", client.to_str().unwrap()];
        run("openssl", &[&subject[..], &files].concat()).unwrap();
        let (mut registry, _) = Registry::with_tls(address, folder);
        registry.stop();
        let [certificate, server_key, authority] =
            ["tls.pem", "tls-key.pem", "client.cert"].map(|name| folder.join(name));
        let tls = format!(
            "  tls:\n    certificate: {}\n    key: {}\n    clientcas:\n      - {}\n",
            certificate.display(),
            server_key.display(),
            authority.display()
        );
        (Registry::at(address, folder, None, &tls), client, key)
    }

    /// Listens without TLS on an address that is not loopback.
    pub fn plain(address: &str, folder: &Path) -> Registry {
        Registry::at(address, folder, None, "")
    }

    fn at(address: &str, folder: &Path, login: Option<(String, String)>, auth: &str) -> Registry {
        for _ in 0..5 {
            let port = free_port();
            let config = folder.join("registry.yml");
            let text = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
                 http:\n  addr: {address}:{port}\n{auth}",
                folder.join("data").display()
            );
            fs::write(&config, text).unwrap();
            let log = File::create(folder.join("registry.log")).unwrap();
            let mut command = Command::new("docker-registry");
            command
                .arg("serve")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .process_group(0);
            let mut child = command.spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                if TcpStream::connect((address, port)).is_ok() {
                    return Registry { child, port, address: address.to_owned(), folder: folder.to_owned(), login };
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            child.kill().ok();
            child.wait().ok();
        }
        panic!("the registry did not start: {}", fs::read_to_string(folder.join("registry.log")).unwrap_or_default());
    }

    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    pub fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Where the registry keeps a blob.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = &digest[7..];
        self.folder.join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A key and a certificate for this address.
pub fn tls_files(address: &str, folder: &Path) -> (PathBuf, PathBuf) {
    let (key, certificate) = (folder.join("tls-key.pem"), folder.join("tls.pem"));
    let name = format!("subjectAltName=IP:{address}");
    let subject = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"];
    let extensions = ["-addext", name.as_str(), "-addext", "basicConstraints=critical,CA:FALSE"];
    let files = ["-keyout", key.to_str().unwrap(), "-out", certificate.to_str().unwrap()];
    run("openssl", &[&subject[..], &extensions, &files].concat()).unwrap();
    (key, certificate)
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
