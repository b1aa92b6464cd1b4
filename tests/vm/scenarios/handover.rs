//! What systemd hands to a service reaches it in a container as it reaches a plain unit: the same drop-in for both, and then
//! the kernel is asked what each of the two processes has.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::machine::Machine;

/// The same program as `plain.service` and, in a container, as `tiny.service`.
fn both(machine: &mut dyn Machine) -> Result<()> {
    machine.run(
        "install -m 755 /srv/payload/images/program /usr/local/bin/tiny
         printf '[Service]\\nType=notify\\nUser=4711\\nGroup=0\\nExecStart=/usr/local/bin/tiny\\n' >/etc/systemd/system/plain.service
         echo 'u tiny 4711' | systemd-sysusers -
         sysctr -q install oci:/srv/payload/images/tiny:1 && systemctl daemon-reload",
    )?;
    Ok(())
}

/// A drop-in for both; `%N` in it is the unit's own name.
fn drop_in(machine: &mut dyn Machine, lines: &str) -> Result<()> {
    machine.run(&format!(
        "for unit in plain tiny; do mkdir -p /etc/systemd/system/$unit.service.d
         cat >/etc/systemd/system/$unit.service.d/test.conf <<'END'\n[Service]\n{lines}\nEND\ndone
         systemctl daemon-reload && systemctl restart plain tiny"
    ))?;
    Ok(())
}

fn of_main(machine: &mut dyn Machine, unit: &str, script: &str) -> Result<String> {
    machine.run(&format!("pid=$(systemctl show --value -p MainPID {unit}); {script}"))
}

fn environment(machine: &mut dyn Machine, unit: &str) -> Result<BTreeMap<String, String>> {
    let text = of_main(machine, unit, "tr '\\0' '\\n' </proc/$pid/environ")?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.replace(unit, "UNIT"))).collect())
}

/// What a drop-in sets of a process, and its variables and folders.
pub fn a_drop_in_reaches_the_program(machine: &mut dyn Machine) -> Result<()> {
    both(machine)?;
    machine.run("echo FROM_FILE=1 >/etc/probe.env; systemctl set-environment FROM_MANAGER=2 SECRET=3")?;
    let mut seen = Vec::new();
    for pipe in ["yes", "no"] {
        drop_in(
            machine,
            &format!(
                "UMask=0027\nNice=5\nOOMScoreAdjust=123\nCPUAffinity=0\nTimerSlackNSec=7us\nIgnoreSIGPIPE={pipe}\n\
                 LimitNOFILE=1000:2000\nLimitCORE=0\nIOSchedulingClass=idle\nCPUSchedulingPolicy=batch\n\
                 Environment=FOO=bar \"WORDS=a b\" LD_PRELOAD=/no/such.so\nEnvironmentFile=/etc/probe.env\n\
                 PassEnvironment=FROM_MANAGER\nUnsetEnvironment=LD_PRELOAD\nSetCredential=token:secret\n\
                 RuntimeDirectory=%N %N-more\nStateDirectory=%N\nLogsDirectory=%N\nCacheDirectory=%N\nConfigurationDirectory=%N"
            ),
        )?;
        let script = "grep -E '^(Umask|SigBlk|SigIgn|SigCgt|Cpus_allowed_list|Groups|Uid|Gid):' /proc/$pid/status
            cat /proc/$pid/limits /proc/$pid/oom_score_adj /proc/$pid/timerslack_ns; ionice -p $pid; chrt -p $pid | sed 's/^pid [0-9]*//'
            ps -o ni= -p $pid; readlink /proc/$pid/fd/0 /proc/$pid/fd/1 | sed 's/[0-9]//g'";
        let [plain, ours] = ["plain", "tiny"].map(|unit| of_main(machine, unit, script));
        let (plain, ours) = (plain?, ours?);
        ensure!(plain == ours, "IgnoreSIGPIPE={pipe}: plain has\n{plain}\nand in the container\n{ours}");
        seen.push(plain);
    }
    ensure!(seen[0] != seen[1], "IgnoreSIGPIPE= changes nothing: this test is blind for it");

    let (plain, ours) = (environment(machine, "plain")?, environment(machine, "tiny")?);
    // Each has these of its own, or the container has the image's.
    const OWN: &str = "PATH HOME USER LOGNAME SHELL LANG INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID NOTIFY_SOCKET \
        MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE";
    let only = |all: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let own = |name: &String| OWN.split_whitespace().any(|known| known == name);
        all.clone().into_iter().filter(|(name, _)| !own(name)).collect()
    };
    ensure!(only(&plain) == only(&ours), "the variables differ:\n{plain:?}\n{ours:?}");
    for name in ["FOO", "WORDS", "FROM_FILE", "FROM_MANAGER", "CREDENTIALS_DIRECTORY", "LOGS_DIRECTORY"] {
        ensure!(ours.contains_key(name), "{name} is missing: {ours:?}");
    }
    ensure!(ours.get("SYSTEMD_EXEC_PID").map(String::as_str) == Some("1"), "{ours:?}");
    let stream = of_main(machine, "tiny", "stat -L -c %d:%i /proc/$pid/fd/2")?;
    ensure!(ours.get("JOURNAL_STREAM") == Some(&stream), "the journal's stream is {stream}: {ours:?}");

    for folder in ["/run", "/var/lib", "/var/log", "/var/cache"] {
        let script = format!(
            "stat -c %u:%g /proc/$pid/root{folder}/tiny && touch /proc/$pid/root{folder}/tiny/made && ls {folder}/tiny"
        );
        let there = of_main(machine, "tiny", &script)?;
        ensure!(there == "4711:0\nmade", "{folder}/tiny: {there}");
    }
    let script = "cat /proc/$pid/root$(systemctl show --value -p RuntimeDirectory tiny >/dev/null; echo /run/credentials/tiny.service)/token";
    ensure!(of_main(machine, "tiny", script)? == "secret", "the credential is not there");
    machine.run("systemctl restart tiny && ls /var/lib/tiny/made").context("after a restart")?;
    Ok(())
}

