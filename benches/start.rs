//! `make bench`: `systemctl start etcd` until it says READY, and `systemctl stop`, in a Debian booted by systemd-nspawn. The same
//! program from the same checkout, three ways, taking turns.
#![allow(dead_code, reason = "the scenarios use more of the harness than the benchmark does")]

#[path = "../tests/vm/agent.rs"]
mod agent;
mod common;
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

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{median, rounds};
use machine::{Machine, scenario};
use serde_json::{Value, json};

/// Milliseconds from the start to the first log line, from the start to READY, and of the stop.
type Times = [f64; 3];
/// A unit and what it stands for.
const UNITS: [(&str, &str); 3] = [
    ("etcd-plain", "plain unit: User=, no container"),
    ("etcd", "sysctr: its unit, its runtime"),
    ("etcd-crun", "hand-written unit: crun run in the foreground, same config.json, as root"),
];
const DEPLOYMENT: &str = "/var/lib/sysctr/containers/etcd/deployments/1";
const CHECKOUT: &str = "/run/checkout";
/// As sysctr renders it for the image, but for the program that is started.
const UNIT: &str = "\
[Service]
Type=notify
NotifyAccess=all
LimitNOFILE=65536
TimeoutStartSec=20
TimeoutStopSec=20
KillMode=mixed
Delegate=yes
";

