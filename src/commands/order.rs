//! What is about to be installed must leave the boot without a cycle: refused before anything is written.

use anyhow::{Result, bail};

use super::{Context, candidate::Candidate, check};
use sysctr::{
    host::{dir::Folder, unit_files::UnitFiles},
    model::{
        boot::{
            DEFAULT_TARGET, Graph, Load, Names,
            finding::{self, Finding, Kind, Level},
        },
        fault::{Code, Fault},
        layout,
    },
};

/// A deployment that may come, whether its units are enabled, and the units of the one that it replaces.
pub struct Coming<'a> {
    pub candidate: &'a Candidate,
    pub enabled: bool,
    pub before: &'a [String],
}

/// Refuses deployments with which units would wait for each other that did not before; tells what they require and is not there yet.
pub fn check(context: &Context, root: &Folder, doing: &str, coming: &[Coming]) -> Result<()> {
    let mut files = UnitFiles::read(root)?;
    let installed = check::own(root)?;
    let mut own = Names::new();
    for one in coming {
        own.extend(one.candidate.rendered.files.keys().filter(|file| layout::is_unit(file)).cloned());
    }
    let known: Vec<Vec<String>> =
        cycles(&files.graph(&installed)?, &own, &installed).into_iter().map(|one| one.units).collect();
    for one in coming {
        files.lay_over(&one.candidate.rendered.files, one.enabled, one.before)?;
    }
    let all: Names = installed.union(&own).cloned().collect();
    let graph = files.graph(&all)?;
    if let Some(cycle) = cycles(&graph, &own, &all).into_iter().find(|cycle| !known.contains(&cycle.units)) {
        let names: Vec<&str> = coming.iter().map(|one| one.candidate.name.as_str()).collect();
        let message = format!("{doing} {}: units would wait for each other: {}", names.join(", "), cycle.detail);
        bail!(Fault::new(Code::Failed, message).hint(
            "nothing was changed; After= and Before= of these units say so: a drop-in can add to them, and take nothing away"
        ));
    }
    // A tree may get its systemd later.
    if graph.unit(DEFAULT_TARGET).is_some_and(|unit| unit.load == Load::Loaded) {
        let lacking = |one: &&Finding| one.kind == Kind::Missing && one.level == Level::Error;
        for one in finding::find(&graph, &own, false).iter().filter(lacking) {
            context.output.hint(format!("{}: {}", one.unit, one.detail));
        }
    }
    Ok(())
}

/// Cycles of a boot, of a start by hand, and of a boot in which everything were enabled that is installed.
fn cycles(graph: &Graph, own: &Names, all: &Names) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        finding::find(graph, own, false).into_iter().filter(|one| one.kind == Kind::Cycle).collect();
    let anchors: Vec<&str> = [DEFAULT_TARGET].into_iter().chain(all.iter().map(String::as_str)).collect();
    for cycle in graph.jobs(&anchors).cycles(Some(own)) {
        if !found.iter().any(|one| one.units == cycle.units) {
            found.push(finding::of_cycle(cycle.way(), cycle, own.first()));
        }
    }
    found
}
