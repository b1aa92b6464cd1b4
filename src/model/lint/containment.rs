//! What a manifest says for nothing, or opens wider than the program is likely to need.

use std::collections::BTreeMap;

use super::{Level, MANIFEST, Problem};
use crate::model::{
    manifest::{Container, Manifest, Network, Shared, ValueSpec},
    request::is_below,
    spec::{self, DEFAULT_CAPABILITIES},
};

/// Folders of the host of which no program needs the whole.
const WHOLE: &str = "/ /etc /usr /var /boot /root /home /proc /sys /dev /run /var/lib /var/run /lib /bin /sbin";
/// Who may talk to these is root of the host.
const ENGINES: &str = "docker.sock podman.sock containerd.sock crio.sock private dbus/system_bus_socket";

/// Everything of that kind. `exports` are the texts that templates may name values in.
pub fn judge(manifest: &Manifest, exports: &BTreeMap<String, Vec<u8>>) -> Vec<Problem> {
    let mut said = Vec::new();
    let mut warn = |detail: String| said.push(Problem { level: Level::Warning, file: MANIFEST.to_owned(), detail });
    let container = &manifest.container;
    // A config.json of its own is not made of the section.
    let made = !exports.contains_key("config.json.hbs");
    let counted = Container::default();
    let rest = Container {
        user: counted.user,
        seccomp: counted.seccomp,
        capabilities: counted.capabilities,
        ..container.clone()
    };
    if !made && serde_json::to_value(rest).ok() != serde_json::to_value(Container::default()).ok() {
        let detail = "container: the image has a config.json.hbs, which takes its place; only user, capabilities and seccomp count";
        warn(detail.to_owned());
    }
    if made {
        capabilities(container, &mut warn);
        mounts(manifest, &mut warn);
        if container.seccomp.as_deref() == Some("unconfined") {
            warn("container.seccomp: without a filter every system call is open; name a profile that has what is missing".to_owned());
        }
        for (_, kind) in Shared::ALL.into_iter().filter(|(kind, _)| container.share.contains(kind)) {
            warn(format!("container.share: with the host's {kind} namespace it sees and reaches what runs beside it"));
        }
        if container.unmasked {
            warn("container.unmasked: it can change the host's kernel".to_owned());
        }
        if container.readonly == Some(false) {
            warn(
                "container.readonly: a root file system that can be written to hides what the program keeps; \
                  list what it writes to in state.folders or container.tmpfs"
                    .to_owned(),
            );
        }
    }
    for folder in &manifest.state.folders {
        if folder.mode().is_ok_and(|mode| mode & 0o002 != 0) {
            warn(format!("state.folders: {}: everybody on the host may write there", folder.path));
        }
    }
    for (name, value) in &manifest.values {
        of_value(name, value, exports, &mut warn);
    }
    let listed = [
        ("after", &manifest.after),
        ("before", &manifest.before),
        ("requires", &manifest.requires),
        ("wants", &manifest.wants),
    ];
    for (key, units) in listed {
        if let Some(twice) = units.iter().enumerate().find(|(at, unit)| units[..*at].contains(unit)) {
            warn(format!("{key}: {} stands there twice", twice.1));
        }
    }
    if let Some(both) = manifest.after.iter().find(|unit| manifest.before.contains(unit)) {
        warn(format!("after and before: {both} stands in both, and systemd breaks the cycle as it likes"));
    }
    if let Some(unordered) =
        manifest.requires.iter().find(|unit| !manifest.after.contains(unit) && !manifest.before.contains(unit))
    {
        warn(format!("requires: {unordered} is started at the same time; put it into \"after\", too"));
    }
    said
}

