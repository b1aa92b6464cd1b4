//! A unit's dependencies from its texts.

use std::collections::BTreeSet;

use super::{Load, Names, Unit, unit_name};
use crate::model::unit::UnitFile;

/// What is read of a unit: its file and its drop-ins in the order in which they count, and the units in its folders of links.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Source {
    pub load: Load,
    pub aliases: Names,
    pub texts: Vec<UnitFile>,
    /// In `NAME.requires`.
    pub required: Names,
    /// In `NAME.wants` and `NAME.upholds`.
    pub wanted: Names,
}

/// The file systems that lie on another machine (systemd's fstype_is_network()).
const NETWORK: &str = "afs ceph cifs smb3 smbfs sshfs ncpfs ncp nfs nfs4 gfs gfs2 glusterfs pvfs2 ocfs2 lustre davfs";

/// What a mount's options say.
struct Mounted {
    remote: bool,
    nofail: bool,
}

/// The unit of this name: what it says, and what its kind adds (systemd.service(5), "Automatic Dependencies", and its like).
pub fn unit(name: &str, source: &Source) -> Unit {
    let mut unit = Unit { load: source.load, aliases: source.aliases.clone(), ..Unit::default() };
    if source.load != Load::Loaded {
        return unit;
    }
    let words = |section: &'static str, keys: &[&str]| -> Names {
        let values = keys.iter().flat_map(|key| source.texts.iter().flat_map(move |text| text.values(section, key)));
        let words = values.flat_map(str::split_whitespace).filter_map(|word| unit_name::specifiers(word, name));
        // A template among them means the same instance.
        words.map(|word| unit_name::instantiate(&word, unit_name::instance(name))).collect()
    };
    unit.after = words("Unit", &["After"]);
    unit.before = words("Unit", &["Before"]);
    unit.requires = words("Unit", &["Requires", "BindsTo"]);
    unit.requires.extend(source.required.iter().cloned());
    unit.requisite = words("Unit", &["Requisite"]);
    unit.wants = words("Unit", &["Wants", "Upholds"]);
    unit.wants.extend(source.wanted.iter().cloned());
    unit.mounts_for = paths(name, source, "Unit", "RequiresMountsFor");
    unit.early = last(source, "Unit", "DefaultDependencies").is_some_and(|value| is_false(&value));
    match unit_name::kind(name) {
        "service" => service(name, source, &mut unit, &words),
        "socket" => socket(name, source, &mut unit),
        "timer" => {
            starter(name, source, &mut unit, "Timer", "timers.target");
            if !unit.early && last(source, "Timer", "OnCalendar").is_some() {
                unit.after.extend(["time-set.target".to_owned(), "time-sync.target".to_owned()]);
            }
        }
        "path" => starter(name, source, &mut unit, "Path", "paths.target"),
        "mount" => mount(source, &mut unit),
        "automount" => {
            unit.before.insert(name.replace(".automount", ".mount"));
            if !unit.early {
                unit.before.insert("local-fs.target".to_owned());
                unit.after.insert("local-fs-pre.target".to_owned());
            }
        }
        "swap" if !unit.early => {
            unit.before.insert("swap.target".to_owned());
        }
        _ => {}
    }
    unit
}

