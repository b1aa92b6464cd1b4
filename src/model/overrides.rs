//! What an admin gives a container beyond what its image says, or takes from it: `--mount`, `--env`, `--cap-add`, `--cap-drop`,
//! `--device`, `--memory`. It holds for every image, with a manifest or without, and stays over all updates.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{
    given_mount::{self, GivenMount},
    manifest::{Capabilities, Container, absolute},
    spec,
    unit::UnitFile,
};

/// Everything that was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Overrides {
    /// Host folders and files; one takes the place of the image's at the same target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<GivenMount>,
    /// Variables, which win over the image's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Capabilities, with `CAP_`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<Capability>,
    /// Capabilities that it is not to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<Capability>,
    /// Device nodes of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// The unit's MemoryMax=.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

/// An argument that is none of these.
#[derive(Debug, thiserror::Error)]
#[error("invalid {what} {text:?}: {expected}")]
pub struct BadOverride {
    what: &'static str,
    text: String,
    expected: String,
}

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Variable {
    pub key: String,
    pub value: String,
}

/// A capability by its full name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(String);

/// A node below /dev.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Device(String);

/// As MemoryMax= takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory(String);

impl FromStr for Variable {
    type Err = BadOverride;

    fn from_str(text: &str) -> Result<Variable, BadOverride> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() && !text.contains('\0') => {
                Ok(Variable { key: key.to_owned(), value: value.to_owned() })
            }
            _ => {
                Err(BadOverride { what: "variable", text: text.to_owned(), expected: "expected KEY=VALUE".to_owned() })
            }
        }
    }
}

impl FromStr for Capability {
    type Err = BadOverride;

    fn from_str(text: &str) -> Result<Capability, BadOverride> {
        let bad = |error: anyhow::Error| BadOverride {
            what: "capability",
            text: text.to_owned(),
            expected: error.to_string(),
        };
        spec::capability(text).map(Capability).map_err(bad)
    }
}

impl FromStr for Device {
    type Err = BadOverride;

    fn from_str(text: &str) -> Result<Device, BadOverride> {
        match absolute(text).is_ok() && text.starts_with("/dev/") {
            true => Ok(Device(text.to_owned())),
            false => {
                let expected = "expected a node below /dev, seen at the same path in the container".to_owned();
                Err(BadOverride { what: "device", text: text.to_owned(), expected })
            }
        }
    }
}

impl FromStr for Memory {
    type Err = BadOverride;

    fn from_str(text: &str) -> Result<Memory, BadOverride> {
        // podman and docker write units small
        let upper = text.to_ascii_uppercase();
        let number = upper.trim_end_matches(['K', 'M', 'G', 'T', '%']);
        let good = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && upper.len() - number.len() <= 1;
        match (good, text) {
            (_, "infinity") => Ok(Memory(text.to_owned())),
            (true, _) if number.bytes().any(|b| b != b'0') => Ok(Memory(upper)),
            _ => {
                let expected = "expected bytes such as 512M or 2G, a share such as 50%, or infinity".to_owned();
                Err(BadOverride { what: "limit of memory", text: text.to_owned(), expected })
            }
        }
    }
}

impl Overrides {
    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        *self == Overrides::default()
    }

    /// These, and what a later command gives: its own win.
    pub fn and(&self, later: &Overrides) -> Overrides {
        let mut all = self.clone();
        all.mounts.retain(|mount| !later.mounts.iter().any(|other| other.target() == mount.target()));
        all.mounts.extend(later.mounts.iter().cloned());
        all.env.extend(later.env.clone());
        for (mine, given, opposite) in
            [(&mut all.cap_add, &later.cap_add, &later.cap_drop), (&mut all.cap_drop, &later.cap_drop, &later.cap_add)]
        {
            mine.retain(|one| !opposite.contains(one) && !given.contains(one));
            mine.extend(given.iter().cloned());
        }
        all.devices.retain(|device| !later.devices.contains(device));
        all.devices.extend(later.devices.iter().cloned());
        all.memory = later.memory.clone().or(all.memory);
        all
    }

    /// The `container` section with its capabilities as the admin wants them: the default filter of system calls goes by those.
    pub fn capabilities_of(&self, container: &Container) -> Container {
        let names = |all: &[Capability]| all.iter().map(|one| one.0.clone()).collect::<Vec<_>>();
        let (add, drop) = (names(&self.cap_add), names(&self.cap_drop));
        let full = |name: &String| spec::capability(name).unwrap_or_else(|_| name.clone());
        let without = |list: &[String], others: &[String]| {
            list.iter().filter(|name| !others.contains(&full(name))).cloned().collect::<Vec<_>>()
        };
        let given = &container.capabilities;
        let capabilities = Capabilities {
            add: [without(&given.add, &drop), add.clone()].concat(),
            drop: [without(&given.drop, &add), drop].concat(),
        };
        Container { capabilities, ..container.clone() }
    }

    /// The configuration with all of it.
    pub fn apply(&self, spec: &Spec) -> Result<Spec> {
        if self.is_empty() {
            return Ok(spec.clone());
        }
        let mut json = serde_json::to_value(spec).context("reading config.json")?;
        for (key, value) in &self.env {
            let env = list(&mut json["process"]["env"]);
            env.retain(|known| known.as_str().and_then(|known| known.split('=').next()) != Some(key));
            env.push(format!("{key}={value}").into());
        }
        let user = json["process"]["user"]["uid"].as_u64().unwrap_or_default();
        let sets = match user {
            0 => ["bounding", "effective", "permitted"].as_slice(),
            _ => ["bounding", "effective", "permitted", "inheritable", "ambient"].as_slice(),
        };
        for Capability(name) in &self.cap_add {
            for set in sets {
                let names = list(&mut json["process"]["capabilities"][set]);
                if !names.iter().any(|known| known == name) {
                    names.push(name.clone().into());
                }
            }
        }
        if !self.cap_drop.is_empty() && json["process"]["capabilities"].is_object() {
            for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
                list(&mut json["process"]["capabilities"][set])
                    .retain(|known| !self.cap_drop.iter().any(|Capability(name)| known == name));
            }
        }
        let devices = self.devices.iter().map(|Device(path)| spec::bind(path, path, &["nosuid", "noexec"]));
        for device in devices {
            place(list(&mut json["mounts"]), device);
        }
        let mut spec: Spec = serde_json::from_value(json).context("making config.json")?;
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        given_mount::add(&mut mounts, &self.mounts);
        spec.set_mounts(Some(mounts));
        Ok(spec)
    }

    /// What of it is the unit's to do.
    pub fn limit(&self, service: &mut UnitFile) {
        if let Some(Memory(limit)) = &self.memory {
            service.add("Service", "MemoryMax", limit);
        }
    }

    /// A line for each, as `show` tells them: what it is, and what was given.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mounts = self.mounts.iter().map(|mount| ("Mount", mount.words()));
        let env = self.env.iter().map(|(key, value)| ("Variable", format!("{key}={value}")));
        let caps = self.cap_add.iter().map(|one| ("Capability", format!("{} added", one.0)));
        let drops = self.cap_drop.iter().map(|one| ("Capability", format!("{} dropped", one.0)));
        let devices = self.devices.iter().map(|one| ("Device", one.0.clone()));
        let memory = self.memory.iter().map(|one| ("Memory", one.0.clone()));
        mounts.chain(env).chain(caps).chain(drops).chain(devices).chain(memory).collect()
    }
}

