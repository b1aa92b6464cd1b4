//! What the units of an image say for nothing.

use std::collections::BTreeMap;

use super::{Level, Problem};
use crate::model::{directives, layout, name::ContainerName, unit::UnitFile};

/// Every directive of these sections (systemd 252 to 257). Those of `[Service]` have a table of their own.
const KNOWN: [(&str, &str); 5] = [
    (
        "Unit",
        "Description Documentation Wants Requires Requisite BindsTo PartOf Upholds Conflicts Before After OnFailure OnSuccess \
         PropagatesReloadTo ReloadPropagatedFrom PropagatesStopTo StopPropagatedFrom JoinsNamespaceOf RequiresMountsFor WantsMountsFor \
         OnSuccessJobMode OnFailureJobMode IgnoreOnIsolate StopWhenUnneeded RefuseManualStart RefuseManualStop AllowIsolate \
         DefaultDependencies SurviveFinalKillSignal CollectMode FailureAction SuccessAction FailureActionExitStatus \
         SuccessActionExitStatus JobTimeoutSec JobRunningTimeoutSec JobTimeoutAction JobTimeoutRebootArgument StartLimitIntervalSec \
         StartLimitInterval StartLimitBurst StartLimitAction RebootArgument SourcePath",
    ),
    (
        "Socket",
        "ListenStream ListenDatagram ListenSequentialPacket ListenFIFO ListenSpecial ListenNetlink ListenMessageQueue ListenUSBFunction \
         SocketProtocol BindIPv6Only Backlog BindToDevice SocketUser SocketGroup SocketMode DirectoryMode Accept Writable FlushPending \
         MaxConnections MaxConnectionsPerSource KeepAlive KeepAliveTimeSec KeepAliveIntervalSec KeepAliveProbes NoDelay Priority \
         DeferAcceptSec ReceiveBuffer SendBuffer IPTOS IPTTL Mark ReusePort SmackLabel SmackLabelIPIn SmackLabelIPOut SELinuxContextFromNet \
         PipeSize MessageQueueMaxMessages MessageQueueMessageSize FreeBind Transparent Broadcast PassCredentials PassSecurity \
         PassPacketInfo Timestamping TCPCongestion ExecStartPre ExecStartPost ExecStopPre ExecStopPost TimeoutSec Service RemoveOnStop \
         Symlinks FileDescriptorName TriggerLimitIntervalSec TriggerLimitBurst PollLimitIntervalSec PollLimitBurst PassFileDescriptorsToExec",
    ),
    (
        "Timer",
        "OnActiveSec OnBootSec OnStartupSec OnUnitActiveSec OnUnitInactiveSec OnCalendar AccuracySec RandomizedDelaySec \
         RandomizedOffsetSec FixedRandomDelay DeferReactivation OnClockChange OnTimezoneChange Unit Persistent WakeSystem RemainAfterElapse",
    ),
    (
        "Path",
        "PathExists PathExistsGlob PathChanged PathModified DirectoryNotEmpty Unit MakeDirectory DirectoryMode TriggerLimitIntervalSec \
         TriggerLimitBurst",
    ),
    ("Install", "Alias WantedBy RequiredBy UpheldBy Also DefaultInstance"),
];

/// A unit of each kind has its own section, and is nothing without one of these.
const NEEDED: [(&str, &str, &str); 3] = [
    (
        "socket",
        "Socket",
        "ListenStream ListenDatagram ListenSequentialPacket ListenFIFO ListenSpecial ListenNetlink ListenMessageQueue ListenUSBFunction",
    ),
    (
        "timer",
        "Timer",
        "OnActiveSec OnBootSec OnStartupSec OnUnitActiveSec OnUnitInactiveSec OnCalendar OnClockChange OnTimezoneChange",
    ),
    ("path", "Path", "PathExists PathExistsGlob PathChanged PathModified DirectoryNotEmpty"),
];

