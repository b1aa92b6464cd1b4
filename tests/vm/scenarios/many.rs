//! Many containers at once: none gets in another's way, and the machine takes them as it takes plain units.

use anyhow::{Result, ensure};

use crate::machine::Machine;

/// For every test run.
pub fn thirty(machine: &mut dyn Machine) -> Result<()> {
    start_at_once(machine, 30)
}

/// What a large host has.
pub fn two_hundred(machine: &mut dyn Machine) -> Result<()> {
    start_at_once(machine, 200)
}

fn start_at_once(machine: &mut dyn Machine, count: u32) -> Result<()> {
    machine.booted()?;
    let install = milliseconds(
        machine,
        &format!(
            "for i in $(seq {count}); do sysctr -q install --name c$i oci:/srv/payload/images/tiny:1 || exit; done"
        ),
    )?;
    machine.run(&format!(
        "install -m 755 /srv/payload/images/program /usr/local/bin/tiny
         for i in $(seq {count}); do
             printf '[Service]\\nType=notify\\nUser=4711\\nExecStart=/usr/local/bin/tiny\\n' >/run/systemd/system/p$i.service
         done
         echo 'u tiny 4711' | systemd-sysusers - && systemctl daemon-reload"
    ))?;
    let all = |letter: char| format!("$(seq -f '{letter}%g' {count})");
    let mut took = Vec::new();
    for letter in ['p', 'c'] {
        let start = milliseconds(machine, &format!("systemctl start {}", all(letter)))?;
        let active = machine.run(&format!("systemctl is-active {} | grep -c '^active$'", all(letter)))?;
        ensure!(active == count.to_string(), "only {active} of {count} are active");
        let running = machine.run(&format!(
            "for i in $(seq {count}); do group=$(systemctl show --value -p ControlGroup {letter}$i)
             for pid in $(cat /sys/fs/cgroup$group/cgroup.procs); do cat /proc/$pid/comm; done; done | sort | uniq -c"
        ))?;
        let expected = format!("{count} tiny");
        ensure!(running.trim() == expected, "in their control groups run {running}, not {expected}");
        let stop = milliseconds(machine, &format!("systemctl stop {}", all(letter)))?;
        let failed = machine.run("systemctl --failed --no-legend --plain | grep -c '^[pc][0-9]' || true")?;
        ensure!(failed == "0", "{failed} failed when they were stopped");
        took.push((start, stop));
    }
    let [(plain, plain_stop), (ours, our_stop)] = took[..] else { unreachable!("there are two letters") };
    println!(
        "{count} containers: {} ms for each install, all started in {ours} ms and stopped in {our_stop} ms; \
         plain units of the same program: {plain} ms and {plain_stop} ms",
        install / u64::from(count)
    );
    Ok(())
}

fn milliseconds(machine: &mut dyn Machine, script: &str) -> Result<u64> {
    let said = machine.run(&format!(
        "a=${{EPOCHREALTIME/./}}; {script}; [ $? = 0 ] || exit 1; echo $((${{EPOCHREALTIME/./}} - a))"
    ))?;
    Ok(said.lines().last().unwrap_or_default().parse::<u64>()? / 1000)
}
