//! Containers that are updated as one: in the order of their units, and all of them or none, also where it is cut.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{image, install, run_of, runs, settle};
use crate::machine::Machine;

const ALL: [&str; 3] = ["first", "second", "third"];
const UPDATE: &str = "sysctr update third first second --together";

/// Three that require each other in turn, and a service that requires the last of them.
pub fn all_or_none(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    settle(machine, 1)?;
    ALL.iter().try_for_each(|name| install(machine, name))?;
    machine.run(
        "requires() { printf \"[Unit]\\nRequires=$1.service\\nAfter=$1.service\\n\"; }
         cd /etc/systemd/system && mkdir -p second.service.d third.service.d &&
         requires first >second.service.d/first.conf && requires second >third.service.d/second.conf &&
         { requires third; printf '[Service]\\nExecStart=/bin/sleep infinity\\n'; } >watcher.service &&
         systemctl daemon-reload && systemctl start watcher",
    )?;

    let starts = starts_of(machine)?;
    ALL.iter().try_for_each(|name| image(machine, name, "tiny-next"))?;
    let said = machine.run(UPDATE)?;
    ensure!(said.lines().count() == 3 && said.starts_with("updated first"), "the update said {said}");
    all_run(machine, 2)?;
    let again = starts_of(machine)?;
    let once = starts.iter().zip(&again).all(|(before, after)| before + 1 == *after);
    ensure!(once, "each is started once: {starts:?}, then {again:?}");
    let mut times = Vec::new();
    for name in ALL {
        times.push(machine.property(name, "ActiveEnterTimestampMonotonic")?.parse::<u64>()?);
    }
    ensure!(times.is_sorted(), "they started out of order: {times:?}");

    // The one in the middle is bad.
    image(machine, "first", "tiny")?;
    image(machine, "second", "tiny-broken")?;
    image(machine, "third", "tiny")?;
    let run = run_of(machine, "first")?;
    let said = machine.fails(3, UPDATE)?;
    ensure!(said.contains("failed at second, and all were rolled back"), "the bad update said {said}");
    all_run(machine, 2)?;
    ensure!(run_of(machine, "first")? != run, "the first was never started: the test shows nothing");
    let bad = machine.run("cd /var/lib/sysctr/containers && ls */quarantine.json")?;
    ensure!(bad == "second/quarantine.json", "not to blame: {bad}");
    let said = machine.run(&format!("{UPDATE} 2>&1"))?;
    ensure!(said.contains("nothing is updated") && said.contains("second stays"), "the next one said {said}");
    all_run(machine, 2)?;

    // Killed while one of them is being watched: the next command takes all of them back, and so does the next boot.
    image(machine, "second", "tiny")?;
    cut(machine)?;
    machine.run("sysctr prune")?;
    all_run(machine, 2)?;
    cut(machine)?;
    machine.run(
        "systemctl enable watcher 2>&1 || ln -s ../watcher.service /etc/systemd/system/multi-user.target.wants/",
    )?;
    machine.reboot()?;
    machine.booted()?;
    machine.run("systemctl start watcher")?;
    all_run(machine, 2)?;
    machine.run("sysctr uninstall third second first && sysctr verify").map(drop)
}

fn cut(machine: &mut dyn Machine) -> Result<()> {
    settle(machine, 60)?;
    machine.run(&format!("{UPDATE} >/root/said 2>&1 & echo $! >/root/pid"))?;
    let second = "[ -e /etc/sysctr/group.json ] && journalctl -q -u second -o json -n 1 | grep -q . &&
         [ $(cat /etc/sysctr/containers/second/active) != 2 ] && systemctl is-active -q first && sysctr --json list | grep -q '\"pending\": true'";
    machine.wait_until(Duration::from_secs(30), second)?;
    machine.run("sleep 1; kill -9 $(cat /root/pid)")?;
    settle(machine, 1)?;
    ensure!(machine.try_run("[ -e /etc/sysctr/group.json ]", Duration::from_secs(9))?.code == 0, "it was done already");
    Ok(())
}

fn all_run(machine: &mut dyn Machine, deployment: u32) -> Result<()> {
    ALL.iter().try_for_each(|name| runs(machine, name, deployment))?;
    ensure!(machine.property("watcher", "ActiveState")? == "active", "what requires the last one is down");
    ensure!(machine.run("ls /etc/sysctr")?.lines().all(|file| file != "group.json"), "the group is still open");
    machine.run("sysctr verify").map(drop)
}

/// How often systemd has started each of them (the message's id is systemd's for a unit that is up).
fn starts_of(machine: &mut dyn Machine) -> Result<Vec<u32>> {
    let mut starts = Vec::new();
    for name in ALL {
        let count = format!(
            "journalctl --sync; journalctl -q -o cat UNIT={name}.service MESSAGE_ID=39f53479d3a045ac8e11786248231fbf | wc -l"
        );
        starts.push(machine.run(&count)?.parse()?);
    }
    Ok(starts)
}
