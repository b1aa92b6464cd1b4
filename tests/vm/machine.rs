//! What a scenario sees of a booted machine, whichever way it was booted.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a command may take unless the scenario says otherwise.
pub const LIMIT: Duration = Duration::from_secs(300);

/// What came of a command.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; 124 where it ran into its time-out.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A booted machine that runs shell scripts as root.
pub trait Machine {
    /// Runs a bash script to its end and gives back what came of it.
    fn try_run(&mut self, script: &str, limit: Duration) -> Result<Output>;

    /// Shuts it down in good order and starts it again.
    fn reboot(&mut self) -> Result<()>;

    /// Takes the power away and starts it again.
    fn cut_power(&mut self) -> Result<()>;

    /// Saves what it logged, for whoever looks into a failure.
    fn bring_out(&mut self);

    /// Runs a script that must succeed; its standard output, trimmed.
    fn run(&mut self, script: &str) -> Result<String> {
        let output = self.try_run(script, LIMIT)?;
        if output.code != 0 {
            bail!(
                "`{script}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
                output.code,
                output.stdout,
                output.stderr
            );
        }
        Ok(output.stdout.trim_end().to_owned())
    }

    /// Runs a script that must fail with this code; its standard error.
    fn fails(&mut self, code: i32, script: &str) -> Result<String> {
        let output = self.try_run(script, LIMIT)?;
        if output.code != code {
            bail!(
                "`{script}` ended with {}, not {code}\n--- stdout\n{}\n--- stderr\n{}",
                output.code,
                output.stdout,
                output.stderr
            );
        }
        Ok(output.stderr)
    }

    /// Runs a script again and again until it succeeds.
    fn wait_until(&mut self, limit: Duration, script: &str) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let output = self.try_run(script, limit)?;
            if output.code == 0 {
                return Ok(output.stdout.trim_end().to_owned());
            }
            if Instant::now() > end {
                bail!("`{script}` did not come true in {limit:?}: {}{}", output.stdout, output.stderr);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A property of a unit, as `systemctl show` gives it.
    fn property(&mut self, unit: &str, property: &str) -> Result<String> {
        self.run(&format!("systemctl show --value -p {property} {unit}"))
    }

    /// Waits until the boot is over: nothing is starting any more.
    fn booted(&mut self) -> Result<()> {
        self.try_run("systemctl is-system-running --wait", LIMIT).map(drop)
    }
}

/// Runs a scenario on a machine, and saves the machine's logs when it fails.
pub fn scenario<M: Machine>(machine: Result<M>, steps: impl FnOnce(&mut M) -> Result<()>) -> Result<()> {
    let mut machine = machine?;
    let result = steps(&mut machine);
    if result.is_err() {
        machine.bring_out();
    }
    result
}
