//! A program that ends at once, in the foreground: the same config.json by each runtime, and the least that it could cost.

use anyhow::{Context, Result};
use serde_json::json;

use super::{Bar, DEPLOYMENT, Part, cell, config, for_others, median, summary, write};
use crate::machine::Machine;

const OURS: &str = "/var/bench/ours";
const THEIRS: &str = "/var/bench/theirs";
/// Each with the words that make it.
const RUNTIMES: [(&str, &str); 4] = [
    ("floor", "/srv/payload/images/floor /var/bench/ours/rootfs /bin/tiny end"),
    ("sysctr-runtime", "/usr/libexec/sysctr/sysctr-runtime run /var/bench/ours --wait"),
    ("crun", "/usr/bin/crun --cgroup-manager=disabled run --bundle /var/bench/theirs crun"),
    ("runc", "/usr/sbin/runc run --bundle /var/bench/theirs runc"),
];

/// Runs them in turn.
pub fn bench(machine: &mut dyn Machine, rounds: usize) -> Result<Part> {
    let mut config = config(machine)?;
    let bounding = config["process"]["capabilities"]["bounding"].clone();
    for set in ["effective", "permitted"] {
        config["process"]["capabilities"][set] = bounding.clone();
    }
    config["process"]["user"] = json!({"uid": 0, "gid": 0});
    config["process"]["args"] = json!(["/bin/tiny", "end"]);
    if config["linux"]["seccomp"].is_null() {
        println!("warning: this config.json has no seccomp profile, so no runtime loads one");
    }
    machine.run(&format!("mkdir -p {OURS} && cp -a {DEPLOYMENT}/rootfs {OURS}/rootfs"))?;
    write(machine, &format!("{OURS}/config.json"), &config.to_string())?;
    machine.run(&format!("/usr/libexec/sysctr/sysctr-runtime prepare {OURS}"))?;
    let mut theirs = for_others(config);
    theirs["root"]["path"] = json!(format!("{OURS}/rootfs"));
    write(machine, &format!("{THEIRS}/config.json"), &theirs.to_string())?;

    let commands = RUNTIMES.map(|(_, command)| format!("'{command}'")).join(" ");
    // In a unit's own control group, as they would be.
    let meter = |rounds: usize| {
        format!("systemd-run -q --wait --pipe -p Delegate=yes /srv/payload/images/meter {rounds} {commands}")
    };
    machine.run(&meter(3))?;
    let said = machine.run(&meter(rounds))?;
    let mut wall = RUNTIMES.map(|_| Vec::new());
    let mut cpu = RUNTIMES.map(|_| Vec::new());
    for line in said.lines() {
        let numbers = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let &[at, took, user, system] = numbers.as_slice() else { anyhow::bail!("the meter said {line:?}") };
        let at = usize::try_from(at)?;
        wall.get_mut(at).context("no such command")?.push(took as f64 / 1000.0);
        cpu[at].push((user + system) as f64 / 1000.0);
    }
    let crun = median(wall[2].iter().copied());
    println!("\na program that ends at once, in the foreground, {rounds} rounds, milliseconds");
    println!("  {:16} {:24} {:24} times crun", "", "wall: median (range)", "CPU: median (range)");
    let mut figures = json!({});
    for (at, (name, _)) in RUNTIMES.iter().enumerate() {
        let ratio = median(wall[at].iter().copied()) / crun;
        println!("  {name:16} {:24} {:24} {ratio:.2}", cell(&wall[at]), cell(&cpu[at]));
        figures[*name] = json!({"wall": summary(&wall[at]), "cpu": summary(&cpu[at]), "timesCrun": ratio});
    }
    let bar = |what: &str, all: &[Vec<f64>; 4]| {
        let ratio = median(all[1].iter().copied()) / median(all[2].iter().copied());
        Bar { what: format!("foreground: {what} time, times crun's"), found: ratio, limit: 1.0 }
    };
    Ok(Part { figures, bars: vec![bar("wall", &wall), bar("CPU", &cpu)] })
}
