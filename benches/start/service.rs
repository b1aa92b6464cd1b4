//! A service that is ready at once and ends at once, under systemd in four ways: until READY, until it has stopped, and what runs
//! meanwhile beside it.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Bar, DEPLOYMENT, Part, cell, config, for_others, median, summary, write};
use crate::machine::Machine;

/// A unit and what it stands for.
const UNITS: [(&str, &str); 4] = [
    ("plain", "plain unit: User=, no container"),
    ("tiny", "sysctr: its unit, its runtime"),
    ("by-crun", "hand-written unit: crun run in the foreground, same config.json, as root"),
    ("quadlet", "Podman Quadlet: podman, conmon, crun"),
];
const UNIT: &str = "[Service]\nType=notify\nNotifyAccess=all\nDelegate=yes\nKillMode=mixed\n";
/// Without a limit of podman's own on processes: systemd-nspawn may have no such controller.
const QUADLET: &str = "[Container]\nImage=localhost/tiny:1\nNotify=true\nNetwork=host\nPull=never\n\
    ReadOnly=true\nNoNewPrivileges=true\nPidsLimit=0\n[Service]\nTimeoutStartSec=20\n";
/// Processes in the unit's control group, and in that of podman's container, but for the program itself: name and PSS in kB.
const BESIDE: &str = r#"group=$(systemctl show --value -p ControlGroup UNIT)
    find /sys/fs/cgroup$group -name cgroup.procs -exec cat {} + | while read -r pid; do
        name=$(cat /proc/$pid/comm); [ "$name" = tiny ] || echo $name $(awk '/^Pss:/ {print $2}' /proc/$pid/smaps_rollup); done"#;

/// One measurement of each: wall time of the start, of the start as the manager stamped it, wall time of the stop; milliseconds.
type Times = [[f64; 3]; 4];

