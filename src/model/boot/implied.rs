//! What units of a whole machine owe to each other though none of them says so; to be added where the units come from files.

use std::collections::BTreeMap;

use super::{Load, Unit, unit_name};

/// Completes the dependencies of units from files.
pub fn add(units: &mut BTreeMap<String, Unit>) {
    mounts(units);
    targets(units);
}

/// RequiresMountsFor= means the mounts that have a unit.
fn mounts(units: &mut BTreeMap<String, Unit>) {
    let there: Vec<String> = units
        .iter()
        .filter(|(name, unit)| name.ends_with(".mount") && unit.load == Load::Loaded)
        .map(|(name, _)| name.clone())
        .collect();
    for (name, unit) in units.iter_mut() {
        let above = unit.mounts_for.iter().flat_map(|path| unit_name::mounts_above(path));
        let above: Vec<String> = above.filter(|mount| mount != name && there.contains(mount)).collect();
        unit.after.extend(above.iter().cloned());
        unit.requires.extend(above);
    }
}

/// A target waits for what it starts, unless that one comes after it, or one of the two wants no default dependencies.
fn targets(units: &mut BTreeMap<String, Unit>) {
    let usual = |unit: &Unit| unit.load == Load::Loaded && !unit.early;
    let own: BTreeMap<&String, &String> =
        units.iter().flat_map(|(name, unit)| unit.aliases.iter().map(move |alias| (alias, name))).collect();
    let resolve = |name: &String| own.get(name).map_or(name.clone(), |own| (*own).clone());
    let mut waits: Vec<(String, String)> = Vec::new();
    for (name, target) in units.iter().filter(|(name, unit)| name.ends_with(".target") && usual(unit)) {
        for other in target.wants.iter().chain(&target.requires).chain(&target.requisite).map(resolve) {
            let Some(unit) = units.get(&other).filter(|unit| usual(unit)) else { continue };
            let is_target = |one: &String| resolve(one) == *name;
            let comes_after = unit.after.iter().any(is_target) || target.before.iter().any(|one| resolve(one) == other);
            if !comes_after {
                waits.push((name.clone(), other));
            }
        }
    }
    for (name, other) in waits {
        if let Some(unit) = units.get_mut(&name) {
            unit.after.insert(other);
        }
    }
}