/// The list at a place, which is made one.
fn list(place: &mut Json) -> &mut Vec<Json> {
    if !place.is_array() {
        *place = json!([]);
    }
    match place {
        Json::Array(items) => items,
        _ => unreachable!("it is a list"),
    }
}

/// A mount takes the place of one with the same destination.
fn place(mounts: &mut Vec<Json>, mount: Json) {
    mounts.retain(|known| known["destination"] != mount["destination"]);
    mounts.push(mount);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(mounts: &[&str], add: &[&str], drop: &[&str]) -> Overrides {
        let names = |all: &[&str]| all.iter().map(|name| name.parse().expect("a capability")).collect();
        Overrides {
            mounts: mounts.iter().map(|mount| GivenMount::of_volume(mount).expect("a mount")).collect(),
            cap_add: names(add),
            cap_drop: names(drop),
            ..Overrides::default()
        }
    }

    #[test]
    fn limits_are_read_as_podman_and_docker_write_them() {
        for (text, read) in
            [("512m", Some("512M")), ("50%", Some("50%")), ("infinity", Some("infinity")), ("1", Some("1"))]
        {
            assert_eq!(text.parse::<Memory>().ok().map(|it| it.0), read.map(str::to_owned));
        }
        for text in ["", "M", "0", "5MB", "-1", "1.5G"] {
            assert!(text.parse::<Memory>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn what_comes_later_wins() {
        let first = given(&["/a:/x", "/b:/y"], &["net_admin", "SYS_TIME"], &["KILL"]);
        let all = first.and(&given(&["/c:/x:ro"], &["KILL"], &["NET_ADMIN"]));
        assert_eq!(all, given(&["/b:/y", "/c:/x:ro"], &["SYS_TIME", "KILL"], &["NET_ADMIN"]));
        assert_eq!(all.and(&Overrides::default()), all);
    }

    #[test]
    fn a_configuration_of_any_origin_is_widened_and_narrowed() {
        let spec = json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"},
            "process": {"user": {"uid": 7, "gid": 7}, "args": ["/a"], "cwd": "/", "env": ["A=1", "B=2"],
                "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]}},
            "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/srv/x", "type": "tmpfs", "source": "tmpfs"}]});
        let spec: Spec = serde_json::from_value(spec).expect("a spec");
        let mut overrides = given(&["/data:/srv", "/other:/srv/x"], &["NET_ADMIN"], &["KILL"]);
        overrides.env.insert("A".into(), "{{x}}".into());
        overrides.devices.push("/dev/fuse".parse().expect("a device"));
        let done = serde_json::to_value(overrides.apply(&spec).expect("a spec")).expect("JSON");
        let names = |place: &str| -> Vec<String> {
            let mut names: Vec<String> =
                serde_json::from_value(done.pointer(place).expect(place).clone()).expect("texts");
            names.sort();
            names
        };
        assert_eq!(names("/process/env"), ["A={{x}}", "B=2"]);
        assert_eq!(names("/process/capabilities/bounding"), ["CAP_CHOWN", "CAP_NET_ADMIN"]);
        assert_eq!(names("/process/capabilities/ambient"), ["CAP_NET_ADMIN"]);
        let mounts: Vec<&str> = done["mounts"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|mount| mount["destination"].as_str())
            .collect();
        assert_eq!(mounts, ["/proc", "/srv", "/dev/fuse", "/srv/x"]);
        assert_eq!(done["mounts"][3]["source"], "/other");
    }
}
