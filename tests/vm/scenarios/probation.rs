//! After an update: failures within its probation take it back, also behind a boot, and nothing else does.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::machine::Machine;

const IMAGES: &str = "oci:/srv/payload/images";
const SOON: Duration = Duration::from_secs(60);

fn install(machine: &mut dyn Machine, probation: u32) -> Result<()> {
    machine.booted()?;
    machine.run(&format!(
        "mkdir -p /etc/sysctr && printf '[update]\\nsettle = 1\\nprobation = {probation}\\n' >/etc/sysctr/sysctr.toml
         sysctr -q install --now --name app {IMAGES}/tiny:1"
    ))?;
    Ok(())
}

fn update(machine: &mut dyn Machine, image: &str) -> Result<()> {
    machine.run(&format!("sysctr update --yes app --to {IMAGES}/{image}:1")).map(drop)
}

/// A key of the record, as `show --json` has it.
fn probation(machine: &mut dyn Machine, key: &str) -> Result<String> {
    let shown: serde_json::Value = serde_json::from_str(&machine.run("sysctr --json show app")?)?;
    Ok(shown["probation"][key].to_string())
}

/// The deployment in force runs, and the service manager has no other idea of it.
fn runs(deployment: u32) -> String {
    format!(
        "[ $(cat /etc/sysctr/containers/app/active) = {deployment} ] && [ $(systemctl is-active app) = active ] &&
         systemctl show -p ExecStart app | grep -q deployments/{deployment} && ! ls /etc/sysctr/containers/app/journal.json 2>/dev/null"
    )
}

/// Entries of the journal that tell of an update which was taken back.
fn told(machine: &mut dyn Machine) -> Result<usize> {
    let all = machine.run("journalctl -q -o cat SYSCTR_OPERATION=probation SYSCTR_RESULT=rolledBack")?;
    Ok(all.lines().count())
}

fn leaves_nothing(machine: &mut dyn Machine) -> Result<()> {
    machine
        .run(
            "! ls /etc/sysctr/containers/app/probation.json 2>/dev/null && sysctr verify >/dev/null &&
             ! systemctl show -p OnFailure app | grep sysctr && ! ls /run/systemd/generator/app.service.d 2>/dev/null &&
             ! systemctl list-units --all --plain --no-legend 'sysctr-probation@*' 'sysctr-failed@*' | grep -E 'active|failed'",
        )
        .map(drop)
}

/// It was well when the update ended, and fails every two seconds from then on.
pub fn goes_back_when_it_fails(machine: &mut dyn Machine) -> Result<()> {
    install(machine, 60)?;
    update(machine, "tiny-failing")?;
    ensure!(probation(machine, "deployment")? == "2", "the update is not on probation");
    let said = machine.run("sysctr show app")?;
    ensure!(said.contains("on probation until 20") && said.contains("back to deployment 1"), "show says {said}");
    machine.wait_until(SOON, &runs(1))?;
    machine.wait_until(SOON, "! systemctl is-active sysctr-failed@app")?;
    leaves_nothing(machine)?;
    ensure!(told(machine)? == 1, "it was told {} times", told(machine)?);
    let quarantine = machine.run("cat /var/lib/sysctr/containers/app/quarantine.json")?;
    ensure!(quarantine.contains("3 times within its probation"), "the image is not held back: {quarantine}");
    // What nobody restarts is taken back at once.
    machine.run("mkdir -p /etc/systemd/system/app.service.d && printf '[Service]\\nRestart=no\\n' >/etc/systemd/system/app.service.d/no.conf")?;
    update(machine, "tiny-failing")?;
    machine.wait_until(SOON, &runs(1))?;
    machine.wait_until(SOON, "! systemctl is-active sysctr-failed@app")?;
    ensure!(told(machine)? == 2, "it was told {} times", told(machine)?);
    Ok(())
}

