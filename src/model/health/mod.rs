//! How to tell that a service works: the test that an image ships, when it is tried, and what came of it.
//!
//! ```json
//! "health": { "http": "http://127.0.0.1:{{values.port}}/health", "status": 200,
//!             "interval": "5s", "timeout": "5s", "retries": 3, "startPeriod": "10s" }
//! ```
//!
//! A start is given `startPeriod` and then `retries` tries, an `interval` apart. Within that time it is tried more often, so that a
//! service that is well is soon known to be.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::value_spec;
pub use verdict::{By, Judged, Known, Signs, Verdict};

mod image;
mod verdict;

const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// Nobody waits longer for the end of an update.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// The wait after the first failed try; each further one is twice as long, up to the test's own pace.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// While a service starts it is tried at least so often.
const PACE: Duration = Duration::from_secs(5);

/// The section `health` of a manifest. Exactly one of `exec`, `http` and `tcp` is there; they are templates.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Section {
    /// A program of the image and its arguments; it is well where that ends with 0.
    pub exec: Option<Vec<String>>,
    /// `http://ADDRESS[:PORT][/PATH]`, or `PORT[/PATH]` of loopback.
    pub http: Option<String>,
    /// What `http` has to answer: a number, or a range such as "200-399", which is also meant where it is absent.
    pub status: Option<Json>,
    /// `ADDRESS:PORT`, or `PORT` of loopback.
    pub tcp: Option<String>,
    /// Between two tries.
    pub interval: Option<String>,
    /// How long one try may take.
    pub timeout: Option<String>,
    /// So many failed tries are a failure.
    pub retries: Option<u32>,
    /// Failures do not count so long after the start.
    pub start_period: Option<String>,
}

/// A test as a deployment's record keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthTest {
    /// What is done.
    #[serde(flatten)]
    pub probe: Probe,
    /// Between two tries that count.
    #[serde(with = "milliseconds")]
    pub interval: Duration,
    /// How long one try may take.
    #[serde(with = "milliseconds")]
    pub timeout: Duration,
    /// Time for the program to come up.
    #[serde(with = "milliseconds")]
    pub start_period: Duration,
    /// So many failed tries are a failure.
    pub retries: u32,
}

/// What is done to see whether a service works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// A program in the container, and its arguments.
    Exec(Vec<String>),
    /// A request over HTTP.
    Http(Http),
    /// A connection.
    Tcp(SocketAddr),
}

/// A request over HTTP to an address of the container's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// Where it goes.
    pub address: SocketAddr,
    /// Path and query, with the '/' in front.
    pub path: String,
    /// The lowest and the highest status that is well.
    pub status: (u16, u16),
}

/// What follows a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another one, after this time.
    TryAfter(Duration),
    /// Nothing: the service is not well.
    GiveUp,
}

impl Section {
    /// Refuses what can be refused before the templates are filled in. Errors name the key.
    pub fn check(&self) -> Result<()> {
        let kinds = [self.exec.is_some(), self.http.is_some(), self.tcp.is_some()];
        ensure!(kinds.iter().filter(|there| **there).count() == 1, "health: one of exec, http and tcp is wanted");
        ensure!(self.exec.as_ref().is_none_or(|args| !args.is_empty()), "health.exec: empty");
        ensure!(self.status.is_none() || self.http.is_some(), "health.status: only http answers with one");
        status(self.status.as_ref()).context("health.status")?;
        self.test(Probe::Exec(Vec::new())).map(drop)
    }

    /// The test; `fill` fills in a template, whose key it is told.
    pub fn resolve(&self, fill: &dyn Fn(&str, &str) -> Result<String>) -> Result<HealthTest> {
        let probe = if let Some(args) = &self.exec {
            Probe::Exec(args.iter().map(|arg| fill("health.exec", arg)).collect::<Result<_>>()?)
        } else if let Some(url) = &self.http {
            let http = Http::parse(&fill("health.http", url)?, status(self.status.as_ref())?);
            Probe::Http(http.context("health.http")?)
        } else {
            let text = fill("health.tcp", self.tcp.as_deref().unwrap_or_default())?;
            Probe::Tcp(address(&text, None).context("health.tcp")?)
        };
        self.test(probe)
    }

