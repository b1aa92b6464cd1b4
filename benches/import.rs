//! `make bench`: an image on its way from a registry on loopback into the store, beside what else unpacks the same layers.
//!
//! Each round runs every contestant once, in the same order, into a folder that is fresh; nothing is deleted before the end,
//! because ext4 allocates slowly for a while after a large deletion. After each one its file system is synced, so that nobody
//! pays for the pages of the one before; how long that took stands beside the wall time.
#![allow(dead_code, reason = "the scenarios use more of the harness than the benchmark does")]

mod common;
#[path = "../tests/vm/image.rs"]
mod image;
#[path = "common/limit.rs"]
mod limit;
#[path = "../tests/vm/process.rs"]
mod process;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{Cost, cost, median, rounds};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// What a round leaves on a file system, roughly: five copies of the image.
const BYTES_A_ROUND: u64 = 1_400_000_000;
const NO_DATA: Option<&str> = None;

/// What every contestant works on.
struct Image {
    registry: image::containers::Registry,
    layout: PathBuf,
    layers: Vec<PathBuf>,
    sysctr: PathBuf,
    podman_driver: &'static str,
    /// podman wants a short name there
    podman_run: tempfile::TempDir,
}

/// One way to get the image's files.
struct Contestant {
    name: &'static str,
    does: &'static str,
    command: fn(&Image, &Path) -> Command,
}

const CONTESTANTS: [Contestant; 6] = [
    Contestant {
        name: "limit",
        does: "inflates the layers and hashes both forms, two threads, no registry; writes nothing",
        command: |image, _| {
            let mut command = Command::new("/proc/self/exe");
            command.arg("--limit").args(&image.layers);
            command
        },
    },
    Contestant {
        name: "sysctr pull",
        does: "fetches, checks every digest, imports each file by its hash, syncs",
        command: |image, folder| image.sysctr(folder, "pull"),
    },
    Contestant {
        name: "sysctr install",
        does: "the same, then renders, checks out with hard links, enables, syncs",
        command: |image, folder| image.sysctr(folder, "install"),
    },
    Contestant {
        name: "podman pull",
        does: "fetches, checks every digest, unpacks into a folder a layer; does not sync file contents",
        command: |image, folder| {
            let mut command = image.podman(folder);
            command.args(["pull", "--quiet", "--tls-verify=false"]).arg(image.reference());
            command
        },
    },
    Contestant {
        name: "umoci unpack",
        does: "reads an OCI folder, no registry; checks every digest; one folder and its mtree manifest; does not sync",
        command: |image, folder| {
            let mut command = Command::new("umoci");
            command.args(["unpack", "--image"]).arg(format!("{}:latest", image.layout.display()));
            command.arg(folder.join("bundle"));
            command
        },
    },
    Contestant {
        name: "tar -xzf",
        does: "reads the layers' files, no registry; checks nothing; one folder; does not sync",
        command: |image, folder| {
            let mut command = Command::new("sh");
            command.args(["-ec", "for layer; do tar -xzf \"$layer\"; done", "sh"]).args(&image.layers);
            command.current_dir(folder);
            command
        },
    },
];
/// The one that the others are set beside.
const OURS: usize = 2;

impl Image {
    fn reference(&self) -> String {
        format!("{}/etcd:latest", self.registry.address)
    }

    fn sysctr(&self, folder: &Path, verb: &str) -> Command {
        let mut command = Command::new(&self.sysctr);
        command.arg("--root").arg(folder).arg(verb).arg(self.reference());
        command
    }

    fn podman(&self, folder: &Path) -> Command {
        let mut command = Command::new("podman");
        command.args(["--storage-driver", self.podman_driver]).arg("--root").arg(folder.join("root"));
        command.arg("--runroot").arg(self.podman_run.path());
        command
    }
}

