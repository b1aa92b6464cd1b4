//! The units that go down with another one and have to come back with it: those that require it (systemd.unit(5), "Mapping of unit
//! properties to their inverses"), and those that require these.

use std::{
    collections::{BTreeSet, VecDeque},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::systemd::{Manager, UnitState};

const POLL: Duration = Duration::from_millis(200);
/// How long they may take to come back.
const PATIENCE: Duration = Duration::from_secs(120);

/// Those of a unit that run now, the nearest first, without its `own`. What is down or failed already is nobody's loss.
pub fn of(manager: &Manager, unit: &str, own: &[String]) -> Result<Vec<String>> {
    let mut seen: BTreeSet<String> = own.iter().cloned().chain([unit.to_owned()]).collect();
    let mut todo = VecDeque::from([unit.to_owned()]);
    let mut found = Vec::new();
    while let Some(next) = todo.pop_front() {
        for unit in manager.required_by(&next)? {
            // systemd passes nothing on to units that are down, nor to what is behind them
            if seen.insert(unit.clone()) && is_up(&manager.state(&unit)?) {
                if !(unit.ends_with(".service") && manager.ends_by_itself(&unit)?) {
                    found.push(unit.clone());
                }
                todo.push_back(unit);
            }
        }
    }
    Ok(found)
}

/// Starts those that did not come back by themselves, and watches all of them for as long as `settle`. The failure names the unit.
pub fn come_back(manager: &Manager, units: &[String], settle: Duration) -> Result<()> {
    let which = "which requires it";
    for unit in units {
        if !is_up(&manager.state(unit)?) {
            manager.reset_failed(unit);
            manager.start(unit).with_context(|| format!("bringing back {unit}, {which}"))?;
        }
    }
    stay_up(manager, units, which, settle)
}

/// Watches units that were just started for as long as `settle`. The failure names the unit, and `which` it is.
pub fn stay_up(manager: &Manager, units: &[String], which: &str, settle: Duration) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut runs = Vec::new();
    for unit in units {
        wait(manager, unit, which, end)?;
        runs.push((unit, manager.invocation(unit)?));
    }
    let end = Instant::now() + settle;
    while !runs.is_empty() {
        for (unit, run) in &runs {
            let state = manager.state(unit)?;
            let same = manager.invocation(unit)? == *run;
            ensure!(
                same && state.active == "active",
                "{unit}, {which}, did not stay up: it {}",
                if same { format!("is {} ({})", state.active, state.sub) } else { "was restarted".to_owned() }
            );
        }
        if Instant::now() >= end {
            break;
        }
        sleep(POLL);
    }
    Ok(())
}

/// Waits until a unit is not on its way any more, and refuses one that is not active then.
fn wait(manager: &Manager, unit: &str, which: &str, end: Instant) -> Result<()> {
    loop {
        let state = manager.state(unit)?;
        match state.active.as_str() {
            "active" => return Ok(()),
            "activating" | "deactivating" | "reloading" if Instant::now() < end => sleep(POLL),
            other => bail!("{unit}, {which}, is {other} ({})", state.sub),
        }
    }
}

/// Whether it runs; one that failed and waits for its next try does not.
fn is_up(state: &UnitState) -> bool {
    matches!(state.active.as_str(), "active" | "activating" | "reloading") && !state.sub.starts_with("auto-restart")
}
