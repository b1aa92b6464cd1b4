//! Boots that are not the usual one: with containers that fail, with little that can be written to, and of a tree that never ran.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::order::entered;
use crate::machine::Machine;

const IMAGES: &str = "oci:/srv/payload/images";
const SOON: Duration = Duration::from_secs(60);

/// How long the unit that hangs lets itself be waited for, in milliseconds.
const PATIENCE: u64 = 6000;
/// What a busy host may add.
const NOISE: u64 = 4000;

/// What keeps a boot: one that ends before it is ready, one that never is, one whose file system is not there, and one whose registry
/// is gone, with the timer of automatic updates on.
const FAILING: &str = r"
    set -e
    sysctr -q install --yes oci:/srv/payload/images/tiny-broken:1 --name crashing
    sysctr -q install --yes oci:/srv/payload/images/tiny-silent:1 --name hanging
    sysctr -q install --yes oci:/srv/payload/images/order-mount:1 --name lacking
    systemctl start docker-registry
    curl -sf --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:5000/v2/ >/dev/null
    sysctr -q install --yes 127.0.0.1:5000/etcd --name far
    systemctl disable -q docker-registry
    systemctl enable -q sysctr-update.timer
    mkdir -p /etc/systemd/system/hanging.service.d
    printf '[Service]\nTimeoutStartSec=6\nRestart=no\n' >/etc/systemd/system/hanging.service.d/time.conf
    printf '[Mount]\nWhat=/dev/disk/by-label/none\nWhere=/srv/order\nType=ext4\n' >/etc/systemd/system/srv-order.mount
    mkdir -p '/etc/systemd/system/dev-disk-by\x2dlabel-none.device.d'
    printf '[Unit]\nJobRunningTimeoutSec=2\n' >'/etc/systemd/system/dev-disk-by\x2dlabel-none.device.d/time.conf'
";

/// When a login is possible and when multi-user.target is there, in milliseconds after the manager started.
fn boot_times(machine: &mut dyn Machine) -> Result<(u64, u64)> {
    machine.booted()?;
    let start: u64 = machine.run("systemctl show --value -p UserspaceTimestampMonotonic")?.parse()?;
    let after = |at: u64| at.saturating_sub(start) / 1000;
    let login = after(entered(machine, "systemd-user-sessions.service")?);
    Ok((login, after(entered(machine, "multi-user.target")?)))
}

/// None of those keeps the machine from booting. One that says that it is essential does.
pub fn failing_containers_do_not_stop_one(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.reboot()?;
    let (usual_login, usual) = boot_times(machine)?;
    machine.run(FAILING)?;
    machine.reboot()?;
    let (login, all) = boot_times(machine)?;
    let states = machine.try_run("systemctl is-active crashing hanging lacking far", SOON)?.stdout;
    let states: Vec<&str> = states.split_whitespace().collect();
    ensure!(states.len() == 4 && !states[..3].contains(&"active") && states[3] == "active", "they are {states:?}");
    ensure!(login <= usual_login + NOISE, "login after {login} ms, {usual_login} without them");
    ensure!(all <= usual + PATIENCE + NOISE, "multi-user.target after {all} ms, {usual} without them");
    machine.run("systemctl is-active multi-user.target")?;

    machine.run(&format!(
        "sysctr -q uninstall hanging lacking far crashing
         sysctr -q install --yes {IMAGES}/order-essential:1 --name essential
         grep -q '^RequiredBy=multi-user.target' /etc/systemd/system.attached/essential.service"
    ))?;
    machine.reboot()?;
    machine.booted()?;
    machine.run("! systemctl is-active multi-user.target && systemctl is-active systemd-user-sessions").map(drop)
}

/// Puts /etc over a root that cannot be written to (/var is a mount already), and /var/lib on a file system that is there late.
const ATOMIC: &str = r"
    set -e
    mkdir -p /var/usrlocal /var/opt
    cp -a /usr/local/. /var/usrlocal/ && rm -rf /usr/local /opt
    ln -s ../var/usrlocal /usr/local && ln -s var/opt /opt
    cat >/usr/lib/prepare-root <<'SH'
