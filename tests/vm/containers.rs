//! The container images of `images/`, built with a Debian base of our own: no public registry is needed. Kept in the cache of
//! `image.rs`, each named after a hash of what it is made from.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};

use super::{SOURCE, cache, hash_folder, once, short};
use crate::process::{Guarded, run};

/// What they stand on, whatever the machine itself is, unless a tag says another one: `etcd:bookworm`.
const SUITE: &str = "trixie";
/// The oldest Go that fetches a newer one by itself, where a module asks for it.
const GO: u32 = 21;

/// An image as an OCI folder with the tag `latest`.
pub fn image(name: &str) -> Result<PathBuf> {
    let (plain, suite) = name.split_once(':').unwrap_or((name, SUITE));
    once(&format!("image-{plain}-{suite}-{}", short(hash(plain)?)), |folder| build(plain, suite, folder))
}

/// What docker-registry serves these images from, as `NAME:latest` where the name has no tag.
pub fn registry(names: &[&str]) -> Result<PathBuf> {
    let mut all = Sha256::new();
    for name in names {
        all.update(name);
        all.update(short(hash(name.split(':').next().unwrap_or(name))?));
    }
    once(&format!("registry-{}", short(all)), |folder| {
        let work = tempfile::tempdir()?;
        let registry = Registry::start(folder, work.path())?;
        for name in names {
            let layout = format!("oci:{}:latest", image(name)?.display());
            let tag = if name.contains(':') { "" } else { ":latest" };
            let remote = format!("docker://{}/{name}{tag}", registry.address);
            run(Command::new("skopeo").args(["copy", "--quiet", "--dest-tls-verify=false", &layout, &remote]))?;
        }
        Ok(())
    })
}

fn source(name: &str) -> PathBuf {
    Path::new(SOURCE).join("images").join(name)
}

fn hash(name: &str) -> Result<Sha256> {
    let mut hash = Sha256::new();
    hash_folder(&mut hash, &source(name))?;
    Ok(hash)
}

/// The root file system under them.
fn base(suite: &str) -> Result<PathBuf> {
    let folder = once(&format!("base-{suite}"), |folder| {
        run(Command::new("mmdebstrap")
            .args(["--variant=minbase", "--quiet", "--skip=output/dev", suite])
            .arg(folder.join("base.tar")))
        .map(drop)
    })?;
    Ok(folder.join("base.tar"))
}

fn build(name: &str, suite: &str, folder: &Path) -> Result<()> {
    let uses_go = source(name).join("go.mod").exists();
    eprintln!("building the image {name}, {}", if uses_go { "some minutes" } else { "half a minute" });
    let buildah = Buildah { work: tempfile::Builder::new().prefix("buildah").tempdir_in(folder)? };
    let container = buildah.run(&["from", "scratch"])?;
    buildah.run(&["add", "--quiet", &container, &base(suite)?.to_string_lossy()])?;
    buildah.run(&["commit", "--quiet", &container, "localhost/base"])?;

    let tag = format!("localhost/{name}");
    let mut command = vec!["bud", "--quiet", "--isolation=chroot", "--pull=false", "--build-arg=BASE=localhost/base"];
    let volumes = if uses_go { buildah.with_go()? } else { Vec::new() };
    if uses_go {
        command.push("--build-arg=GO=localhost/go");
    }
    command.extend(volumes.iter().map(String::as_str));
    let (tagged, context) = (format!("--tag={tag}"), source(name));
    let context = context.to_string_lossy();
    command.extend([tagged.as_str(), &context]);
    buildah.run(&command)?;
    buildah.run(&["push", "--quiet", &tag, &format!("oci:{}:latest", folder.display())])?;
    // buildah leaves mounts of its own behind until it is told.
    buildah.run(&["rm", "--all"]).map(drop)
}

/// buildah with a storage of its own, which is thrown away.
struct Buildah {
    work: tempfile::TempDir,
}

