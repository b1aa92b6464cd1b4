//! What a finished unit asks of the host.

use super::{RECOVER_UNIT, Requests};
use crate::model::{
    directives, manifest,
    name::ContainerName,
    rules,
    unit::{Entry, UnitFile},
};

/// Directives of each section that only order, limit or describe the unit itself. A trailing `*` stands for any ending. Those of
/// `[Service]` are in the table of `directives`.
pub(in crate::model) const FREE: [(&str, &str); 5] = [
    (
        "Unit",
        "Description Documentation After Before Condition* Assert* StartLimitInterval StartLimitIntervalSec StartLimitBurst RequiresMountsFor WantsMountsFor DefaultDependencies \
         PartOf IgnoreOnIsolate StopWhenUnneeded RefuseManualStart RefuseManualStop JobTimeoutSec JobRunningTimeoutSec CollectMode",
    ),
    (
        "Socket",
        "Accept Backlog SocketMode FileDescriptorName NoDelay KeepAlive* ReusePort ReceiveBuffer SendBuffer MaxConnections* \
         TriggerLimit* RemoveOnStop DirectoryMode DeferAcceptSec IPv6Only",
    ),
    ("Timer", "On* AccuracySec RandomizedDelaySec FixedRandomDelay Persistent WakeSystem RemainAfterElapse"),
    ("Path", "MakeDirectory DirectoryMode TriggerLimit*"),
    ("Install", ""),
];

/// Targets that may be wanted or required by anyone: they only order, and no one is started by them who would not run anyway.
pub(in crate::model) const PASSIVE_TARGETS: &str = "network.target network-pre.target network-online.target nss-lookup.target time-sync.target \
    time-set.target local-fs.target remote-fs.target sysinit.target basic.target sockets.target timers.target paths.target";

/// Targets to which a unit may tie itself.
pub(in crate::model) const INSTALL_TARGETS: &str = "multi-user.target default.target graphical.target basic.target sysinit.target sockets.target timers.target \
    paths.target network-online.target network-pre.target network.target";

/// What a unit asks beyond the defaults. `launch` are the launcher's command lines.
pub fn of_unit(file: &str, unit: &UnitFile, name: &ContainerName, launch: &[&str]) -> Requests {
    unit.entries().filter_map(|entry| of_entry(entry, name, launch)).map(|words| format!("{words} ({file})")).collect()
}

