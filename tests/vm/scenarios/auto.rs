//! Updates that nobody asked for: what the timer does, and what the system's journal has of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::machine::Machine;

const ENTRIES: &str = "journalctl --sync; journalctl -q -o json MESSAGE_ID=4e42a982f3914b6ea27edc8cb08b1a2b";
/// The policies; the window is written before them.
const POLICIES: &str =
    "[container.good]\nupdate = \"auto\"\n[container.kept]\nupdate = \"hold\"\n[container.greedy]\nupdate = \"auto\"\n";

/// By policy, within the window, and told.
pub fn the_timer_does_what_the_policy_says(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run("systemd-analyze verify --man=no sysctr-update.timer sysctr-update.service 2>&1 | tee /dev/stderr | grep -c . | grep -qx 0")?;
    ensure!(machine.property("sysctr-update.timer", "ActiveState")? == "inactive", "it runs though nobody enabled it");
    machine
        .run("systemctl preset sysctr-update.timer && [ $(systemctl is-enabled sysctr-update.timer) = disabled ]")?;
    machine.run("systemctl start sysctr-update")?;
    ensure!(machine.property("sysctr-update", "ConditionResult")? == "no", "it ran with nothing installed");

    for name in ["good", "kept", "look", "greedy"] {
        brings(machine, name, "tiny")?;
        machine.run(&format!("sysctr -q install --now --name {name} oci:/root/{name}:1"))?;
    }
    for (name, image) in
        [("good", "tiny-next"), ("kept", "tiny-next"), ("look", "tiny-next"), ("greedy", "tiny-asking")]
    {
        brings(machine, name, image)?;
    }

    // shut: it only tells
    window(machine, "+2 hours", "+3 hours")?;
    machine.run("systemctl start sysctr-update")?;
    in_force(machine, &[("good", 1), ("kept", 1), ("look", 1), ("greedy", 1)])?;
    told(machine, &[("good", "available"), ("greedy", "available"), ("look", "available")])?;

    // open, by the timer itself: its own calendar is for the night
    window(machine, "-1 hour", "+2 hours")?;
    machine.run(
        "mkdir -p /etc/systemd/system/sysctr-update.timer.d && cd /etc/systemd/system/sysctr-update.timer.d &&
         printf '[Timer]\\nOnCalendar=\\nOnActiveSec=1s\\nRandomizedDelaySec=0\\nAccuracySec=1ms\\n' >test.conf &&
         systemctl daemon-reload && systemctl enable --now sysctr-update.timer",
    )?;
    machine.wait_until(Duration::from_secs(60), "systemctl is-failed sysctr-update")?;
    in_force(machine, &[("good", 2), ("kept", 1), ("look", 1), ("greedy", 1)])?;
    // What was asked of the host is nobody's to accept at night.
    ensure!(
        machine.property("sysctr-update", "ExecMainStatus")? == "4",
        "a refused update is no failure to the service"
    );
    let entries = told(machine, &[("good", "updated"), ("greedy", "refused"), ("look", "available")])?;
    let good = entries.iter().find(|one| one["SYSCTR_CONTAINER"] == "good").context("good")?;
    ensure!(good["SYSCTR_TO_DEPLOYMENT"] == "2" && good["SYSCTR_FROM_DEPLOYMENT"] == "1", "{good}");
    ensure!(
        good["SYSCTR_FROM"] != good["SYSCTR_TO"] && good["PRIORITY"] == "5" && good["SYSCTR_UNASKED"] == "yes",
        "{good}"
    );
    machine.run("journalctl -q -u good | grep -q 'Updated good from deployment 1'")?;
    machine.run("systemctl disable --now sysctr-update.timer && sysctr -q uninstall greedy")?;

    // a bad one goes back, the service has failed, and it is not tried again
    brings(machine, "good", "tiny-broken")?;
    machine.fails(1, "systemctl start sysctr-update")?;
    ensure!(machine.property("sysctr-update", "ExecMainStatus")? == "3", "going back is no failure to the service");
    in_force(machine, &[("good", 2)])?;
    let entries = told(machine, &[("good", "rolledBack"), ("look", "available")])?;
    let back = entries.iter().find(|one| one["SYSCTR_CONTAINER"] == "good").context("good")?;
    ensure!(
        back["PRIORITY"] == "3" && back["SYSCTR_FROM_DEPLOYMENT"] == "2" && back["SYSCTR_CAUSE"].is_string(),
        "{back}"
    );
    machine.run("systemctl is-active good && systemctl start sysctr-update")?;
    told(machine, &[("good", "held"), ("look", "available")])?;

    // by hand: all but what is on hold, and that one when it is named
    machine.run("rm -r /root/good && cp -r /srv/payload/images/tiny-next /root/good && sysctr update --all")?;
    in_force(machine, &[("good", 2), ("kept", 1), ("look", 2)])?;
    let said = machine.run("sysctr update kept 2>&1")?;
    ensure!(said.contains("on hold by its policy"), "it said {said}");
    in_force(machine, &[("kept", 2)])?;
    machine.run("sysctr rollback look")?;
    let entries = told(machine, &[("kept", "updated"), ("look", "rolledBack"), ("look", "updated")])?;
    ensure!(entries.iter().all(|one| one["SYSCTR_UNASKED"] == "no"), "what was asked for counts as unasked");

    // cut short between its commit and its health: the recovery goes back, and says so
    machine.run(
        "echo '{\"version\": 1, \"operation\": \"update\", \"from\": 1, \"to\": 2, \"enable\": true, \"purge\": false}' \
         >/etc/sysctr/containers/kept/journal.json && sysctr recover",
    )?;
    machine.wait_until(Duration::from_secs(30), "systemctl is-active kept")?;
    in_force(machine, &[("kept", 1)])?;
    let entries = told(machine, &[("kept", "rolledBack")])?;
    ensure!(entries[0]["SYSCTR_OPERATION"] == "recovery" && entries[0]["SYSCTR_UNASKED"] == "yes", "{}", entries[0]);
    machine.run("sysctr uninstall good kept look && sysctr verify").map(drop)
}

