//! The descriptors that systemd passes, and the talk between it and a service: the same program (`passed.c`) as a plain unit and in a
//! container, and it must not be able to tell.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::directives::version;
use crate::machine::Machine;

const SOON: Duration = Duration::from_secs(20);

/// The program as `plain.service` and, in a container, as `passed.service`, neither started.
fn both(machine: &mut dyn Machine) -> Result<()> {
    machine.run(
        "install -m 755 /srv/payload/images/passed-program /usr/local/bin/passed
         printf '[Service]\\nType=notify\\nUser=4711\\nGroup=0\\nExecStart=/usr/local/bin/passed\\n[Install]\\nWantedBy=multi-user.target\\n' \\
            >/etc/systemd/system/plain.service
         systemctl -q enable plain
         echo 'u passed 4711' | systemd-sysusers -
         sysctr -q install oci:/srv/payload/images/passed:1 && systemctl stop passed",
    )?;
    Ok(())
}

/// The same drop-in for one of them, stopped before; its standard output is the report.
fn under(machine: &mut dyn Machine, unit: &str, lines: &str) -> Result<()> {
    machine.run(&format!(
        "systemctl stop {unit} 2>/dev/null; systemctl reset-failed {unit} 2>/dev/null
         mkdir -p /etc/systemd/system/{unit}.service.d; rm -f /run/{unit}.out
         cat >/etc/systemd/system/{unit}.service.d/test.conf <<'END'\n[Service]\nStandardOutput=append:/run/%N.out\n{lines}\nEND
         systemctl daemon-reload"
    ))?;
    Ok(())
}

