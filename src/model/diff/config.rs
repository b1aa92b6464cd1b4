//! Two config.json by their meaning: first what the program gained and lost, then every other setting that is not the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::{
    GainedLost,
    powers::{self, list},
};

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ConfigDifference {
    /// What the program may do, in plain words.
    #[serde(flatten)]
    pub powers: GainedLost<String>,
    /// Names of system calls that its filter lets through.
    pub system_calls: GainedLost<String>,
    /// Settings that no words above tell, by their place in config.json.
    pub changed: Vec<SettingChange>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct SettingChange {
    pub key: String,
    pub from: Option<Json>,
    pub to: Option<Json>,
}

/// Compares two configurations.
pub fn compare(old: &Json, new: &Json) -> ConfigDifference {
    let (powers, system_calls) = (powers::compare(old, new), powers::system_calls(old, new));
    let (mut from, mut to) = (BTreeMap::new(), BTreeMap::new());
    flatten("", &keyed(old), &mut from);
    flatten("", &keyed(new), &mut to);
    let told = GainedLost::of(&powers::capabilities(old), &powers::capabilities(new));
    let told: BTreeSet<&str> = told.gained.into_iter().chain(told.lost).collect();
    let mut changed = Vec::new();
    for key in from.keys().chain(to.keys()).collect::<BTreeSet<_>>() {
        let (from, to) = (from.get(key), to.get(key));
        if from == to || is_told(key, from, to, &told, &system_calls) {
            continue;
        }
        changed.push(SettingChange { key: key.clone(), from: from.cloned(), to: to.cloned() });
    }
    ConfigDifference { powers, system_calls, changed }
}

/// Whether the words have it already, whole.
fn is_told(
    key: &str,
    from: Option<&Json>,
    to: Option<&Json>,
    capabilities: &BTreeSet<&str>,
    calls: &GainedLost<String>,
) -> bool {
    let is_new_or_gone = from.is_none() || to.is_none();
    if key.starts_with("process.capabilities.") {
        let (from, to) = (from.map(texts).unwrap_or_default(), to.map(texts).unwrap_or_default());
        return from.symmetric_difference(&to).all(|name| capabilities.contains(name));
    }
    match key {
        "linux.maskedPaths" | "linux.readonlyPaths" | "process.noNewPrivileges" | "root.readonly" => true,
        // A filter that came or went is in the words, and the calls are a list of their own.
        "linux.seccomp" => is_new_or_gone || !calls.is_empty(),
        _ => {
            ["mounts.", "linux.devices.", "linux.namespaces."].iter().any(|start| key.starts_with(start))
                && is_new_or_gone
        }
    }
}

fn texts(list: &Json) -> BTreeSet<&str> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str).collect()
}

/// The lists whose entries have a name of their own as objects, so that each entry is compared with the one of the same name.
fn keyed(config: &Json) -> Json {
    let mut config = config.clone();
    for (pointer, name) in [
        ("/mounts", "destination"),
        ("/linux/devices", "path"),
        ("/linux/namespaces", "type"),
        ("/process/rlimits", "type"),
    ] {
        let mut entries = Map::new();
        for entry in list(&config, pointer) {
            let mut key = entry.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
            // Two mounts at one place are two.
            while entries.contains_key(&key) {
                key.push_str(" (again)");
            }
            entries.insert(key, entry.clone());
        }
        replace(&mut config, pointer, Json::Object(entries));
    }
    let variables = list(&config, "/process/env").iter().filter_map(Json::as_str);
    let variables: Map<String, Json> = variables
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    replace(&mut config, "/process/env", Json::Object(variables));
    config
}

fn replace(config: &mut Json, pointer: &str, value: Json) {
    if let Some(place) = config.pointer_mut(pointer) {
        *place = value;
    }
}

/// What is compared as one value, however deep it is.
const WHOLE: [&str; 4] = ["mounts.", "linux.devices.", "linux.namespaces.", "process.rlimits."];

