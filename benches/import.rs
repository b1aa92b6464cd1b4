//! `make bench`: images on their way from a registry on loopback into the store, beside what else unpacks the same layers.
//!
//! Each round runs every contestant once, in the same order, into a folder that is fresh; nothing is deleted before the end,
//! because ext4 allocates slowly for a while after a large deletion. After each one its file system is synced, so that nobody
//! pays for the pages of the one before; how long that took stands beside the wall time.
#![allow(dead_code, reason = "the scenarios use more of the harness than the benchmark does")]

mod common;
#[path = "../tests/vm/image.rs"]
mod image;
#[path = "common/images.rs"]
mod images;
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
use images::Subject;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// What a round of the largest image leaves on a file system, roughly.
const BYTES_A_ROUND: u64 = 6_000_000_000;
const NO_DATA: Option<&str> = None;

/// What every contestant works on.
struct Image {
    registry: String,
    subject: Subject,
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
    /// whose folder it goes on in
    after: Option<&'static str>,
    /// only where the registry has a next version
    next: bool,
    command: fn(&Image, &Path) -> Command,
}

const fn fresh(name: &'static str, does: &'static str, command: fn(&Image, &Path) -> Command) -> Contestant {
    Contestant { name, does, after: None, next: false, command }
}

const fn then(
    name: &'static str,
    does: &'static str,
    after: &'static str,
    next: bool,
    command: fn(&Image, &Path) -> Command,
) -> Contestant {
    Contestant { name, does, after: Some(after), next, command }
}

const CONTESTANTS: [Contestant; 11] = [
    fresh(
        "limit",
        "inflates the layers and hashes both forms, two threads, no registry; writes nothing",
        |image, _| {
            let mut command = Command::new("/proc/self/exe");
            command.arg("--limit").args(&image.layers);
            command
        },
    ),
    fresh("sysctr pull", "fetches, checks every digest, imports each file by its hash, syncs", |image, folder| {
        image.sysctr(folder, &["pull", &image.reference("latest")])
    }),
    fresh("sysctr install", "the same, then renders, checks out with hard links, enables, syncs", |image, folder| {
        image.sysctr(folder, &["install", "--yes", "--name", "one", &image.reference("latest")])
    }),
    then("a second name", "sysctr install of the image that is there", "sysctr install", false, |image, folder| {
        image.sysctr(folder, &["install", "--yes", "--name", "two", &image.reference("latest")])
    }),
    then(
        "the next version",
        "sysctr install where only the last layer is new",
        "sysctr install",
        true,
        |image, folder| image.sysctr(folder, &["install", "--yes", "--name", "three", &image.reference("next")]),
    ),
    fresh(
        "podman pull",
        "fetches, checks every digest, unpacks into a folder a layer; does not sync",
        |image, folder| image.podman(folder, "latest"),
    ),
    then("podman, next", "podman pull where only the last layer is new", "podman pull", true, |image, folder| {
        image.podman(folder, "next")
    }),
    fresh("umoci unpack", "reads an OCI folder, no registry; checks every digest; does not sync", |image, folder| {
        let mut command = Command::new("umoci");
        command.args(["unpack", "--image"]).arg(format!("{}:latest", image.subject.layout.display()));
        command.arg(folder.join("bundle"));
        command
    }),
    fresh("skopeo + umoci", "skopeo copy from the registry to an OCI folder, then that", |image, folder| {
        let script =
            "skopeo copy -q --src-tls-verify=false docker://$1 oci:$2/copy:1; umoci unpack --image $2/copy:1 $2/bundle";
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sh", &image.reference("latest")]).arg(folder);
        command
    }),
    fresh(
        "ostree",
        "ostree commit --tree=tar= for each layer's file, a checkout of all; checks nothing",
        |image, folder| {
            let script = "cd $1; shift; ostree --repo=repo init --mode=bare; n=0; for layer; do n=$((n + 1)); \
            ostree --repo=repo commit -b l$n --tree=tar=$layer --tar-autocreate-parents; \
            ostree --repo=repo checkout --union --whiteouts l$n root; done";
            let mut command = Command::new("sh");
            command.args(["-ec", script, "sh"]).arg(folder).args(&image.layers);
            command
        },
    ),
    fresh(
        "tar -xf",
        "reads the layers' files, no registry; checks nothing; one folder; does not sync",
        |image, folder| {
            let mut command = Command::new("sh");
            command.args(["-ec", "for layer; do tar -xf \"$layer\"; done", "sh"]).args(&image.layers);
            command.current_dir(folder);
            command
        },
    ),
];
/// The one that the others are set beside.
const OURS: usize = 2;

impl Image {
    fn reference(&self, tag: &str) -> String {
        format!("{}/{}:{tag}", self.registry, self.subject.name)
    }

    fn sysctr(&self, folder: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(&self.sysctr);
        command.arg("--root").arg(folder).args(words);
        command
    }

    fn podman(&self, folder: &Path, tag: &str) -> Command {
        let mut command = self.podman_in(folder);
        command.args(["pull", "--quiet", "--tls-verify=false"]).arg(self.reference(tag));
        command
    }

