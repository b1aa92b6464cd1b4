//! `make bench`: what containers add to a boot, and to the first answer of a web server behind a socket; beside plain units of the same
//! programs and Podman Quadlet. One Debian in systemd-nspawn at native speed, booted again and again, the ways in turn. A table of
//! medians, the limits, and `target/bench/boot.json`.
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
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{median, rounds};
use machine::{Machine, scenario};
use serde_json::{Value, json};

/// Podman, and the programs of the images as plain units run them.
const PACKAGES: [&str; 5] = ["podman", "conmon", "etcd-server", "apache2", "media-types"];
/// How etcd and httpd are started, and their units.
const WAYS: [(&str, &[&str]); 4] = [
    ("none", &[]),
    ("plain", &["plain-etcd", "plain-httpd"]),
    ("sysctr", &["etcd", "httpd"]),
    ("quadlet", &["quadlet-etcd", "quadlet-httpd"]),
];
/// Only one way is enabled at a time.
const CONTAINERS: f64 = 2.0;

/// All ways installed, none enabled. Debian's own units of both programs stay off.
const PREPARE: &str = r#"
set -e
systemctl disable -q --now etcd apache2 podman.socket podman-restart podman-auto-update.timer 2>/dev/null || true
rm -f /usr/lib/systemd/system/etcd.service /usr/lib/systemd/system/apache2.service /etc/init.d/apache2 /etc/init.d/etcd
systemctl daemon-reload
systemctl start docker-registry
curl -sf --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:5000/v2/ >/dev/null
echo hello >/var/www/index.html
sysctr -q install --yes --no-enable 127.0.0.1:5000/etcd
sysctr -q install --yes --no-enable 127.0.0.1:5000/httpd
cp /var/lib/sysctr/containers/httpd/current/rootfs/etc/apache2/httpd.conf /etc/apache2/bench.conf
# etcd elects itself after a time that it draws by lot, from one to two seconds if it is let.
soon='--heartbeat-interval=5 --election-timeout=50'
args="--listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 $soon"
mkdir -p /etc/systemd/system/etcd.service.d
printf '[Service]\nEnvironment=ETCD_HEARTBEAT_INTERVAL=5 ETCD_ELECTION_TIMEOUT=50\n' >/etc/systemd/system/etcd.service.d/soon.conf
id -u etcd >/dev/null
cat >/etc/systemd/system/plain-etcd.service <<UNIT
[Service]
Type=notify
User=etcd
StateDirectory=plain-etcd
ExecStart=/usr/bin/etcd --data-dir=/var/lib/plain-etcd $args
[Install]
WantedBy=multi-user.target
UNIT
cat >/etc/systemd/system/plain-httpd.service <<UNIT
[Service]
Type=exec
RuntimeDirectory=apache2
ExecStart=/usr/sbin/apache2 -f /etc/apache2/bench.conf -C "Listen 80" -D FOREGROUND
[Install]
WantedBy=multi-user.target
UNIT
for name in etcd httpd; do podman pull -q --tls-verify=false 127.0.0.1:5000/$name >/dev/null; done
mkdir -p /var/lib/etcd-quadlet && chown 2379:2379 /var/lib/etcd-quadlet && chmod 700 /var/lib/etcd-quadlet
mkdir -p /etc/quadlets
cat >/etc/quadlets/quadlet-etcd.container <<UNIT
[Container]
Image=127.0.0.1:5000/etcd:latest
Exec=/usr/bin/etcd --data-dir=/var/lib/etcd $args
Notify=true
Network=host
Pull=never
ReadOnly=true
PidsLimit=0
Volume=/var/lib/etcd-quadlet:/var/lib/etcd
[Install]
WantedBy=multi-user.target
UNIT
cat >/etc/quadlets/quadlet-httpd.container <<UNIT
[Container]
Image=127.0.0.1:5000/httpd:latest
Network=host
Pull=never
PidsLimit=0
Volume=/var/www:/var/www:ro
Tmpfs=/run/apache2
[Install]
WantedBy=multi-user.target
UNIT
# Whatever else the machine has would only be noise.
systemctl disable -q --now docker-registry
"#;

/// A web server behind a socket, as a plain unit and under sysctr; it takes the port of whoever is asked.
const SOCKETS: &str = r#"
set -e
install -m 755 /srv/payload/images/load-program /usr/local/bin/web
sysctr -q install --yes --no-enable --name door oci:/srv/payload/images/load-first:1
printf '[Socket]\nListenStream=127.0.0.1:8081\n' >/run/systemd/system/plain-door.socket
printf '[Service]\nType=notify\nUser=4711\nExecStart=/usr/local/bin/web first\n' >/run/systemd/system/plain-door.service
for unit in door plain-door; do mkdir -p /run/systemd/system/$unit.service.d
    printf '[Unit]\nStartLimitIntervalSec=0\n' >/run/systemd/system/$unit.service.d/often.conf; done
echo u web 4711 | systemd-sysusers -
systemctl daemon-reload
systemctl start door.socket plain-door.socket
"#;

