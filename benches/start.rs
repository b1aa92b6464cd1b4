//! `make bench`: what a start costs, beside the programs that users would have otherwise, in a Debian booted by systemd-nspawn; all of
//! them take turns. A table of medians, the limits, and `target/bench/start.json`.
#![allow(dead_code, reason = "the scenarios use more of the harness than the benchmark does")]

#[path = "../tests/vm/agent.rs"]
mod agent;
mod common;
#[path = "start/foreground.rs"]
mod foreground;
#[path = "../tests/vm/image.rs"]
mod image;
#[path = "../tests/vm/logs.rs"]
mod logs;
#[path = "../tests/vm/machine.rs"]
mod machine;
#[path = "../tests/vm/nspawn.rs"]
mod nspawn;
#[path = "../tests/vm/process.rs"]
mod process;
#[path = "start/service.rs"]
mod service;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use common::{median, rounds};
use machine::{Machine, scenario};
use serde_json::{Value, json};

/// What podman needs to run a container of its own, beside the packages of the tests' machine.
const PEERS: [&str; 2] = ["podman", "conmon"];

fn main() {
    if let Err(error) = bench() {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

/// A limit, and what was found.
struct Bar {
    what: String,
    found: f64,
    limit: f64,
}

fn bench() -> Result<()> {
    let rounds = rounds(50)?;
    if common::warn_if_busy()? {
        // Ahead of everybody else: others then cost caches, and no waiting.
        process::run(Command::new("chrt").args(["--rr", "--pid", "5", &std::process::id().to_string()]))?;
        println!("so the programs run with real-time priority");
    }
    let tree = image::Tree::with("trixie", &PEERS)?;
    let programs = common::programs()?;
    let payload = image::Payload::new(&programs)?;
    compile(&payload.path().join("images"))?;
    let mut parts = Vec::new();
    scenario(nspawn::Nspawn::boot("bench", &tree, &payload), |machine| {
        install(machine)?;
        parts.push(foreground::bench(machine, rounds * 2)?);
        parts.push(service::bench(machine, rounds)?);
        Ok(())
    })?;
    let size = fs::metadata(programs.join("sysctr-runtime"))?.len() as f64 / 1e6;
    let mut bars: Vec<Bar> = Vec::new();
    let mut figures = json!({"rounds": rounds});
    for (name, part) in ["foreground", "service"].into_iter().zip(parts) {
        figures[name] = part.figures;
        bars.extend(part.bars);
    }
    bars.push(Bar { what: "size of sysctr-runtime, MB".to_owned(), found: size, limit: 5.0 });
    println!("\nlimits");
    for bar in &bars {
        let verdict = if bar.found <= bar.limit { "kept" } else { "MISSED" };
        println!("  {:66} {:8.2} of at most {:8.2}  {verdict}", bar.what, bar.found, bar.limit);
    }
    let all = bars.iter().map(|bar| json!({"what": bar.what, "found": bar.found, "limit": bar.limit}));
    figures["limits"] = all.collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join("start.json");
    fs::write(&file, serde_json::to_string_pretty(&figures)?).with_context(|| format!("writing {}", file.display()))?;
    println!("figures: {}", file.display());
    Ok(())
}

/// What one half of the benchmark found.
struct Part {
    figures: Value,
    bars: Vec<Bar>,
}

/// The programs that measure, statically, since they run on the machine.
fn compile(to: &Path) -> Result<()> {
    for name in ["floor", "meter"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/start/{name}.c"));
        process::run(Command::new("gcc").args(["-static", "-O2", "-s", "-Wall", "-o"]).arg(to.join(name)).arg(source))?;
    }
    Ok(())
}

/// The image under sysctr.
fn install(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run("sysctr install --no-enable --name tiny oci:/srv/payload/images/tiny:1")?;
    machine.wait_until(Duration::from_secs(60), "systemctl is-active docker-registry")?;
    // Whatever else the machine has would only be noise.
    machine.run("systemctl stop docker-registry").map(drop)
}

/// The configuration that sysctr made.
fn config(machine: &mut dyn Machine) -> Result<Value> {
    let text = machine.run(&format!("cat {DEPLOYMENT}/config.json"))?;
    Ok(serde_json::from_str(&text)?)
}

const DEPLOYMENT: &str = "/var/lib/sysctr/containers/tiny/deployments/1";

/// As other runtimes read it: without the one option of ours.
fn for_others(mut config: Value) -> Value {
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "nofail");
        }
    }
    config
}

fn write(machine: &mut dyn Machine, path: &str, text: &str) -> Result<()> {
    machine.run(&format!("mkdir -p $(dirname {path}) && cat > {path} <<'END'\n{text}\nEND")).map(drop)
}

/// Median, and in brackets the least and the most.
fn cell(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:7.2} ({least:.1} to {most:.1})", median(values.iter().copied()))
}

fn summary(values: &[f64]) -> Value {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    json!({"median": median(values.iter().copied()), "least": least, "all": values})
}
