//! etcd: there before the network is, there after a reboot and a power cut, gone without a trace.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{REGISTRY, processes, registry, stops_cleanly};
use crate::machine::Machine;
use crate::snapshot::Snapshot;

const PUT: &str = "ETCDCTL_API=3 etcdctl put greeting hello";
const GET: &str = "ETCDCTL_API=3 etcdctl get --print-value-only greeting";

/// Installs and starts it, and puts a key in.
pub fn install(machine: &mut dyn Machine) -> Result<()> {
    install_with(machine, "")
}

/// The same with settings.
pub fn install_with(machine: &mut dyn Machine, settings: &str) -> Result<()> {
    registry(machine)?;
    machine.run(&format!("sysctr install {settings} {REGISTRY}/etcd"))?;
    machine.run("systemctl is-enabled etcd")?;
    machine.run("systemctl start etcd")?;
    put(machine)
}

/// Puts a key in once it runs.
pub fn put(machine: &mut dyn Machine) -> Result<()> {
    machine.wait_until(Duration::from_secs(120), "systemctl is-active etcd")?;
    machine.run(PUT)?;
    holds_the_key(machine)
}

/// The key is there.
pub fn holds_the_key(machine: &mut dyn Machine) -> Result<()> {
    let value = machine.wait_until(Duration::from_secs(60), GET)?;
    ensure!(value == "hello", "the key holds {value:?}");
    Ok(())
}

/// A service as any other: started, seen, stopped; its end is clean and soon.
pub fn lives_as_any_service(machine: &mut dyn Machine) -> Result<()> {
    install(machine)?;
    let running = processes(machine, "etcd")?;
    ensure!(running == ["etcd"], "in the unit's control group run {running:?}");
    let user = machine.run("ps -o uid= -p $(systemctl show --value -p MainPID etcd)")?;
    ensure!(user.trim() == "2379", "etcd runs as {user}");
    let filter = machine.run("grep Seccomp: /proc/$(systemctl show --value -p MainPID etcd)/status")?;
    ensure!(filter.ends_with('2'), "etcd runs without a filter of system calls: {filter}");
    let owner = machine.run("stat -c '%u:%g %a' /var/lib/etcd")?;
    ensure!(owner == "2379:2379 700", "its data belongs to {owner}");

    machine.run("systemctl restart etcd")?;
    holds_the_key(machine)?;
    stops_cleanly(machine, "etcd")?;
    let log = machine.run("journalctl --no-pager -u etcd -o cat")?;
    ensure!(log.contains("closed etcd server"), "etcd's log shows no clean end:\n{log}");
    // Killed from outside, it fails as any service does, and comes back as its unit says.
    machine.run("systemctl start etcd && systemctl kill --signal=KILL etcd")?;
    machine.wait_until(
        Duration::from_secs(30),
        "[ $(systemctl show --value -p NRestarts etcd) = 1 ] && systemctl is-active etcd",
    )?;
    holds_the_key(machine)
}

/// With --purge there is nothing left of it.
pub fn leaves_nothing_behind(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    let before = Snapshot::take(machine)?;
    install(machine)?;
    let meanwhile = Snapshot::take(machine)?;
    for seen in ["process etcd", "unit etcd.service", "folder /var/lib/etcd"] {
        ensure!(meanwhile.has(seen), "no {seen}: the comparison would prove nothing");
    }
    machine.run("sysctr uninstall --purge etcd")?;
    before.ensure_same(&Snapshot::take(machine)?)?;
    ensure!(machine.run("sysctr --json list")? == "[]", "it is still listed");
    machine.fails(5, "sysctr show etcd").map(drop)
}

/// Without --purge its data stays, and a new install finds it.
pub fn keeps_its_data_without_purge(machine: &mut dyn Machine) -> Result<()> {
    install(machine)?;
    machine.run("sysctr uninstall etcd")?;
    machine.run(&format!("sysctr install --now {REGISTRY}/etcd"))?;
    holds_the_key(machine)
}

/// From 3.4 to 3.5 its data come along. The older one could not read them, so a rollback puts those of before back.
pub fn upgrades_its_data(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    let version = "etcdctl endpoint status -w json | grep -o '\"version\":\"3[.][0-9]*'";
    machine.run(&format!("sysctr -q install --now {REGISTRY}/etcd:bookworm && {PUT}"))?;
    ensure!(machine.run(version)?.ends_with("3.4"), "the older one is {}", machine.run(version)?);
    machine.run(&format!("sysctr -q update etcd --to {REGISTRY}/etcd:latest"))?;
    ensure!(machine.run(version)?.ends_with("3.5"), "the newer one is {}", machine.run(version)?);
    holds_the_key(machine)?;
    machine.run("ETCDCTL_API=3 etcdctl put later too")?;
    let refusal = machine.fails(1, &format!("sysctr update --yes etcd --to {REGISTRY}/etcd:bookworm"))?;
    ensure!(refusal.contains("format 304"), "an older image was refused with {refusal}");
    machine.run("sysctr rollback etcd")?;
    ensure!(machine.run(version)?.ends_with("3.4"), "after the rollback it is {}", machine.run(version)?);
    holds_the_key(machine)?;
    let later = "ETCDCTL_API=3 etcdctl get --print-value-only later";
    ensure!(machine.run(later)?.is_empty(), "its data are not those of before");
    machine.run("sysctr rollback etcd --to 2")?;
    ensure!(machine.run(version)?.ends_with("3.5") && machine.run(later)? == "too", "what was kept did not come back");
    machine.run("sysctr verify").map(drop)
}

