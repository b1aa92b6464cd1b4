//! Every bundle run by sysctr-runtime, crun and runc on one machine, and what the probe inside found compared.
//!
//! ```text
//! bundles/  ──▶ config.json ─┐                       ┌─▶ report: fields ─▶ table: differences.toml
//! probe.c   ──▶ probe ───────┴─▶ drive.sh, in the machine ┘
//! ```
//!
//! Each difference between ours and theirs must stand in `differences.toml` with the reason that makes ours right; a row that
//! describes no difference any more fails the test too.

mod bundles;
mod kept;
mod report;
mod table;
mod transfer;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bundles::{Bundle, WORK};
use report::{Report, Results};
use table::Table;

use crate::machine::Machine;
use crate::process::run;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/differential");
/// Some 1,500 containers, and in emulation each takes its time.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// The runtimes, ours first. Comparing is always ours with another.
pub const RUNTIMES: [&str; 3] = ["sysctr", "crun", "runc"];

/// How many bundles are run before their reports are brought out, and judged: what a machine that takes hours has done is not lost.
const CHUNK: usize = 24;

/// The three runtimes make the same of every bundle, but for the differences in the table. With a folder in `SYSCTR_TEST_RESULTS` the
/// reports are kept there, and those of an earlier run, which may have been cut short, are taken for what they say.
pub fn runtimes_agree(machine: &mut dyn Machine) -> Result<()> {
    let mut all = bundles::all();
    all.extend(of_images(machine)?);
    let place = place(machine)?;
    let given = std::env::var_os("SYSCTR_TEST_RESULTS").map(PathBuf::from);
    let kept = given.clone().unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("differential"));
    if given.is_none() && kept.exists() {
        std::fs::remove_dir_all(&kept)?;
    }
    let done = kept::names(&kept)?;
    all.retain(|bundle| !done.contains(&bundle.name));
    let size = if given.is_some() { CHUNK } else { all.len().max(1) };
    let chunks = all.len().div_ceil(size);
    for number in 0..chunks {
        // Every so many one, so that each chunk has some of every kind.
        let chunk: Vec<Bundle> = all.iter().skip(number).step_by(chunks).cloned().collect();
        kept::keep(&kept, &run_all(machine, &chunk)?, &place)?;
    }
    judge(&kept)
}

/// For work on the table: judges the reports of an earlier run once more.
#[test]
#[ignore = "judges the folder SYSCTR_TEST_RESULTS, and does nothing without"]
fn kept_reports_agree() -> Result<()> {
    std::env::var_os("SYSCTR_TEST_RESULTS").map_or(Ok(()), |folder| judge(Path::new(&folder)))
}

/// Compares, and fails with what the table does not say or says no more.
fn judge(kept: &Path) -> Result<()> {
    let table = Table::parse(include_str!("differences.toml"))?;
    let (mut found, mut place, mut count) = (Found { differences: Vec::new(), fields: 0 }, Vec::new(), 0);
    for run in kept::runs(kept)? {
        let names: Vec<&str> = run.names().collect();
        let more = compare(&names, &Results::parse(run.files.clone())?)?;
        found.fields += more.fields;
        found.differences.extend(more.differences);
        place = run.place.clone();
        count += names.len();
    }
    let judged = table.judge(&found.differences, &place);
    // Past the test harness, which would keep it to itself.
    writeln!(
        std::io::stderr(),
        "{count} bundles by {} runtimes, {} fields compared, {} differences in {} rows of the table",
        RUNTIMES.len(),
        found.fields,
        found.differences.len() - judged.unlisted.len(),
        judged.used
    )?;
    ensure!(judged.is_clean(), "{judged}");
    Ok(())
}

/// The control: a spec of ours that lacks one capability is told apart.
pub fn a_lost_capability_is_seen(machine: &mut dyn Machine) -> Result<()> {
    let all: Vec<Bundle> = bundles::all().into_iter().filter(|bundle| bundle.name == "plain").collect();
    machine.run(&format!("mkdir -p {WORK} && echo CAP_KILL >{WORK}/take-from-ours"))?;
    let results = Results::parse(run_all(machine, &all)?)?;
    let table = Table::parse(include_str!("differences.toml"))?;
    let judged = table.judge(&compare(&["plain"], &results)?.differences, &place(machine)?);
    let fields: Vec<&str> = judged.unlisted.iter().map(|one| one.field.as_str()).collect();
    let wanted = ["capability.bounding", "capability.effective", "capability.permitted"];
    ensure!(fields == wanted, "with one capability less these fields differ: {fields:?}");
    Ok(())
}

/// One field in which ours is not as one of the others.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The bundle's name.
    pub bundle: String,
    /// What differs.
    pub field: String,
    /// What it is, for each of [`RUNTIMES`]; `None` where that runtime refused the bundle and there is nothing to compare.
    pub values: [Option<String>; 3],
}

struct Found {
    differences: Vec<Difference>,
    fields: usize,
}