/// A contestant's round: its cost, and what a sync took after it.
#[derive(Clone, Copy)]
struct Run {
    cost: Cost,
    sync: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((first, layers)) if first == "--limit" => limit::run(layers),
        _ => bench(),
    };
    if let Err(error) = result {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

fn bench() -> Result<()> {
    let rounds = rounds(7)?;
    common::warn_if_busy()?;
    // A name space of our own: whatever ends us, our mounts and podman's go too.
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount name space (root is needed)")?;
    mount(NO_DATA, "/", NO_DATA, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NO_DATA)?;
    let work = image::run_folder("bench")?;
    let layout = image::containers::image("etcd")?;
    let mut image = Image {
        registry: image::containers::Registry::start(&image::containers::registry(&["etcd"])?, work.path())?,
        layers: layers(&layout)?,
        layout,
        sysctr: common::programs()?.join("sysctr"),
        podman_driver: "overlay",
        podman_run: tempfile::Builder::new().prefix("bench").tempdir_in("/run")?,
    };
    let bytes = image.layers.iter().map(|layer| Ok(fs::metadata(layer)?.len())).sum::<Result<u64>>()?;
    println!(
        "images/etcd: {} layers, {:.1} MB compressed; medians of {rounds} rounds",
        image.layers.len(),
        bytes as f64 / 1e6
    );
    for contestant in &CONTESTANTS {
        println!("  {:15} {}", contestant.name, contestant.does);
    }

    for medium in ["tmpfs", "disk"] {
        let folder = work.path().join(medium);
        fs::create_dir(&folder)?;
        if medium == "tmpfs" {
            mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some("size=90%,mode=755"))?;
        }
        let space = nix::sys::statvfs::statvfs(&folder)?;
        let free = space.blocks_available() * space.fragment_size();
        let needed = BYTES_A_ROUND * rounds as u64;
        ensure!(free > needed, "{medium}: {free} bytes are free, {needed} are needed; try fewer with --rounds");
        image.podman_driver = driver(&image, &folder, work.path())?;
        let runs = contest(&image, &folder, work.path(), rounds)?;
        println!("\non {medium} (podman's storage driver: {})", image.podman_driver);
        report(&runs);
        if medium == "tmpfs" {
            umount2(&folder, MntFlags::MNT_DETACH)?;
        }
    }
    Ok(())
}

/// podman's overlay driver where it works on this file system, else vfs.
fn driver(image: &Image, folder: &Path, work: &Path) -> Result<&'static str> {
    let store = folder.join("probe");
    fs::create_dir(&store)?;
    let log = File::create(work.join("probe.log"))?;
    let works = cost(image.podman(&store).arg("info"), &log).is_ok();
    unmount_podman(&store);
    Ok(if works { "overlay" } else { "vfs" })
}

/// Its overlay driver leaves a bind mount of its own folder behind.
fn unmount_podman(store: &Path) {
    let _ = umount2(&store.join("root/overlay"), MntFlags::MNT_DETACH);
}

fn contest(image: &Image, folder: &Path, work: &Path, rounds: usize) -> Result<Vec<Vec<Run>>> {
    let mut runs = vec![Vec::with_capacity(rounds); CONTESTANTS.len()];
    for round in 0..rounds {
        for (contestant, runs) in CONTESTANTS.iter().zip(&mut runs) {
            let fresh = folder.join(format!("{round}-{}", contestant.name.replace(' ', "-")));
            fs::create_dir(&fresh)?;
            let log = work.join("contestant.log");
            let cost = cost(&mut (contestant.command)(image, &fresh), &File::create(&log)?)
                .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
            let begin = Instant::now();
            nix::unistd::syncfs(File::open(&fresh)?)?;
            runs.push(Run { cost, sync: begin.elapsed() });
            unmount_podman(&fresh);
        }
        eprintln!("round {} of {rounds} is over", round + 1);
    }
    Ok(runs)
}

fn report(runs: &[Vec<Run>]) {
    println!("                  wall s  (min to max)   CPU s  peak MB  then sync s   wall: of limit   install / it");
    // A round's ratio is between neighbours in time, which a machine that is busy now and then bends least.
    let ratio = |of: &[Run], to: &[Run]| {
        median(of.iter().zip(to).map(|(of, to)| of.cost.wall.as_secs_f64() / to.cost.wall.as_secs_f64()))
    };
    for (contestant, mine) in CONTESTANTS.iter().zip(runs) {
        let walls = || mine.iter().map(|run| run.cost.wall.as_secs_f64());
        println!(
            "  {:15} {:6.2}  ({:.2} to {:.2}) {:7.2} {:8.0} {:12.2} {:13.1} x {:12.2} x",
            contestant.name,
            median(walls()),
            walls().fold(f64::INFINITY, f64::min),
            walls().fold(0.0, f64::max),
            median(mine.iter().map(|run| run.cost.cpu.as_secs_f64())),
            median(mine.iter().map(|run| run.cost.memory as f64 / 1e6)),
            median(mine.iter().map(|run| run.sync.as_secs_f64())),
            ratio(mine, &runs[0]),
            ratio(&runs[OURS], mine),
        );
    }
}

/// The layers' files in an OCI folder with one image, lowest first.
fn layers(layout: &Path) -> Result<Vec<PathBuf>> {
    let json = |path: &Path| -> Result<serde_json::Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |descriptor: &serde_json::Value| -> Result<PathBuf> {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        Ok(layout.join("blobs/sha256").join(digest.context("a descriptor without a digest")?))
    };
    let index = json(&layout.join("index.json"))?;
    let manifest = json(&blob(&index["manifests"][0])?)?;
    manifest["layers"].as_array().context("a manifest without layers")?.iter().map(blob).collect()
}
