//! What is wrong with the units of containers among those of the machine.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{DEFAULT_TARGET, Graph, Jobs, Load, Names, cycle::Cycle, unit_name};

/// Container engines. What is ordered before one is there for it, and cannot need it.
const ENGINES: [&str; 6] =
    ["docker.service", "docker.socket", "containerd.service", "crio.service", "podman.service", "podman.socket"];
/// What the network and the engines wait for starts early.
const LATE: [&str; 4] = ["sysinit.target", "network-pre.target", "network.target", "network-online.target"];
/// Name resolution.
const DNS: [&str; 6] = [
    "nss-lookup.target",
    "systemd-resolved.service",
    "named.service",
    "unbound.service",
    "dnsmasq.service",
    "bind9.service",
];
/// What fetches, or lies on another machine.
const REMOTE: [&str; 4] = ["remote-fs.target", "remote-fs-pre.target", "nfs-client.target", "sysctr-update.service"];

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something will not start, or not when it should.
    Error,
    /// Perhaps as it is meant.
    Note,
}

/// What sort of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Units wait for each other.
    Cycle,
    /// A unit that is named is not there.
    Missing,
    /// A unit that is to start early waits for what comes late.
    Waits,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[allow(missing_docs)]
pub struct Finding {
    pub level: Level,
    pub kind: Kind,
    /// Whose it is.
    pub unit: String,
    pub detail: String,
    /// The cycle, or the way from the unit to what it waits for.
    pub units: Vec<String>,
    /// Of a cycle: those of which systemd drops one.
    pub drops: Vec<String>,
}

/// Everything that is wrong with these units; with `all` also cycles of a boot that they have no part in.
pub fn find(graph: &Graph, own: &Names, all: bool) -> Vec<Finding> {
    let boot = graph.jobs(&[DEFAULT_TARGET]);
    let mut findings = BTreeSet::new();
    findings.extend(cycles(&boot, (!all).then_some(own), None));
    for unit in own.iter().filter(|unit| !unit_name::is_template(unit)) {
        let alone;
        let jobs = if boot.has(unit) {
            &boot
        } else {
            alone = graph.jobs(&[unit.as_str()]);
            findings.extend(cycles(&alone, Some(&Names::from([unit.clone()])), Some(unit)));
            &alone
        };
        findings.extend(missing(graph, unit));
        findings.extend(waits(graph, jobs, unit));
    }
    findings.into_iter().collect()
}

/// The cycles of a transaction, where given those through these units; `started` is the unit that it starts, none of a boot.
fn cycles(jobs: &Jobs, through: Option<&Names>, started: Option<&str>) -> Vec<Finding> {
    let finding = |cycle: Cycle| {
        let unit = through.and_then(|through| cycle.units.iter().find(|unit| through.contains(*unit))).cloned();
        of_cycle(format!("they wait for each other: {}; {}", cycle.way(), cycle.outcome(started)), cycle, unit.as_ref())
    };
    jobs.cycles(through).into_iter().map(finding).collect()
}

/// A cycle as something that is wrong, with the words for it; of its first unit unless of another one.
pub fn of_cycle(detail: String, cycle: Cycle, unit: Option<&String>) -> Finding {
    let unit = unit.or(cycle.units.first()).cloned().unwrap_or_default();
    Finding { level: Level::Error, kind: Kind::Cycle, unit, detail, units: cycle.units, drops: cycle.drops }
}

fn missing(graph: &Graph, name: &str) -> Vec<Finding> {
    let Some(unit) = graph.unit(name) else { return Vec::new() };
    let state = |other: &str| match graph.unit(other).map(|unit| unit.load) {
        _ if other.ends_with(".device") => None,
        Some(Load::Loaded) => None,
        Some(Load::Masked) => Some("is masked"),
        Some(Load::Bad) => Some("cannot be read"),
        Some(Load::NotFound) | None => Some("is not there"),
    };
    let hard = unit.requires.iter().chain(&unit.requisite);
    let of = |other: &String, level, words: &str, end: &str| {
        state(other).map(|state| Finding {
            level,
            kind: Kind::Missing,
            unit: name.to_owned(),
            detail: format!("{words} {other}, which {state}{end}"),
            units: vec![other.clone()],
            drops: Vec::new(),
        })
    };
    let required = hard.filter_map(|other| of(other, Level::Error, "requires", ": it cannot start"));
    let wanted = unit.wants.iter().filter_map(|other| of(other, Level::Note, "wants", ": it starts without"));
    let named = |other: &&String| {
        !unit.wants.contains(*other) && !unit.requires.contains(*other) && !unit.requisite.contains(*other)
    };
    // Of what is to come after it one is usual that is not installed: an image names every engine that there is.
    let ordered = unit.after.iter().filter(named);
    let ordered = ordered.filter_map(|other| of(other, Level::Note, "is ordered after", ": it does not wait"));
    required.chain(wanted).chain(ordered).collect()
}

/// What a unit that is to start early waits for in vain hope.
fn waits(graph: &Graph, jobs: &Jobs, name: &str) -> Vec<Finding> {
    let Some(why) = early(graph, jobs, name) else { return Vec::new() };
    let is = |known: &'static [&'static str]| move |unit: &str| known.contains(&unit);
    let remote = |unit: &str| REMOTE.contains(&unit) || graph.unit(unit).is_some_and(|unit| unit.remote);
    let ways = [
        ("the network", jobs.way(name, |unit| unit == "network-online.target")),
        ("name resolution", jobs.way(name, is(&DNS))),
        ("a container engine", jobs.way(name, is(&ENGINES))),
        ("what lies on another machine", jobs.way(name, remote)),
    ];
    let finding = |(what, way): (&str, Option<Vec<String>>)| {
        let way = way?;
        Some(Finding {
            level: Level::Error,
            kind: Kind::Waits,
            unit: name.to_owned(),
            detail: format!("{why}, and waits for {what}: {}", way.join(" after ")),
            units: way,
            drops: Vec::new(),
        })
    };
    ways.into_iter().filter_map(finding).collect()
}

/// Why a unit is to start early; none where it is not. One that waits for each other with what it is before is told as a cycle.
pub fn early(graph: &Graph, jobs: &Jobs, name: &str) -> Option<String> {
    let waited_by = |late: &&&str| jobs.has(late) && jobs.way(late, |unit| unit == name).is_some();
    if let Some(late) = ENGINES.iter().chain(&LATE).find(waited_by) {
        let in_a_circle = jobs.way(name, |unit| unit == *late).is_some();
        return (!in_a_circle).then(|| format!("is to start before {late}"));
    }
    let early = graph.unit(name).is_some_and(|unit| unit.early);
    early.then(|| "is to start early (DefaultDependencies=no)".to_owned())
}
