//! httpd: the host's pages on port 80, and systemd's own tools say of it what they say of any service.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{REGISTRY, processes, registry, stops_cleanly};
use crate::machine::Machine;
use crate::snapshot::Snapshot;

/// Writes a page into the host's /var/www.
pub fn page(machine: &mut dyn Machine) -> Result<()> {
    machine.run("mkdir -p /var/www && echo '<h1>from the host</h1>' >/var/www/index.html").map(drop)
}

/// Installed, started, asked for a page, looked at, stopped.
pub fn serves_the_hosts_pages(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    page(machine)?;
    // It wants a folder of the host, and nobody here says yes.
    let refused = machine.fails(4, &format!("sysctr install {REGISTRY}/httpd"))?;
    ensure!(refused.contains("/var/www"), "what it asks for is not named: {refused}");
    machine.run(&format!("sysctr install --yes {REGISTRY}/httpd && systemctl start httpd"))?;

    let body = machine.wait_until(Duration::from_secs(20), "curl -sf http://127.0.0.1/")?;
    ensure!(body == "<h1>from the host</h1>", "it served {body:?}");
    machine.run("echo new >/var/www/index.html")?;
    ensure!(machine.run("curl -sf http://127.0.0.1/")? == "new", "the page is not the host's");
    let status = machine.run("systemctl --no-pager status httpd")?;
    for part in ["Apache httpd", "active (running)", "apache2", "enabled"] {
        ensure!(status.contains(part), "`systemctl status` says nothing of {part:?}:\n{status}");
    }
    let logged = "journalctl --no-pager -u httpd -o cat | grep -F '\"GET / HTTP/1.1\" 200'";
    machine.wait_until(Duration::from_secs(10), logged)?;
    let running = processes(machine, "httpd")?;
    ensure!(running.iter().all(|name| name == "apache2" || name == "cat"), "in the control group run {running:?}");
    let main = machine.run("cat /proc/$(systemctl show --value -p MainPID httpd)/comm")?;
    ensure!(main == "apache2", "the main process is {main}");

    // The port is taken: the second one ends with apache's own status.
    machine.run(&format!("sysctr install --yes --name second {REGISTRY}/httpd"))?;
    machine.try_run("systemctl start second", crate::machine::LIMIT)?;
    machine.wait_until(Duration::from_secs(20), "systemctl is-failed second")?;
    let status = machine.property("second", "ExecMainStatus")?;
    ensure!(status == "1", "apache ended with 1, the unit says {status}");

    stops_cleanly(machine, "httpd")?;
    machine.fails(7, "curl -sS http://127.0.0.1/").map(drop)
}

/// With --purge there is nothing left of it, and the host's pages are as they were.
pub fn leaves_nothing_behind(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    page(machine)?;
    machine.booted()?;
    let before = Snapshot::take(machine)?;
    machine.run(&format!("sysctr install --yes --now {REGISTRY}/httpd"))?;
    machine.wait_until(Duration::from_secs(20), "curl -sf http://127.0.0.1/")?;
    machine.run("sysctr uninstall --purge httpd")?;
    before.ensure_same(&Snapshot::take(machine)?)
}