/// The journal tells the program's own name, and the cause of a failure is an error there.
pub fn the_journal_shows_the_programs_own_name(machine: &mut dyn Machine) -> Result<()> {
    both(machine)?;
    machine.run("systemctl start tiny")?;
    let identifier = machine.property("tiny", "SyslogIdentifier")?;
    ensure!(identifier == "tiny", "the journal would show {identifier:?}");
    drop_in(machine, "SyslogIdentifier=other")?;
    ensure!(machine.property("tiny", "SyslogIdentifier")? == "other", "the admin's name does not win");
    // A folder that the image has no place for: one line, systemd's own code, and the way out.
    machine.run(
        "printf '[Service]\\nRestart=no\\nLogsDirectory=elsewhere\\n' >/etc/systemd/system/tiny.service.d/test.conf; systemctl daemon-reload",
    )?;
    machine.fails(1, "systemctl restart tiny")?;
    machine.wait_until(
        Duration::from_secs(30),
        "journalctl -p err -u tiny -o cat | grep -F 'LogsDirectory=: the image has no folder /var/log/elsewhere'",
    )?;
    ensure!(machine.property("tiny", "ExecMainStatus")? == "240", "it did not end as systemd would");
    machine.run("rm /etc/systemd/system/tiny.service.d/test.conf; systemctl daemon-reload; systemctl reset-failed tiny; systemctl start tiny").map(drop)
}

/// Root in a container has no way to name another process of the host as the service's main one, which a stop would end. With an
/// accepted request it has: that is the control.
pub fn root_inside_names_no_main_process(machine: &mut dyn Machine) -> Result<()> {
    machine.run("systemd-run -q --unit=victim sleep 1000")?;
    let victim = machine.property("victim", "MainPID")?;
    machine.run(&format!(
        "sysctr -q install --yes oci:/srv/payload/images/tiny:1
         config=/var/lib/sysctr/containers/tiny/deployments/1/config.json
         sed -i 's/\"uid\": 4711/\"uid\": 0/; s/\"org.sysctr.notify\": \"true\"/\"org.sysctr.notify\": \"false\"/' $config
         sed -i 's|\"/bin/tiny\"|\"/bin/tiny\", \"MAINPID={victim}\"|' $config"
    ))?;
    let survives = |machine: &mut dyn Machine| -> Result<bool> {
        machine.run("systemctl start tiny; sleep 1; systemctl stop tiny")?;
        Ok(machine.property("victim", "ActiveState")? == "active")
    };
    ensure!(survives(machine)?, "a stop of the container ended another service's process");
    machine.run("sed -i 's/\"org.sysctr.notify\": \"false\"/\"org.sysctr.notify\": \"true\"/' /var/lib/sysctr/containers/tiny/deployments/1/config.json")?;
    ensure!(!survives(machine)?, "even with the socket the process lives: this test is blind");
    Ok(())
}
