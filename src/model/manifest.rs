//! `/exports/manifest.json`, version 2.0: what an image says about itself.
//!
//! ```json
//! { "version": "2.0", "description": "...",
//!   "values": { "port": { "type": "integer", "default": 2379, "description": "..." } },
//!   "after": [], "before": [], "requires": [], "wants": [],
//!   "container": { "network": "host", "user": "etcd", "args": ["/usr/bin/etcd", "--port={{values.port}}"] },
//!   "state": { "epoch": 1, "folders": [ { "path": "/var/lib/etcd", "mode": "0700" } ] } }
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::health;
pub use super::host_files::HostFile;

/// The whole file. Keys that we do not know are refused: a mistyped one must not silently do nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["version"]))]
pub struct Manifest {
    /// Format version, "2.0".
    #[schemars(extend("const" = "2.0"))]
    pub version: String,
    /// One line for people; becomes the unit's Description=.
    pub description: Option<String>,
    /// The settings that the image asks for.
    #[schemars(extend("propertyNames" = { "pattern": "^[A-Za-z0-9_]+$" }))]
    pub values: BTreeMap<String, ValueSpec>,
    /// Containers or units that this one is ordered after.
    pub after: Vec<String>,
    /// Containers or units that this one is ordered before.
    pub before: Vec<String>,
    /// Containers or units without which this one does not run.
    pub requires: Vec<String>,
    /// Containers or units that are started along.
    pub wants: Vec<String>,
    /// The machine does not boot without it.
    pub essential: bool,
    /// How the container differs from the defaults.
    pub container: Container,
    /// How to tell that it works.
    pub health: Option<health::Section>,
    /// The host folders that it owns.
    pub state: State,
    /// Files for the host.
    pub host_files: Vec<HostFile>,
}

/// A setting: its type, and what a person needs to know to give it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueSpec {
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: ValueKind,
    /// Used when nobody gives one; a value without a default must be given.
    pub default: Option<Json>,
    /// For people.
    pub description: Option<String>,
    /// Names of an `enum`.
    #[serde(rename = "enum", default)]
    pub choices: Vec<String>,
    /// Whether it must be given though it has a default of `null`.
    #[serde(default)]
    pub required: bool,
    /// Regular expression that the whole text matches.
    pub pattern: Option<String>,
    /// The smallest `integer`, or the shortest `duration`.
    pub minimum: Option<Json>,
    /// The largest `integer`, or the longest `duration`.
    pub maximum: Option<Json>,
    /// A password or a key (`string`): kept out of units and records, and handed over as a credential; templates see the path of
    /// the file that holds it.
    #[serde(default)]
    pub secret: bool,
}

/// The types of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ValueKind {
    String,
    Integer,
    Boolean,
    Enum,
    Url,
    Path,
    Duration,
}

/// The `container` section.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Container {
    /// The host's network, or a private one with loopback alone.
    pub network: Network,
    /// `USER[:GROUP]`, names from the image or numbers; the image's own where absent.
    pub user: Option<String>,
    /// The program and its arguments (templates); the image's Entrypoint and Cmd where absent.
    pub args: Option<Vec<String>>,
    /// Added to the image's environment (the values are templates).
    pub env: BTreeMap<String, String>,
    /// Absolute; the image's own where absent.
    pub workdir: Option<String>,
    /// Against the default set.
    pub capabilities: Capabilities,
    /// Host folders and files.
    pub mounts: Vec<Mount>,
    /// Device nodes of the host.
    pub devices: Vec<String>,
    /// Folders that are writable and forgotten at each stop, beside /run, /tmp and /var/tmp.
    pub tmpfs: Vec<String>,
    /// The program speaks sd_notify(3) itself.
    pub notify: bool,
    /// Whether its users are the host's own.
    pub userns: Users,
    /// Namespaces of the host that it is in, beside its network's.
    pub share: Vec<Shared>,
    /// With `true` it sees and writes the kernel's settings below /proc and /sys, of which much is hidden or read-only otherwise.
    pub unmasked: bool,
    /// With `false` the root file system may be written to, and forgets it at each stop.
    pub readonly: Option<bool>,
    /// Which system calls the program has: `default` (also where absent), `unconfined`, or a file of `/exports` with a profile.
    pub seccomp: Option<String>,
}

