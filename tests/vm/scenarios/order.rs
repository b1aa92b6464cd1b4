//! Who starts before whom: names of containers that come later, cycles, and what unit files say beside what systemd says.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::machine::Machine;

const IMAGES: &str = "oci:/srv/payload/images";
const SOON: Duration = Duration::from_secs(60);
/// Everything of ours on disk but the store's own objects.
const ON_DISK: &str = "find /etc /var/lib/sysctr/containers -not -path '*/rootfs/*' -printf '%p %s %T@ %l\\n' | sort";

/// A container's name means its unit, whether it is installed before or after the one that names it; and an install or update with which
/// units would wait for each other changes nothing.
pub fn names_hold_and_cycles_are_refused(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    let install = |name: &str, image: &str| format!("sysctr install {IMAGES}/{image}:1 --name {name} --yes");
    let said = machine.fails(0, &install("behind", "order-behind"))?;
    ensure!(said.contains("requires front.service, which is not there"), "nobody is told: {said}");
    let said = machine.try_run("systemctl start behind", SOON)?;
    ensure!(said.code != 0 && said.stderr.contains("front.service not found"), "it starts without: {}", said.stderr);
    let problems = machine.try_run("sysctr check", SOON)?;
    ensure!(problems.code == 1 && problems.stdout.contains("it cannot start"), "check said {}", problems.stdout);
    machine.run(&install("front", "tiny"))?;
    machine.run("sysctr check && systemctl start behind && systemctl is-active front behind")?;
    ensure!(entered(machine, "front")? < entered(machine, "behind")?, "they started in the other order");

    // Before front and after behind, which is after front.
    let before = machine.run(ON_DISK)?;
    let said = machine.fails(1, &install("between", "order-between"))?;
    let circle = "behind.service after front.service after between.service after behind.service";
    ensure!(said.contains(circle), "{said}");
    let after = machine.run(ON_DISK)?;
    ensure!(before == after, "it changed something:\n{before}\n---\n{after}");
    // The same as an update of one that is there.
    machine.run(&install("between", "tiny"))?;
    let before = machine.run(ON_DISK)?;
    let said = machine.fails(1, &format!("sysctr update between --to {IMAGES}/order-between:1 --yes"))?;
    ensure!(said.contains(circle) && before == machine.run(ON_DISK)?, "it is taken: {said}");

    // By a drop-in nobody can hinder it: check tells what systemd drops, and at the boot it drops one of these.
    machine.run(
        "mkdir -p /etc/systemd/system/front.service.d
         printf '[Unit]\\nAfter=behind.service\\n' >/etc/systemd/system/front.service.d/circle.conf
         systemctl daemon-reload",
    )?;
    let said = machine.try_run("sysctr check --json --boot", SOON)?;
    ensure!(said.code == 1, "check finds nothing wrong");
    let told: serde_json::Value = serde_json::from_str(&said.stdout).context(said.stdout.clone())?;
    let problems = told["problems"].as_array().context("no problems")?;
    let cycle = problems.iter().find(|one| one["kind"] == "cycle").context("no cycle")?;
    let drops: Vec<&str> = cycle["drops"].as_array().into_iter().flatten().filter_map(|one| one.as_str()).collect();
    ensure!(drops == ["behind.service", "front.service"], "it would drop {drops:?}");
    machine.reboot()?;
    machine.booted()?;
    // Either is dropped, and behind with front, which it requires. (Its word on that does not outlive the boot everywhere.)
    let states = machine.try_run("systemctl is-active behind front", SOON)?.stdout;
    ensure!(states.starts_with("inactive\n"), "behind and front are {states}");
    machine.run("rm -r /etc/systemd/system/front.service.d && systemctl daemon-reload && sysctr check").map(drop)
}

/// When a unit was there, on the clock of this boot.
pub fn entered(machine: &mut dyn Machine, unit: &str) -> Result<u64> {
    Ok(machine.property(unit, "ActiveEnterTimestampMonotonic")?.parse()?)
}

/// What systemd says of its units and what their files say come to the same drawing and the same findings.
pub fn files_say_what_systemd_says(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(&format!(
        "sysctr -q install --yes {IMAGES}/order-early:1 --name early
         sysctr -q install --yes {IMAGES}/tiny-socket:1 --name door
         sysctr -q install --yes {IMAGES}/tiny:1 --name front
         sysctr -q install --yes {IMAGES}/order-behind:1 --name behind
         mkdir -p /mnt/self && mount --rbind / /mnt/self"
    ))?;
    let (running, files) = (machine.run("sysctr check --dot")?, machine.run("sysctr --root /mnt/self check --dot")?);
    ensure!(running == files, "systemd:\n{running}\nfiles:\n{files}");
    ensure!(running.contains("-> \"early.service\"") && running.contains("\"early.service\" ->"), "{running}");
    machine
        .run("sysctr check --svg | grep -q '>early.service<' && sysctr check --boot | grep -q 'container, early'")?;
    // One that is to be early and waits for the network.
    machine.run(
        "mkdir -p /etc/systemd/system/early.service.d
         printf '[Unit]\\nWants=network-online.target\\nAfter=network-online.target\\n' \
             >/etc/systemd/system/early.service.d/late.conf
         systemctl daemon-reload",
    )?;
    let both = ["sysctr check", "sysctr --root /mnt/self check"];
    for check in both {
        let said = machine.try_run(check, SOON)?;
        let expected = "early.service after network-online.target";
        ensure!(said.code == 1 && said.stdout.contains(expected), "{check}: {}", said.stdout);
    }
    machine.run("rm -r /etc/systemd/system/early.service.d; systemctl mask front && systemctl daemon-reload")?;
    for check in both {
        let said = machine.try_run(check, SOON)?;
        let expected = "requires front.service, which is masked";
        ensure!(said.code == 1 && said.stdout.contains(expected), "{check}: {}", said.stdout);
    }
    Ok(())
}
