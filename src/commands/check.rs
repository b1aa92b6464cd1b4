//! `sysctr check [--boot]`: the units of what is installed among all of the machine's, from systemd where it runs, else from files.

use anyhow::{Result, bail};
use serde_json::json;

use super::{Context, image::count};
use crate::{cli::CheckArgs, output::table};
use sysctr::{
    host::{
        dir::Folder,
        state::{self, Container},
        unit_files::UnitFiles,
        unit_graph, units,
    },
    model::{
        boot::{
            Names, draw,
            finding::{self, Finding, Level},
            svg,
        },
        fault::{Code, Fault},
        layout,
    },
};

/// Says what is wrong, and draws the boot where that is asked for.
pub fn run(context: &Context, args: &CheckArgs) -> Result<()> {
    let root = context.folder()?;
    let own = own(&root)?;
    let graph = match context.manager()? {
        Some(manager) => unit_graph::of_systemd(&manager, &own)?,
        None => UnitFiles::read(&root)?.graph(&own)?,
    };
    let boot = args.boot || args.dot || args.svg;
    let findings = finding::find(&graph, &own, boot);
    let steps = boot.then(|| draw::boot(&graph, &own));
    let errors = findings.iter().filter(|one| one.level == Level::Error).count();
    let mut document = json!({"ok": errors == 0, "units": own, "problems": findings});
    if let Some(steps) = &steps {
        document["boot"] = json!(steps);
    }
    let steps = steps.unwrap_or_default();
    context.output.result(&document, || match (args.dot, args.svg) {
        (true, _) => draw::dot(&steps),
        (_, true) => svg::picture(&steps),
        _ => text(&findings, own.len(), context.output.quiet) + &drawn(&steps),
    })?;
    match errors {
        0 => Ok(()),
        errors => bail!(Fault::new(Code::Failed, format!("check found {}", count(errors, "error")))),
    }
}

/// The units of the deployments in force. One whose records nobody can read is `verify`'s to tell of.
pub fn own(root: &Folder) -> Result<Names> {
    let mut own = Names::new();
    for name in state::names(root)? {
        if let Ok(Some(Container { active: Some(id), .. })) = state::container(root, &name) {
            own.extend(units::set_files(root, &name, id)?.into_iter().filter(|file| layout::is_unit(file)));
        }
    }
    Ok(own)
}

fn text(findings: &[Finding], units: usize, quiet: bool) -> String {
    let shown = findings.iter().filter(|one| !quiet || one.level == Level::Error);
    let lines = shown.map(|one| match one.level {
        Level::Error => format!("error: {}: {}\n", one.unit, one.detail),
        Level::Note => format!("note: {}: {}\n", one.unit, one.detail),
    });
    let lines: String = lines.collect();
    let clean = findings.iter().all(|one| one.level == Level::Note) && !quiet;
    lines + &if clean { format!("no problem found in {}\n", count(units, "unit")) } else { String::new() }
}

/// A line a unit, in the order in which they can start.
fn drawn(steps: &[draw::Step]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let row = |step: &draw::Step| {
        let circle = (!step.circle.is_empty()).then(|| format!("(and in a circle with {})", step.circle.join(", ")));
        let after: Vec<String> =
            [step.after.join(", ")].into_iter().chain(circle).filter(|text| !text.is_empty()).collect();
        let mark = match (step.container, step.early) {
            (true, true) => "container, early",
            (true, false) => "container",
            _ => "",
        };
        vec![step.step.to_string(), step.unit.clone(), mark.to_owned(), after.join(" ")]
    };
    format!("\n{}", table(&["STEP", "UNIT", "", "AFTER"], steps.iter().map(row)))
}
