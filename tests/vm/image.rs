//! What the machines are made of, kept in a cache outside the tree: made once, named after a hash of what it is made from.
//!
//! ```text
//! ${SYSCTR_TEST_CACHE:-/var/cache/sysctr-tests}/
//!     machine-SUITE-HASH/tree   a Debian, ready to boot       (systemd-nspawn, through an overlay)
//!     machine-SUITE-HASH/disk   the same as an ext4 image     (QEMU, through an overlay)
//!     image-NAME-HASH           a container image as an OCI folder (containers.rs)
//!     registry-HASH             what docker-registry serves some of them from
//!     base-SUITE  go            what they are built with
//!     run/                      machines that run now
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::process::run;

// Named here, so that whoever takes this file in by its path has it too.
#[path = "containers.rs"]
pub mod containers;
#[path = "tiny.rs"]
pub mod tiny;
#[path = "web.rs"]
mod web;

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");
/// The images that the registry of each machine has.
pub const IMAGES: [&str; 2] = ["etcd", "httpd"];
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

    /// One that lies in a folder already, as `tree`.
    #[allow(dead_code, reason = "no other program than the scenarios' cuts the power")]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
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
        Self::with(programs, "vm-payload", &IMAGES)
    }

    /// One with a name and images of its own.
    pub fn with(programs: &Path, name: &str, images: &[&str]) -> Result<Self> {
        let registry = containers::registry(images)?;
        // Beside the programs: cargo may build elsewhere than in the checkout.
        let target = programs.parent().context("the programs lie nowhere")?;
        let lock = File::create(target.join(format!("{name}.lock")))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        let folder = target.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let payload = Self { folder, _lock: lock };
        run(Command::new("make")
            .args(["-s", "-C", SOURCE, "install", "STRIP=1", "PREFIX=/usr"])
            .arg(format!("PROGRAMS={}", programs.display()))
            .arg(format!("DESTDIR={}", payload.folder.join("root").display())))?;
        run(Command::new("cp").arg("-a").args([registry, payload.folder.join("registry")]))?;
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
