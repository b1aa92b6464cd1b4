//! The graph of units as the running systemd has it (org.freedesktop.systemd1(5)): what it says counts all that it adds by itself.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result};
use zbus::OwnedVariant;

use super::systemd::Manager;
use crate::model::boot::{DEFAULT_TARGET, Graph, Load, Names, Unit, unit_name};

/// The graph of what a boot starts, and of these units.
pub fn of_systemd(manager: &Manager, own: &Names) -> Result<Graph> {
    let mut units: BTreeMap<String, Unit> = BTreeMap::new();
    let named = own.iter().filter(|name| !unit_name::is_template(name)).cloned();
    let mut todo: VecDeque<String> = [DEFAULT_TARGET.to_owned()].into_iter().chain(named).collect();
    let mut asked = Names::new();
    while let Some(name) = todo.pop_front() {
        if !asked.insert(name.clone()) || unit_name::is_template(&name) {
            continue;
        }
        let (id, unit) = ask(manager, &name).with_context(|| format!("asking systemd about {name}"))?;
        if units.contains_key(&id) {
            continue;
        }
        todo.extend(unit.requires.iter().chain(&unit.requisite).chain(&unit.wants).cloned());
        if own.contains(&id) {
            todo.extend(unit.after.iter().cloned());
        }
        units.insert(id, unit);
    }
    Ok(Graph::new(units))
}

fn ask(manager: &Manager, name: &str) -> Result<(String, Unit)> {
    let mut all = manager.properties(name)?;
    let mut list = |key: &str| -> Result<Names> {
        let value = all.remove(key).map(Vec::<String>::try_from).transpose();
        Ok(value.with_context(|| key.to_owned())?.unwrap_or_default().into_iter().collect())
    };
    let mut unit = Unit {
        aliases: list("Names")?,
        after: list("After")?,
        before: list("Before")?,
        requires: list("Requires")?,
        requisite: list("Requisite")?,
        wants: list("Wants")?,
        ..Unit::default()
    };
    unit.requires.extend(list("BindsTo")?);
    unit.wants.extend(list("Upholds")?);
    let mut text = |key: &str| -> Result<String> {
        let value: OwnedVariant = all.remove(key).with_context(|| format!("no {key}"))?;
        String::try_from(value).with_context(|| key.to_owned())
    };
    let id = text("Id")?;
    unit.load = match text("LoadState")?.as_str() {
        "loaded" => Load::Loaded,
        "masked" => Load::Masked,
        "not-found" => Load::NotFound,
        _ => Load::Bad,
    };
    unit.early = all.remove("DefaultDependencies").map(bool::try_from).transpose().context("DefaultDependencies")?
        == Some(false);
    // What the unit of a file system over the network has and no other.
    unit.remote = id.ends_with(".mount") && unit.after.contains("remote-fs-pre.target");
    unit.aliases.remove(&id);
    Ok((id, unit))
}
