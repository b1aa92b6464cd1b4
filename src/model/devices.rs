//! Which devices a container may open, where it could make nodes of any.

use oci_spec::runtime::{LinuxDeviceType, Spec};

use super::{syntax, unit::UnitFile};

/// Without CAP_MKNOD a container has the nodes that it was given. With it, the unit's device policy
/// ([systemd.resource-control(5)](https://www.freedesktop.org/software/systemd/man/latest/systemd.resource-control.html)) holds it to those:
/// the specification lets it open what is listed, and what every container has. A unit with a policy of its own keeps that.
pub fn confine(spec: &Spec, service: &mut UnitFile) {
    let sources: Vec<&str> = (spec.mounts().iter().flatten())
        .filter_map(|mount| mount.source().as_ref()?.to_str())
        .filter(|source| *source == "/dev" || source.starts_with("/dev/"))
        .collect();
    let has_all = sources.contains(&"/dev");
    if has_all || !can_make_nodes(spec) || service.values("Service", "DevicePolicy").next().is_some() {
        return;
    }
    service.add("Service", "DevicePolicy", "closed");
    let listed = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    for device in listed.into_iter().flatten() {
        let kind = match device.typ() {
            LinuxDeviceType::B => "block",
            LinuxDeviceType::C | LinuxDeviceType::U => "char",
            LinuxDeviceType::A | LinuxDeviceType::P => continue,
        };
        service.add("Service", "DeviceAllow", &format!("/dev/{kind}/{}:{} rwm", device.major(), device.minor()));
    }
    for source in sources {
        service.add("Service", "DeviceAllow", &format!("{} rwm", quoted(source)));
    }
}

/// A path as DeviceAllow= reads it: quotes and backslashes, and no C escapes.
fn quoted(path: &str) -> String {
    match syntax::value("DeviceAllow", path) {
        Some(plain) => plain,
        None => format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")),
    }
}

/// Whether CAP_MKNOD is in any set: an ambient one outlasts an exec though the bounding set lacks it.
fn can_make_nodes(spec: &Spec) -> bool {
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let all =
        sets.map(|sets| [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()]);
    all.into_iter().flatten().flatten().flatten().any(|one| one.to_string().trim_start_matches("CAP_") == "MKNOD")
}
