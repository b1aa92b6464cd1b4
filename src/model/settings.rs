//! `sysctr.toml`: the admin's settings. Unknown keys are refused.
//!
//! ```toml
//! [registry]
//! insecure = ["registry.lan:5000"]   # plain HTTP, or HTTPS with a certificate nobody signed
//! retries = 5   # how often what failed for now is tried again before it is given up
//! idle = 60     # seconds that a registry may keep silent within an answer
//!
//! [requests]
//! accept = ["capability CAP_NET_ADMIN"]   # accepted without asking, in the words that install shows
//!
//! [host]
//! files = ["/etc", "/usr/local", "/var/lib", "/opt"]   # below these an image may put files of its own
//!
//! [update]
//! keep = 2     # deployments of a container that stay: the one in force and those before it
//! settle = 5   # seconds that a service has to stay up after an update
//! probation = 600   # seconds after it in which failures take it back; 0 for none
//! crashes = 3       # how many
//! snapshot = "1G"   # so much state is copied at most before its format changes; what costs no space always is
//! policy = "check"         # what `update --auto` does: auto, check or hold
//! window = "02:00-05:00"   # when it may; outside of it, it only checks
//!
//! [container.etcd]
//! update = "hold"   # another policy for this one
//! ```

use std::{collections::BTreeMap, fmt};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{host_files, name::ContainerName, size::Bytes, window::Window};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Settings {
    pub registry: Registry,
    pub requests: Requests,
    pub host: Host,
    pub update: Update,
    pub container: BTreeMap<ContainerName, Container>,
}

/// How registries are talked to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// `host[:port]` without TLS; loopback is always allowed.
    pub insecure: Vec<String>,
    /// How often what failed for now is tried again.
    pub retries: Option<u32>,
    /// Seconds that a registry may keep silent within an answer.
    pub idle: Option<std::num::NonZeroU32>,
}

impl Registry {
    /// How often what failed for now is tried again.
    pub fn retries(&self) -> u32 {
        self.retries.unwrap_or(5)
    }

    /// How long a registry may keep silent within an answer.
    pub fn idle(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.idle.map_or(60, std::num::NonZeroU32::get).into())
    }
}

/// What images may do without a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requests {
    /// Requests in the words that install shows.
    pub accept: Vec<String>,
}

/// What of the host is for files of images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Folders below which they may be.
    pub files: Option<Vec<String>>,
}

impl Host {
    /// The folders, also where nothing is said.
    pub fn files(&self) -> Vec<String> {
        self.files.clone().unwrap_or_else(|| host_files::PLACES.map(str::to_owned).to_vec())
    }
}

/// How updates go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// Deployments of a container that stay, at least 2: the one in force and those before it.
    pub keep: Option<std::num::NonZeroUsize>,
    /// Seconds that a service has to stay up after an update.
    pub settle: Option<u32>,
    /// Seconds after an update in which failures take it back; none with 0.
    pub probation: Option<u32>,
    /// How many failures those are.
    pub crashes: Option<std::num::NonZeroU32>,
    /// How much state may be copied before its format changes.
    pub snapshot: Option<Bytes>,
    /// What `update --auto` does with a container that has no policy of its own.
    pub policy: Option<Policy>,
    /// When it may update.
    pub window: Option<Window>,
}

/// What is set for one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Container {
    /// Its policy.
    pub update: Option<Policy>,
}

/// What happens to a container without anybody asking for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It is updated.
    Auto,
    /// It is told that there is a newer image.
    #[default]
    Check,
    /// Nothing, and `update --all` passes over it too.
    Hold,
}

impl Update {
    /// Deployments that stay.
    pub fn keep(&self) -> usize {
        self.keep.map_or(2, |keep| keep.get().max(2))
    }

    /// How long a service has to stay up.
    pub fn settle(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.settle.unwrap_or(5).into())
    }

    /// Seconds of probation after an update.
    pub fn probation(&self) -> u32 {
        self.probation.unwrap_or(600)
    }

    /// Bytes of state that may be copied.
    pub fn snapshot(&self) -> u64 {
        self.snapshot.map_or(1 << 30, |size| size.0)
    }

    /// Failures in that time that take the update back.
    pub fn crashes(&self) -> u32 {
        self.crashes.map_or(3, std::num::NonZeroU32::get)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Policy::Auto => "auto",
            Policy::Check => "check",
            Policy::Hold => "hold",
        })
    }
}

impl Settings {
    /// The policy of a container.
    pub fn policy(&self, name: &ContainerName) -> Policy {
        let own = self.container.get(name).and_then(|container| container.update);
        own.or(self.update.policy).unwrap_or_default()
    }

    /// Reads one file; the error names line and key.
    pub fn parse(text: &str) -> Result<Settings> {
        Ok(toml::from_str(text)?)
    }

    /// Adds what a drop-in says.
    pub fn extend(&mut self, other: Settings) {
        self.registry.insecure.extend(other.registry.insecure);
        self.registry.retries = other.registry.retries.or(self.registry.retries);
        self.registry.idle = other.registry.idle.or(self.registry.idle);
        self.requests.accept.extend(other.requests.accept);
        self.host.files = other.host.files.or(self.host.files.take());
        self.update.keep = other.update.keep.or(self.update.keep);
        self.update.settle = other.update.settle.or(self.update.settle);
        self.update.probation = other.update.probation.or(self.update.probation);
        self.update.crashes = other.update.crashes.or(self.update.crashes);
        self.update.snapshot = other.update.snapshot.or(self.update.snapshot);
        self.update.policy = other.update.policy.or(self.update.policy);
        self.update.window = other.update.window.or(self.update.window.take());
        for (name, container) in other.container {
            let known = self.container.entry(name).or_default();
            known.update = container.update.or(known.update);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_is_named() {
        let message = Settings::parse("[registry]\ninsecur = []\n").expect_err("unknown").to_string();
        assert!(message.contains("insecur") && message.contains("line 2"), "{message}");
    }

    #[test]
    fn drop_ins_add() {
        let mut settings = Settings::parse("[registry]\ninsecure = [\"a\"]\n").expect("settings");
        settings.extend(Settings::parse("[registry]\ninsecure = [\"b\"]\n").expect("settings"));
        assert_eq!(settings.registry.insecure, ["a", "b"]);
    }

    #[test]
    fn nothing_is_updated_unasked_until_a_policy_says_so() {
        let (app, other) = ("app".parse().expect("a name"), "other".parse().expect("a name"));
        assert_eq!(Settings::default().policy(&app), Policy::Check);
        let mut settings =
            Settings::parse("[update]\npolicy = \"auto\"\n[container.app]\nupdate = \"hold\"\n").expect("settings");
        assert_eq!((settings.policy(&app), settings.policy(&other)), (Policy::Hold, Policy::Auto));
        settings.extend(Settings::parse("[container.app]\nupdate = \"check\"\n").expect("settings"));
        assert_eq!((settings.policy(&app), settings.policy(&other)), (Policy::Check, Policy::Auto));
        for (text, word) in [
            ("[update]\npolicy = \"yes\"\n", "line 2"),
            ("[update]\nsnapshot = \"lots\"\n", "lots"),
            ("[update]\nsnapshot = -1\n", "-1"),
            ("[update]\nwindow = \"25:00-26:00\"\n", "25:00"),
            ("[container.APP]\nupdate = \"hold\"\n", "APP"),
        ] {
            let message = format!("{:#}", Settings::parse(text).expect_err(text));
            assert!(message.contains(word), "{message}");
        }
    }
}