impl Buildah {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs"]).arg("--root").arg(self.work.path().join("root"));
        command.arg("--runroot").arg(self.work.path().join("run")).args(arguments);
        run(&mut command).map(|said| said.trim().to_owned())
    }

    /// Makes `localhost/go`, in which a Go module is built, with this host's settings of Go and the authorities that it trusts.
    /// The volumes that the build wants: what Go fetches and compiles is kept in the cache.
    fn with_go(&self) -> Result<Vec<String>> {
        let kept = cache()?.join("go");
        fs::create_dir_all(&kept)?;
        let mut volumes = vec![format!("--volume={}:/run/go-cache:rw", kept.display())];
        let container = self.run(&["from", "--pull=false", "localhost/base"])?;
        let mut set = vec![
            "PATH=/run/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "GOMODCACHE=/run/go-cache/mod".to_owned(),
            "GOCACHE=/run/go-cache/build".to_owned(),
        ];
        let trusted = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
        if let Some(file) = trusted.into_iter().find(|file| Path::new(file).exists()) {
            volumes.push(format!("--volume={file}:/run/authorities.crt:ro"));
            set.push("SSL_CERT_FILE=/run/authorities.crt".to_owned());
        }
        if hosts_go_is_new() {
            let of_host = |name: &str| run(Command::new("go").args(["env", name])).map(|said| said.trim().to_owned());
            volumes.push(format!("--volume={}:/run/go:ro", of_host("GOROOT")?));
            set.push("GOROOT=/run/go".to_owned());
            for name in ["GOPROXY", "GOSUMDB", "GONOSUMDB", "GOFLAGS", "GOTOOLCHAIN"] {
                set.push(format!("{name}={}", of_host(name)?));
            }
        } else {
            let install = "apt-get update && apt-get install -y --no-install-recommends golang-go";
            self.run(&["run", "--isolation=chroot", &container, "--", "sh", "-c", install])?;
            set.push("GOTOOLCHAIN=auto".to_owned());
        }
        for setting in &set {
            self.run(&["config", "--env", setting, &container])?;
        }
        self.run(&["commit", "--quiet", &container, "localhost/go"])?;
        Ok(volumes)
    }
}

/// CNI's plug-in `flannel`, which is in no Debian package: the last one from the module of the other plug-ins, before it got its own.
#[allow(dead_code, reason = "no other program than the scenarios' has pods")]
pub fn flannel_plugin() -> Result<PathBuf> {
    const MODULE: &str = "github.com/containernetworking/plugins/plugins/meta/flannel@v0.9.1";
    let folder = once("cni-flannel-0.9.1", |folder| {
        let kept = cache()?.join("go");
        run(Command::new("go")
            .args(["install", MODULE])
            .env("CGO_ENABLED", "0")
            .env("GOBIN", folder)
            .env("GOMODCACHE", kept.join("mod"))
            .env("GOCACHE", kept.join("build")))
        .map(drop)
    })?;
    Ok(folder.join("flannel"))
}

/// Whether this host has a Go that can build the modules: an older one leaves that to Debian's, in a container.
fn hosts_go_is_new() -> bool {
    let said = run(Command::new("go").arg("version")).unwrap_or_default();
    let minor =
        said.split_whitespace().nth(2).and_then(|word| word.strip_prefix("go1.")?.split('.').next()?.parse().ok());
    minor.is_some_and(|minor: u32| minor >= GO)
}

/// A docker-registry of the host's, on a port that was free. It ends with this value.
pub struct Registry {
    /// host and port
    pub address: String,
    _process: Guarded,
}

impl Registry {
    /// Serves what lies in `store`; `work` takes its configuration and its log.
    pub fn start(store: &Path, work: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = work.join("registry.yml");
        let store = store.display();
        fs::write(
            &config,
            format!("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {store}\nhttp:\n  addr: {address}\n"),
        )?;
        let log = work.join("registry.log");
        let process = Guarded::spawn(
            "docker-registry",
            |command| {
                command.arg("serve").arg(&config);
            },
            &log,
        )?;
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            if Instant::now() > end {
                bail!("docker-registry did not start: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { address, _process: process })
    }
}
