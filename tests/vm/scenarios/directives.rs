//! The table of directives against systemd itself: it is whole, and a container under a directive is what a plain unit under it is.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use sysctr::model::directives;

use crate::machine::Machine;

/// What runs as a plain unit and in a container.
const PROBE: &str = include_str!("directives.pl");

/// Makes the image `oci:/tmp/probe` of the machine's own perl, with every capability, so that what a directive takes away shows.
const MAKE: &str = r#"set -e
work=/tmp/probe; rm -rf $work; root=/tmp/probe-root; rm -rf $root
mkdir -p $work/blobs/sha256 $root/{usr/bin,exports,proc,sys,dev,run,tmp,var,etc}
cp -L /usr/bin/perl $root/usr/bin/; cp /usr/local/bin/probe $root/probe
for library in $(ldd /usr/bin/perl | grep -o '/[^ ]*'); do mkdir -p $root/$(dirname $library); cp -L $library $root/$library; done
all=$(printf '"%s", ' CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT \
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE \
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE)
echo "{\"version\": \"2.0\", \"container\": {\"capabilities\": {\"add\": [${all%, }]}}}" > $root/exports/manifest.json
add() { digest=$(sha256sum < $1 | cut -d' ' -f1); size=$(stat -c %s $1); mv $1 $work/blobs/sha256/$digest; }
described() { echo "{\"mediaType\": \"application/vnd.oci.image.$1\", \"digest\": \"sha256:$digest\", \"size\": $size}"; }
tar -C $root -cf $work/layer .
add $work/layer; layer=$(described layer.v1.tar)
echo "{\"architecture\": \"$(dpkg --print-architecture)\", \"os\": \"linux\", \"config\": {\"Entrypoint\": [\"/usr/bin/perl\", \"/probe\"]},
    \"rootfs\": {\"type\": \"layers\", \"diff_ids\": [\"sha256:$digest\"]}}" > $work/config
add $work/config; config=$(described config.v1+json)
echo "{\"schemaVersion\": 2, \"config\": $config, \"layers\": [$layer]}" > $work/manifest
add $work/manifest
echo "{\"schemaVersion\": 2, \"manifests\": [$(described manifest.v1+json)]}" > $work/index.json
echo '{"imageLayoutVersion": "1.0.0"}' > $work/oci-layout
sysctr install --yes --no-enable --name probe oci:/tmp/probe"#;

/// Directives that a process can see of itself. Each must show: a case without any effect would prove nothing. So those are not here that a
/// container is under in any case (NoNewPrivileges=), nor those of the memory and pids controllers, which systemd-nspawn has not here.
const SEEN: &[&str] = &[
    "LimitCPU=100",
    "LimitFSIZE=100M",
    "LimitDATA=500M",
    "LimitSTACK=4M",
    "LimitCORE=0",
    "LimitRSS=100M",
    "LimitNOFILE=1000",
    "LimitAS=900M",
    "LimitNPROC=5000",
    "LimitMEMLOCK=1000",
    "LimitLOCKS=100",
    "LimitSIGPENDING=100",
    "LimitMSGQUEUE=1000",
    "LimitRTTIME=100000",
    "Nice=5",
    "Nice=-5",
    "OOMScoreAdjust=123",
    "CoredumpFilter=private-anonymous",
    "IOSchedulingClass=idle",
    "IOSchedulingPriority=2",
    "CPUSchedulingPolicy=batch",
    "CPUSchedulingPolicy=fifo|CPUSchedulingPriority=3",
    "CPUAffinity=1",
    "NUMAPolicy=bind|NUMAMask=0",
    "TimerSlackNSec=100000",
    "Personality=x86",
    "StandardInput=file:/etc/hostname",
    "StandardInputText=hello",
    "StandardInputData=aGFsbG8K",
    "StandardError=null",
    "CapabilityBoundingSet=~CAP_KILL",
    "CapabilityBoundingSet=~CAP_SYS_TIME CAP_SYS_MODULE",
    "SystemCallFilter=~get_mempolicy|SystemCallErrorNumber=EXDEV",
    "RestrictRealtime=yes",
    "RestrictAddressFamilies=AF_UNIX",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectClock=yes",
    "PrivateNetwork=yes",
    "IPAddressDeny=any",
    "DevicePolicy=strict|DeviceAllow=/dev/null rw|DeviceAllow=/dev/zero r",
    "WatchdogSec=100",
];

