//! An update is kept only if the service is well with it; a rollback goes to what was there before.

use anyhow::{Result, ensure};

use crate::machine::Machine;

const IMAGES: &str = "oci:/srv/payload/images";
/// The tests' services need no long look.
const SETTINGS: &str = "mkdir -p /etc/sysctr && printf '[update]\\nsettle = 1\\n' >/etc/sysctr/sysctr.toml";

/// A good one, a bad one, and back.
pub fn is_kept_only_if_well(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(SETTINGS)?;
    machine.run(&format!("sysctr -q install --now --name app {IMAGES}/tiny:1"))?;
    dependent(machine)?;

    let said = machine.run(&format!("sysctr update app --to {IMAGES}/tiny-next:1"))?;
    ensure!(said.contains("updated app"), "the update said {said}");
    runs(machine, 2, "the next one")?;
    ensure!(machine.property("needs-app", "ActiveState")? == "active", "what requires it did not come back");
    let same = machine.run("sysctr update app")?;
    ensure!(same.contains("up to date"), "the same again said {same}");

    let run = machine.property("app", "InvocationID")?;
    let said = machine.fails(3, &format!("sysctr update app --to {IMAGES}/tiny-broken:1"))?;
    ensure!(said.contains("rolled back") && said.contains("hint: "), "the failed update said {said}");
    runs(machine, 2, "the next one")?;
    ensure!(machine.property("app", "InvocationID")? != run, "it was never restarted: the test shows nothing");
    ensure!(machine.property("needs-app", "ActiveState")? == "active", "what requires it stayed down");
    machine.run("sysctr verify && sysctr prune && ! ls /var/lib/sysctr/containers/app/deployments | grep -q 3")?;
    ensure!(!machine.run("ls -A /run/systemd/system")?.contains("app"), "the lifted start limit was left behind");

    let said = machine.run("sysctr rollback app")?;
    ensure!(said.contains("rolled back app from deployment 2 to 1"), "the rollback said {said}");
    runs(machine, 1, "as small as can be")?;
    machine.run("sysctr uninstall app && sysctr verify").map(drop)
}

/// The image that failed is not tried again by itself: here its reference names it, until it names another.
pub fn is_not_tried_twice(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(SETTINGS)?;
    machine
        .run("cp -r /srv/payload/images/tiny /root/image && sysctr -q install --now --name app oci:/root/image:1")?;
    machine.run("rm -r /root/image && cp -r /srv/payload/images/tiny-broken /root/image")?;
    machine.fails(3, "sysctr update --all")?;
    let run = machine.property("app", "InvocationID")?;
    for _ in 0..2 {
        let said = machine.run("sysctr update --all 2>&1")?;
        ensure!(said.contains("failed before"), "the second update said {said}");
    }
    ensure!(machine.property("app", "InvocationID")? == run, "the broken image was tried again");
    machine.run("rm -r /root/image && cp -r /srv/payload/images/tiny-next /root/image && sysctr update --all")?;
    ensure!(machine.property("app", "ActiveState")? == "active", "the mended image does not run");
    machine.run("sysctr uninstall app").map(drop)
}

fn dependent(machine: &mut dyn Machine) -> Result<()> {
    machine
        .run(
            "printf '[Unit]\\nRequires=app.service\\nAfter=app.service\\n[Service]\\nExecStart=/bin/sleep infinity\\n' \
             >/etc/systemd/system/needs-app.service && systemctl daemon-reload && systemctl start needs-app",
        )
        .map(drop)
}

fn runs(machine: &mut dyn Machine, deployment: u32, description: &str) -> Result<()> {
    let found = machine.property("app", "Description")?;
    ensure!(found == description, "it is {found:?}, not {description:?}");
    machine
        .run(&format!(
            "[ $(systemctl is-active app) = active ] && [ $(cat /etc/sysctr/containers/app/active) = {deployment} ] &&
             systemctl show -p ExecStart app | grep -q deployments/{deployment}"
        ))
        .map(drop)
}