/// Puts an image where the container's reference leads.
fn brings(machine: &mut dyn Machine, name: &str, image: &str) -> Result<()> {
    machine.run(&format!("rm -rf /root/{name} && cp -r /srv/payload/images/{image} /root/{name}")).map(drop)
}

/// Lets updates be made between these two times, as seen from now.
fn window(machine: &mut dyn Machine, from: &str, to: &str) -> Result<()> {
    let script = format!(
        "mkdir -p /etc/sysctr && printf '[update]\\nsettle = 1\\nwindow = \"%s-%s\"\\n%b' \
         $(date -d '{from}' +%H:%M) $(date -d '{to}' +%H:%M) '{}' >/etc/sysctr/sysctr.toml",
        POLICIES.replace('\n', "\\n")
    );
    machine.run(&script).map(drop)
}

fn in_force(machine: &mut dyn Machine, wanted: &[(&str, u32)]) -> Result<()> {
    for (name, id) in wanted {
        let found = machine.run(&format!("cat /etc/sysctr/containers/{name}/active; systemctl is-active {name}"))?;
        ensure!(
            found.lines().collect::<Vec<_>>() == [id.to_string().as_str(), "active"],
            "{name} is at {found}, not {id}"
        );
    }
    Ok(())
}

/// The entries since this was last asked, which have to be of these containers and results; in the order of both.
fn told(machine: &mut dyn Machine, wanted: &[(&str, &str)]) -> Result<Vec<Value>> {
    let text = machine.run(&format!("{ENTRIES} --cursor-file=/root/cursor"))?;
    let entries: Vec<Value> = text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>()?;
    let of =
        |entry: &Value| ["SYSCTR_CONTAINER", "SYSCTR_RESULT"].map(|key| entry[key].as_str().unwrap_or("").to_owned());
    let mut found: Vec<_> = entries.iter().map(of).collect();
    found.sort();
    let wanted: Vec<_> = wanted.iter().map(|(name, result)| [(*name).to_owned(), (*result).to_owned()]).collect();
    ensure!(found == wanted, "the journal has {found:?}, not {wanted:?}: {text}");
    Ok(entries)
}
