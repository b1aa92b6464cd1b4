//! Another OCI runtime for one container: the service stays what it was, and nothing of that runtime stays.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{REGISTRY, etcd, processes, registry, stops_cleanly};
use crate::machine::Machine;
use crate::snapshot::Snapshot;

/// Where Debian has them.
pub const CRUN: &str = "/usr/bin/crun";
/// The same for runc.
pub const RUNC: &str = "/usr/sbin/runc";

/// etcd by crun.
pub fn crun_runs_etcd(machine: &mut dyn Machine) -> Result<()> {
    runs_etcd(machine, CRUN)
}

/// etcd by runc.
pub fn runc_runs_etcd(machine: &mut dyn Machine) -> Result<()> {
    runs_etcd(machine, RUNC)
}

fn runs_etcd(machine: &mut dyn Machine, runtime: &str) -> Result<()> {
    registry(machine)?;
    machine.booted()?;
    let before = Snapshot::take(machine)?;
    let hints = machine.run(&format!("sysctr install --runtime {runtime} {REGISTRY}/etcd 2>&1 >/dev/null"))?;
    ensure!(hints.contains("hint: ") && hints.contains(runtime), "no hint: {hints}");
    let shown = machine.run("sysctr --json show etcd")?;
    ensure!(shown.contains(&format!("\"runtime\": \"{runtime}\"")), "`show` does not tell the runtime: {shown}");
    let again = machine.run(&format!("sysctr install --runtime {runtime} {REGISTRY}/etcd"))?;
    ensure!(again.contains("nothing to do"), "a second install said {again}");
    machine.fails(1, &format!("sysctr install {REGISTRY}/etcd"))?;

    machine.run("systemctl start etcd")?;
    machine.run("ETCDCTL_API=3 etcdctl put greeting hello")?;
    is_etcd_alone(machine)?;
    let traces = machine.run("ls /run/sysctr/foreign/etcd/state")?;
    ensure!(traces.contains("etcd"), "the bundled runtime started it: this test proves nothing");
    machine.run("systemctl restart etcd")?;
    etcd::holds_the_key(machine)?;
    is_etcd_alone(machine)?;
    stops_cleanly(machine, "etcd")?;
    leaves_no_trace(machine)?;

    // Killed from outside, it comes back as its unit says, and what the runtime knew of it is no obstacle.
    machine.run("systemctl start etcd && kill -KILL $(systemctl show --value -p MainPID etcd)")?;
    machine.wait_until(
        Duration::from_secs(30),
        "[ $(systemctl show --value -p NRestarts etcd) = 1 ] && systemctl is-active etcd",
    )?;
    etcd::holds_the_key(machine)?;
    limits_hold(machine)?;

    // A program that is not there: the cause in one line, and the next start works.
    machine.run("systemctl stop etcd; systemctl reset-failed etcd")?;
    let config = "/var/lib/sysctr/containers/etcd/deployments/1/config.json";
    machine.run(&format!("cp {config} /root/whole && sed -i 's|\"/usr/bin/etcd\"|\"/usr/bin/none\"|' {config}"))?;
    machine.fails(1, "systemctl start etcd")?;
    let status = machine.property("etcd", "StatusText")?;
    ensure!(
        status.contains(runtime) && status.to_lowercase().contains("no such file"),
        "the status tells no cause: {status:?}"
    );
    machine.run(&format!("systemctl stop etcd; systemctl reset-failed etcd; mv /root/whole {config}"))?;
    leaves_no_trace(machine)?;
    machine.run("systemctl start etcd")?;
    etcd::holds_the_key(machine)?;

    machine
        .run("sysctr uninstall --purge etcd && rm -rf /etc/systemd/system/etcd.service.d && systemctl daemon-reload")?;
    before.ensure_same(&Snapshot::take(machine)?)
}

/// Its main process is etcd itself, systemd's own child, and no other process is in its control group.
fn is_etcd_alone(machine: &mut dyn Machine) -> Result<()> {
    let running = processes(machine, "etcd")?;
    ensure!(running == ["etcd"], "in the unit's control group run {running:?}");
    let main = machine.run("ps -o comm=,ppid=,uid= -p $(systemctl show --value -p MainPID etcd)")?;
    let main: Vec<&str> = main.split_whitespace().collect();
    ensure!(main == ["etcd", "1", "2379"], "the main process is {main:?}");
    Ok(())
}

fn leaves_no_trace(machine: &mut dyn Machine) -> Result<()> {
    let left =
        machine.run("ls /run/sysctr/foreign; ls -d /sys/fs/cgroup/system.slice/etcd.service 2>/dev/null; true")?;
    ensure!(left.is_empty(), "it left {left}");
    Ok(())
}

