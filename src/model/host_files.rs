//! Files of an image (`/exports/hostfs`) that lie on the host: what they are, and where they may be.

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{host_lines, manifest::absolute, request::is_below};

/// What the settings allow where they say nothing.
pub const PLACES: [&str; 4] = ["/etc", "/usr/local", "/var/lib", "/opt"];

/// An entry of `hostFiles` in the manifest.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// Where it goes: absolute, a template.
    pub path: String,
    /// Its place in `/exports/hostfs`; that of `path` where absent.
    pub source: Option<String>,
    /// Whether it is filled in.
    #[serde(default)]
    pub template: bool,
    /// Octal; that of the file in the image where absent.
    pub mode: Option<String>,
}

/// One that is ready to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// On the host.
    pub path: String,
    /// All of it.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Left out where something is there already: so it was in the old format.
    pub optional: bool,
    /// An admin lets it take the place of a file that is not ours.
    pub replaces: bool,
}

/// One in a deployment's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// On the host.
    pub path: String,
    /// Of its content, in hexadecimal digits.
    pub sha256: String,
    /// Permission bits.
    pub mode: u32,
    /// It took the place of a file that was not ours, of which there is a copy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces: bool,
}

impl HostFile {
    /// Where it lies below `/exports`.
    pub fn source(&self) -> String {
        let source = self.source.as_deref().unwrap_or(&self.path);
        format!("hostfs/{}", source.trim_start_matches('/'))
    }

    /// Its permission bits; `own` are those in the image.
    pub fn mode(&self, own: u32) -> Result<u32> {
        let Some(text) = &self.mode else { return Ok(plain(own)) };
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(mode),
            _ => bail!("hostFiles: {}: mode {text:?} is not octal, up to \"0777\"", self.path),
        }
    }
}

impl Ready {
    /// Refuses a place that no image ever gets.
    pub fn check(&self) -> Result<()> {
        absolute(&self.path).context("hostFiles")?;
        let file = self.path.rsplit('/').next().unwrap_or_default();
        ensure!(file.len() < 200, "hostFiles: {}: the name is too long", self.path);
        match host_lines::forbidden(&self.path) {
            Some(place) => bail!("hostFiles: {}: nothing of an image is written below {place}", self.path),
            None => Ok(()),
        }
    }

    /// What an admin is asked. Nothing but the place and what it can do counts: an update with other content is not asked again.
    pub fn request(&self) -> String {
        let what = if self.mode & 0o111 == 0 { "file" } else { "program" };
        format!("put the {what} {} on the host", self.path)
    }
}

/// Mode bits without set-user-ID, set-group-ID and sticky: those are no image's to give.
pub fn plain(mode: u32) -> u32 {
    mode & 0o777
}

/// Whether a file may be there by the settings.
pub fn is_allowed(path: &str, places: &[String]) -> bool {
    places.iter().any(|place| path != place && is_below(path, place.trim_end_matches('/')))
}

/// Whether people edit it: what they changed is no fault then.
pub fn is_configuration(path: &str) -> bool {
    is_below(path, "/etc")
}

/// Beside a file that was edited: what the deployment in force has there.
pub fn newer(name: &str) -> String {
    format!("{name}.sysctr-new")
}

/// Beside a file that took the place of one that was not ours: that one.
pub fn kept(name: &str) -> String {
    format!("{name}.sysctr-old")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_to_be_one_that_images_get() {
        let ready =
            |path: &str| Ready { path: path.into(), content: vec![], mode: 0o644, optional: false, replaces: false };
        ready("/etc/relay/relay.conf").check().expect("a plain place");
        for path in [
            "/etc/cron.d/x",
            "/etc/systemd/system/x.service",
            "/etc/sudoers",
            "/etc/../etc/x",
            "etc/x",
            "/etc/ld.so.preload",
        ] {
            assert!(ready(path).check().is_err(), "{path} was taken");
        }
        let places = PLACES.map(str::to_owned);
        for (path, allowed) in [
            ("/etc/x", true),
            ("/etc", false),
            ("/etcx/y", false),
            ("/usr/local/bin/x", true),
            ("/usr/bin/x", false),
            ("/root/.bashrc", false),
        ] {
            assert_eq!(is_allowed(path, &places), allowed, "{path}");
        }
    }

    #[test]
    fn no_image_gives_a_setuid_program() {
        assert_eq!(plain(0o6755), 0o755);
        let file = HostFile { path: "/etc/a".into(), source: None, template: false, mode: Some("4755".into()) };
        assert!(file.mode(0o644).is_err());
        assert_eq!(file.source(), "hostfs/etc/a");
    }
}
