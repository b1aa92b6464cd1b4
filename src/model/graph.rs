//! Which container waits for which: the order that their units give them.

use std::collections::{BTreeMap, BTreeSet};

use super::{name::ContainerName, unit::UnitFile};

/// The units of a container: file name and text, drop-ins under the name of what they change.
pub type Units = Vec<(String, UnitFile)>;

/// What orders two units without After= or Before=: who requires another is nothing without it.
const REQUIRES: [&str; 5] = ["Requires", "Requisite", "BindsTo", "PartOf", "Upholds"];

/// Containers that wait for each other, each for the one behind it and the last for the first.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("they wait for each other: {}", self.words())]
pub struct Cycle(pub Vec<ContainerName>);

impl Cycle {
    fn words(&self) -> String {
        let names: Vec<&str> = self.0.iter().chain(self.0.first()).map(ContainerName::as_str).collect();
        names.join(" after ")
    }
}

/// The containers, each behind those that it starts after or requires (systemd.unit(5)); by name where nothing orders them.
pub fn order(containers: &BTreeMap<ContainerName, Units>) -> Result<Vec<ContainerName>, Cycle> {
    let mut owners = BTreeMap::new();
    for (name, units) in containers {
        owners.extend(units.iter().map(|(file, _)| (file.clone(), name.clone())));
    }
    let mut waits = edges(containers, &owners);
    let mut ordered = Vec::new();
    while let Some(free) = waits.iter().find(|(_, others)| others.is_empty()).map(|(name, _)| name.clone()) {
        waits.remove(&free);
        for others in waits.values_mut() {
            others.remove(&free);
        }
        ordered.push(free);
    }
    match waits.keys().next() {
        None => Ok(ordered),
        Some(start) => Err(cycle(&waits, start)),
    }
}

/// For each container those that come before it.
fn edges(
    containers: &BTreeMap<ContainerName, Units>,
    owners: &BTreeMap<String, ContainerName>,
) -> BTreeMap<ContainerName, BTreeSet<ContainerName>> {
    let mut waits: BTreeMap<ContainerName, BTreeSet<ContainerName>> =
        containers.keys().map(|name| (name.clone(), BTreeSet::new())).collect();
    let named = |name: &ContainerName, key: &str| -> Vec<ContainerName> {
        let units = containers.get(name).into_iter().flatten();
        let words = units.flat_map(|(_, unit)| unit.values("Unit", key)).flat_map(str::split_whitespace);
        let others = words.filter_map(|unit| owners.get(unit).or_else(|| owners.get(&template(unit)?)));
        others.filter(|other| *other != name).cloned().collect()
    };
    for name in containers.keys() {
        for other in named(name, "After") {
            waits.entry(name.clone()).or_default().insert(other);
        }
        for other in named(name, "Before") {
            waits.entry(other).or_default().insert(name.clone());
        }
    }
    let ordered = waits.clone();
    let is_ordered = |one: &ContainerName, other: &ContainerName| ordered.get(one).is_some_and(|it| it.contains(other));
    for name in containers.keys() {
        for other in REQUIRES.iter().flat_map(|key| named(name, key)) {
            // Said otherwise it is otherwise, and two that require each other are none before the other.
            let requires_us = REQUIRES.iter().any(|key| named(&other, key).contains(name));
            if !is_ordered(&other, name) && !requires_us {
                waits.entry(name.clone()).or_default().insert(other);
            }
        }
    }
    waits
}

/// `a@.service` of `a@1.service`.
fn template(unit: &str) -> Option<String> {
    let (stem, kind) = unit.rsplit_once('.')?;
    let (stem, _) = stem.split_once('@')?;
    Some(format!("{stem}@.{kind}"))
}

/// Where every one waits for another, whoever follows that comes by one for the second time.
fn cycle(waits: &BTreeMap<ContainerName, BTreeSet<ContainerName>>, start: &ContainerName) -> Cycle {
    let mut way = vec![start.clone()];
    while let Some(next) = way.last().and_then(|last| waits.get(last)).and_then(BTreeSet::first) {
        if let Some(at) = way.iter().position(|name| name == next) {
            return Cycle(way.split_off(at));
        }
        way.push(next.clone());
    }
    Cycle(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[(&str, &str)]) -> Result<String, String> {
        let mut containers: BTreeMap<ContainerName, Units> = BTreeMap::new();
        for (file, text) in texts {
            let name = file.split(['.', '@']).next().expect("a name").parse().expect("a name");
            let unit = UnitFile::parse(file, &format!("[Unit]\n{text}\n")).expect("a unit");
            containers.entry(name).or_default().push((file.to_string(), unit));
        }
        let names = order(&containers).map_err(|cycle| cycle.to_string())?;
        Ok(names.iter().map(ContainerName::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_comes_behind_what_it_needs() {
        for (texts, expected) in [
            (&[("a.service", ""), ("b.service", "")][..], "a b"),
            (
                &[("a.service", "After=b.service network.target"), ("b.service", "After=c.service"), ("c.service", "")],
                "c b a",
            ),
            (&[("a.service", ""), ("b.service", "Before=a.service")], "b a"),
            (&[("a.service", "Requires=b.socket"), ("b.service", ""), ("b.socket", "")], "b a"),
            (&[("a.service", "BindsTo=b@7.service"), ("b@.service", "")], "b a"),
            // it requires what starts after it, and After= is what counts
            (&[("a.service", "Before=b.service\nRequires=b.service"), ("b.service", "")], "a b"),
            (&[("a.service", "Requires=b.service"), ("b.service", "Requires=a.service")], "a b"),
            (&[("a.service", "Requires=b.service\nAfter=b.service"), ("b.service", "BindsTo=a.service")], "b a"),
            (&[("a.service", "After=a.socket"), ("a.socket", "Before=a.service")], "a"),
        ] {
            assert_eq!(of(texts).expect("an order"), expected, "{texts:?}");
        }
    }

    #[test]
    fn those_that_wait_for_each_other_are_named() {
        let three =
            [("a.service", "After=c.service"), ("b.service", "After=a.service"), ("c.service", "After=b.service")];
        let message = of(&three).expect_err("a cycle");
        assert!(message.ends_with("a after c after b after a"), "{message}");
        let tail =
            [("a.service", "After=b.service"), ("b.service", "After=c.service"), ("c.service", "After=b.service")];
        assert!(of(&tail).expect_err("a cycle").ends_with("b after c after b"));
    }
}
