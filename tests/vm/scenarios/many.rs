//! Many containers at once: none gets in another's way, and the machine takes them as it takes plain units.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::machine::Machine;

/// Two hundred starts in emulation take their time.
const LIMIT: Duration = Duration::from_secs(3600);

/// For every test run.
pub fn thirty(machine: &mut dyn Machine) -> Result<()> {
    install_and_start(machine, 30)
}

/// What a large host has.
pub fn two_hundred(machine: &mut dyn Machine) -> Result<()> {
    install_and_start(machine, 200)
}

fn install_and_start(machine: &mut dyn Machine, count: u32) -> Result<()> {
    machine.booted()?;
    let took = milliseconds(machine, &install("sysctr -q install", "/srv/payload/images", count))?;
    println!("{} ms for each install", took / u64::from(count));
    start_at_once(machine, count, 2)
}

fn install(install: &str, images: &str, count: u32) -> String {
    format!("for i in $(seq {count}); do {install} --name c$i oci:{images}/tiny:1 || exit; done")
}

/// What is done to the tree on the host: two hundred installs in emulation take longer than all the rest, and the last of two hundred
/// starts takes longer than the usual time-out.
pub fn prepare_two_hundred(sysctr: &str) -> String {
    let patience = "mkdir -p $root/etc/systemd/system.conf.d
        printf '[Manager]\\nDefaultTimeoutStartSec=1h\\n' >$root/etc/systemd/system.conf.d/patience.conf";
    format!("{patience}\n{}", install(&format!("{sysctr} -q --root $root install --no-enable"), "$payload/images", 200))
}

/// The same where they are installed.
pub fn prepared_two_hundred(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    start_at_once(machine, 200, 1)
}

/// In several rounds and in turn, a machine whose host is busy then has another chance.
fn start_at_once(machine: &mut dyn Machine, count: u32, rounds: u32) -> Result<()> {
    machine.run(&format!(
        "install -m 755 /srv/payload/images/program /usr/local/bin/tiny
         for i in $(seq {count}); do
             printf '[Service]\\nType=notify\\nUser=4711\\nExecStart=/usr/local/bin/tiny\\n' >/run/systemd/system/p$i.service
         done
         echo 'u tiny 4711' | systemd-sysusers - && systemctl daemon-reload"
    ))?;
    let [mut plain, mut ours] = [[u64::MAX; 2]; 2];
    for _ in 0..rounds {
        plain = least(plain, once(machine, 'p', count)?);
        ours = least(ours, once(machine, 'c', count)?);
    }
    println!(
        "{count} containers: all started in {} ms and stopped in {} ms; plain units of the same program: {} ms and {} ms",
        ours[0], ours[1], plain[0], plain[1]
    );
    Ok(())
}

/// Starts them all, looks at them, and stops them: how long the start and the stop took.
fn once(machine: &mut dyn Machine, letter: char, count: u32) -> Result<[u64; 2]> {
    let all = format!("$(seq -f '{letter}%g' {count})");
    let start = milliseconds(machine, &format!("systemctl start {all}"))?;
    let active = machine.run(&format!("systemctl is-active {all} | grep -c '^active$'"))?;
    ensure!(active == count.to_string(), "only {active} of {count} are active");
    let running = machine.run(&format!(
        "for group in $(systemctl show --value -p ControlGroup {all}); do
         for pid in $(cat /sys/fs/cgroup$group/cgroup.procs); do cat /proc/$pid/comm; done; done | sort | uniq -c"
    ))?;
    let expected = format!("{count} tiny");
    ensure!(running.trim() == expected, "in their control groups run {running}, not {expected}");
    let stop = milliseconds(machine, &format!("systemctl stop {all}"))?;
    let failed = machine.run("systemctl --failed --no-legend --plain | grep -c '^[pc][0-9]' || true")?;
    ensure!(failed == "0", "{failed} failed when they were stopped");
    Ok([start, stop])
}

fn least(one: [u64; 2], other: [u64; 2]) -> [u64; 2] {
    [one[0].min(other[0]), one[1].min(other[1])]
}

/// How long a script takes, which must succeed.
fn milliseconds(machine: &mut dyn Machine, script: &str) -> Result<u64> {
    let script =
        format!("a=${{EPOCHREALTIME/./}}; {script}; [ $? = 0 ] || exit 1; echo $((${{EPOCHREALTIME/./}} - a))");
    let output = machine.try_run(&script, LIMIT)?;
    ensure!(output.code == 0, "`{script}` ended with {}: {}{}", output.code, output.stdout, output.stderr);
    Ok(output.stdout.lines().last().unwrap_or_default().parse::<u64>()? / 1000)
}