#!/bin/sh
mount --bind /etc /etc && mount -o remount,bind,ro /
SH
    chmod 755 /usr/lib/prepare-root
    cd /etc/systemd/system
    before='[Unit]\nDefaultDependencies=no\nBefore=local-fs-pre.target\nWants=local-fs-pre.target\n'
    once='[Service]\nType=oneshot\nRemainAfterExit=yes\n'
    printf '%b' $before$once'ExecStart=/usr/lib/prepare-root\n[Install]\nWantedBy=sysinit.target\n' | cat >prepare-root.service
    after='[Unit]\nDefaultDependencies=no\nAfter=prepare-root.service\n'
    printf '%b' $after$once'ExecStart=/bin/sleep\x202\n' >slow-disk.service
    needs='[Unit]\nRequires=slow-disk.service\nAfter=slow-disk.service\n'
    mount='[Mount]\nWhat=/var/late\nWhere=/var/lib\nType=none\nOptions=bind\n'
    printf '%b' $needs$mount'[Install]\nRequiredBy=local-fs.target\n' >var-lib.mount
    systemctl enable -q prepare-root.service var-lib.mount
    mv /var/lib /var/late && mkdir /var/lib && touch /var/lib/not-mounted
    sync";

/// An atomic host: only /etc and /var can be written to, /usr/local and /opt lie in /var, and /var/lib comes late.
pub fn only_etc_and_a_late_var_can_be_written_to(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(&format!("sysctr -q install --yes {IMAGES}/order-early:1 --name early"))?;
    machine.run(ATOMIC)?;
    machine.reboot()?;
    machine.booted()?;
    machine
        .run("! touch /usr/x /x 2>/dev/null && touch /etc/x /usr/local/x && [ -e /var/usrlocal/x ]")
        .context("the layout is not that of an atomic host")?;
    machine.run("systemctl is-active early && mountpoint -q /var/lib && [ ! -e /var/lib/not-mounted ]")?;
    let order = ["var-lib.mount", "early", "network-pre.target"].map(|unit| entered(machine, unit));
    let order = order.into_iter().collect::<Result<Vec<u64>>>()?;
    ensure!(order.is_sorted(), "/var/lib, early and network-pre.target were there at {order:?}");
    machine.run(&format!(
        "sysctr check && sysctr verify && printf '[update]\\nsettle = 1\\n' >/etc/sysctr/sysctr.toml
         sysctr -q install --now --yes {IMAGES}/tiny:1 --name app && sysctr -q update app --to {IMAGES}/tiny-next:1
         systemctl is-active app && sysctr -q uninstall --purge app early && sysctr verify"
    ))?;
    Ok(())
}

/// What is done to the tree on the host, before it ever boots: `$root` is the tree, `$payload` has the images.
pub fn prepare(sysctr: &str) -> String {
    let install = "-q --root $root install --yes oci:$payload/images";
    format!(
        "echo uninitialized >$root/etc/machine-id
         ln -sf /dev/null $root/etc/systemd/system/systemd-firstboot.service
         {sysctr} {install}/order-early:1 --name early
         {sysctr} {install}/tiny:1 --name app
         {sysctr} {install}/tiny:1 --name off --no-enable"
    )
}

/// A tree that was made with `--root` boots for the first time, with no network and nothing to fetch.
pub fn a_tree_has_its_services(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    let units = "early app off";
    let states = machine.try_run(&format!("systemctl is-active {units}"), SOON)?.stdout;
    ensure!(states.split_whitespace().eq(["active", "active", "inactive"]), "{units} are {states}");
    let enabled = machine.try_run(&format!("systemctl is-enabled {units}"), SOON)?.stdout;
    ensure!(enabled.split_whitespace().eq(["enabled", "enabled", "disabled"]), "{units} are {enabled}");
    // Its folder was made at this boot, before it started.
    machine.run("[ $(stat -c %u:%a /var/lib/early/data) = 4711:700 ]")?;
    ensure!(entered(machine, "early")? < entered(machine, "network-pre.target")?, "early is late");
    machine.run("sysctr verify && sysctr check && sysctr list")?;
    // What comes behind it works as ever, and so does a boot after a cut.
    machine.run(&format!(
        "printf '[update]\\nsettle = 1\\n' >/etc/sysctr/sysctr.toml
         sysctr -q update app --to {IMAGES}/tiny-next:1 && sync"
    ))?;
    machine.cut_power()?;
    machine.booted()?;
    machine.run("systemctl is-active early app && sysctr verify").map(drop)
}