fn capabilities(container: &Container, warn: &mut impl FnMut(String)) {
    let full = |names: &[String]| names.iter().filter_map(|name| spec::capability(name).ok()).collect::<Vec<_>>();
    let (add, drop) = (full(&container.capabilities.add), full(&container.capabilities.drop));
    let is_default = |name: &String| DEFAULT_CAPABILITIES.contains(&name.as_str());
    for name in &add {
        if drop.contains(name) {
            warn(format!("container.capabilities: {name} is added and dropped"));
        } else if matches!(
            name.as_str(),
            "CAP_SYS_ADMIN" | "CAP_SYS_MODULE" | "CAP_SYS_RAWIO" | "CAP_SYS_PTRACE" | "CAP_DAC_READ_SEARCH"
        ) {
            warn(format!(
                "container.capabilities: with {name} the program can become root of the host; is there no smaller one?"
            ));
        } else if name == "CAP_NET_BIND_SERVICE" && container.network == Network::Private {
            warn(format!("container.capabilities: {name} is for nothing with the network \"private\""));
        }
    }
    for name in drop.iter().filter(|name| !is_default(name) && !add.contains(name)) {
        warn(format!("container.capabilities: {name} is dropped, and no container has it"));
    }
    let root = container.user.as_deref().is_none_or(|user| matches!(user.split(':').next(), Some("root" | "0")));
    for name in add.iter().filter(|name| root && is_default(name) && !drop.contains(name)) {
        warn(format!("container.capabilities: {name} is added, and root in a container has it anyway"));
    }
}

fn mounts(manifest: &Manifest, warn: &mut impl FnMut(String)) {
    let container = &manifest.container;
    let listed = |list: &str, path: &str| list.split_whitespace().any(|one| one == path);
    let mut targets: Vec<&str> = Vec::new();
    for mount in &container.mounts {
        let is_read_only = mount
            .options
            .iter()
            .rev()
            .find(|option| matches!(option.as_str(), "ro" | "rw"))
            .is_some_and(|one| one == "ro");
        if listed(WHOLE, &mount.source) {
            let how = if is_read_only { "" } else { ", to write to" };
            warn(format!(
                "container.mounts: all of {} of the host{how}; mount only what the program reads",
                mount.source
            ));
        } else if ENGINES.split_whitespace().any(|name| mount.source.ends_with(&format!("/{name}"))) {
            warn(format!("container.mounts: who may talk to {} is root of the host", mount.source));
        } else if is_below(&mount.source, "/etc") && !is_read_only {
            warn(format!("container.mounts: {} can be written to; add the option \"ro\"", mount.source));
        }
        if targets.contains(&mount.target.as_str()) {
            warn(format!("container.mounts: two of them are mounted at {}; the last one counts", mount.target));
        }
        // State in which the program mounts something for the host to see takes both.
        let spreads = mount.options.iter().any(|option| option == "rshared");
        if !spreads && manifest.state.folders.iter().any(|folder| folder.path == mount.target) {
            warn(format!("container.mounts: {} is in state.folders, too; one of them is enough", mount.target));
        }
        targets.push(&mount.target);
    }
    for path in &container.tmpfs {
        if ["/run", "/tmp", "/var/tmp"].contains(&path.as_str()) {
            warn(format!("container.tmpfs: {path} is one in every container"));
        }
        if manifest.state.folders.iter().any(|folder| folder.path == *path) {
            warn(format!("container.tmpfs: {path} is in state.folders, too, and one of them is lost"));
        }
    }
    let devices = container.devices.iter().enumerate();
    for (_, device) in devices.filter(|(at, device)| container.devices[..*at].contains(device)) {
        warn(format!("container.devices: {device} stands there twice"));
    }
}

fn of_value(name: &str, value: &ValueSpec, exports: &BTreeMap<String, Vec<u8>>, warn: &mut impl FnMut(String)) {
    let named = [
        format!("values.{name}"),
        format!("values/{name}"),
        "values}}".to_owned(),
        "in values".to_owned(),
        "#each values".to_owned(),
        "#with values".to_owned(),
    ];
    let texts = exports.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let is_used = |text: String| named.iter().any(|name| text.contains(name));
    if !texts.into_iter().any(is_used) && !value.secret {
        warn(format!("values.{name}: no template uses it"));
    }
    if value.required && value.default.is_some() {
        warn(format!("values.{name}: it is required, so its default is never used"));
    }
    let is_text =
        |name: &str| ["password", "passwd", "secret"].iter().any(|word| name.to_ascii_lowercase().contains(word));
    if is_text(name) && !value.secret && !name.to_ascii_lowercase().contains("file") {
        warn(format!("values.{name}: units and records would show it; say \"secret\": true"));
    }
}