/// Which network the container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Network {
    #[default]
    Host,
    Private,
}

/// A namespace that a container has of its own, unless it shares the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shared {
    /// Processes.
    Pid,
    /// Inter-process communication.
    Ipc,
    /// The host name.
    Uts,
    /// The view of control groups.
    Cgroup,
}

impl Shared {
    /// All of them, with the names that config.json has for them.
    pub const ALL: [(Shared, &'static str); 4] =
        [(Shared::Pid, "pid"), (Shared::Ipc, "ipc"), (Shared::Uts, "uts"), (Shared::Cgroup, "cgroup")];
}

/// What mounts may say of themselves.
const MOUNT_OPTIONS: &str = "ro rw noexec nofail idmap dev suid rslave rshared";

/// Whose numbers the container's users have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Users {
    /// The host's.
    #[default]
    Host,
    /// A range of the host's that nobody else has, chosen at install.
    Auto,
}

/// Capabilities by name, with or without `CAP_`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

/// A bind mount from the host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// On the host, absolute.
    pub source: String,
    /// In the container, absolute.
    pub target: String,
    /// As mount(8) names them: `rw` unless `ro`, `nosuid` unless `suid`, `nodev` unless `dev`, `rprivate` unless `rslave` or `rshared`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// What the container keeps on the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Version of the data's format.
    pub epoch: u32,
    /// Made with the container user's ownership, bound at the same path, writable.
    pub folders: Vec<StateFolder>,
}

/// One folder of state.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateFolder {
    /// On the host, absolute; also in the container, unless `target` says otherwise.
    pub path: String,
    /// In the container, absolute.
    pub target: Option<String>,
    /// Octal, "0700" where absent.
    pub mode: Option<String>,
}

impl Manifest {
    /// Reads the file's text. The error names the line and column, or the key that is wrong.
    pub fn parse(text: &str) -> Result<Manifest> {
        let value: Json = serde_json::from_str(text).context("not valid JSON")?;
        match value.get("version") {
            Some(Json::String(version)) if version == "2.0" => {}
            Some(Json::String(version)) if version != "1.0" => {
                bail!("version {version:?} is not known to this sysctr, which reads \"2.0\"")
            }
            // Of such a file Project Atomic's format is read before.
            Some(Json::String(_)) | None => bail!("it does not say \"version\": \"2.0\""),
            Some(other) => bail!("version is {other}, expected the string \"2.0\""),
        }
        only_objects(&value)?;
        // A second time from the text: only so do errors carry a line.
        let manifest: Manifest = serde_json::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        let container = &self.container;
        self.health.as_ref().map_or(Ok(()), health::Section::check)?;
        ensure!(container.args.as_ref().is_none_or(|args| !args.is_empty()), "container.args: empty");
        for (name, value) in &self.values {
            let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty();
            ensure!(good, "values: {name:?} is no name: use letters, digits and '_'");
            value.check().with_context(|| format!("values.{name}"))?;
        }
        for path in container.mounts.iter().flat_map(|mount| [&mount.source, &mount.target]) {
            absolute(path).context("container.mounts")?;
        }
        for option in container.mounts.iter().flat_map(|mount| &mount.options) {
            let known = MOUNT_OPTIONS.split(' ').any(|known| known == option);
            ensure!(known, "container.mounts: the option {option:?} is none of {MOUNT_OPTIONS}");
            ensure!(
                option != "idmap" || container.userns == Users::Auto,
                "container.mounts: the option \"idmap\" is for container.userns \"auto\""
            );
        }
        for path in container.tmpfs.iter().chain(&container.devices).chain(&container.workdir) {
            absolute(path).context("container")?;
        }
        ensure!(
            container.devices.iter().all(|device| device.starts_with("/dev/")),
            "container.devices: only nodes below /dev"
        );
        for folder in &self.state.folders {
            for path in [&folder.path].into_iter().chain(&folder.target) {
                absolute(path).context("state.folders")?;
            }
            folder.mode().with_context(|| format!("state.folders: {}", folder.path))?;
        }
        // The later one would be mounted, and what the program writes into the other one is nowhere.
        for (at, folder) in self.state.folders.iter().enumerate() {
            let twice = self.state.folders[..at]
                .iter()
                .any(|other| other.path == folder.path || other.inside() == folder.inside());
            ensure!(!twice, "state.folders: two of them are {} or seen at {}", folder.path, folder.inside());
        }
        for unit in [&self.after, &self.before, &self.requires, &self.wants].into_iter().flatten() {
            let good = !unit.is_empty() && unit.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@:\\".contains(&b));
            ensure!(good, "{unit:?} names no container and no unit");
        }
        Ok(())
    }
}