/// What lies on disk when the power goes right behind the commit of an install: the journal, and nothing in its place yet.
const CUT: &str = r#"cd /etc/sysctr/containers/etcd
    echo '{"version": 1, "operation": "install", "from": null, "to": 1, "enable": true, "purge": false}' >journal.json
    rm /etc/systemd/system.attached/etcd.service /etc/systemd/system/multi-user.target.wants/etcd.service
    sync"#;

/// The boot that finds such an install finishes it, and the service runs in that very boot.
pub fn is_finished_by_the_boot_after_a_cut(machine: &mut dyn Machine) -> Result<()> {
    install(machine)?;
    machine.run(CUT)?;
    machine.cut_power()?;
    holds_the_key(machine)?;
    machine.run("systemctl is-enabled etcd && ! ls /etc/sysctr/containers/etcd/journal.json 2>/dev/null")?;
    machine.run("sysctr verify").map(drop)
}

/// A limit from `systemctl edit` is in force.
pub fn obeys_a_drop_in(machine: &mut dyn Machine) -> Result<()> {
    // `systemctl edit` wants a terminal and an editor. It names the file to write beside those to read.
    machine.run(
        r#"cat >/root/editor <<'END'
#!/bin/sh
for file; do case $file in *.\#*) printf '[Service]\nMemoryMax=300M\n' >"$file" ;; esac; done
END
        chmod +x /root/editor && script -qec 'env SYSTEMD_EDITOR=/root/editor systemctl edit etcd' /dev/null"#,
    )?;
    machine.run("systemctl restart etcd")?;
    limit_holds(machine)
}

/// The limit set by [`obeys_a_drop_in`] is what the kernel has.
pub fn limit_holds(machine: &mut dyn Machine) -> Result<()> {
    let limit = machine.run("cat /sys/fs/cgroup$(systemctl show --value -p ControlGroup etcd)/memory.max")?;
    ensure!(limit == (300 << 20).to_string(), "memory.max is {limit}");
    Ok(())
}

/// Makes the next boot wait for a network card, and everything that wants the network with it.
pub fn makes_the_boot_wait_for_a_card(machine: &mut dyn Machine) -> Result<()> {
    machine.run(
        "systemctl enable systemd-networkd-wait-online && systemctl add-wants multi-user.target network-online.target",
    )?;
    Ok(())
}

/// After a boot that waited in vain: etcd did not.
pub fn was_there_before_the_network(machine: &mut dyn Machine) -> Result<()> {
    ensure!(machine.run("ls /sys/class/net")? == "lo", "there is a network card");
    holds_the_key(machine)?;
    machine.wait_until(Duration::from_secs(120), "systemctl is-active network-online.target")?;
    let mut stamp = |unit: &str, property: &str| -> Result<u64> { Ok(machine.property(unit, property)?.parse()?) };
    let wait = "systemd-networkd-wait-online";
    let waited = stamp(wait, "ExecMainExitTimestampMonotonic")? - stamp(wait, "ExecMainStartTimestampMonotonic")?;
    ensure!(waited > 19_000_000, "the boot waited only {waited} µs for the network: this test proves nothing");
    let (etcd, online) = (
        stamp("etcd", "ActiveEnterTimestampMonotonic")?,
        stamp("network-online.target", "ActiveEnterTimestampMonotonic")?,
    );
    ensure!(etcd > 0 && etcd < online, "etcd was active at {etcd} µs, the network at {online} µs");
    let (before, networkd) = (
        stamp("network-pre.target", "ActiveEnterTimestampMonotonic")?,
        stamp("systemd-networkd", "ExecMainStartTimestampMonotonic")?,
    );
    ensure!(
        etcd <= before && before <= networkd,
        "etcd was active at {etcd} µs, the network could be set up from {before} µs on, and was at {networkd} µs"
    );
    machine.wait_until(Duration::from_secs(60), "systemctl is-active multi-user.target")?;
    ensure!(machine.property(wait, "Result")? == "exit-code", "the wait for the network did not fail");
    Ok(())
}