/// Everything of that kind in the units of a set.
pub fn judge(
    files: &BTreeMap<String, String>,
    exports: &BTreeMap<String, Vec<u8>>,
    name: &ContainerName,
) -> Vec<Problem> {
    let mut said = Vec::new();
    for (file, text) in files.iter().filter(|(file, _)| layout::is_unit(file)) {
        let Ok(unit) = UnitFile::parse(file, text) else { continue };
        let kind = file.rsplit('.').next().unwrap_or_default();
        let export = format!("{kind}{}.hbs", if layout::is_template(file) { "@" } else { "" });
        if !exports.contains_key(&export) {
            continue;
        }
        let mut warn = |level, detail: String| said.push(Problem { level, file: format!("/exports/{export}"), detail });
        for entry in unit.entries() {
            let own = KNOWN.iter().find(|(section, _)| *section == entry.section).map(|(_, keys)| *keys);
            let is_x = entry.key.starts_with("X-") || entry.section.starts_with("X-");
            let listed = |keys: &str| keys.split_whitespace().any(|key| key == entry.key);
            let condition =
                entry.section == "Unit" && (entry.key.starts_with("Condition") || entry.key.starts_with("Assert"));
            match own {
                _ if is_x || condition => {}
                // systemd.exec(5), systemd.kill(5) and systemd.resource-control(5) hold for sockets, too.
                Some(keys) if listed(keys) || (entry.section == "Socket" && directives::find(entry.key).is_some()) => {}
                Some(_) => warn(
                    Level::Error,
                    format!("{}= is no directive of [{}]; systemd would ignore it", entry.key, entry.section),
                ),
                None if entry.section.eq_ignore_ascii_case(kind) && entry.section == "Service" => {}
                None => warn(
                    Level::Error,
                    format!("[{}] is no section of a {kind} unit; systemd would ignore it", entry.section),
                ),
            }
            let boolean = matches!(entry.value, "yes" | "no" | "true" | "false" | "on" | "off" | "1" | "0");
            let is_time = entry.key.ends_with("Sec");
            if is_time && !is_timespan(entry.value) {
                warn(Level::Error, format!("{}={} is no time; systemd would ignore it", entry.key, entry.value));
            }
            if entry.key == "Restart"
                && !"no on-success on-failure on-abnormal on-watchdog on-abort always"
                    .split(' ')
                    .any(|one| one == entry.value)
            {
                warn(Level::Error, format!("Restart={} is none of systemd's; use on-failure or always", entry.value));
            }
            if matches!(
                entry.key,
                "Persistent" | "Accept" | "RemainAfterExit" | "RefuseManualStop" | "DefaultDependencies"
            ) && !boolean
            {
                warn(
                    Level::Error,
                    format!("{}={} is neither yes nor no; systemd would ignore it", entry.key, entry.value),
                );
            }
        }
        for (_, section, keys) in NEEDED.iter().filter(|(of, ..)| *of == kind) {
            let has = unit
                .entries()
                .any(|entry| entry.section == *section && keys.split_whitespace().any(|key| key == entry.key));
            if !has {
                let first = keys.split_whitespace().next().unwrap_or_default();
                warn(Level::Error, format!("[{section}] says not when to start anything, such as {first}="));
            }
        }
        let value = |key| unit.values("Service", key).last();
        if value("Type") == Some("oneshot") && matches!(value("Restart"), Some("always" | "on-success")) {
            warn(Level::Error, "Restart= of a oneshot service is not always and not on-success".to_owned());
        }
        if kind == "service" && unit.values("Service", "ExecStart").all(|line| !line.contains(layout::RUNTIME)) {
            warn(Level::Warning, "ExecStart= does not start the container; write {{exec_start}}".to_owned());
        }
        if unit.accepts() && !files.contains_key(&format!("{name}@.service")) {
            warn(Level::Error, "Accept=yes wants a service for each connection: it needs a service@.hbs".to_owned());
        }
    }
    said
}

/// systemd.time(7): numbers with units, or infinity.
fn is_timespan(text: &str) -> bool {
    const UNITS: &str = "us usec µs ms msec s sec second seconds m min minute minutes h hr hour hours d day days w week weeks M month months \
        y year years";
    let mut rest = text.trim();
    if rest.is_empty() || rest == "infinity" {
        return true;
    }
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        if number == 0 {
            return false;
        }
        rest = rest[number..].trim_start();
        let unit = rest.len() - rest.trim_start_matches(|c: char| c.is_alphabetic()).len();
        if unit > 0 && !UNITS.split_whitespace().any(|known| known == &rest[..unit]) {
            return false;
        }
        rest = rest[unit..].trim_start();
    }
    true
}