/// What fails around it is not its own failure, a stop is none, and behind the end nothing counts. Each beside one that does count.
pub fn only_its_own_failures_count(machine: &mut dyn Machine) -> Result<()> {
    install(machine, 600)?;
    update(machine, "tiny-next")?;
    machine.run(
        "mkdir -p /etc/systemd/system/app.service.d
         printf '[Unit]\\nRequires=needed.service\\nAfter=needed.service\\n[Service]\\nKillSignal=SIGKILL\\n' \
             >/etc/systemd/system/app.service.d/needs.conf
         printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/usr/bin/test -e /run/needed\\n' \
             >/etc/systemd/system/needed.service
         systemctl daemon-reload && systemctl stop app",
    )?;
    ensure!(
        machine.property("app", "ActiveState")? == "failed",
        "a stop by SIGKILL is no failure to systemd: it shows nothing"
    );
    let handled = "journalctl -q -o cat UNIT=sysctr-failed@app.service JOB_TYPE=start JOB_RESULT=done | wc -l";
    machine.wait_until(SOON, &format!("[ $({handled}) -ge 1 ]"))?;
    for _ in 0..4 {
        machine.run("systemctl start app && exit 1; sleep 0.3")?;
    }
    machine.wait_until(SOON, &format!("[ $({handled}) -ge 3 ] && ! systemctl is-active sysctr-failed@app"))?;
    ensure!(probation(machine, "crashes")? == "0", "failures of what it requires were counted");
    machine.run("touch /run/needed && systemctl start app")?;
    for _ in 0..4 {
        machine.run("systemctl restart app && sleep 0.3")?;
    }
    ensure!(probation(machine, "crashes")? == "0", "stops were counted");
    machine.run("systemctl kill --signal=KILL app")?;
    machine.wait_until(SOON, "sysctr show app | grep 'failed once'")?;

    machine.run(
        "sed -i s/600/3/ /etc/sysctr/sysctr.toml; rm -r /etc/systemd/system/app.service.d; systemctl daemon-reload",
    )?;
    update(machine, "tiny")?;
    ensure!(probation(machine, "deployment")? == "3", "the update is not on probation");
    machine.wait_until(SOON, "! ls /etc/sysctr/containers/app/probation.json 2>/dev/null")?;
    machine.wait_until(SOON, "! systemctl is-active sysctr-settle")?;
    leaves_nothing(machine)?;
    for _ in 0..4 {
        machine.run("systemctl kill --signal=KILL app && sleep 0.5")?;
    }
    machine.wait_until(SOON, &runs(3))?;
    ensure!(told(machine)? == 0, "it was taken back");

    machine.run("sed -i s/3/600/ /etc/sysctr/sysctr.toml")?;
    update(machine, "tiny-next")?;
    machine.run("sysctr rollback app")?;
    leaves_nothing(machine)?;

    // Nor what had failed before the update, and what ran before it and fails behind it.
    let alone = "mkdir -p /etc/systemd/system/app.service.d && printf '[Service]\\nRestart=no\\n' >/etc/systemd/system/app.service.d/no.conf
         systemctl daemon-reload";
    machine.run(&format!("{alone} && systemctl kill --signal=KILL app"))?;
    machine.wait_until(SOON, "systemctl is-failed app")?;
    update(machine, "tiny-next")?;
    machine.run("sysctr settle && [ $(cat /etc/sysctr/containers/app/active) = 5 ] && systemctl start app")?;
    machine.run(&format!(
        "sysctr update --yes --no-restart app --to {IMAGES}/tiny:1 && systemctl kill --signal=KILL app"
    ))?;
    machine.wait_until(SOON, "systemctl is-failed app && ! systemctl is-active sysctr-failed@app")?;
    machine.run("sysctr settle && [ $(cat /etc/sysctr/containers/app/active) = 6 ]")?;
    ensure!(told(machine)? == 0, "an update was taken back for what was not its own");
    // The control: its own is.
    machine.run("systemctl start app && sleep 2 && systemctl kill --signal=KILL app")?;
    machine.wait_until(SOON, "[ $(cat /etc/sysctr/containers/app/active) = 5 ]").map(drop)
}

/// It fails only behind a boot.
pub fn goes_back_after_a_reboot(machine: &mut dyn Machine) -> Result<()> {
    install(machine, 300)?;
    update(machine, "tiny-once")?;
    machine.run("sleep 3 && [ $(systemctl show --value -p NRestarts app) = 0 ]")?;
    machine.reboot()?;
    machine.booted()?;
    ensure!(
        probation(machine, "boots")? == "1" || probation(machine, "deployment")? == "null",
        "the boot was not counted"
    );
    machine.wait_until(SOON, &runs(1))?;
    machine.wait_until(SOON, "! systemctl is-active sysctr-failed@app")?;
    leaves_nothing(machine)?;
    ensure!(told(machine)? == 1, "it was told {} times", told(machine)?);
    // One that brings the machine down at each start has no time to fail itself.
    update(machine, "tiny-next")?;
    for boot in 1..=3 {
        machine.run("[ $(cat /etc/sysctr/containers/app/active) = 3 ]")?;
        machine.cut_power()?;
        let counted = format!("grep '\"boots\": {boot}' /etc/sysctr/containers/app/probation.json");
        if boot < 3 {
            machine.wait_until(SOON, &counted)?;
        }
    }
    machine.booted()?;
    machine.wait_until(SOON, &runs(1))?;
    leaves_nothing(machine)?;
    ensure!(told(machine)? == 2, "it was told {} times", told(machine)?);
    Ok(())
}