/// What was reported, once it has this many lines.
fn report(machine: &mut dyn Machine, unit: &str, lines: usize) -> Result<Vec<String>> {
    let text = machine.wait_until(SOON, &format!("cat /run/{unit}.out; [ $(wc -l </run/{unit}.out) -ge {lines} ]"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Two sockets of each kind that there is, of two units, with a name a unit.
const LISTEN: &str = "for name in first second; do
        [ $name = first ] && lines='ListenStream=127.0.0.1:4713\nListenStream=/run/handed/stream\nListenSequentialPacket=/run/handed/seqpacket' \\
            || lines='ListenFIFO=/run/handed/fifo\nListenDatagram=127.0.0.1:4714\nListenDatagram=/run/handed/datagram'
        printf \"[Socket]\\nService=UNIT.service\\nFileDescriptorName=$name-of-two\\n$lines\\n\" >/etc/systemd/system/$name.socket
    done
    systemctl daemon-reload; systemctl restart first.socket second.socket && systemctl start UNIT
    echo -n tcp >/dev/tcp/127.0.0.1/4713; echo -n udp >/dev/udp/127.0.0.1/4714; echo -n fifo >/run/handed/fifo
    for type in stream seqpacket datagram; do
        perl -MSocket -e '$type = {stream => SOCK_STREAM, seqpacket => SOCK_SEQPACKET, datagram => SOCK_DGRAM}->{$ARGV[0]};
            socket(S, AF_UNIX, $type, 0) && connect(S, sockaddr_un(\"/run/handed/$ARGV[0]\")) or die \"$ARGV[0]: $!\";
            send(S, $ARGV[0], 0) or die $!' $type || exit 1
    done";

/// Listening sockets of every kind and a FIFO, of several units, each under its name.
pub fn listeners_arrive(machine: &mut dyn Machine) -> Result<()> {
    both(machine)?;
    let config = "/var/lib/sysctr/containers/passed/deployments/1/config.json";
    let mut reports = Vec::new();
    for (unit, change) in [("plain", ""), ("passed", ""), ("passed", "no pid namespace")] {
        if !change.is_empty() {
            machine.run(&format!(
                "perl -0pi -e 's/\\{{\\s*\"type\": \"pid\"\\s*\\}},?//' {config}; ! grep '\"type\": \"pid\"' {config}"
            ))?;
        }
        under(machine, unit, "Environment=MODE=listen\nSockets=second.socket first.socket\nNonBlocking=no")?;
        machine.run(&LISTEN.replace("UNIT", unit)).with_context(|| format!("{unit} {change}"))?;
        let report = report(machine, unit, 14)?;
        let own = machine.property(unit, "MainPID")?;
        let inside = machine.run(&format!("awk '/^NSpid/ {{ print $NF }}' /proc/{own}/status"))?;
        let namespaced = unit == "passed" && change.is_empty();
        ensure!((inside == "1") == namespaced, "{unit} {change} has the pid {inside} of its own");
        machine.run(&format!("systemctl stop first.socket second.socket {unit}"))?;
        reports.push(by_name(&report));
    }
    let plain = &reports[0];
    ensure!(plain[0].starts_with("descriptors 6 for own,"), "{plain:#?}");
    for wanted in [
        "first-of-two: inet stream listening 127.0.0.1:4713",
        "first-of-two: unix stream listening /run/handed/stream",
        "first-of-two: unix seqpacket listening /run/handed/seqpacket",
        "second-of-two: inet datagram 127.0.0.1:4714",
        "second-of-two: unix datagram /run/handed/datagram",
    ] {
        ensure!(plain.iter().any(|line| line.replace(" nonblocking", "") == wanted), "no {wanted}: {plain:#?}");
    }
    for word in ["tcp", "udp", "fifo", "stream", "seqpacket", "datagram"] {
        ensure!(plain.iter().any(|line| line.ends_with(&format!(" {word}"))), "{word} was not heard: {plain:#?}");
    }
    ensure!(*plain == reports[1], "a plain unit has {plain:#?} and a container {:#?}", reports[1]);
    ensure!(*plain == reports[2], "a plain unit has {plain:#?} and one without a PID namespace {:#?}", reports[2]);
    Ok(())
}

/// Which of several socket units is first is systemd's choice, another one each time. Within a unit the order is the unit's: it is kept.
fn by_name(report: &[String]) -> Vec<String> {
    let (head, rest) = report.split_at(2.min(report.len()));
    let (mut heard, mut passed): (Vec<_>, Vec<_>) = rest.iter().partition(|line| line.starts_with("heard"));
    passed.sort_by_key(|line| line.split(':').next());
    // A number counts from the first of its own unit.
    let first = |name: &str| rest.iter().position(|line| line.starts_with(&format!("{name}:"))).unwrap_or_default();
    let counted = heard.drain(..).map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let number: usize = words.get(2).and_then(|word| word.parse().ok()).unwrap_or_default();
        format!("heard {} {} {}", words[1], number.wrapping_sub(first(words[1])), words[3..].join(" "))
    });
    let mut counted: Vec<String> = counted.collect();
    counted.sort();
    head.iter().chain(passed).cloned().chain(counted).collect()
}

/// Accept=yes: an own instance of the service for a connection, which is its standard input and output, or a passed descriptor.
pub fn a_connection_reaches_its_instance(machine: &mut dyn Machine) -> Result<()> {
    both(machine)?;
    for (input, wanted) in [
        ("socket", ["descriptors - for -", "input: inet stream 127.0.0.1:4715"]),
        ("null", ["descriptors 1 for own", "connection: inet stream 127.0.0.1:4715"]),
    ] {
        let plain = connect(machine, "plain", input)?;
        for word in wanted.iter().chain(&["from 127.0.0.1", "heard one", "heard two"]) {
            ensure!(plain.contains(word), "a plain unit does not say {word:?}: {plain}");
        }
        let boxed = connect(machine, "boxed", input)?;
        ensure!(plain == boxed, "StandardInput={input}: a plain unit says\n{plain}\na container\n{boxed}");
    }
    Ok(())
}

/// The same where the image brings the socket and the template of the service: it needs nothing of the admin's.
pub fn an_image_answers_each_connection(machine: &mut dyn Machine) -> Result<()> {
    machine.run("sysctr -q install --yes --now --name per oci:/srv/payload/images/per-connection:1")?;
    machine.run("systemctl is-active per.socket && ! systemctl is-active per.service")?;
    let ask = |machine: &mut dyn Machine| -> Result<()> {
        let answer = machine.run(&TWO_CONNECTIONS.replace("PORT", "4716"))?;
        for word in ["input: inet stream 127.0.0.1:4716", "from 127.0.0.1", "heard one", "heard two"] {
            ensure!(answer.contains(word), "an instance does not say {word:?}: {answer}");
        }
        ended(machine, "per")
    };
    ask(machine)?;
    // After a boot nothing runs but the socket.
    machine.reboot()?;
    machine.booted()?;
    machine.run("systemctl is-active per.socket && ! systemctl is-active per.service")?;
    ask(machine)?;
    machine.run("sysctr verify && sysctr -q uninstall per && ! systemctl is-active per.socket").map(drop)
}

/// Two connections at a time, and each hears its own.
const TWO_CONNECTIONS: &str = "exec 8<>/dev/tcp/127.0.0.1/PORT 9<>/dev/tcp/127.0.0.1/PORT; echo one >&8; echo two >&9
    timeout 20 cat <&8 && timeout 20 cat <&9";

/// All instances have ended, and well.
fn ended(machine: &mut dyn Machine, kind: &str) -> Result<()> {
    let active = format!("systemctl list-units --no-legend --state=active,activating,deactivating '{kind}@*'");
    machine.wait_until(SOON, &format!("[ -z \"$({active})\" ]"))?;
    let failed = machine.run(&format!("systemctl list-units --no-legend --state=failed '{kind}@*'"))?;
    ensure!(failed.is_empty(), "failed: {failed}");
    Ok(())
}

/// What the instances for two connections answer. `boxed` is the container.
fn connect(machine: &mut dyn Machine, kind: &str, input: &str) -> Result<String> {
    machine.run(&format!(
        "launch=$(grep ^ExecStart= /etc/systemd/system.attached/passed.service)
         [ {kind} = boxed ] && lines=\"$launch --instance %i\\nNotifyAccess=all\\nDelegate=yes\" \\
            || lines='ExecStart=/usr/local/bin/passed\\nUser=4711\\nGroup=0'
         lines=\"$lines\\nType=notify\\nStandardInput={input}\\nStandardError=journal\\nEnvironment=MODE=speak\"
         printf '[Service]\\n%b\\n' \"$lines\" >/etc/systemd/system/{kind}@.service
         printf '[Socket]\\nAccept=yes\\nListenStream=127.0.0.1:4715\\n' >/etc/systemd/system/{kind}.socket
         systemctl daemon-reload; systemctl start {kind}.socket"
    ))?;
    let answer = machine.run(&TWO_CONNECTIONS.replace("PORT", "4715"))?;
    ended(machine, kind)?;
    machine.run(&format!("systemctl stop {kind}.socket"))?;
    Ok(answer)
}

/// What a service stored with FDSTORE=1 it has again after a restart, and no more what it took back.
pub fn stored_descriptors_come_back(machine: &mut dyn Machine) -> Result<()> {
    both(machine)?;
    let mut reports = Vec::new();
    for unit in ["plain", "passed"] {
        under(machine, unit, "Environment=MODE=store\nFileDescriptorStoreMax=5\nStandardInput=file:/etc/hostname")?;
        let mut all = String::new();
        for (start, stored) in [(1, "3"), (2, "1"), (3, "1")] {
            machine.run(&format!("rm -f /run/{unit}.out; systemctl restart {unit}"))?;
            machine
                .wait_until(SOON, &format!("[ $(systemctl show --value -p NFileDescriptorStore {unit}) = {stored} ]"))
                .with_context(|| format!("start {start} of {unit}"))?;
            all += &machine.run(&format!("cat /run/{unit}.out"))?;
            all += "\n";
        }
        machine.run(&format!("systemctl stop {unit}; systemctl start {unit}"))?;
        all += &machine.run(&format!("tail -n 2 /run/{unit}.out"))?;
        if version(machine)? >= 254 {
            let preserve = "Environment=MODE=store\nFileDescriptorStoreMax=5\nFileDescriptorStorePreserve=yes";
            under(machine, unit, preserve)?;
            machine.run(&format!(
                "systemctl start {unit}; systemctl stop {unit}; rm /run/{unit}.out; systemctl start {unit}"
            ))?;
            let preserved = machine.run(&format!("cat /run/{unit}.out"))?;
            ensure!(preserved.contains("kept: file what was kept"), "{unit} has nothing after a stop: {preserved}");
            all += &preserved;
        }
        machine.run(&format!("systemctl stop {unit}"))?;
        reports.push(all);
    }
    let plain = &reports[0];
    for wanted in [
        "descriptors - for -",
        "descriptors 3 for own",
        "descriptors 1 for own",
        "kept: file what was kept",
        "input: file ",
    ] {
        ensure!(plain.contains(wanted), "a plain unit does not say {wanted:?}:\n{plain}");
    }
    ensure!(plain.contains("pipe: fifo"), "{plain}");
    ensure!(*plain == reports[1], "a plain unit says\n{plain}\na container\n{}", reports[1]);
    Ok(())
}

/// Each a way of speaking to systemd, and a script that ends well only if it was heard.
const TALKS: &[(&str, &str, &str)] = &[
    ("what it is doing", "", "systemctl start UNIT && [ \"$(systemctl show --value -p StatusText UNIT)\" = up ]"),
    (
        "a reload",
        "Type=notify-reload\nEnvironment=MODE=none",
        "systemctl start UNIT && systemctl reload UNIT && [ \"$(systemctl show --value -p StatusText UNIT)\" = 'reloaded 1' ] &&
            systemctl reload UNIT && [ \"$(systemctl show --value -p StatusText UNIT)\" = 'reloaded 2' ] && systemctl is-active UNIT",
    ),
    // The control: a reload that nothing answers is none.
    (
        "no answer to a reload",
        "Type=notify-reload\nEnvironment=MODE=silent\nTimeoutStartSec=2",
        "systemctl start UNIT && ! systemctl reload UNIT && grep reloads /run/UNIT.out",
    ),
    (
        "a watchdog that is kept up",
        "WatchdogSec=1\nEnvironment=MODE=watchdog\nRestart=no",
        "systemctl start UNIT && sleep 4 && systemctl is-active UNIT && grep 'watchdog 1000000 for own' /run/UNIT.out",
    ),
    (
        "a watchdog that is missed",
        "WatchdogSec=1\nEnvironment=MODE=none\nRestart=no",
        "systemctl start UNIT && sleep 4; [ $(systemctl show --value -p Result UNIT) = watchdog ]",
    ),
    ("a longer start", "TimeoutStartSec=2\nEnvironment=MODE=extend\nRestart=no", "systemctl start UNIT"),
    // The control: as long, without asking.
    (
        "a start too long",
        "TimeoutStartSec=2\nEnvironment=MODE=late\nRestart=no",
        "! systemctl start UNIT && [ $(systemctl show --value -p Result UNIT) = timeout ]",
    ),
    (
        "that it leaves",
        "Restart=no",
        "systemctl start UNIT && kill -USR1 $(systemctl show --value -p MainPID UNIT) && sleep 1 &&
            [ $(systemctl show --value -p ActiveState UNIT) = deactivating ] &&
            [ \"$(systemctl show --value -p StatusText UNIT)\" = 'leaves by itself' ] && sleep 4 &&
            [ $(systemctl show --value -p ActiveState -p Result UNIT | tr '\\n' ' ' | tr -d ' ') = successinactive ]",
    ),
];

/// Readiness, status, reload, watchdog, a longer time, the end: systemd hears a container as it hears a plain unit.
pub fn a_service_talks_to_systemd(machine: &mut dyn Machine) -> Result<()> {
    both(machine)?;
    let mut wrong = Vec::new();
    let version = version(machine)?;
    for (what, lines, script) in TALKS.iter().filter(|(_, lines, _)| version >= 253 || !lines.contains("notify-reload"))
    {
        let mut seen = Vec::new();
        for unit in ["plain", "passed"] {
            under(machine, unit, lines)?;
            if let Err(error) = machine.run(&script.replace("UNIT", unit)) {
                let state = machine.run(&format!(
                    "systemctl show -p ActiveState -p SubState -p Result -p StatusText -p ExecMainStatus {unit}; journalctl -q -n 5 -o cat -u {unit}"
                ))?;
                wrong.push(format!("{what}, {unit}: {error:#}\n{state}"));
            }
            let end = "-p Result -p ExecMainCode -p ExecMainStatus -p NRestarts -p ActiveState -p StatusText";
            let state = machine.run(&format!("systemctl show {end} {unit}; cat /run/{unit}.out"))?;
            machine.run(&format!("systemctl stop {unit}"))?;
            seen.push(state);
        }
        if seen[0] != seen[1] {
            wrong.push(format!("{what}: a plain unit is\n{}\na container\n{}", seen[0], seen[1]));
        }
    }
    // The kernel keeps SIGABRT from the first process of a PID namespace that does not handle it: systemd then kills it.
    for (unit, status) in [("plain", "6"), ("passed", "9")] {
        under(machine, unit, "WatchdogSec=1\nTimeoutAbortSec=2\nEnvironment=MODE=deaf\nRestart=no")?;
        let ends = "[ $(systemctl show --value -p ActiveState UNIT) = failed ]".replace("UNIT", unit);
        machine.run(&format!("systemctl start {unit}"))?;
        machine.wait_until(SOON, &ends)?;
        let end =
            machine.run(&format!("systemctl show --value -p Result -p ExecMainStatus {unit} | sort | tr '\\n' ' '"))?;
        ensure!(end.trim_end() == format!("{status} watchdog"), "{unit} ended with {end}");
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), TALKS.len(), wrong.join("\n\n"));
    Ok(())
}

/// Standard input and output are the files that the unit names, where they are.
pub fn files_are_standard_streams(machine: &mut dyn Machine) -> Result<()> {
    both(machine)?;
    let mut reports = Vec::new();
    for unit in ["plain", "passed"] {
        under(
            machine,
            unit,
            "StandardInput=file:/etc/os-release\nStandardOutput=file:/run/%N.text\nStandardError=append:/run/%N.errors",
        )?;
        machine.run(&format!("yes before | head -n 50 >/run/{unit}.text; systemctl start {unit}"))?;
        let script = "ls -l /proc/$pid/fd/{0,1,2} | sed 's/.* -> //'; for fd in 0 1 2; do grep flags /proc/$pid/fdinfo/$fd; done";
        let streams = machine.run(&format!("pid=$(systemctl show --value -p MainPID {unit}); {script}"))?;
        reports.push(machine.run(&format!("cat /run/{unit}.text"))? + "\n" + &streams.replace(unit, "UNIT"));
    }
    let plain = &reports[0];
    for wanted in ["input: file PRETTY_NAME", "before", "UNIT.text", "UNIT.errors"] {
        ensure!(plain.contains(wanted), "a plain unit does not say {wanted:?}:\n{plain}");
    }
    ensure!(*plain == reports[1], "a plain unit has\n{plain}\na container\n{}", reports[1]);
    Ok(())
}
