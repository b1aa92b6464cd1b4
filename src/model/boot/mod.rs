//! The units of a machine as a graph: who starts whom, and who waits for whom (systemd.unit(5)). Told by systemd, or put together from
//! unit files as systemd does it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub mod cycle;
pub mod draw;
pub mod finding;
pub mod implied;
pub mod parse;
pub mod svg;
pub mod unit_name;

#[cfg(test)]
mod tests;

/// What a boot starts.
pub const DEFAULT_TARGET: &str = "default.target";

/// Names of units.
pub type Names = BTreeSet<String>;

/// Whether a unit can be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Load {
    /// Its text was read.
    #[default]
    Loaded,
    /// There is none of that name.
    NotFound,
    /// A link to /dev/null, or an empty file.
    Masked,
    /// Nobody can read its text.
    Bad,
}

/// What one unit says of others, and what follows from its kind.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// Whether it can be started.
    pub load: Load,
    /// Its other names.
    pub aliases: Names,
    /// `DefaultDependencies=no`: it starts without waiting for the system to be set up.
    pub early: bool,
    /// It waits for these.
    pub after: Names,
    /// These wait for it.
    pub before: Names,
    /// Started along, and nothing without them (Requires=, BindsTo=).
    pub requires: Names,
    /// Nothing unless these run already (Requisite=).
    pub requisite: Names,
    /// Started along (Wants=, Upholds=).
    pub wants: Names,
    /// The places whose mounts it requires.
    pub mounts_for: BTreeSet<String>,
    /// A file system that lies on another machine.
    pub remote: bool,
}

/// All units that matter, each under its own name.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    units: BTreeMap<String, Unit>,
    /// Who has this name.
    names: BTreeMap<String, String>,
    /// Whom each waits for.
    waits: BTreeMap<String, Names>,
}

impl Graph {
    /// The graph of units whose dependencies are whole.
    pub fn new(units: BTreeMap<String, Unit>) -> Graph {
        let mut graph = Graph::default();
        for (name, unit) in &units {
            graph.names.extend(unit.aliases.iter().map(|alias| (alias.clone(), name.clone())));
        }
        for (name, unit) in &units {
            for other in &unit.after {
                let other = graph.own_name(other).to_owned();
                graph.waits.entry(name.clone()).or_default().insert(other);
            }
            for other in &unit.before {
                let other = graph.own_name(other).to_owned();
                graph.waits.entry(other).or_default().insert(name.clone());
            }
        }
        // systemd drops what a unit says of itself.
        for (name, others) in &mut graph.waits {
            others.remove(name);
        }
        graph.units = units;
        graph
    }

    /// The name that a unit has itself, of one of its names.
    pub fn own_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }

    /// A unit, by any of its names.
    pub fn unit(&self, name: &str) -> Option<&Unit> {
        self.units.get(self.own_name(name))
    }

    /// Whether it can be started. What has no file, as a device, is the kernel's to bring.
    fn can_start(&self, name: &str) -> bool {
        name.ends_with(".device") || self.unit(name).is_some_and(|unit| unit.load == Load::Loaded)
    }

    /// The jobs of the transaction that starts these (systemd's manager_add_job()): they, and all that they start along. One whose
    /// requirement cannot be started has none itself.
    pub fn jobs(&self, anchors: &[&str]) -> Jobs<'_> {
        let hopeless = self.hopeless();
        let mut jobs = Jobs { graph: self, all: Names::new(), matter: Names::new() };
        let mut todo: VecDeque<(String, bool)> =
            anchors.iter().map(|name| (self.own_name(name).to_owned(), true)).collect();
        while let Some((name, matters)) = todo.pop_front() {
            if hopeless.contains(&name) || !self.can_start(&name) {
                continue;
            }
            let new = jobs.all.insert(name.clone());
            let matters_newly = matters && jobs.matter.insert(name.clone());
            let Some(unit) = self.units.get(&name).filter(|_| new || matters_newly) else { continue };
            let own = |other: &String| self.own_name(other).to_owned();
            todo.extend(unit.requires.iter().map(|other| (own(other), matters)));
            todo.extend(unit.wants.iter().map(|other| (own(other), false)));
        }
        jobs
    }

    /// The units that require, directly or not, what cannot be started.
    fn hopeless(&self) -> Names {
        let mut hopeless = Names::new();
        loop {
            let lost = |other: &String| !self.can_start(other) || hopeless.contains(self.own_name(other));
            let more =
                self.units.iter().filter(|(name, unit)| !hopeless.contains(*name) && unit.requires.iter().any(lost));
            let more: Vec<String> = more.map(|(name, _)| name.clone()).collect();
            if more.is_empty() {
                return hopeless;
            }
            hopeless.extend(more);
        }
    }
}

/// The units that one transaction starts, and their order.
#[derive(Clone, Debug)]
pub struct Jobs<'a> {
    graph: &'a Graph,
    all: Names,
    /// Those without which what is started fails: systemd never drops their jobs.
    matter: Names,
}

impl Jobs<'_> {
    /// Their names.
    pub fn names(&self) -> &Names {
        &self.all
    }

    /// Whether a unit is started, by any of its names.
    pub fn has(&self, name: &str) -> bool {
        self.all.contains(self.graph.own_name(name))
    }

    /// Those that it waits for, directly.
    pub fn waits_for(&self, name: &str) -> impl Iterator<Item = &str> {
        let others = self.graph.waits.get(self.graph.own_name(name)).into_iter().flatten();
        others.map(String::as_str).filter(|other| self.all.contains(*other))
    }

    /// The shortest way from a unit to one that it waits for, both ends included; none where it does not wait for any such.
    pub fn way(&self, from: &str, to: impl Fn(&str) -> bool) -> Option<Vec<String>> {
        let from = self.graph.own_name(from);
        let mut came: BTreeMap<&str, &str> = BTreeMap::new();
        let mut todo = VecDeque::from([from]);
        while let Some(at) = todo.pop_front() {
            for next in self.waits_for(at) {
                if to(next) {
                    let mut way = vec![next.to_owned()];
                    let mut back = at;
                    while back != from {
                        way.push(back.to_owned());
                        back = came.get(back).copied().unwrap_or(from);
                    }
                    way.push(from.to_owned());
                    way.reverse();
                    return Some(way);
                }
                if next != from && !came.contains_key(next) {
                    came.insert(next, at);
                    todo.push_back(next);
                }
            }
        }
        None
    }

    /// All that it waits for, directly or not.
    pub fn behind(&self, name: &str) -> Names {
        let mut found = Names::new();
        let mut todo = vec![self.graph.own_name(name)];
        while let Some(at) = todo.pop() {
            todo.extend(self.waits_for(at).filter(|next| found.insert((*next).to_owned())));
        }
        found
    }
}
