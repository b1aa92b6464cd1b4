//! The health test of an image that has no manifest of ours: `Healthcheck` of its config, as Docker defines it
//! ([moby, image spec v1.2](https://github.com/moby/docker-image-spec/blob/main/spec.md)). OCI's own config has no such field.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{HealthTest, Probe};

/// A test that is meant to watch for days is too patient for a start: these are the most that count.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(60);
const START_PERIOD: Duration = Duration::from_secs(10 * 60);
const RETRIES: u32 = 20;

#[derive(Deserialize)]
struct Image {
    config: Option<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    healthcheck: Option<Healthcheck>,
    /// What runs the command of a CMD-SHELL.
    shell: Option<Vec<String>>,
}

/// Times are nanoseconds; what is 0 or absent has Docker's default.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Healthcheck {
    test: Option<Vec<String>>,
    #[serde(default)]
    interval: i64,
    #[serde(default)]
    timeout: i64,
    #[serde(default)]
    start_period: i64,
    #[serde(default)]
    retries: i64,
}

impl HealthTest {
    /// The test in an image's config, the JSON as it came; none where it has none.
    pub fn of_image(config: &[u8]) -> Result<Option<HealthTest>> {
        let image: Image = serde_json::from_slice(config).context("config.Healthcheck")?;
        let Some(config) = image.config else { return Ok(None) };
        let Some(check) = config.healthcheck else { return Ok(None) };
        let Some(args) = args(check.test.as_deref().unwrap_or_default(), config.shell)? else { return Ok(None) };
        let time = |key: &str, given: i64, default: u64, most: Duration| match u64::try_from(given) {
            Ok(0) => Ok(Duration::from_secs(default).min(most)),
            Ok(given) => Ok(Duration::from_nanos(given).max(Duration::from_millis(1)).min(most)),
            Err(_) => bail!("config.Healthcheck.{key}: {given} is no time"),
        };
        let retries = match u32::try_from(check.retries) {
            Ok(0) => 3,
            Ok(retries) => retries.min(RETRIES),
            Err(_) => bail!("config.Healthcheck.Retries: {} is no number of tries", check.retries),
        };
        Ok(Some(HealthTest {
            probe: Probe::Exec(args),
            interval: time("Interval", check.interval, 30, INTERVAL)?,
            timeout: time("Timeout", check.timeout, 30, TIMEOUT)?,
            start_period: time("StartPeriod", check.start_period, 0, START_PERIOD)?,
            retries,
        }))
    }
}

fn args(test: &[String], shell: Option<Vec<String>>) -> Result<Option<Vec<String>>> {
    let Some((kind, rest)) = test.split_first() else { return Ok(None) };
    match kind.as_str() {
        "NONE" => Ok(None),
        "CMD" => {
            ensure!(!rest.is_empty(), "config.Healthcheck.Test: CMD without a program");
            Ok(Some(rest.to_vec()))
        }
        "CMD-SHELL" => {
            let [command] = rest else { bail!("config.Healthcheck.Test: CMD-SHELL takes one command") };
            let shell = shell.filter(|shell| !shell.is_empty());
            let shell = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            Ok(Some([shell, vec![command.clone()]].concat()))
        }
        other => bail!("config.Healthcheck.Test: {other:?} is none of NONE, CMD and CMD-SHELL"),
    }
}