fn flatten(key: &str, value: &Json, into: &mut BTreeMap<String, Json>) {
    let is_whole = key == "linux.seccomp" || WHOLE.iter().any(|start| key.starts_with(start));
    match value {
        Json::Object(entries) if !is_whole => {
            for (name, value) in entries {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, into);
            }
        }
        // Nothing and an empty list are the same to a runtime.
        Json::Null => {}
        Json::Array(list) if list.is_empty() => {}
        _ => drop(into.insert(key.to_owned(), value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Json {
        json!({
            "root": {"path": "rootfs", "readonly": true},
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": ["/bin/app"], "env": ["A=1", "B=2"], "noNewPrivileges": true,
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"]}
            },
            "mounts": [{"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro", "rro"]}],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "network"}],
                "maskedPaths": ["/proc/kcore"],
                "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                    {"names": ["mount"], "action": "SCMP_ACT_ERRNO"}, {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}]}
            }
        })
    }

    /// What a change of one value at a pointer comes to: gained, lost, and the keys that are listed beside.
    fn changed(pointer: &str, value: Json) -> (Vec<String>, Vec<String>, Vec<String>) {
        let (old, mut new) = (config(), config());
        match new.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                let (above, key) = pointer.rsplit_once('/').expect("a pointer");
                new.pointer_mut(above).expect("its object")[key] = value;
            }
        }
        let found = compare(&old, &new);
        let calls = |names: Vec<String>| names.into_iter().map(|name| format!("call {name}"));
        let mut gained = found.powers.gained;
        gained.extend(calls(found.system_calls.gained));
        let mut lost = found.powers.lost;
        lost.extend(calls(found.system_calls.lost));
        (gained, lost, found.changed.into_iter().map(|change| change.key).collect())
    }

    #[test]
    fn what_the_program_gains_and_loses_is_said_in_words_and_once() {
        let mount =
            |options: Json| json!([{"destination": "/data", "type": "bind", "source": "/srv", "options": options}]);
        let filter = |names: Json| json!([{"names": names, "action": "SCMP_ACT_ALLOW"}]);
        for (pointer, value, gained, lost, others) in [
            (
                "/process/capabilities",
                json!({"bounding": ["CAP_BPF"], "effective": ["CAP_BPF"]}),
                "capability CAP_BPF",
                "capability CAP_KILL",
                "",
            ),
            // within its sets: no new power, and still not hidden
            ("/process/capabilities", json!({"bounding": ["CAP_KILL"]}), "", "", "process.capabilities.effective"),
            (
                "/mounts",
                mount(json!(["rbind", "rw"])),
                "read and write /srv of the host (as /data)",
                "read /srv of the host (as /data)",
                "mounts./data",
            ),
            (
                "/mounts",
                mount(json!(["rbind", "ro"])),
                "read and write /srv of the host (as /data)",
                "read /srv of the host (as /data)",
                "mounts./data",
            ),
            ("/mounts", mount(json!(["rbind", "ro", "rro", "nodev"])), "", "", "mounts./data"),
            ("/mounts", json!([]), "", "read /srv of the host (as /data)", ""),
            ("/linux/namespaces", json!([{"type": "pid"}]), "share the host's network", "", ""),
            (
                "/linux/namespaces",
                json!([{"type": "pid", "path": "/x"}, {"type": "network"}]),
                "join the namespace /x",
                "",
                "linux.namespaces.pid",
            ),
            (
                "/linux/devices",
                json!([{"path": "/dev/x", "type": "c", "major": 10, "minor": 2}]),
                "device /dev/x (c 10:2)",
                "",
                "",
            ),
            ("/linux/maskedPaths", json!([]), "see /proc/kcore", "", ""),
            ("/linux/maskedPaths", json!(["/proc/kcore", "/proc/keys"]), "", "see /proc/keys", ""),
            ("/linux/seccomp", Json::Null, "use every system call", "", ""),
            ("/linux/seccomp/syscalls", filter(json!(["read", "bpf"])), "call bpf", "call write", ""),
            ("/linux/seccomp/syscalls", filter(json!(["read", "write"])), "", "", "linux.seccomp"),
            ("/process/noNewPrivileges", json!(false), "gain privileges through setuid programs", "", ""),
            ("/process/user/uid", json!(7), "", "run as root", "process.user.uid"),
            (
                "/linux/namespaces",
                json!([{"type": "pid"}, {"type": "network"}, {"type": "user"}]),
                "",
                "run as root; share the host's user and group numbers",
                "",
            ),
            ("/root/readonly", json!(false), "write to its root file system", "", ""),
            (
                "/hooks",
                json!({"poststop": [{"path": "/bin/x", "args": ["x", "-f"]}]}),
                "run on the host: /bin/x \"-f\" (poststop hook)",
                "",
                "hooks.poststop",
            ),
            ("/process/env", json!(["A=3", "C=1"]), "", "", "process.env.A process.env.B process.env.C"),
            ("/process/args", json!(["/bin/app", "-v"]), "", "", "process.args"),
            ("/linux/unheard", json!({"of": 1}), "", "", "linux.unheard.of"),
        ] {
            let found = changed(pointer, value.clone());
            let wanted = (gained.to_owned(), lost.to_owned(), others.to_owned());
            assert_eq!((found.0.join("; "), found.1.join("; "), found.2.join(" ")), wanted, "{pointer} {value}");
        }
    }

    #[test]
    fn the_same_is_no_difference() {
        let found = compare(&config(), &config());
        assert_eq!(found, ConfigDifference::default());
        let mut other = config();
        other["linux"]["devices"] = json!([]);
        assert_eq!(compare(&config(), &other), ConfigDifference::default(), "an empty list is none");
    }
}
