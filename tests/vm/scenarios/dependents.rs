//! What requires an updated service comes back with it, or the update has failed.

use anyhow::{Result, ensure};

use super::{image, install, run_of, runs, settle};
use crate::machine::Machine;

/// Units that go down with app.service: name, [Unit] lines, [Service] lines.
const UNITS: [(&str, &str, &str); 7] = [
    ("one", "Requires=app.service\\nAfter=app.service", "ExecStart=/bin/sleep infinity"),
    ("two", "BindsTo=one.service\\nAfter=one.service", "ExecStart=/root/two"),
    ("part", "PartOf=app.service", "ExecStart=/bin/sleep infinity"),
    ("kept", "Requires=app.service\\nAfter=app.service", "Type=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true"),
    ("done", "Requires=app.service\\nAfter=app.service", "Type=oneshot\\nExecStart=/bin/true"),
    ("broken", "Requires=app.service\\nAfter=app.service", "ExecStart=/bin/false"),
    ("wants", "Wants=app.service", "ExecStart=/bin/sleep infinity"),
];

/// A chain of two, one that only goes along, jobs that are done, and one that had failed before.
pub fn come_back(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    settle(machine, 1)?;
    install(machine, "app")?;
    // It does not go along with the old image once that was replaced.
    machine.run(
        "printf '#!/bin/sh\\n[ ! -e /root/picky ] || systemctl show -p Description app | grep -q next || exit 1\\nexec sleep infinity\\n' \
         >/root/two && chmod +x /root/two",
    )?;
    for (name, unit, service) in UNITS {
        machine
            .run(&format!("printf '[Unit]\\n{unit}\\n[Service]\\n{service}\\n' >/etc/systemd/system/{name}.service"))?;
    }
    machine.run("systemctl daemon-reload && systemctl start one two part kept done broken wants; sleep 0.5")?;
    ensure!(machine.property("broken", "ActiveState")? == "failed", "it was to fail before");

    let runs_before = of_all(machine)?;
    image(machine, "app", "tiny-next")?;
    machine.run("sysctr update app")?;
    runs(machine, "app", 2)?;
    are_up(machine)?;
    let again = of_all(machine)?;
    ensure!(runs_before.iter().zip(&again).all(|(one, other)| one != other), "one was not restarted: {again:?}");
    ensure!(machine.property("broken", "ActiveState")? == "failed", "what had failed before was started");

    // The last of the chain breaks.
    let wants = run_of(machine, "wants")?;
    machine.run("touch /root/picky")?;
    image(machine, "app", "tiny")?;
    let said = machine.fails(3, "sysctr update app")?;
    ensure!(said.contains("rolled back") && said.contains("two.service"), "the broken chain: {said}");
    runs(machine, "app", 2)?;
    are_up(machine)?;
    ensure!(run_of(machine, "wants")? == wants, "what only wants it was restarted");
    // the control: what is down is nobody's loss
    machine
        .run("systemctl stop two && sysctr update app --to oci:/root/images/app:1 && systemctl is-active app one")?;
    ensure!(machine.property("two", "ActiveState")? != "active", "what was stopped was started");
    Ok(())
}

fn of_all(machine: &mut dyn Machine) -> Result<Vec<String>> {
    ["one", "two", "part", "kept"].iter().map(|name| run_of(machine, name)).collect()
}

fn are_up(machine: &mut dyn Machine) -> Result<()> {
    let found =
        machine.try_run("systemctl is-active one two part kept wants", std::time::Duration::from_secs(20))?.stdout;
    ensure!(found.lines().all(|line| line == "active"), "one, two, part, kept and wants are {found:?}");
    Ok(())
}
