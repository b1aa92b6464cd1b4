//! Images in the format of atomic's system containers run as their old configuration says, and go without a trace.

use anyhow::{Result, ensure};

use crate::machine::Machine;
use crate::snapshot::Snapshot;

const IMAGES: &str = "oci:/srv/payload/images";

/// A configuration of 2016 is started by systemd of today.
pub fn an_old_image_runs_as_it_says(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(&format!("sysctr pull {IMAGES}/old:1 && sysctr pull {IMAGES}/once:1"))?;
    let before = Snapshot::take(machine)?;
    machine.fails(4, &format!("sysctr install {IMAGES}/old:1"))?;
    before.ensure_same(&Snapshot::take(machine)?)?;
    let said = machine.run(&format!("sysctr install --yes --now {IMAGES}/old:1 2>&1"))?;
    ensure!(said.contains("note: ") && said.contains("Restart=on-crash"), "it said {said}");
    // The program itself said that it is ready: as root in a container it had to ask for that.
    ensure!(machine.run("systemctl show --value -p StatusText old")?.contains("small"), "it did not report itself");
    let pid = "$(systemctl show --value -p MainPID old)";
    let limits = machine.run(&format!("grep 'Max open files' /proc/{pid}/limits"))?;
    ensure!(limits.split_whitespace().skip(3).take(2).eq(["256", "512"]), "{limits}");
    // CAP_KILL and CAP_NET_BIND_SERVICE
    let held = machine.run(&format!("grep -E 'CapBnd|CapEff' /proc/{pid}/status"))?;
    ensure!(held.lines().all(|line| line.ends_with("0000000000000420")), "{held}");
    ensure!(machine.run("systemctl show --value -p TasksMax old")?.trim() == "77", "no limit of tasks");
    let seen = machine.run(&format!("ls /proc/{pid}/root/host/etc/os-release && stat -c %a /var/lib/old"))?;
    ensure!(seen.ends_with("700") && seen.contains("os-release"), "{seen}");
    ensure!(machine.run("sh /usr/local/bin/oldctl")?.trim() == "old", "its tool");
    machine.run("sysctr verify && systemctl restart old && systemctl is-active old")?;
    // What its lines take away goes with it, but for state.
    machine.run("mkdir /srv/old /var/lib/old/cache && touch /srv/old/x && sysctr uninstall old && ! ls -d /srv/old && ls -d /var/lib/old/cache")?;
    machine.run("rm -r /var/lib/old")?;
    machine.run(&format!(
        "sysctr install --yes {IMAGES}/old:1 && mkdir /var/lib/old/cache && sysctr uninstall --purge old && ! ls -d /var/lib/old/cache"
    ))?;
    machine.run("rmdir /var/lib/old")?;
    before.ensure_same(&Snapshot::take(machine)?)?;
    // One that is run once ends as its program does.
    machine.run(&format!("sysctr install --yes {IMAGES}/once:1"))?;
    machine.run("rm -r /var/lib/once")?;
    before.ensure_same(&Snapshot::take(machine)?)
}