    fn podman_in(&self, folder: &Path) -> Command {
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

/// `--image NAME` and `--medium tmpfs|disk` choose; else all.
fn chosen(option: &str, name: &str) -> bool {
    let mut given = std::env::args().skip_while(|argument| argument != option).skip(1);
    given.next().is_none_or(|wanted| wanted == name)
}

fn bench() -> Result<()> {
    let rounds = rounds(3)?;
    common::warn_if_busy()?;
    // A name space of our own: whatever ends us, our mounts and podman's go too.
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount name space (root is needed)")?;
    mount(NO_DATA, "/", NO_DATA, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NO_DATA)?;
    let work = image::run_folder("bench")?;
    let (subjects, store) = images::subjects()?;
    let registry = image::containers::Registry::start(&store, work.path())?;
    for contestant in &CONTESTANTS {
        println!("  {:16} {}", contestant.name, contestant.does);
    }
    for subject in subjects.into_iter().filter(|subject| chosen("--image", subject.name)) {
        let mut image = Image {
            registry: registry.address.clone(),
            layers: layers(&subject.layout)?,
            subject,
            sysctr: common::programs()?.join("sysctr"),
            podman_driver: "overlay",
            podman_run: tempfile::Builder::new().prefix("bench").tempdir_in("/run")?,
        };
        let bytes = image.layers.iter().map(|layer| Ok(fs::metadata(layer)?.len())).sum::<Result<u64>>()?;
        let (about, layers) = (image.subject.about, image.layers.len());
        println!("\n{about}: {layers} layers, {:.1} MB compressed; medians of {rounds} rounds", bytes as f64 / 1e6);
        for medium in ["tmpfs", "disk"].into_iter().filter(|medium| chosen("--medium", medium)) {
            let folder = work.path().join(format!("{}-{medium}", image.subject.name));
            fs::create_dir(&folder)?;
            let runs = contest(&mut image, &folder, work.path(), medium == "tmpfs", rounds)?;
            println!("\non {medium} (podman's storage driver: {})", image.podman_driver);
            report(&runs);
        }
    }
    Ok(())
}

/// podman's overlay driver where it works on this file system, else vfs.
fn driver(image: &Image, folder: &Path, work: &Path) -> Result<&'static str> {
    fs::create_dir(folder)?;
    let log = File::create(work.join("probe.log"))?;
    let works = cost(image.podman_in(folder).arg("info"), &log).is_ok();
    unmount_podman(folder);
    Ok(if works { "overlay" } else { "vfs" })
}

/// Its overlay driver leaves a bind mount of its own folder behind.
fn unmount_podman(store: &Path) {
    let _ = umount2(&store.join("root/overlay"), MntFlags::MNT_DETACH);
}

fn contest(image: &mut Image, folder: &Path, work: &Path, in_memory: bool, rounds: usize) -> Result<Vec<Vec<Run>>> {
    let mut runs = vec![Vec::with_capacity(rounds); CONTESTANTS.len()];
    for round in 0..rounds {
        // What is in memory goes after each round; it costs nothing there.
        if in_memory {
            mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=90%,mode=755"))?;
        }
        let space = nix::sys::statvfs::statvfs(folder)?;
        let free = space.blocks_available() * space.fragment_size();
        ensure!(free > BYTES_A_ROUND, "{free} bytes are free, {BYTES_A_ROUND} are needed; try fewer with --rounds");
        image.podman_driver = driver(image, &folder.join(format!("{round}-probe")), work)?;
        for (contestant, runs) in CONTESTANTS.iter().zip(&mut runs) {
            if contestant.next && !image.subject.has_next {
                continue;
            }
            let whose = contestant.after.unwrap_or(contestant.name);
            let place = folder.join(format!("{round}-{}", whose.replace([' ', ','], "-")));
            fs::create_dir_all(&place)?;
            let log = work.join("contestant.log");
            let cost = cost(&mut (contestant.command)(image, &place), &File::create(&log)?);
            unmount_podman(&place);
            let cost = match cost {
                Ok(cost) => cost,
                // such as an umoci that knows no zstd
                Err(_) if !contestant.name.contains("sysctr") => {
                    let said = fs::read_to_string(&log).unwrap_or_default();
                    eprintln!("{} cannot: {}", contestant.name, said.lines().last().unwrap_or_default());
                    continue;
                }
                Err(error) => return Err(error.context(fs::read_to_string(&log).unwrap_or_default())),
            };
            let begin = Instant::now();
            nix::unistd::syncfs(File::open(&place)?)?;
            runs.push(Run { cost, sync: begin.elapsed() });
        }
        if in_memory {
            umount2(folder, MntFlags::MNT_DETACH)?;
        }
        eprintln!("round {} of {rounds} is over", round + 1);
    }
    Ok(runs)
}

fn report(runs: &[Vec<Run>]) {
    println!("                   wall s  (min to max)   CPU s  peak MB  then sync s   wall: of limit   install / it");
    // A round's ratio is between neighbours in time, which a machine that is busy now and then bends least.
    let ratio = |of: &[Run], to: &[Run]| {
        median(of.iter().zip(to).map(|(of, to)| of.cost.wall.as_secs_f64() / to.cost.wall.as_secs_f64()))
    };
    for (contestant, mine) in CONTESTANTS.iter().zip(runs).filter(|(_, mine)| !mine.is_empty()) {
        let walls = || mine.iter().map(|run| run.cost.wall.as_secs_f64());
        println!(
            "  {:16} {:6.2}  ({:.2} to {:.2}) {:7.2} {:8.0} {:12.2} {:13.1} x {:12.2} x",
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

/// The layers' files of an OCI folder's latest image, lowest first.
fn layers(layout: &Path) -> Result<Vec<PathBuf>> {
    let json = |path: &Path| -> Result<serde_json::Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |descriptor: &serde_json::Value| -> Result<PathBuf> {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        Ok(layout.join("blobs/sha256").join(digest.context("a descriptor without a digest")?))
    };
    let index = json(&layout.join("index.json"))?;
    let entries = index["manifests"].as_array().context("an index without manifests")?;
    let latest = |entry: &&serde_json::Value| entry["annotations"]["org.opencontainers.image.ref.name"] == "latest";
    let manifest = json(&blob(entries.iter().find(latest).context("no image is called latest")?)?)?;
    manifest["layers"].as_array().context("a manifest without layers")?.iter().map(blob).collect()
}