fn of_entry(entry: Entry, name: &ContainerName, launch: &[&str]) -> Option<String> {
    let Entry { section, key, value } = entry;
    let words = || Some(rules::LINE.ask(&[&key, &value]));
    // Not every unit that begins so: a container may be called `reboot`.
    let own_unit = |unit: &str| {
        let rest = unit.strip_prefix(name.as_str());
        rest.is_some_and(|rest| ["", ".service", ".socket", ".timer", ".path"].contains(&rest))
    };
    let run_dir = format!("/run/{name}");
    match (section, key) {
        ("Service", key) if key.starts_with("Exec") => {
            (!launch.contains(&value) && !value.is_empty()).then(|| rules::COMMAND.ask(&[&key, &value]))
        }
        ("Service", "Type") => (!matches!(value, "notify" | "notify-reload" | "oneshot")).then(words).flatten(),
        ("Service", "Nice") => {
            let free = value.is_empty() || value.parse().is_ok_and(|nice: i32| nice >= 0);
            (!free).then(words).flatten()
        }
        ("Service", "RuntimeDirectory" | "StateDirectory" | "LogsDirectory" | "CacheDirectory") => {
            (value != name.as_str()).then(words).flatten()
        }
        ("Service", "StandardOutput" | "StandardError") => {
            (!matches!(value, "journal" | "null" | "inherit")).then(words).flatten()
        }
        ("Unit", "Requires" | "Wants" | "BindsTo" | "Requisite" | "Upholds") => {
            let free = |unit: &str| {
                unit == RECOVER_UNIT || own_unit(unit) || PASSIVE_TARGETS.split_whitespace().any(|known| known == unit)
            };
            (!value.split_whitespace().all(free)).then(|| rules::START.ask(&[&value]))
        }
        // What DefaultDependencies=no takes away, and an early service has to say itself.
        ("Unit", "Conflicts") => (value != "shutdown.target").then(words).flatten(),
        ("Install", "WantedBy") => {
            let free = |unit: &str| own_unit(unit) || INSTALL_TARGETS.split_whitespace().any(|known| known == unit);
            (!value.split_whitespace().all(free)).then(words).flatten()
        }
        ("Install", "Also") => (!value.split_whitespace().all(own_unit)).then(words).flatten(),
        ("Socket" | "Timer" | "Path", "Service" | "Unit") => (!own_unit(value)).then(words).flatten(),
        ("Socket", "ListenStream" | "ListenDatagram" | "ListenSequentialPacket" | "ListenFIFO") => {
            // Right in its own folder: deeper, a link that the program makes would lead systemd elsewhere.
            let direct = value.strip_prefix(&run_dir).and_then(|rest| rest.strip_prefix('/'));
            let own = manifest::absolute(value).is_ok() && direct.is_some_and(|rest| !rest.contains('/'));
            let is_path = value.contains(['/', '%']);
            (is_path && !own).then(words).flatten()
        }
        ("Service", key) => (!directives::is_free(key)).then(words).flatten(),
        _ => {
            let free = FREE.iter().find(|(known, _)| *known == section).map_or("", |(_, keys)| *keys);
            let known = free.split_whitespace().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => key.starts_with(start),
                None => key == pattern,
            });
            (!known).then(words).flatten()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> Vec<String> {
        let unit = UnitFile::parse("a.service", text).expect("a unit");
        of_unit("a.service", &unit, &"a".parse().expect("a name"), &["/launch a"]).into_iter().collect()
    }

    #[test]
    fn a_unit_within_the_defaults_asks_for_nothing() {
        let text = "[Unit]\nAfter=b.service\nRequires=sysctr-recover.service\nWants=network-online.target\nConflicts=shutdown.target\n[Service]\nType=notify\nExecStart=/launch a\n\
            Restart=always\nTimeoutStopSec=5\nLimitNOFILE=1000\nMemoryMax=1G\n[Install]\nWantedBy=multi-user.target\n";
        assert_eq!(unit(text), Vec::<String>::new());
    }

    #[test]
    fn each_reach_for_the_host_is_a_request() {
        for line in [
            "[Service]\nExecStart=/bin/sh -c id",
            "[Service]\nExecStartPre=-/launch a",
            "[Service]\nEnvironment=LD_PRELOAD=/x.so",
            "[Service]\nStandardOutput=file:/etc/passwd",
            "[Service]\nType=simple",
            "[Service]\nAmbientCapabilities=CAP_SYS_ADMIN",
            "[Unit]\nWants=debug-shell.service",
            "[Unit]\nOnFailure=reboot.target",
            "[Unit]\nStartLimitAction=reboot",
            "[Unit]\nFailureAction=poweroff",
            "[Unit]\nConflicts=ssh.service",
            "[Install]\nAlias=ssh.service",
            "[Install]\nRequiredBy=sysinit.target",
            "[Install]\nWantedBy=ssh.service",
            "[Socket]\nListenStream=/run/dbus/system_bus_socket",
            "[Socket]\nListenStream=%t/dbus/system_bus_socket",
            "[Socket]\nListenStream=/run/a/../dbus/system_bus_socket",
            "[Socket]\nListenStream=/run/a/sub/socket",
            "[Unit]\nWants=a.target",
            "[Unit]\nWants=a@1.service",
            "[Socket]\nService=ssh.service",
            "[Bogus]\nX=1",
        ] {
            assert_eq!(unit(line).len(), 1, "{line}");
        }
    }
}