fn main() {
    if let Err(error) = bench() {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

fn bench() -> Result<()> {
    let rounds = rounds(20)?;
    let tree = image::Tree::with("trixie", &PACKAGES)?;
    let payload = image::Payload::new(&common::programs()?)?;
    let mut figures = json!({"rounds": rounds});
    let mut bars = Vec::new();
    scenario(nspawn::Nspawn::boot("bench-boot", &tree, &payload), |machine| {
        machine.booted()?;
        machine.run(PREPARE)?;
        // The first boots of each way fill caches: they do not count.
        for (way, units) in WAYS {
            boot(machine, units).with_context(|| way.to_owned())?;
        }
        common::warn_if_busy()?;
        let mut times = WAYS.map(|_| Vec::new());
        for number in 0..rounds {
            for turn in 0..WAYS.len() {
                let at = (turn + number) % WAYS.len();
                times[at].push(boot(machine, WAYS[at].1).with_context(|| WAYS[at].0.to_owned())?);
            }
        }
        boots(&times, &mut figures, &mut bars);
        let first = first_answers(machine, rounds)?;
        answers(&first, &mut figures);
        Ok(())
    })?;
    println!("\nlimits");
    for (what, found, limit) in &bars {
        let verdict = if found <= limit { "kept" } else { "MISSED" };
        println!("  {what:66} {found:8.2} of at most {limit:8.2}  {verdict}");
    }
    figures["limits"] =
        bars.iter().map(|(what, found, limit)| json!({"what": what, "found": found, "limit": limit})).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join("boot.json");
    fs::write(&file, serde_json::to_string_pretty(&figures)?).with_context(|| format!("writing {}", file.display()))?;
    println!("figures: {}", file.display());
    Ok(())
}

/// Boots with these units enabled and no others; milliseconds from the manager's start to multi-user.target.
fn boot(machine: &mut dyn Machine, units: &[&str]) -> Result<f64> {
    let all = WAYS.iter().flat_map(|(_, units)| *units).filter(|unit| !unit.starts_with("quadlet"));
    let all: Vec<String> = all.map(|unit| format!("{unit}.service")).collect();
    let is_quadlet = units.iter().any(|unit| unit.starts_with("quadlet"));
    let enable = if units.is_empty() || is_quadlet {
        "true".to_owned()
    } else {
        format!("systemctl enable -q {}", units.join(" "))
    };
    let place = if is_quadlet { "cp /etc/quadlets/* /etc/containers/systemd/" } else { "true" };
    machine.run(&format!(
        "systemctl disable -q {} && rm -f /etc/containers/systemd/quadlet-* && mkdir -p /etc/containers/systemd && {enable} && {place}",
        all.join(" ")
    ))?;
    machine.reboot()?;
    machine.wait_until(Duration::from_secs(60), "systemctl is-active multi-user.target")?;
    for unit in units {
        ensure!(machine.property(unit, "ActiveState")? == "active", "{unit} does not run");
    }
    let said = machine.run(
        "systemctl show --value -p UserspaceTimestampMonotonic; systemctl show --value -p ActiveEnterTimestampMonotonic multi-user.target",
    )?;
    let times = said.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let &[start, end] = times.as_slice() else { anyhow::bail!("no times: {said:?}") };
    Ok((end - start) / 1000.0)
}

fn boots(times: &[Vec<f64>; 4], figures: &mut Value, bars: &mut Vec<(String, f64, f64)>) {
    println!("\nmulti-user.target after the start of systemd, {} boots each in turn, milliseconds", times[0].len());
    let added = |at: usize, to: usize| median(times[at].iter().zip(&times[to]).map(|(one, other)| one - other));
    for (at, (way, _)) in WAYS.iter().enumerate() {
        let (middle, to_none) = (median(times[at].iter().copied()), added(at, 0));
        println!("  {way:8} {middle:8.1}   added {to_none:7.1}   {} ", range(&times[at]));
        figures[*way] = json!({"median": middle, "added": to_none, "all": times[at]});
    }
    let (ours, quadlet) = (added(2, 1), added(3, 1));
    bars.push(("sysctr: added to the plain units' boot, ms a container".to_owned(), ours / CONTAINERS, 10.0));
    bars.push(("sysctr: added to the plain units' boot, ms, a tenth of Quadlet's".to_owned(), ours, quadlet / 10.0));
}

/// Milliseconds until the first answer, of the plain unit and of the container, and of a second one. The service is off before.
fn first_answers(machine: &mut dyn Machine, rounds: usize) -> Result<[[Vec<f64>; 2]; 2]> {
    machine.run(SOCKETS)?;
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    for number in 0..rounds {
        for turn in 0..2 {
            let at = (turn + number) % 2;
            let (unit, port) = [("plain-door", 8081), ("door", 8080)][at];
            let said = machine.run(&format!(
                "[ $(systemctl is-active {unit}.service) = inactive ] || exit 3
                 for i in 1 2; do a=${{EPOCHREALTIME/./}}; exec 9<>/dev/tcp/127.0.0.1/{port}
                     printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&9; read -r line <&9; b=${{EPOCHREALTIME/./}}; exec 9>&-; echo $((b - a)); done
                 systemctl stop {unit}.service; systemctl start {unit}.socket; sleep 0.1"
            ))?;
            let found = said.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
            ensure!(found.len() == 2, "no times: {said:?}");
            (0..2).for_each(|one| times[at][one].push(found[one] / 1000.0));
        }
    }
    Ok(times)
}

fn answers(times: &[[Vec<f64>; 2]; 2], figures: &mut Value) {
    println!("\na web server behind a socket, off until the first request, milliseconds until the answer");
    for (way, [first, second]) in ["plain", "sysctr"].iter().zip(times) {
        let (one, two) = (median(first.iter().copied()), median(second.iter().copied()));
        println!("  {way:8} first {one:7.2}   {}   second {two:7.2}", range(first));
        figures["firstAnswer"][*way] = json!({"first": one, "second": two, "all": first});
    }
}

fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("({least:.1} to {most:.1})")
}
