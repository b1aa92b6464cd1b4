//! httpd: the host's pages on port 80, and systemd's own tools say of it what they say of any service.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{REGISTRY, on_demand, processes, registry, stops_cleanly};
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

/// The image's own program and files in a plain unit, behind a socket too.
const PLAIN: &str = "cat >/etc/systemd/system/plain.service <<'END'
[Service]
Type=exec
RootDirectory=/var/lib/sysctr/containers/httpd/current/rootfs
MountAPIVFS=yes
BindReadOnlyPaths=/var/www
TemporaryFileSystem=/run /tmp
RuntimeDirectory=apache2
Environment=LD_PRELOAD=/usr/lib/listen.so
ExecStart=/usr/sbin/apache2 -f /etc/apache2/httpd.conf -C 'Listen 8081' -D FOREGROUND
END
    printf '[Socket]\nListenStream=8081\n' >/etc/systemd/system/plain.socket
    systemctl daemon-reload && systemctl start plain.socket";

/// Behind a socket it is off until the first request, also after a boot, and a new start of it refuses nobody.
pub fn starts_on_the_first_request(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.run("mkdir -p /var/www && echo here >/var/www/index.html")?;
    machine.run(&format!("sysctr -q install --yes --set on_demand=true {REGISTRY}/httpd"))?;
    machine.reboot()?;
    machine.booted()?;
    machine.run("systemctl is-active httpd.socket && ! systemctl is-active httpd.service")?;
    if machine.run("systemctl --version | grep -o '[0-9]*' | head -n 1")?.parse::<u32>()? < 254 {
        // Nested in a container that old one cannot mount what a RootDirectory= needs: nothing to compare with.
        machine.run("[ $(curl -sf http://127.0.0.1/) = here ]")?;
    } else {
        machine.run(PLAIN)?;
        on_demand::first_answers(machine, ("httpd", 80), ("plain", 8081), "here")?;
    }
    let main = machine.run("cat /proc/$(systemctl show --value -p MainPID httpd)/comm")?;
    ensure!(main == "apache2", "{main} answered");
    machine.run(
        "systemctl restart --no-block httpd; for n in 1 2 3 4 5 6 7 8; do curl -sf http://127.0.0.1/ || exit 1; done",
    )?;
    // With another value it is a service as before, which runs although nobody had asked for it, and the socket is gone.
    registry(machine)?;
    machine.run(
        "systemctl stop httpd && systemctl is-active httpd.socket && ! systemctl is-active httpd &&
         sysctr -q update --yes --set on_demand=false httpd && ! systemctl is-active httpd.socket &&
         systemctl is-active httpd && curl -sf --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1/ && sysctr verify",
    )?;
    Ok(())
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