/// Those that Debian 12's systemd has not, or carries out for no unit here.
const SEEN_LATER: &[&str] =
    &["OpenFile=/etc/hostname:x", "MemoryKSM=yes", "SocketBindDeny=any", "RestrictNetworkInterfaces=~lo"];

/// Directives, what the program does under them, and whether it is stopped: systemd must come to the same end.
const OUTCOMES: &[(&str, &str, bool)] = &[
    ("Restart=no", "exit 3", false),
    ("SuccessExitStatus=3", "exit 3", false),
    ("RemainAfterExit=yes", "exit 0", false),
    ("Restart=on-failure|RestartSec=100ms", "exit 3", false),
    ("Restart=on-failure|RestartPreventExitStatus=3", "exit 3", false),
    ("RestartForceExitStatus=3|RestartSec=100ms", "exit 3", false),
    ("RuntimeMaxSec=1", "stay", false),
    ("TimeoutStopSec=1", "stay deaf", true),
    ("TimeoutStopSec=1|FinalKillSignal=SIGKILL|KillMode=mixed", "stay deaf", true),
    ("KillSignal=SIGUSR1", "stay", true),
    ("KillSignal=SIGUSR1|SuccessExitStatus=7", "stay", true),
    ("KillMode=process", "stay", true),
    ("WatchdogSec=1|WatchdogSignal=SIGUSR1", "stay", false),
    ("ExecStop=/bin/sh -c 'kill -USR1 $MAINPID; sleep 0.5'", "stay", true),
    ("Type=exec", "exit 3", false),
    ("Type=idle", "stay", true),
    ("TimeoutStopSec=1|TimeoutStopFailureMode=kill", "stay deaf", true),
    ("TimeoutStopSec=1|SendSIGHUP=yes", "stay", true),
    ("Restart=on-failure|RestartMode=direct|RestartSec=100ms", "exit 3", false),
    ("Restart=always|RestartSec=50ms|StartLimitInterval=60|StartLimitBurst=2", "exit 0", false),
    ("ExecCondition=/bin/false", "stay", false),
    ("ExecStartPre=/bin/false", "exit 0", false),
    ("ExecStartPost=/bin/false", "stay", false),
];

/// Each directive that this systemd knows stands in the table, and on the newest one nothing else does.
pub fn the_table_is_whole(machine: &mut dyn Machine) -> Result<()> {
    let dump = machine.run("/lib/systemd/systemd --dump-configuration-items")?;
    let service =
        dump.lines().skip_while(|line| *line != "[Service]").skip(1).take_while(|line| !line.starts_with('['));
    let known: Vec<&str> = service.filter_map(|line| line.split('=').next()).filter(|name| !name.is_empty()).collect();
    ensure!(known.len() > 200, "systemd tells only {} directives: this proves nothing", known.len());
    let missing: Vec<&&str> = known.iter().filter(|name| directives::find(name).is_none()).collect();
    ensure!(missing.is_empty(), "not in the table: {missing:?}");
    if version(machine)? == 257 {
        let stale: Vec<&str> = directives::all().map(|one| one.name).filter(|name| !known.contains(name)).collect();
        ensure!(stale.is_empty(), "in the table, and systemd does not know them: {stale:?}");
    }
    Ok(())
}

/// systemd's version.
pub fn version(machine: &mut dyn Machine) -> Result<u32> {
    let words = machine.run("systemctl --version | head -n 1")?;
    words.split_whitespace().nth(1).and_then(|word| word.parse().ok()).with_context(|| format!("in {words:?}"))
}

