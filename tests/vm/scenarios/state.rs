//! An update that brings the state into another format: whoever goes back finds the old program on the old state.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{runs, settle};
use crate::machine::Machine;

const IMAGES: &str = "oci:/srv/payload/images";
const FORMAT: &str = "/var/lib/app/data/format";

/// The program keeps a number there, and does not start where it is above its own.
fn has_format(machine: &mut dyn Machine, number: u32) -> Result<()> {
    let found = machine.run(&format!("cat {FORMAT}"))?;
    ensure!(found == number.to_string(), "the state has format {found}, not {number}");
    Ok(())
}

/// Begins an update, and comes back when the new program runs.
fn begin(machine: &mut dyn Machine) -> Result<()> {
    machine.run(&format!("systemd-run -q --unit=updating sysctr update app --to {IMAGES}/tiny-format-2:1"))?;
    machine.wait_until(
        Duration::from_secs(60),
        &format!(
            "grep 2 {FORMAT} && [ $(systemctl is-active app) = active ] && ls /etc/sysctr/containers/app/journal.json"
        ),
    )?;
    has_format(machine, 2)
}

/// An update that fails, one that is well, back and forth, one that is killed, one that is cut, and a rollback that is cut.
pub fn comes_and_goes_with_its_program(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    settle(machine, 3)?;
    machine.run(&format!(
        "sysctr -q install --now --yes --name app {IMAGES}/tiny-format-1:1
         printf '[Unit]\\nRequires=app.service\\nAfter=app.service\\n[Service]\\nExecStart=/bin/sleep infinity\\n' \
             >/etc/systemd/system/needs-app.service && systemctl daemon-reload && systemctl start needs-app app.socket"
    ))?;
    has_format(machine, 1)?;
    // the control: the old program does not run on the newer format
    machine.run(&format!("systemctl stop app && echo 2 >{FORMAT} && ! systemctl start app && echo 1 >{FORMAT} && systemctl start needs-app"))?;

    let said = machine.fails(3, &format!("sysctr update app --to {IMAGES}/tiny-format-2-crash:1"))?;
    ensure!(said.contains("did not stay up") && said.contains("deployment 1 runs again"), "it said {said}");
    has_format(machine, 1)?;
    runs(machine, "app", 1)?;
    let others = "systemctl is-active needs-app app.socket";
    ensure!(machine.run(others)? == "active\nactive", "something around it stayed down");
    machine.run("! ls -d /var/lib/sysctr/containers/app/deployments/1/state 2>/dev/null && sysctr verify")?;

    settle(machine, 1)?;
    machine.run(&format!("sysctr update app --to {IMAGES}/tiny-format-2:1"))?;
    has_format(machine, 2)?;
    for (id, format) in [(1, 1), (3, 2), (1, 1)] {
        machine.run(&format!("sysctr rollback app --to {id}"))?;
        has_format(machine, format)?;
        runs(machine, "app", id)?;
        ensure!(machine.run(others)? == "active\nactive", "something around it stayed down");
    }

    // Killed while the new program runs: the next command brings the old one and its state back.
    settle(machine, 60)?;
    begin(machine)?;
    machine.run("systemctl kill --signal=KILL updating; sysctr --wait=20 prune; systemctl reset-failed updating")?;
    has_format(machine, 1)?;
    runs(machine, "app", 1)?;
    ensure!(machine.run(others)? == "active\nactive", "something around it stayed down");
    // Killed while it was down for the copy: it is up again.
    machine.run(
        "boot=$(cat /proc/sys/kernel/random/boot_id); systemctl stop app.socket app
         echo '{\"version\": 1, \"operation\": \"update\", \"from\": 1, \"to\": 9, \"enable\": true, \"purge\": false, \"state\": true,
             \"stopped\": [\"app.socket\", \"app.service\"], \"boot\": \"'$boot'\"}' >/etc/sysctr/containers/app/journal.json
         sysctr prune && systemctl is-active app.socket",
    )?;
    runs(machine, "app", 1)?;
    // The power goes while the new program runs.
    begin(machine)?;
    machine.cut_power()?;
    machine.booted()?;
    machine.wait_until(Duration::from_secs(60), "[ $(systemctl is-active app) = active ]")?;
    has_format(machine, 1)?;
    runs(machine, "app", 1)?;
    machine.run("sysctr verify && sysctr uninstall --purge app && ! ls -d /var/lib/app 2>/dev/null").map(drop)
}