impl StateFolder {
    /// Where the container sees it.
    pub fn inside(&self) -> &String {
        self.target.as_ref().unwrap_or(&self.path)
    }

    /// The permission bits.
    pub fn mode(&self) -> Result<u32> {
        let text = self.mode.as_deref().unwrap_or("0700");
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o1777 => Ok(mode),
            _ => bail!("mode {text:?} is not octal, up to \"1777\""),
        }
    }
}

/// A list in the place of an object would be read as its fields one after the other.
pub(super) fn only_objects(manifest: &Json) -> Result<()> {
    let object = |key: &str, json: &Json| {
        ensure!(!json.is_array(), "{key}: an object in braces was expected, and it is a list");
        Ok(())
    };
    let one = ["/container", "/container/capabilities", "/health", "/state"];
    one.iter()
        .filter_map(|key| Some((key, manifest.pointer(key)?)))
        .try_for_each(|(key, json)| object(&key[1..], json))?;
    let values = manifest["values"].as_object().into_iter().flatten();
    values.into_iter().try_for_each(|(name, json)| object(&format!("values.{name}"), json))?;
    for key in ["/container/mounts", "/state/folders", "/hostFiles"] {
        let items = manifest.pointer(key).and_then(Json::as_array).into_iter().flatten();
        items.into_iter().try_for_each(|json| object(&key[1..], json))?;
    }
    Ok(())
}

/// An absolute path in its shortest form: what is compared and placed must be what is read. Units and tmpfiles.d(5) would take quotes and
/// backslashes away, or for something else.
pub fn absolute(path: &str) -> Result<()> {
    ensure!(!path.contains(['\\', '"', '\'']), "{path:?} holds quotes or backslashes, which no path may have here");
    let clean = path.starts_with('/')
        && path.len() > 1
        && !path.bytes().any(|b| b.is_ascii_control())
        && path[1..].split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    ensure!(clean, "{path:?} is no absolute path in its shortest form");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        format!("{:#}", Manifest::parse(text).expect_err(text))
    }

    #[test]
    fn a_manifest_says_what_it_does_not_know() {
        assert!(complaint("{").contains("line 1"));
        assert!(complaint(r#"{"version": "3.0"}"#).contains("\"3.0\""));
        assert!(complaint(r#"{"version": "1.0"}"#).contains("2.0"));
        assert!(complaint("{\"version\": \"2.0\",\n \"contaner\": {}}").contains("line 2"));
        assert!(complaint(r#"{"version": "2.0", "values": {"a": {"type": "float"}}}"#).contains("float"));
    }

    #[test]
    fn no_folder_of_state_hides_another() {
        let with = |one: &str, other: &str| {
            let text = format!(r#"{{"version": "2.0", "state": {{"folders": [{one}, {other}]}}}}"#);
            Manifest::parse(&text).map(drop)
        };
        let data = r#"{"path": "/var/lib/a/data", "target": "/data"}"#;
        with(data, r#"{"path": "/var/lib/a/more"}"#).expect("two folders");
        for other in [data, r#"{"path": "/data"}"#, r#"{"path": "/var/lib/a/data"}"#] {
            let message = with(data, other).expect_err(other).to_string();
            assert!(message.starts_with("state.folders: two of them are "), "{message}");
        }
    }

    #[test]
    fn paths_that_mean_another_place_are_refused() {
        for path in ["", "/", "a", "/a/../b", "/a//b", "/a/", "/./a", "/a\nb", "/etc/\\cron.d", "/a\"", "/'a"] {
            assert!(absolute(path).is_err(), "{path:?} was taken");
        }
        absolute("/var/lib/etcd").expect("a plain path");
    }
}
