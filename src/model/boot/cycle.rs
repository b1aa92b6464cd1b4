//! Units that wait for each other, and what systemd makes of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Jobs, Names};

/// Units each of which waits for the next one, and the last for the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cycle {
    /// In that order, beginning with the first by name.
    pub units: Vec<String>,
    /// Those of which systemd drops one's job to go on: which it is depends on where it begins to look, and differs from boot to boot.
    pub drops: Vec<String>,
}

impl Cycle {
    /// `a.service after b.service after a.service`
    pub fn way(&self) -> String {
        let units: Vec<&str> = self.units.iter().chain(self.units.first()).map(String::as_str).collect();
        units.join(" after ")
    }

    /// What becomes of the start of a unit, or without one of a boot.
    pub fn outcome(&self, started: Option<&str>) -> String {
        let when = started.map_or("at boot".to_owned(), |unit| format!("when {unit} is started"));
        match self.drops.as_slice() {
            [] => format!("systemd can leave out none of them, and does nothing {when}"),
            [one] => format!("to break it systemd leaves out {one} {when}, and what requires it"),
            [first @ .., last] => format!(
                "to break it systemd leaves out one of them {when}, and what requires it: {} or {last}, whichever it comes by",
                first.join(", ")
            ),
        }
    }
}

impl Jobs<'_> {
    /// One cycle, the shortest, of each knot of units that wait for each other; with `through`, of each of those units that is in one.
    /// systemd goes back along the way that it came, from the job that closes the circle, to the first one that what it was told to
    /// start does not require (its transaction_verify_order_one()); it begins anywhere.
    pub fn cycles(&self, through: Option<&Names>) -> Vec<Cycle> {
        let mut found: BTreeMap<BTreeSet<String>, Vec<String>> = BTreeMap::new();
        for knot in self.knots() {
            let starts = knot.iter().filter(|name| through.is_none_or(|through| through.contains(*name)));
            let ways = starts.filter_map(|name| self.way(name, |next| next == name));
            let Some(mut way) = ways.min_by_key(Vec::len) else { continue };
            way.pop();
            found.entry(way.iter().cloned().collect()).or_insert(way);
        }
        let cycle = |mut units: Vec<String>| {
            let first = (0..units.len()).min_by_key(|at| &units[*at]).unwrap_or(0);
            units.rotate_left(first);
            let drops = units.iter().filter(|name| !self.matter.contains(*name)).cloned().collect();
            Cycle { units, drops }
        };
        found.into_values().map(cycle).collect()
    }

    /// The sets of units each of which waits for all others of its set: what is left when those are taken away that wait for nobody, or
    /// that nobody waits for.
    pub(super) fn knots(&self) -> Vec<Names> {
        let behind: BTreeMap<&str, Names> = self.tangled().into_iter().map(|name| (name, self.behind(name))).collect();
        let mut knots: Vec<Names> = Vec::new();
        for (name, waits) in &behind {
            if waits.contains(*name) && !knots.iter().any(|knot| knot.contains(*name)) {
                let mutual =
                    waits.iter().filter(|other| behind.get(other.as_str()).is_some_and(|it| it.contains(*name)));
                knots.push(mutual.cloned().collect());
            }
        }
        knots
    }

    /// The units that an order cannot be found for: cycles, and what lies between them.
    fn tangled(&self) -> Vec<&str> {
        let mut waits: BTreeMap<&str, BTreeSet<&str>> =
            self.all.iter().map(|name| (name.as_str(), self.waits_for(name).collect())).collect();
        loop {
            let free: Vec<&str> = waits.iter().filter(|(_, others)| others.is_empty()).map(|(name, _)| *name).collect();
            let needed: BTreeSet<&str> = waits.values().flatten().copied().collect();
            let last = waits.keys().copied().filter(|name| !needed.contains(name));
            let gone: BTreeSet<&str> = free.into_iter().chain(last).collect();
            if gone.is_empty() {
                return waits.into_keys().collect();
            }
            waits.retain(|name, _| !gone.contains(name));
            waits.values_mut().for_each(|others| others.retain(|other| !gone.contains(other)));
        }
    }
}