/// Starts and stops them in turn.
pub fn bench(machine: &mut dyn Machine, rounds: usize) -> Result<Part> {
    prepare(machine)?;
    // The first start fills caches: it does not count.
    round(machine, 0)?;
    let beside = UNITS.iter().map(|(unit, _)| beside(machine, unit)).collect::<Result<Vec<_>>>()?;
    let times: Vec<Times> = (0..rounds).map(|number| round(machine, number)).collect::<Result<_>>()?;
    let column = |at: usize, kind: usize| times.iter().map(|round| round[at][kind]).collect::<Vec<f64>>();
    // Round by round: what else the machine does in a round is then in both.
    let added = |at: usize, kind: usize| median(times.iter().map(|round| round[at][kind] - round[0][kind]));

    println!("\na service that is ready at once and ends at once, {rounds} rounds, milliseconds");
    println!("  {:8} {:24} {:7} {:24} {:24} {:7}", "", "start", "added", "start, by systemd's clock", "stop", "added");
    let mut figures = json!({});
    for (at, (unit, what)) in UNITS.iter().enumerate() {
        let [start, stamped, stop] = [0, 1, 2].map(|kind| column(at, kind));
        println!(
            "  {unit:8} {:24} {:7.2} {:25} {:24} {:7.2}  {what}",
            cell(&start),
            added(at, 0),
            cell(&stamped),
            cell(&stop),
            added(at, 2)
        );
        figures[*unit] = json!({"start": summary(&start), "startByManager": summary(&stamped), "stop": summary(&stop),
            "processesBeside": beside[at].iter().map(|(name, _)| name).collect::<Vec<_>>(), "pssBesideKb": pss(&beside[at])});
    }
    println!("\nprocesses beside the program, and their memory (PSS)");
    for ((unit, _), beside) in UNITS.iter().zip(&beside) {
        let names: Vec<&str> = beside.iter().map(|(name, _)| name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        println!("  {unit:8} {names:24} {} kB", pss(beside));
    }
    let bar = |what: &str, found: f64, limit: f64| Bar { what: what.to_owned(), found, limit };
    Ok(Part {
        figures,
        bars: vec![
            bar("start: added to a plain unit's, ms, beside what crun adds", added(1, 0), added(2, 0)),
            bar("start: added to a plain unit's, ms, beside a tenth of Quadlet's", added(1, 0), added(3, 0) / 10.0),
            bar("start by systemd's clock: added, ms, beside what crun adds", added(1, 1), added(2, 1)),
            bar("start: added to a plain unit's, ms (aim)", added(1, 0), 4.0),
            bar("stop: added to a plain unit's, ms", added(1, 2), 5.0),
            bar("processes left by sysctr", beside[1].len() as f64, 0.0),
            bar("memory of processes left by sysctr, kB", pss(&beside[1]) as f64, 0.0),
        ],
    })
}

fn prepare(machine: &mut dyn Machine) -> Result<()> {
    machine
        .run("install -m 755 /srv/payload/images/program /usr/local/bin/tiny; echo u tiny 4711 | systemd-sysusers -")?;
    let unit = |name: &str| format!("/run/systemd/system/{name}.service");
    write(machine, &unit("plain"), &format!("{UNIT}User=4711\nExecStart=/usr/local/bin/tiny\n"))?;

    let mut bundle = for_others(config(machine)?);
    // crun lets only root say READY through the socket that it puts in between.
    bundle["process"]["user"] = json!({"uid": 0, "gid": 0});
    bundle["root"]["path"] = json!(format!("{DEPLOYMENT}/rootfs"));
    write(machine, "/run/by-crun/config.json", &bundle.to_string())?;
    let command = "/usr/bin/crun --cgroup-manager=disabled run --bundle /run/by-crun by-crun";
    write(machine, &unit("by-crun"), &format!("{UNIT}ExecStart={command}\n"))?;

    write(machine, "/etc/containers/systemd/quadlet.container", QUADLET)?;
    // Copied by podman itself: the machine has no registry for it.
    machine
        .run("podman pull -q oci:/srv/payload/images/tiny:1 >/tmp/id && podman tag $(cat /tmp/id) localhost/tiny:1")?;
    machine.run("systemctl daemon-reload").map(drop)
}

fn beside(machine: &mut dyn Machine, unit: &str) -> Result<Vec<(String, u64)>> {
    machine.run(&format!("systemctl start {unit}"))?;
    let said = machine.run(&BESIDE.replace("UNIT", unit))?;
    machine.run(&format!("systemctl stop {unit}"))?;
    let line = |line: &str| -> Result<(String, u64)> {
        let (name, size) = line.rsplit_once(' ').context("a process without memory")?;
        Ok((name.to_owned(), size.parse()?))
    };
    said.lines().map(line).collect()
}

fn pss(processes: &[(String, u64)]) -> u64 {
    processes.iter().map(|(_, size)| size).sum()
}

/// Each unit once, in an order that changes. The clock is read by the shell itself, inside the machine.
fn round(machine: &mut dyn Machine, number: usize) -> Result<Times> {
    let mut times = Times::default();
    for turn in 0..UNITS.len() {
        let at = (turn + number) % UNITS.len();
        let unit = UNITS[at].0;
        let said = machine.run(&format!(
            "a=${{EPOCHREALTIME/./}}; systemctl start {unit} || {{ journalctl -n 20 -u {unit} >&2; exit 1; }}; b=${{EPOCHREALTIME/./}}
             eval $(systemctl show -p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic {unit}); sleep 0.15
             c=${{EPOCHREALTIME/./}}; systemctl stop {unit}; d=${{EPOCHREALTIME/./}}; sleep 0.05
             echo $((b - a)) $((ActiveEnterTimestampMonotonic - InactiveExitTimestampMonotonic)) $((d - c)) $(systemctl show --value -p Result {unit})"
        ))?;
        let [start, stamped, stop, result] = said.split_whitespace().collect::<Vec<_>>()[..] else {
            anyhow::bail!("the machine answered {said:?}");
        };
        ensure!(result == "success", "{unit} ended with {result}");
        let time = |micros: &str| -> Result<f64> { Ok(micros.parse::<f64>()? / 1000.0) };
        times[at] = [time(start)?, time(stamped)?, time(stop)?];
    }
    Ok(times)
}