/// Words for what kind of machine this is, for rows that hold on one kind only.
fn place(machine: &mut dyn Machine) -> Result<Vec<String>> {
    let said = machine.run("systemd-detect-virt; . /etc/os-release; echo $VERSION_CODENAME")?;
    Ok(said.lines().map(|line| if line == "systemd-nspawn" { "nspawn" } else { line }.to_owned()).collect())
}

/// Compiles the probe, brings it and the bundles into the machine, runs them as a unit, and brings back what came of them.
fn run_all(machine: &mut dyn Machine, all: &[Bundle]) -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let probe = folder.path().join("probe");
    let sources = ["probe.c", "process.c", "files.c", "calls.c"].map(|name| Path::new(SOURCE).join(name));
    run(Command::new("cc")
        .args(["-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&probe)
        .args(sources))
    .context("compiling the probe")?;
    let mut files = vec![
        ("probe".to_owned(), 0o755, std::fs::read(&probe)?),
        ("drive.sh".to_owned(), 0o755, include_bytes!("drive.sh").to_vec()),
    ];
    for bundle in all {
        files.push((format!("configs/{}.json", bundle.name), 0o644, bundle.spec.to_string().into_bytes()));
        if let Some(tree) = &bundle.tree {
            files.push((format!("configs/{}.tree", bundle.name), 0o644, tree.clone().into_bytes()));
        }
    }
    machine.run(&format!("cd {WORK} 2>/dev/null && rm -rf configs results tree source shared ns || true"))?;
    transfer::into(machine, WORK, &files)?;
    machine.booted()?;
    // As a service, with settings that a runtime may pass on or may not change.
    let unit = "systemd-run --quiet --wait --collect --pipe --unit=differential -p Delegate=yes -p UMask=0027 \
        -p LimitNOFILE=2000:4000 -p OOMScoreAdjust=150 -p IgnoreSIGPIPE=yes -p Nice=3 -p CPUSchedulingPolicy=batch";
    let script = format!("{unit} {WORK}/drive.sh {WORK} </dev/null");
    let output = machine.try_run(&script, LIMIT)?;
    ensure!(output.code == 0, "drive.sh ended with {}: {}{}", output.code, output.stdout, output.stderr);
    transfer::out_of(machine, &format!("{WORK}/results"))
}

/// What an install makes of this project's own images.
fn of_images(machine: &mut dyn Machine) -> Result<Vec<Bundle>> {
    crate::scenarios::registry(machine)?;
    let mut all = Vec::new();
    for name in ["etcd", "httpd"] {
        machine.run(&format!("mkdir -p /var/www && sysctr install --yes {}/{name}", crate::scenarios::REGISTRY))?;
        let folder = format!("/var/lib/sysctr/containers/{name}/deployments/1");
        let config = machine.run(&format!("cat {folder}/config.json"))?;
        all.push(bundles::of_image(name, &config, &format!("{folder}/rootfs"))?);
    }
    Ok(all)
}

fn compare(bundles: &[&str], results: &Results) -> Result<Found> {
    let mut found = Found { differences: Vec::new(), fields: 0 };
    for bundle in bundles {
        let reports: Vec<Report> = RUNTIMES
            .iter()
            .map(|runtime| results.report(bundle, runtime))
            .collect::<Result<_>>()
            .with_context(|| format!("reading the report of {bundle}"))?;
        let mut add = |field: &str, values: [Option<String>; 3]| {
            found.fields += 1;
            if values[1..].iter().flatten().any(|theirs| Some(theirs) != values[0].as_ref()) {
                found.differences.push(Difference { bundle: (*bundle).to_owned(), field: field.to_owned(), values });
            }
        };
        add("outcome", outcomes(&reports));
        let Some(ours) = &reports[0].fields else { continue };
        let theirs = [1, 2].map(|index: usize| reports[index].fields.as_ref());
        let mut names: Vec<&String> =
            ours.keys().chain(theirs.iter().flatten().flat_map(|fields| fields.keys())).collect();
        names.sort();
        names.dedup();
        for name in names {
            // Of what one has and the other has not, only that counts, not its details.
            let whole = name.split_once(' ').filter(|_| name.starts_with("mount.")).map(|(whole, _)| whole);
            let gone = |fields: &BTreeMap<String, String>| whole.is_some_and(|whole| !fields.contains_key(whole));
            let value = |fields: Option<&BTreeMap<String, String>>| {
                let fields = fields?;
                (!gone(fields)).then(|| fields.get(name).cloned().unwrap_or_else(|| "-".to_owned()))
            };
            if !gone(ours) {
                add(name, [value(Some(ours)), value(theirs[0]), value(theirs[1])]);
            }
        }
    }
    Ok(found)
}

/// The reason of a refusal counts for ours alone, and only where another runtime takes the bundle.
fn outcomes(reports: &[Report]) -> [Option<String>; 3] {
    let refused = |report: &Report| report.outcome.starts_with("refused");
    let all = reports.iter().all(refused);
    [0, 1, 2].map(|index: usize| {
        let short = refused(&reports[index]) && (all || index > 0);
        Some(if short { "refused".to_owned() } else { reports[index].outcome.clone() })
    })
}