fn main() {
    if let Err(error) = bench() {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

fn bench() -> Result<()> {
    let rounds = rounds(15)?;
    common::warn_if_busy()?;
    let tree = image::Tree::of("trixie")?;
    let payload = image::Payload::new(&common::programs()?)?;
    let crun = add_crun(&payload.path().join("root/usr/local"))?;
    let mut times = Vec::new();
    scenario(nspawn::Nspawn::boot("bench", &tree, &payload), |machine| {
        prepare(machine)?;
        // The first start makes the data folders: it does not count.
        round(machine)?;
        times = (0..rounds).map(|_| round(machine)).collect::<Result<Vec<_>>>()?;
        Ok(())
    })?;
    println!("\netcd under systemd ({crun}), medians of {rounds} rounds (min to max), milliseconds");
    println!("READY follows etcd's own election, whose length is random: the first column is what the three differ in");
    println!("  start to first log line     start to READY               stop");
    for (at, (unit, what)) in UNITS.iter().enumerate() {
        let cell = |column: usize| {
            let all = || times.iter().map(|round| round[at][column]);
            let (min, max) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
            format!("{:7.1} ({min:.1} to {max:.1})", median(all()))
        };
        println!("  {:27} {:28} {:24} {unit:10} {what}", cell(0), cell(1), cell(2));
    }
    Ok(())
}

/// The machine has no crun: this host's goes in, with the one library that the machine lacks.
fn add_crun(to: &Path) -> Result<String> {
    let linked = process::run(Command::new("ldd").arg("/usr/bin/crun"))?;
    let yajl = linked.split_whitespace().find(|word| word.starts_with('/') && word.contains("libyajl"));
    fs::create_dir_all(to.join("bin"))?;
    fs::create_dir_all(to.join("lib/crun"))?;
    fs::copy("/usr/bin/crun", to.join("bin/crun"))?;
    if let Some(yajl) = yajl {
        fs::copy(yajl, to.join("lib/crun").join(Path::new(yajl).file_name().context("a library without a name")?))?;
    }
    let version = process::run(Command::new("crun").arg("--version"))?;
    Ok(version.lines().next().unwrap_or_default().to_owned())
}

/// Installs etcd, and lays the other two units beside it.
fn prepare(machine: &mut dyn Machine) -> Result<()> {
    machine.wait_until(Duration::from_secs(60), "curl -sf http://127.0.0.1:5000/v2/ >/dev/null")?;
    machine.booted()?;
    machine.run("sysctr install --no-enable 127.0.0.1:5000/etcd")?;
    let mut config: Value = serde_json::from_str(&machine.run(&format!("cat {DEPLOYMENT}/config.json"))?)?;
    let arguments: Vec<String> = serde_json::from_value(config["process"]["args"].clone())?;
    let user = config["process"]["user"]["uid"].as_u64().context("config.json names no user")?;
    ensure!(user > 0, "etcd would run as root");

    // The store is root's alone, so the checkout gets a name outside it. Each has data of its own.
    machine.run(&format!("mkdir {CHECKOUT} && mount --bind {DEPLOYMENT}/rootfs {CHECKOUT}"))?;
    let plain: Vec<String> =
        arguments.iter().map(|word| word.replace("/var/lib/etcd", "/var/lib/etcd-plain")).collect();
    let program = plain.join(" ").replacen("/usr/", &format!("{CHECKOUT}/usr/"), 1);
    // systemd wants a name for the number, which the machine itself does not have.
    machine.run(&format!("echo u etcd-bench {user} | systemd-sysusers -"))?;
    unit(
        machine,
        "etcd-plain",
        &format!("User={user}\nGroup={user}\nStateDirectory=etcd-plain\nExecStart={program}\n"),
    )?;

    for mount in config["mounts"].as_array_mut().context("config.json has no mounts")? {
        if mount["destination"] == "/var/lib/etcd" {
            mount["source"] = json!("/var/lib/etcd-crun");
        }
    }
    // crun 1.8 takes no newer version, and lets only root say READY.
    config["ociVersion"] = json!("1.0.2");
    config["process"]["user"] = json!({"uid": 0, "gid": 0});
    config["root"]["path"] = json!(format!("{DEPLOYMENT}/rootfs"));
    write(machine, "/run/etcd-crun/config.json", &serde_json::to_string(&config)?)?;
    machine.run("install -d -m 700 /var/lib/etcd-crun")?;
    unit(
        machine,
        "etcd-crun",
        "Environment=LD_LIBRARY_PATH=/usr/local/lib/crun\nExecStart=/usr/local/bin/crun --cgroup-manager=disabled run --bundle /run/etcd-crun etcd-crun\n",
    )?;
    machine.run("systemctl daemon-reload").map(drop)
}

fn unit(machine: &mut dyn Machine, name: &str, more: &str) -> Result<()> {
    write(machine, &format!("/run/systemd/system/{name}.service"), &format!("{UNIT}{more}"))
}

fn write(machine: &mut dyn Machine, path: &str, text: &str) -> Result<()> {
    machine.run(&format!("mkdir -p $(dirname {path}) && cat > {path} <<'END'\n{text}\nEND")).map(drop)
}

/// Each unit once: until etcd's first line in its log, until it says READY, and its stop; in milliseconds. The clock is read by the
/// shell itself, inside the machine.
fn round(machine: &mut dyn Machine) -> Result<Vec<Times>> {
    let mut times = Vec::new();
    for (unit, _) in UNITS {
        let said = machine.run(&format!(
            "a=${{EPOCHREALTIME/./}}; systemctl start {unit} || {{ journalctl -n 20 -u {unit} >&2; exit 1; }}; b=${{EPOCHREALTIME/./}}
             etcdctl endpoint health >/dev/null 2>&1; sleep 0.3
             id=$(systemctl show --value -p InvocationID {unit})
             first=$(journalctl --sync; journalctl -o cat _SYSTEMD_INVOCATION_ID=$id | grep -om1 '\"ts\":\"[^\"]*' | cut -d'\"' -f4)
             c=${{EPOCHREALTIME/./}}; systemctl stop {unit}; d=${{EPOCHREALTIME/./}}
             echo $(( $(date -d \"$first\" +%s%6N) - a)) $((b - a)) $((d - c)) $(systemctl show --value -p Result {unit})"
        ))?;
        let [spoke, ready, stop, result] = said.split_whitespace().collect::<Vec<_>>()[..] else {
            anyhow::bail!("the machine answered {said:?}");
        };
        ensure!(result == "success", "{unit} ended with {result}");
        let time = |micros: &str| -> Result<f64> { Ok(micros.parse::<f64>()? / 1000.0) };
        times.push([time(spoke)?, time(ready)?, time(stop)?]);
    }
    Ok(times)
}
