//! What the machines are made of, kept in a cache outside the tree: made once, named after a hash of what it is made from.
//!
//! ```text
//! ${SYSCTR_TEST_CACHE:-/var/cache/sysctr-tests}/
//!     machine-SUITE-HASH/tree   a Debian, ready to boot       (systemd-nspawn, through an overlay)
//!     machine-SUITE-HASH/disk   the same as an ext4 image     (QEMU, through an overlay)
//!     images-HASH/NAME          the container images as OCI folders
//!     images-HASH/registry      what docker-registry serves them from
//!     run/                      machines that run now
//! ```

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::process::{Guarded, run};

// Named here, so that whoever takes this file in by its path has it too.
#[path = "tiny.rs"]
pub mod tiny;
#[path = "web.rs"]
mod web;

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");
/// The images that the machine's registry has.
const IMAGES: [&str; 2] = ["etcd", "httpd"];
/// What they stand on, whatever the machine itself is.
const IMAGE_SUITE: &str = "trixie";
/// Room for the stores of a scenario; the file is sparse.
const DISK: &str = "6G";

fn cache() -> Result<PathBuf> {
    let folder = std::env::var_os("SYSCTR_TEST_CACHE").map_or_else(|| "/var/cache/sysctr-tests".into(), PathBuf::from);
    fs::create_dir_all(&folder).with_context(|| format!("making the cache {}", folder.display()))?;
    Ok(folder)
}

/// A folder for the overlays of a machine that runs; it goes with the machine. Those of killed test runs are swept up here.
pub fn run_folder(name: &str) -> Result<tempfile::TempDir> {
    let folder = cache()?.join("run");
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(&folder)?.flatten() {
        let owner = entry.file_name().to_string_lossy().split('-').next().unwrap_or_default().to_owned();
        if !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(tempfile::Builder::new().prefix(&format!("{}-{name}-", std::process::id())).tempdir_in(folder)?)
}

/// A Debian that boots.
pub struct Tree(PathBuf);

impl Tree {
    /// The tree of a suite (trixie, bookworm), made if it is not in the cache.
    pub fn of(suite: &str) -> Result<Self> {
        Self::with(suite, &[])
    }

    /// The same with more packages in it.
    pub fn with(suite: &str, more: &[&str]) -> Result<Self> {
        let source = Path::new(SOURCE).join("tests/vm/machine");
        let mut hash = Sha256::new();
        hash.update(suite);
        hash_folder(&mut hash, &source)?;
        hash.update(more.join(" "));
        let folder = once(&format!("machine-{suite}-{}", short(hash)), |folder| {
            eprintln!("making a Debian machine ({suite}), half a minute");
            let packages = fs::read_to_string(source.join("packages"))?;
            let packages = packages.split_whitespace().chain(more.iter().copied()).collect::<Vec<_>>().join(",");
            run(Command::new("mmdebstrap")
                .args(["--variant=minbase", "--quiet", &format!("--include={packages}")])
                .arg(format!("--customize-hook={} \"$1\"", source.join("customize.sh").display()))
                .arg(suite)
                .arg(folder.join("tree")))?;
            run(Command::new("mkfs.ext4").args(["-q", "-d"]).args([folder.join("tree"), folder.join("disk")]).arg(DISK))
                .map(drop)
        })?;
        Ok(Self(folder))
    }

    /// The tree itself. Never written to: machines lay an overlay over it.
    pub fn path(&self) -> PathBuf {
        self.0.join("tree")
    }

    /// The tree as a raw disk with one ext4 file system. Never written to either.
    pub fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }

    /// Its kernel.
    pub fn kernel(&self) -> Result<PathBuf> {
        let boot = self.path().join("boot");
        for entry in fs::read_dir(&boot)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")) {
                return Ok(path);
            }
        }
        bail!("no kernel in {}", boot.display())
    }
}

/// What is laid over a machine: the programs under test (`root/`), a registry with images (`registry/`) and small ones
/// as folders (`images/`).
pub struct Payload {
    folder: PathBuf,
    _lock: File,
}

