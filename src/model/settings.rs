//! `sysctr.toml`: the admin's settings. Unknown keys are refused.
//!
//! ```toml
//! [registry]
//! insecure = ["registry.lan:5000"]   # plain HTTP, or HTTPS with a certificate nobody signed
//!
//! [requests]
//! accept = ["capability CAP_NET_ADMIN"]   # accepted without asking, in the words that install shows
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

impl Settings {
    /// Reads one file; the error names line and key.
    pub fn parse(text: &str) -> Result<Settings> {
        Ok(toml::from_str(text)?)
    }

    /// Adds what a drop-in says.
    pub fn extend(&mut self, other: Settings) {
        self.registry.insecure.extend(other.registry.insecure);
        self.requests.accept.extend(other.requests.accept);
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
