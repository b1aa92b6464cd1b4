//! A drawing of the boot: the units of containers among the milestones that everybody knows, each behind what it waits for.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{DEFAULT_TARGET, Graph, Names, finding};

/// Shown where a boot has them, in no order.
const MILESTONES: [&str; 16] = [
    "local-fs.target",
    "sysinit.target",
    "sockets.target",
    "basic.target",
    "network-pre.target",
    "network.target",
    "network-online.target",
    "nss-lookup.target",
    "remote-fs.target",
    "time-sync.target",
    "containerd.service",
    "docker.service",
    "crio.service",
    "kubelet.service",
    "multi-user.target",
    "graphical.target",
];

/// One unit of the drawing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its name.
    pub unit: String,
    /// Everything of a lower number that it waits for is there before it begins.
    pub step: usize,
    /// Whether a container's.
    pub container: bool,
    /// Whether it is to start before the network, an engine or the usual set-up of the system.
    pub early: bool,
    /// What it waits for, without what those wait for themselves.
    pub after: Vec<String>,
    /// What it waits for and waits for it.
    pub circle: Vec<String>,
}

/// The boot in order. `own` are the units of containers; those that no boot starts are left out.
pub fn boot(graph: &Graph, own: &Names) -> Vec<Step> {
    let jobs = graph.jobs(&[DEFAULT_TARGET]);
    let shown: Vec<&str> = own
        .iter()
        .map(String::as_str)
        .chain(MILESTONES)
        .filter(|unit| jobs.has(unit))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let behind: BTreeMap<&str, BTreeSet<&str>> = shown
        .iter()
        .map(|unit| {
            let all = jobs.behind(unit);
            (*unit, shown.iter().copied().filter(|other| other != unit && all.contains(*other)).collect())
        })
        .collect();
    let waits = |one: &str, other: &str| behind.get(one).is_some_and(|all| all.contains(other));
    let circle = |one: &str, other: &str| waits(one, other) && waits(other, one);
    let before = |unit: &str| -> Vec<&str> {
        let all = behind.get(unit).into_iter().flatten().copied();
        all.filter(|other| !circle(unit, other)).collect()
    };
    let mut steps: BTreeMap<&str, usize> = BTreeMap::new();
    // Whoever has most behind it comes last, so that those are numbered already.
    let mut order = shown.clone();
    order.sort_by_key(|unit| (before(unit).len(), *unit));
    for unit in &order {
        let step = before(unit).iter().filter_map(|other| steps.get(other)).max().map_or(0, |last| last + 1);
        steps.insert(unit, step);
    }
    order.sort_by_key(|unit| (steps.get(unit).copied(), *unit));
    let step = |unit: &&str| {
        let all = before(unit);
        // Not what another one of them waits for, unless both wait for each other.
        let direct = |one: &&&str| !all.iter().any(|other| waits(other, one) && !circle(other, one));
        Step {
            unit: (*unit).to_owned(),
            step: steps.get(unit).map_or(1, |step| step + 1),
            container: own.contains(*unit),
            early: own.contains(*unit) && finding::early(graph, &jobs, unit).is_some(),
            after: all.iter().filter(direct).map(|one| (*one).to_owned()).collect(),
            circle: shown.iter().filter(|other| circle(unit, other)).map(|one| (*one).to_owned()).collect(),
        }
    };
    order.iter().map(step).collect()
}

/// For graphviz's dot(1). The arrows go with the time.
pub fn dot(steps: &[Step]) -> String {
    let mut text = "digraph boot {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n".to_owned();
    for step in steps {
        let style = match (step.container, step.early) {
            (true, true) => " [style=filled, fillcolor=\"#cfe8cf\", penwidth=2]",
            (true, false) => " [style=filled, fillcolor=\"#cfe8cf\"]",
            _ => "",
        };
        text.push_str(&format!("  {}{style};\n", quoted(&step.unit)));
    }
    for step in steps {
        for other in &step.after {
            text.push_str(&format!("  {} -> {};\n", quoted(other), quoted(&step.unit)));
        }
        for other in &step.circle {
            text.push_str(&format!("  {} -> {} [color=red];\n", quoted(other), quoted(&step.unit)));
        }
    }
    text + "}\n"
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