impl Payload {
    /// Installs the programs as `make install` does, and fills the registry. One test run at a time may have it.
    pub fn new(programs: &Path) -> Result<Self> {
        let images = images()?;
        // Beside the programs: cargo may build elsewhere than in the checkout.
        let target = programs.parent().context("the programs lie nowhere")?;
        let lock = File::create(target.join("vm-payload.lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        let folder = target.join("vm-payload");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let payload = Self { folder, _lock: lock };
        run(Command::new("make")
            .args(["-s", "-C", SOURCE, "install", "STRIP=1", "PREFIX=/usr"])
            .arg(format!("PROGRAMS={}", programs.display()))
            .arg(format!("DESTDIR={}", payload.folder.join("root").display())))?;
        run(Command::new("cp").arg("-a").args([images.join("registry"), payload.folder.join("registry")]))?;
        tiny::images(&payload.folder.join("images"))?;
        web::images(&payload.folder.join("images"))?;
        let disk = payload.disk();
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-L", "payload", "-d"])
            .args([&payload.folder, &disk])
            .arg("1G"))?;
        Ok(payload)
    }

    /// The folder with both.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The folder as a raw disk.
    pub fn disk(&self) -> PathBuf {
        self.folder.with_extension("disk")
    }
}

/// The container images, built from `images/` with a Debian base of our own (no public registry is needed).
pub fn images() -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(IMAGE_SUITE);
    for name in IMAGES {
        hash_folder(&mut hash, &Path::new(SOURCE).join("images").join(name))?;
    }
    once(&format!("images-{}", short(hash)), build_images)
}

fn build_images(folder: &Path) -> Result<()> {
    eprintln!("building the images {}, a minute", IMAGES.join(" and "));
    let work = tempfile::Builder::new().prefix("buildah").tempdir_in(folder)?;
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs"]).arg("--root").arg(work.path().join("root"));
        command.arg("--runroot").arg(work.path().join("run")).args(arguments);
        run(&mut command).map(|said| said.trim().to_owned())
    };
    let base = work.path().join("base.tar");
    run(Command::new("mmdebstrap")
        .args(["--variant=minbase", "--quiet", "--skip=output/dev", IMAGE_SUITE])
        .arg(&base))?;
    let container = buildah(&["from", "scratch"])?;
    buildah(&["add", "--quiet", &container, &base.to_string_lossy()])?;
    buildah(&["commit", "--quiet", &container, "localhost/base"])?;

    let registry = Registry::start(&folder.join("registry"), work.path())?;
    for name in IMAGES {
        let context = Path::new(SOURCE).join("images").join(name);
        let tag = format!("localhost/{name}");
        buildah(&[
            "bud",
            "--quiet",
            "--isolation=chroot",
            "--pull=false",
            "--build-arg=BASE=localhost/base",
            &format!("--tag={tag}"),
            &context.to_string_lossy(),
        ])?;
        let layout = format!("oci:{}:latest", folder.join(name).display());
        buildah(&["push", "--quiet", &tag, &layout])?;
        let remote = format!("docker://{}/{name}:latest", registry.address);
        run(Command::new("skopeo").args(["copy", "--quiet", "--dest-tls-verify=false", &layout, &remote]))?;
    }
    // buildah leaves mounts of its own behind until it is told.
    buildah(&["rm", "--all"]).map(drop)
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

/// A folder of the cache, filled by `make` if it is not there yet. Whoever else wants one waits meanwhile.
pub fn once(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache()?;
    let path = cache.join(name);
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    if !path.exists() {
        let half = cache.join(format!("{name}.half"));
        if half.exists() {
            fs::remove_dir_all(&half)?;
        }
        fs::create_dir(&half)?;
        make(&half).with_context(|| format!("making {}", path.display()))?;
        fs::rename(&half, &path)?;
    }
    Ok(path)
}

/// Names and contents of all files below a folder, in a fixed order.
fn hash_folder(hash: &mut Sha256, folder: &Path) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        hash.update(entry.file_name().as_encoded_bytes());
        if entry.file_type()?.is_dir() {
            hash_folder(hash, &entry.path())?;
        } else {
            hash.update(fs::read(entry.path())?);
        }
    }
    Ok(())
}

fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
