//! Is a service well after a start? It has to stay up a while, be the same run all the time, and pass the image's health test.
//!
//! The verdict on a run is kept in /run/sysctr/health/NAME, so that `list` need not try anything.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    dir::Folder,
    probe, state,
    systemd::{Manager, UnitState},
};
use crate::model::{
    deployment::{self, Deployment, Record},
    health::{By, HealthTest, Judged, Known, Next, Signs, Verdict, seconds},
    name::ContainerName,
};

const POLL: Duration = Duration::from_millis(200);
/// Longer than systemd lets a start run by default.
const STARTING: Duration = Duration::from_secs(15 * 60);
const FOLDER: &str = "run/sysctr/health";

/// Judges the service of a deployment that was started a moment ago; one that is still being started is waited for. It has to be well by
/// its test, where it has one, and to stay up for `settle`. The error says what was not well.
pub fn judge(manager: &Manager, deployment: &Deployment, settle: Duration) -> Result<Verdict> {
    let unit = deployment.name.service_unit();
    let state = started(manager, &unit)?;
    if manager.is_oneshot(&unit)? {
        ensure!(state.active != "failed", "{unit} failed{}", why(manager, &unit));
        return Ok(Verdict { by: By::Ending, stayed: Duration::ZERO });
    }
    let watch = Watch { manager, run: manager.invocation(&unit)?, unit, since: Instant::now() };
    let verdict = watch.judge(deployment, settle);
    let words = verdict.as_ref().map_or_else(|error| format!("{error:#}"), Verdict::to_string);
    let judged = Judged { version: Judged::VERSION, invocation: hex(&watch.run), well: verdict.is_ok(), words };
    // Nobody but `list` misses it.
    let _ = note(&deployment.name, &judged);
    verdict
}

/// Waits for the end of a start; no longer for one that is tried again after it failed.
fn started(manager: &Manager, unit: &str) -> Result<UnitState> {
    let end = Instant::now() + STARTING;
    loop {
        let state = manager.state(unit)?;
        let starting = state.active == "activating" && !state.sub.starts_with("auto-restart");
        if !starting || Instant::now() >= end {
            return Ok(state);
        }
        sleep(POLL);
    }
}

/// In brackets; nothing where the run has not ended badly.
fn why(manager: &Manager, unit: &str) -> String {
    manager.why(unit).map_or_else(String::new, |why| format!(" ({why})"))
}

/// One run of a service that is looked at.
struct Watch<'a> {
    manager: &'a Manager,
    unit: String,
    run: Vec<u8>,
    since: Instant,
}

impl Watch<'_> {
    fn judge(&self, deployment: &Deployment, settle: Duration) -> Result<Verdict> {
        let by = match &deployment.health {
            Some(test) => By::Test(self.test(deployment, test)?),
            None if deployment.notify => By::Readiness,
            None => By::StayingUp,
        };
        self.wait(settle.saturating_sub(self.since.elapsed()))
            .with_context(|| format!("{} did not stay up for {}", self.unit, seconds(settle)))?;
        Ok(Verdict { by, stayed: settle })
    }

    /// Tries as often as the test allows. What it says, once it is well.
    fn test(&self, deployment: &Deployment, test: &HealthTest) -> Result<String> {
        for tries in 1.. {
            let began = self.since.elapsed();
            let failed = match probe::attempt(self.manager, deployment, test) {
                Ok(words) => return Ok(words),
                Err(error) => format!("{error:#}"),
            };
            let now = self.since.elapsed();
            let wait = match test.next(tries, began, now) {
                Next::TryAfter(wait) => wait,
                // That it is down says more than that it does not answer.
                Next::GiveUp => self.wait(Duration::ZERO).map(|()| Duration::ZERO)?,
            };
            if wait.is_zero() {
                let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
                bail!("{failed}, {times} in {}", seconds(now));
            }
            self.wait(wait).with_context(|| format!("{} did not stay up until it was well ({failed})", self.unit))?;
        }
        bail!("it was tried too often")
    }

    /// Waits, as long as the run goes on.
    fn wait(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            let state = self.manager.state(&self.unit)?;
            let up = matches!(state.active.as_str(), "active" | "reloading");
            ensure!(up, "it is {} ({}){}", state.active, state.sub, why(self.manager, &self.unit));
            ensure!(self.manager.invocation(&self.unit)? == self.run, "it was restarted");
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(POLL));
        }
    }
}

/// What is known without a try, and the words of the verdict on this run.
pub fn known(
    manager: &Manager,
    deployment: &Deployment,
    state: &UnitState,
    pending: bool,
) -> Result<(Known, Option<String>)> {
    let judged = match noted(&deployment.name) {
        Some(judged) if judged.invocation == hex(&manager.invocation(&deployment.name.service_unit())?) => Some(judged),
        _ => None,
    };
    let well = judged.as_ref().map(|judged| judged.well);
    let known = Known::of(Signs { active: &state.active, sub: &state.sub, notify: deployment.notify, well, pending });
    Ok((known, judged.map(|judged| judged.words).filter(|_| known != Known::None)))
}

/// Forgets the verdict on a container that is gone.
pub fn forget(name: &ContainerName) -> Result<()> {
    Folder::root("/".as_ref())?.open(FOLDER)?.map_or(Ok(false), |folder| folder.remove(&file(name))).map(drop)
}

fn note(name: &ContainerName, judged: &Judged) -> Result<()> {
    let root = Folder::root("/".as_ref())?;
    root.create("run/sysctr", 0o700)?;
    root.create(FOLDER, 0o700)?.write(&file(name), &deployment::to_text(judged)?, 0o600)
}

/// One that cannot be read tells nothing.
fn noted(name: &ContainerName) -> Option<Judged> {
    let folder = Folder::root("/".as_ref()).ok()?.open(FOLDER).ok()??;
    state::record(&folder, &file(name)).ok()?
}

fn file(name: &ContainerName) -> String {
    format!("{name}.json")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
