//! What a unit of ours needs to start and stop in the right moment however early it is, and wherever its folders lie.

use oci_spec::runtime::Spec;

use super::{spec::NOFAIL, unit::UnitFile};

/// What is no file system that anybody could lack.
const ALWAYS_THERE: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// Adds what a unit lacks that starts without waiting for the usual set-up (`DefaultDependencies=no`): the folders and users that are made
/// for it at boot, which after an install into a tree is the first one, and an orderly end before the file systems go.
pub fn complete(unit: &mut UnitFile, tmpfiles: bool, sysusers: bool) {
    let value = unit.values("Unit", "DefaultDependencies").last().map(str::to_ascii_lowercase);
    if !matches!(value.as_deref(), Some("no" | "false" | "off" | "0" | "n" | "f")) {
        return;
    }
    if sysusers {
        add_name(unit, "After", "systemd-sysusers.service");
    }
    if tmpfiles {
        add_name(unit, "After", "systemd-tmpfiles-setup.service");
    }
    add_name(unit, "Conflicts", "shutdown.target");
    add_name(unit, "Before", "shutdown.target");
}

/// The places of the host without whose file systems the service would find or leave nothing: its state, and what is bound into it. What
/// it can do without (`nofail`) is none of them.
pub fn places(spec: &Spec, state: impl Iterator<Item = String>) -> Vec<String> {
    let bound = spec.mounts().iter().flatten().filter_map(|mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        let is_bind = options.iter().any(|option| option == "bind" || option == "rbind");
        let may_lack = options.iter().any(|option| option == NOFAIL);
        (is_bind && !may_lack).then(|| mount.source().as_ref()?.to_str().map(str::to_owned)).flatten()
    });
    let mut places: Vec<String> = state.chain(bound).filter(|path| is_somewhere(path)).collect();
    places.sort();
    places.dedup();
    places
}

/// Makes the unit wait for the mounts that these lie on, and require them (systemd.unit(5), RequiresMountsFor=).
pub fn require_mounts(unit: &mut UnitFile, places: &[String]) {
    // A quoted word may hold spaces; what else would have to be escaped no one mounts at.
    for place in places.iter().filter(|place| !place.contains(['"', '\'', '\\'])) {
        let place = place.replace('%', "%%");
        let place = if place.contains(' ') { format!("\"{place}\"") } else { place };
        add_name(unit, "RequiresMountsFor", &place);
    }
}

fn is_somewhere(path: &str) -> bool {
    let below = |top: &&str| path.strip_prefix(*top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path.starts_with('/') && path != "/" && !ALWAYS_THERE.iter().any(below)
}

fn add_name(unit: &mut UnitFile, key: &str, name: &str) {
    let known = unit.values("Unit", key).flat_map(str::split_whitespace).any(|known| known == name);
    if !known {
        unit.add("Unit", key, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_unit_finds_its_folders_and_ends_in_order() {
        let mut unit = UnitFile::parse("a.service", "[Unit]\nDefaultDependencies=no\nBefore=x.target shutdown.target")
            .expect("a unit");
        complete(&mut unit, true, false);
        assert_eq!(
            unit.to_text(),
            "[Unit]\nDefaultDependencies=no\nBefore=x.target shutdown.target\nAfter=systemd-tmpfiles-setup.service\nConflicts=shutdown.target\n"
        );
        let mut usual = UnitFile::parse("a.service", "[Unit]\nAfter=b.service").expect("a unit");
        complete(&mut usual, true, true);
        assert_eq!(usual.to_text(), "[Unit]\nAfter=b.service\n");
    }

    #[test]
    fn mounts_are_required_for_what_the_service_cannot_do_without() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion": "1.2.0", "mounts": [
                {"destination": "/a", "source": "/srv/a b", "type": "bind", "options": ["rbind", "rw"]},
                {"destination": "/b", "source": "/srv/b", "type": "bind", "options": ["bind", "nofail"]},
                {"destination": "/c", "source": "/dev/fuse", "type": "bind", "options": ["bind"]},
                {"destination": "/d", "source": "/", "type": "bind", "options": ["bind"]},
                {"destination": "/tmp", "source": "tmpfs", "type": "tmpfs"}]}"#,
        )
        .expect("a configuration");
        let places = places(&spec, ["/var/lib/a".to_owned()].into_iter());
        assert_eq!(places, ["/srv/a b", "/var/lib/a"]);
        let mut unit = UnitFile::default();
        require_mounts(&mut unit, &places);
        assert_eq!(unit.to_text(), "[Unit]\nRequiresMountsFor=\"/srv/a b\"\nRequiresMountsFor=/var/lib/a\n");
    }
}