/// The same directive makes the same difference to a plain unit and to a container.
pub fn a_container_is_under_them_as_a_plain_unit_is(machine: &mut dyn Machine) -> Result<()> {
    set_up(machine)?;
    let later: &[&str] = if version(machine)? >= 257 { SEEN_LATER } else { &[] };
    let cases: Vec<&str> = [""].iter().chain(SEEN).chain(later).copied().collect();
    for (number, case) in cases.iter().enumerate() {
        write_units(machine, number, &case.replace('|', "\n"))?;
    }
    let count = cases.len();
    let script = format!(
        "systemctl daemon-reload
        for number in $(seq 0 {}); do for kind in plain boxed; do
            timeout 20 systemctl start --wait $kind-$number 2>/dev/null; cat /run/$kind-$number.out 2>/dev/null; echo '===='
        done; done",
        count - 1
    );
    let told = machine.run(&script)?;
    let reports: Vec<BTreeMap<&str, &str>> = told.split("====").map(report).collect();
    ensure!(reports.len() > 2 * count - 1, "only {} reports", reports.len());
    let (plain, boxed) = (&reports[0], &reports[1]);
    ensure!(plain.contains_key("done") && boxed.contains_key("done"), "the probe does not run: {plain:?} {boxed:?}");
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate().skip(1) {
        let (plain, boxed) = (difference(plain, &reports[2 * number]), difference(boxed, &reports[2 * number + 1]));
        if plain.is_empty() || plain != boxed {
            let log = machine.run(&format!("journalctl --no-pager -q -o cat -n 3 -u boxed-{number}"))?;
            wrong.push(format!(
                "{case}:\n  plain unit {plain:?}\n  container  {boxed:?}\n  {}",
                log.replace('\n', " / ")
            ));
        }
    }
    ensure!(wrong.is_empty(), "{} of {count} differ, or show nothing:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// systemd's own bookkeeping ends alike: result, exit status, restarts.
pub fn systemd_comes_to_the_same_end(machine: &mut dyn Machine) -> Result<()> {
    set_up(machine)?;
    for (number, (case, order, _)) in OUTCOMES.iter().enumerate() {
        write_units(
            machine,
            number,
            &format!("{}\nStandardInput=data\nStandardInputText={order}", case.replace('|', "\n")),
        )?;
    }
    let stopped = OUTCOMES.iter().enumerate().filter(|(_, (.., stopped))| *stopped);
    let stopped: Vec<String> = stopped.map(|(number, _)| format!("plain-{number} boxed-{number}")).collect();
    let units: Vec<String> = (0..OUTCOMES.len()).map(|number| format!("plain-{number} boxed-{number}")).collect();
    let (units, stopped) = (units.join(" "), stopped.join(" "));
    machine.run(&format!(
        "systemctl daemon-reload; for unit in {units}; do systemctl start $unit 2>/dev/null & done; wait; sleep 3
        systemctl stop {stopped}; sleep 1"
    ))?;
    // The control: these ends are different ones.
    for (wanted, number) in
        [("exit-code", 0), ("success", 1), ("timeout", 6), ("timeout", 7), ("exit-code", 9), ("watchdog", 12)]
    {
        let found = machine.property(&format!("plain-{number}"), "Result")?;
        ensure!(found == wanted, "{:?} ends a plain unit with {found}, not {wanted}", OUTCOMES[number]);
    }
    let mut wrong = Vec::new();
    for (number, (case, order, _)) in OUTCOMES.iter().enumerate() {
        let mut end = |kind: &str| {
            machine.run(&format!(
                "systemctl show -p ActiveState -p Result -p ExecMainCode -p ExecMainStatus -p NRestarts {kind}-{number}"
            ))
        };
        let (plain, boxed) = (end("plain")?, end("boxed")?);
        if plain != boxed {
            wrong.push(format!("{case} with {order:?}: {} and {}", plain.replace('\n', " "), boxed.replace('\n', " ")));
        }
    }
    ensure!(wrong.is_empty(), "{} ends differ:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// What an admin's drop-in cannot do is told: by a start that fails, or by `lint`. And why it is refused shows.
pub fn a_drop_in_that_would_be_lost_is_told(machine: &mut dyn Machine) -> Result<()> {
    set_up(machine)?;
    machine.run("sysctr lint probe && mkdir -p /etc/systemd/system/probe.service.d")?;
    let mut under = |line: &str| -> Result<String> {
        machine.run(&format!(
            "printf '[Service]\\nRestart=no\\n{line}\\n' >/etc/systemd/system/probe.service.d/x.conf; systemctl daemon-reload"
        ))?;
        let told = machine.fails(1, "sysctr lint probe >/tmp/told")?;
        ensure!(told.contains("lint found 1 error"), "lint of {line}: {told}");
        let told = machine.run("cat /tmp/told")?;
        let key = line.split('=').next().unwrap_or_default();
        let start = format!("error: /etc/systemd/system/probe.service.d/x.conf: {key}= does not work for a container");
        ensure!(told.starts_with(&start), "lint of {line}: {told}");
        machine.run(
            "at=$(journalctl -n 1 --show-cursor -o cat | sed -n 's/^-- cursor: //p')
            systemctl reset-failed probe 2>/dev/null; timeout 20 systemctl start --wait probe 2>/dev/null; journalctl --sync
            journalctl --no-pager -q -o cat -t perl --cursor=\"$at\"",
        )
    };
    for line in [
        "User=daemon",
        "Group=daemon",
        "SupplementaryGroups=daemon",
        "DynamicUser=yes",
        "AmbientCapabilities=CAP_NET_RAW",
    ] {
        let log = under(line)?;
        let key = line.split('=').next().unwrap_or_default();
        ensure!(log.contains(&format!("{key}=")) && log.contains("does not work for a container"), "{line}: {log}");
    }
    // Lost: it starts, and the program has none of it. Kept from its work: it does not start.
    ensure!(under("WorkingDirectory=/srv")?.contains("done 1"), "WorkingDirectory= did something");
    ensure!(!under("RestrictNamespaces=yes")?.contains("done 1"), "RestrictNamespaces= did nothing");
    Ok(())
}

fn set_up(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(&format!("cat >/usr/local/bin/probe <<'END'\n{PROBE}\nEND"))?;
    machine.run(MAKE).map(drop)
}

/// A plain unit and a container's, the same but for the command.
fn write_units(machine: &mut dyn Machine, number: usize, lines: &str) -> Result<()> {
    let script = format!(
        "launch=$(grep ^ExecStart= /etc/systemd/system.attached/probe.service); mkdir -p /run/systemd/system
        for kind in plain boxed; do
            [ $kind = boxed ] && head=\"Type=notify\n$launch\" || head=\"Type=exec\nExecStart=/usr/bin/perl /usr/local/bin/probe\"
            printf '[Service]\\n%b\\nNotifyAccess=all\\nDelegate=yes\\nKillMode=mixed\\nOOMPolicy=stop\\nStandardOutput=truncate:/run/%s.out\\n%s\\n' \
                \"$head\" $kind-{number} \"$(cat <<'END'\n{lines}\nEND\n)\" >/run/systemd/system/$kind-{number}.service
        done"
    );
    machine.run(&script).map(drop)
}

fn report(text: &str) -> BTreeMap<&str, &str> {
    // The launcher may have a word of its own, "warning: ...".
    text.lines().filter_map(|line| line.split_once(' ')).filter(|(key, _)| !key.ends_with(':')).collect()
}

/// What is otherwise than in the first report. Which network it is does not matter, only that it is another.
fn difference<'a>(base: &BTreeMap<&'a str, &'a str>, other: &BTreeMap<&'a str, &'a str>) -> BTreeMap<&'a str, &'a str> {
    let keys = base.keys().chain(other.keys());
    let changed = keys.filter(|key| base.get(*key) != other.get(*key));
    changed
        .map(|key| (*key, if *key == "net" { "another" } else { other.get(key).copied().unwrap_or("gone") }))
        .collect()
}
