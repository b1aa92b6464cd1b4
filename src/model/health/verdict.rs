//! What came of a service's start, and what is known of it later.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::seconds;
use crate::model::deployment::Record;

/// By what a service was found to be well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it was judged by.
    pub by: By,
    /// How long it was watched.
    pub stayed: Duration,
}

/// What a service was judged by, the most telling first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Its health test, in words.
    Test(String),
    /// It said itself that it is ready, and the image has no test.
    Readiness,
    /// It runs; there is nothing else to go by.
    StayingUp,
    /// It ran to its end, as it is to.
    Ending,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stayed = (!self.stayed.is_zero()).then(|| format!("stayed up for {}", seconds(self.stayed)));
        match (&self.by, stayed) {
            (By::Test(words), None) => f.write_str(words),
            (By::Test(words), Some(stayed)) => write!(f, "{words}, and it {stayed}"),
            (By::Readiness, None) => f.write_str("it said that it is ready"),
            (By::Readiness, Some(stayed)) => write!(f, "it said that it is ready, and {stayed}"),
            (By::StayingUp, None) => f.write_str("it was started; the image has no health test"),
            (By::StayingUp, Some(stayed)) => write!(f, "it {stayed}; the image has no health test"),
            (By::Ending, _) => f.write_str("it ran to its end"),
        }
    }
}

/// What is known of a service's health without a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Known {
    /// It is being started, or judged just now.
    Starting,
    /// Its last start was found to be well, or it said itself that it is ready.
    Healthy,
    /// It failed and is perhaps started again, or its last start was found not to be well.
    Unhealthy,
    /// It runs, and nobody has looked.
    Unknown,
    /// It does not run.
    None,
}

/// What systemd and sysctr have noted of a service.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Signs<'a> {
    /// systemd's ActiveState
    pub active: &'a str,
    /// and its SubState
    pub sub: &'a str,
    /// It says itself when it is ready.
    pub notify: bool,
    /// The verdict on this run of it.
    pub well: Option<bool>,
    /// An operation is under way.
    pub pending: bool,
}

impl Known {
    /// What the signs come to.
    pub fn of(signs: Signs) -> Known {
        match (signs.active, signs.well) {
            // It has failed, and is tried once more.
            ("activating", _) if signs.sub.starts_with("auto-restart") => Known::Unhealthy,
            ("activating", _) => Known::Starting,
            ("failed", _) => Known::Unhealthy,
            ("active" | "reloading", Some(well)) => {
                if well {
                    Known::Healthy
                } else {
                    Known::Unhealthy
                }
            }
            ("active" | "reloading", None) if signs.pending => Known::Starting,
            ("active" | "reloading", None) => {
                if signs.notify {
                    Known::Healthy
                } else {
                    Known::Unknown
                }
            }
            _ => Known::None,
        }
    }

    /// As `list` prints it.
    pub fn word(self) -> &'static str {
        match self {
            Known::Starting => "starting",
            Known::Healthy => "healthy",
            Known::Unhealthy => "unhealthy",
            Known::Unknown => "unknown",
            Known::None => "none",
        }
    }
}

/// The verdict on one run of a service, kept until the machine stops.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// Format of the record.
    pub version: u32,
    /// systemd's number of the run.
    pub invocation: String,
    /// Whether it was well.
    pub well: bool,
    /// By what, or what was wrong.
    pub words: String,
}

impl Record for Judged {
    const VERSION: u32 = 1;
}