/// What a drop-in says of the unit binds the container: its control group is one of the unit's.
fn limits_hold(machine: &mut dyn Machine) -> Result<()> {
    machine.run(
        "mkdir -p /etc/systemd/system/etcd.service.d && printf '[Service]\\nMemoryMax=300M\\nTasksMax=123\\nLimitNOFILE=777\\n' \
         >/etc/systemd/system/etcd.service.d/limits.conf && systemctl daemon-reload && systemctl restart etcd",
    )?;
    let limits = machine.run("cat /proc/$(systemctl show --value -p MainPID etcd)/limits | grep 'open files'")?;
    ensure!(limits.contains("777"), "LimitNOFILE= is {limits}");
    let group = machine.run("sed -n 's/^0:://p' /proc/$(systemctl show --value -p MainPID etcd)/cgroup")?;
    let unit = machine.property("etcd", "ControlGroup")?;
    ensure!(group.starts_with(&format!("{unit}/")), "etcd is in {group}, not below {unit}");
    // In systemd-nspawn the host may have no such controllers to give.
    for (controller, file, wanted) in [("memory", "memory.max", 300 << 20), ("pids", "pids.max", 123)] {
        let found = machine.run(&format!(
            "grep -qw {controller} /sys/fs/cgroup/cgroup.controllers || exit 0; cat /sys/fs/cgroup{unit}/{file}"
        ))?;
        ensure!(found.is_empty() || found == wanted.to_string(), "{file} is {found}");
    }
    etcd::holds_the_key(machine)
}

/// Named sockets, a credential and the program's own report of its readiness.
pub fn hands_on_what_systemd_passes(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    for runtime in [CRUN, RUNC] {
        machine.run(&format!(
            "sysctr install --yes --name tiny --runtime {runtime} oci:/srv/payload/images/tiny-socket:1
             mkdir -p /etc/systemd/system/tiny.service.d
             printf '[Service]\\nSetCredential=secret:told\\n' >/etc/systemd/system/tiny.service.d/secret.conf
             systemctl daemon-reload; systemctl start tiny.socket"
        ))?;
        let said =
            machine.wait_until(Duration::from_secs(20), "curl -s --http0.9 http://127.0.0.1:4711 | grep fds=")?;
        let wanted = "fds=2 names=door:door pid=own credential=told uid=4711";
        ensure!(said == wanted, "by {runtime} the program got {said:?}, not {wanted:?}");
        let said = machine.run("curl -s --http0.9 --unix-socket /run/tiny/first http://x | grep fds=")?;
        ensure!(said == wanted, "by {runtime} the program got {said:?}, not {wanted:?}");
        let status = machine.property("tiny", "StatusText")?;
        ensure!(status == "as small as can be", "by {runtime} the program's own status is {status:?}");
        machine
            .run("sysctr uninstall --purge tiny; rm -r /etc/systemd/system/tiny.service.d; systemctl daemon-reload")?;
    }
    Ok(())
}

/// What is no runtime, or one that others could change, is refused before anything is done.
pub fn what_is_none_is_refused(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.booted()?;
    machine.run("mkdir /root/bin /root/open && cp /usr/bin/true /root/bin/theirs && chown daemon /root/bin/theirs")?;
    machine.run("cp /usr/bin/true /root/bin/soft && chmod 775 /root/bin/soft && cp /usr/bin/true /root/bin/plain")?;
    machine.run("chmod 644 /root/bin/plain && chmod 777 /root/open && cp /usr/bin/true /root/open/crun")?;
    machine.run("ln -s /root/open/crun /root/bin/link")?;
    let before = Snapshot::take(machine)?;
    for (code, path, named) in [
        (2, "crun", "absolute"),
        (2, "/usr/bin/../bin/crun", "absolute"),
        (2, "'/usr/bin/crun --debug'", "absolute"),
        (1, "/usr/bin/none", "not there"),
        (1, "/usr/bin", "no regular file"),
        (1, "/root/bin/theirs", "does not belong to root"),
        (1, "/root/bin/soft", "others than root can write"),
        (1, "/root/bin/plain", "not executable"),
        (1, "/root/open/crun", "others than root can write"),
        (1, "/root/bin/link", "others than root can write"),
    ] {
        let said = machine.fails(code, &format!("sysctr install --runtime {path} {REGISTRY}/etcd"))?;
        ensure!(said.contains("error: ") && said.contains(named), "--runtime {path}: {said}");
        before.ensure_same(&Snapshot::take(machine)?)?;
    }
    Ok(())
}