fn service(name: &str, source: &Source, unit: &mut Unit, words: &dyn Fn(&'static str, &[&str]) -> Names) {
    if !unit.early {
        require(unit, "sysinit.target");
        unit.after.insert("basic.target".to_owned());
    }
    if last(source, "Service", "BusName").is_some()
        && last(source, "Service", "Type").is_some_and(|kind| kind == "dbus")
    {
        require(unit, "dbus.socket");
    }
    let sockets = words("Service", &["Sockets"]);
    unit.after.extend(sockets.iter().cloned());
    unit.wants.extend(sockets);
    if last(source, "Service", "PrivateTmp").is_some_and(|value| !is_false(&value)) {
        unit.after.insert("systemd-tmpfiles-setup.service".to_owned());
        unit.mounts_for.extend(["/tmp".to_owned(), "/var/tmp".to_owned()]);
    }
    logs(source, unit, "Service");
    for (key, place) in
        [("State", "/var/lib"), ("Cache", "/var/cache"), ("Logs", "/var/log"), ("Configuration", "/etc")]
    {
        let folders = paths(name, source, "Service", &format!("{key}Directory"));
        let folders = folders.iter().filter_map(|folder| folder.split(':').next());
        unit.mounts_for.extend(folders.map(|folder| format!("{place}/{folder}")));
    }
    for key in ["WorkingDirectory", "RootDirectory", "RootImage"] {
        let value = last(source, "Service", key).and_then(|value| unit_name::specifiers(&value, name));
        unit.mounts_for.extend(value.filter(|value| value.starts_with('/')));
    }
}

/// systemd.exec(5): what logs to the journal starts after its socket.
fn logs(source: &Source, unit: &mut Unit, section: &str) {
    let to = |key, usual: &str| last(source, section, key).unwrap_or_else(|| usual.to_owned());
    let outputs = [to("StandardOutput", "journal"), to("StandardError", "inherit")];
    if outputs.iter().any(|output| output.starts_with("journal") || output.starts_with("kmsg")) {
        unit.after.insert("systemd-journald.socket".to_owned());
    }
}

fn socket(name: &str, source: &Source, unit: &mut Unit) {
    let accept = last(source, "Socket", "Accept").is_some_and(|value| !is_false(&value));
    if !accept {
        unit.before.insert(triggered(name, source, "Socket", "Service"));
    }
    for key in ["ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO", "ListenSpecial"] {
        unit.mounts_for.extend(paths(name, source, "Socket", key).into_iter().filter(|path| path.starts_with('/')));
    }
    if ["ExecStartPre", "ExecStartPost", "ExecStopPre", "ExecStopPost"]
        .iter()
        .any(|key| last(source, "Socket", key).is_some())
    {
        logs(source, unit, "Socket");
    }
    if !unit.early {
        unit.before.insert("sockets.target".to_owned());
        require(unit, "sysinit.target");
    }
}

/// Timers and path units.
fn starter(name: &str, source: &Source, unit: &mut Unit, section: &'static str, target: &str) {
    unit.before.insert(triggered(name, source, section, "Unit"));
    if !unit.early {
        unit.before.insert(target.to_owned());
        require(unit, "sysinit.target");
    }
}

fn mount(source: &Source, unit: &mut Unit) {
    let place = last(source, "Mount", "Where").unwrap_or_default();
    let what = last(source, "Mount", "What").unwrap_or_default();
    let Mounted { remote, nofail } = mounted(source);
    unit.remote = remote;
    // Its own place is itself.
    if let Some((parent, _)) = place.trim_end_matches('/').rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        unit.mounts_for.insert(parent.to_owned());
    }
    if what.starts_with('/') && !what.starts_with("/dev/") && !what.starts_with("/sys/") {
        unit.mounts_for.insert(what);
    }
    if unit.early {
        return;
    }
    let (before, after) =
        if remote { ("remote-fs.target", "remote-fs-pre.target") } else { ("local-fs.target", "local-fs-pre.target") };
    unit.after.insert(after.to_owned());
    if !nofail {
        unit.before.insert(before.to_owned());
    }
    if remote {
        unit.after.extend(["network.target".to_owned(), "network-online.target".to_owned()]);
        unit.wants.insert("network-online.target".to_owned());
    }
}

fn mounted(source: &Source) -> Mounted {
    let kind = last(source, "Mount", "Type").unwrap_or_default();
    let options = last(source, "Mount", "Options").unwrap_or_default();
    let has = |option: &str| options.split(',').any(|one| one.trim() == option);
    let kind = kind.strip_prefix("fuse.").unwrap_or(&kind);
    Mounted { remote: has("_netdev") || NETWORK.split_whitespace().any(|known| known == kind), nofail: has("nofail") }
}

/// The unit that another one starts.
fn triggered(name: &str, source: &Source, section: &'static str, key: &str) -> String {
    let named = last(source, section, key).and_then(|unit| unit_name::specifiers(&unit, name));
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    named.unwrap_or_else(|| format!("{stem}.service"))
}

fn require(unit: &mut Unit, other: &str) {
    unit.after.insert(other.to_owned());
    unit.requires.insert(other.to_owned());
}

/// The value that counts: the last one, and none where that is empty.
fn last(source: &Source, section: &str, key: &str) -> Option<String> {
    let value = source.texts.iter().rev().find_map(|text| {
        text.entries().filter(|entry| entry.section == section && entry.key == key).last().map(|entry| entry.value)
    });
    value.filter(|value| !value.is_empty()).map(str::to_owned)
}

fn paths(name: &str, source: &Source, section: &str, key: &str) -> BTreeSet<String> {
    let values = source.texts.iter().flat_map(|text| text.entries());
    let values = values.filter(|entry| entry.section == section && entry.key == key);
    values
        .flat_map(|entry| entry.value.split_whitespace())
        .filter_map(|path| unit_name::specifiers(path, name))
        .collect()
}

fn is_false(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "no" | "n" | "false" | "f" | "off" | "0")
}
