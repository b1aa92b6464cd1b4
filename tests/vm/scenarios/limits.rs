//! Limits of the control group, where the kernel has every controller: a container's group holds what a plain unit's holds.

use anyhow::{Context, Result, ensure};

use super::processes;
use crate::machine::Machine;

/// What a drop-in says, and the file in the control group that shows it. systemd-nspawn has none of these here.
const CASES: [(&str, &str); 16] = [
    ("CPUWeight=55", "cpu.weight"),
    ("CPUQuota=30%%", "cpu.max"),
    ("CPUQuota=30%%\\nCPUQuotaPeriodSec=20ms", "cpu.max"),
    ("AllowedCPUs=1", "cpuset.cpus"),
    ("AllowedMemoryNodes=0", "cpuset.mems"),
    ("MemoryMin=4M", "memory.min"),
    ("MemoryLow=5M", "memory.low"),
    ("MemoryHigh=50M", "memory.high"),
    ("MemoryMax=60M", "memory.max"),
    ("MemorySwapMax=0", "memory.swap.max"),
    ("MemoryZSwapMax=0", "memory.zswap.max"),
    ("OOMPolicy=kill", "memory.oom.group"),
    ("TasksMax=55", "pids.max"),
    ("IOReadBandwidthMax=/dev/nvme0n1 1M", "io.max"),
    ("IOWriteIOPSMax=/dev/nvme0n1 100", "io.max"),
    ("IODeviceLatencyTargetSec=/dev/nvme0n1 10ms", "io.latency"),
];

/// Under each of them, and under one that is too low to start at all.
pub fn hold_as_for_a_plain_unit(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(
        "sysctr -q install oci:/srv/payload/images/tiny:1 && install -m 755 /srv/payload/images/program /usr/local/bin/tiny
         echo 'u tiny 4711' | systemd-sysusers -
         printf '[Service]\\nType=notify\\nUser=4711\\nOOMPolicy=stop\\nDelegate=yes\\nExecStart=/usr/local/bin/tiny\\n' \\
            >/run/systemd/system/plain.service",
    )?;
    for (lines, file) in CASES {
        let base = under(machine, "plain", "", file)?;
        let plain = under(machine, "plain", lines, file)?;
        ensure!(plain != base, "{lines} shows nothing in {file} of a plain unit, which has {base:?}");
        let boxed = under(machine, "tiny", lines, file)?;
        ensure!(plain == boxed, "under {lines} {file} of a plain unit has {plain:?}, of a container {boxed:?}");
        let running = processes(machine, "tiny")?;
        ensure!(running == ["tiny"], "in its control group run {running:?}");
    }
    told_where_it_is_too_low(machine)
}

/// What a file of the unit's control group holds while it runs under these lines.
fn under(machine: &mut dyn Machine, unit: &str, lines: &str, file: &str) -> Result<String> {
    let script = format!(
        "mkdir -p /run/systemd/system/{unit}.service.d
         printf '[Service]\\n{lines}\\n' >/run/systemd/system/{unit}.service.d/limit.conf; systemctl daemon-reload
         systemctl restart {unit} && cat /sys/fs/cgroup$(systemctl show --value -p ControlGroup {unit})/{file} 2>/dev/null || true"
    );
    machine.run(&script).with_context(|| format!("{unit} under {lines}"))
}

/// A limit that leaves the launcher no room is told by it, or where it is ended before it can say a word, by systemd. The next start
/// works.
fn told_where_it_is_too_low(machine: &mut dyn Machine) -> Result<()> {
    for (lines, property, wanted) in [
        ("TasksMax=1", "StatusText", "is TasksMax= of the unit too low?"),
        ("MemoryMax=200K\\nMemorySwapMax=0", "Result", "oom-kill"),
    ] {
        machine.run(&format!(
            "systemctl stop tiny; systemctl reset-failed tiny; printf '[Service]\\nRestart=no\\n{lines}\\n' \\
                >/run/systemd/system/tiny.service.d/limit.conf; systemctl daemon-reload"
        ))?;
        machine.fails(1, "systemctl start tiny")?;
        let found = machine.property("tiny", property)?;
        ensure!(found.contains(wanted), "under {lines} the {property} is {found:?}");
        ensure!(processes(machine, "tiny")?.is_empty(), "a process of it stayed");
        machine.run(
            "rm /run/systemd/system/tiny.service.d/limit.conf; systemctl daemon-reload; systemctl start tiny && systemctl is-active tiny",
        )?;
    }
    Ok(())
}
