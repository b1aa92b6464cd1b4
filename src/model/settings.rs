//! `sysctr.toml`: the admin's settings. Unknown keys are refused.
//!
//! ```toml
//! [registry]
//! insecure = ["registry.lan:5000"]   # plain HTTP, or HTTPS with a certificate nobody signed
//!
//! [requests]
//! accept = ["capability CAP_NET_ADMIN"]   # accepted without asking, in the words that install shows
//!
//! [update]
//! keep = 2     # deployments of a container that stay: the one in force and those before it
//! settle = 5   # seconds that a service has to stay up after an update
//! ```

use anyhow::Result;
use serde::Deserialize;

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Settings {
    pub registry: Registry,
    pub requests: Requests,
    pub update: Update,
}

/// How registries are talked to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// `host[:port]` without TLS; loopback is always allowed.
    pub insecure: Vec<String>,
}

/// What images may do without a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requests {
    /// Requests in the words that install shows.
    pub accept: Vec<String>,
}

/// How updates go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// Deployments of a container that stay, at least 2: the one in force and those before it.
    pub keep: Option<std::num::NonZeroUsize>,
    /// Seconds that a service has to stay up after an update.
    pub settle: Option<u32>,
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
}

impl Settings {
    /// Reads one file; the error names line and key.
    pub fn parse(text: &str) -> Result<Settings> {
        Ok(toml::from_str(text)?)
    }

    /// Adds what a drop-in says.
    pub fn extend(&mut self, other: Settings) {
        self.registry.insecure.extend(other.registry.insecure);
        self.requests.accept.extend(other.requests.accept);
        self.update.keep = other.update.keep.or(self.update.keep);
        self.update.settle = other.update.settle.or(self.update.settle);
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
}
