//! Is a service well after a start? It has said that it is ready, or its start job would not be done; then it has to stay up a while.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::systemd::Manager;

const POLL: Duration = Duration::from_millis(200);

/// Watches a unit that was started a moment ago for as long as `settle`: it has to stay active, and be the same run of it.
pub fn stays_up(manager: &Manager, unit: &str, settle: Duration) -> Result<()> {
    let run = manager.invocation(unit)?;
    let end = Instant::now() + settle;
    loop {
        let state = manager.state(unit)?;
        ensure!(
            state.active == "active",
            "{unit} did not stay up for {}: it is {} ({})",
            seconds(settle),
            state.active,
            state.sub
        );
        ensure!(manager.invocation(unit)? == run, "{unit} did not stay up for {}: it was restarted", seconds(settle));
        if Instant::now() >= end {
            return Ok(());
        }
        sleep(POLL);
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f32())
}