    fn test(&self, probe: Probe) -> Result<HealthTest> {
        let time = |key: &str, text: &Option<String>, default: Duration| match text.as_deref() {
            None => Ok(default),
            Some(text) => value_spec::duration(text)
                .with_context(|| format!("health.{key}: {text:?} is no time such as 500ms, 5s or 1min")),
        };
        let test = HealthTest {
            probe,
            interval: time("interval", &self.interval, INTERVAL)?,
            timeout: time("timeout", &self.timeout, TIMEOUT)?,
            start_period: time("startPeriod", &self.start_period, Duration::ZERO)?,
            retries: self.retries.unwrap_or(RETRIES),
        };
        ensure!(test.retries > 0, "health.retries: at least 1");
        for (key, time) in [("interval", test.interval), ("timeout", test.timeout)] {
            ensure!(!time.is_zero(), "health.{key}: more than 0");
        }
        let longest = test.longest();
        ensure!(
            longest <= LONGEST,
            "health: it would take {} to see that it failed, and an hour is the most",
            seconds(longest)
        );
        Ok(test)
    }
}

impl HealthTest {
    /// What follows the failed try number `tries`, which began at `began` after the start and ended `now`.
    pub fn next(&self, tries: u32, began: Duration, now: Duration) -> Next {
        let grace = self.grace();
        if tries >= self.retries && began >= grace {
            return Next::GiveUp;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << (tries - 1).min(16)).min(self.pace());
        // The last try is not missed by a wait that is longer than what is left.
        Next::TryAfter(if now < grace { wait.min(grace - now) } else { wait })
    }

    fn pace(&self) -> Duration {
        self.interval.min(PACE)
    }

    /// A failed try that begins later is the last one.
    fn grace(&self) -> Duration {
        self.start_period.saturating_add(self.interval.saturating_mul(self.retries - 1))
    }

    /// No verdict takes longer.
    fn longest(&self) -> Duration {
        let slow = self.pace().saturating_add(self.timeout);
        slow.saturating_mul(self.retries).max(self.grace().saturating_add(slow))
    }
}

impl Http {
    fn parse(text: &str, status: (u16, u16)) -> Result<Http> {
        ensure!(!text.starts_with("https:"), "{text:?}: only http is tried; `exec` can run a program that speaks TLS");
        let plain = text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['#', '@', '\\']);
        ensure!(plain, "{text:?} is no http://ADDRESS:PORT/PATH and no PORT/PATH");
        let url = text.strip_prefix("http://");
        let rest = url.unwrap_or(text);
        let (place, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Http { address: address(place, url.map(|_| 80))?, path, status })
    }
}

/// `ADDRESS:PORT`, `PORT`, or an address alone where there is a usual port. A name could mean another host with each try.
fn address(text: &str, usual: Option<u16>) -> Result<SocketAddr> {
    let wrong = || anyhow!("{text:?} is no ADDRESS:PORT; the address is an IP address or \"localhost\"");
    let ip = |text: &str| -> Option<IpAddr> {
        let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        match inside {
            Some(inside) => inside.parse().ok().filter(IpAddr::is_ipv6),
            None if text == "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            None => text.parse().ok().filter(IpAddr::is_ipv4),
        }
    };
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
    if let Some(ip) = ip(text) {
        return usual.map(|usual| SocketAddr::new(ip, usual)).ok_or_else(wrong);
    }
    let (place, number) = match text.rsplit_once(':') {
        Some((place, number)) => (ip(place).ok_or_else(wrong)?, number),
        None if usual.is_none() => (Ipv4Addr::LOCALHOST.into(), text),
        None => bail!(wrong()),
    };
    Ok(SocketAddr::new(place, port(number).with_context(|| format!("{number:?} is no port, which is 1 to 65535"))?))
}

fn status(given: Option<&Json>) -> Result<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let range = match given {
        None => Some((200, 399)),
        Some(Json::Number(one)) => number(&one.to_string()).map(|one| (one, one)),
        Some(Json::String(text)) => match text.split_once('-') {
            Some((low, high)) => number(low).zip(number(high)).filter(|(low, high)| low <= high),
            None => number(text).map(|one| (one, one)),
        },
        Some(_) => None,
    };
    range.with_context(|| format!("{} is no status such as 200 or \"200-399\"", given.unwrap_or(&Json::Null)))
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Exec(args) => write!(f, "`{}` in the container", args.join(" ")),
            Probe::Http(http) => write!(f, "GET http://{}{}", http.address, http.path),
            Probe::Tcp(address) => write!(f, "a connection to {address}"),
        }
    }
}

/// A time as messages give it.
pub fn seconds(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} s"),
        (whole, tenth) if whole < 10 => format!("{whole}.{tenth} s"),
        (whole, _) => format!("{whole} s"),
    }
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests;
