//! What sysctr promises, on any booted machine. `main.rs` says which machine each of them runs on.

pub mod directives;
pub mod etcd;
pub mod exec;
pub mod failures;
pub mod foreign;
pub mod handover;
pub mod hooks;
pub mod httpd;
pub mod load;
pub mod many;
pub mod refuse;
pub mod sockets;
pub mod trace;
pub mod update;

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::machine::Machine;

/// The registry that every machine has, and starts by itself.
pub const REGISTRY: &str = "127.0.0.1:5000";

/// Waits for the machine's registry.
pub fn registry(machine: &mut dyn Machine) -> Result<()> {
    machine.wait_until(Duration::from_secs(60), "curl -sf http://127.0.0.1:5000/v2/ >/dev/null").map(drop)
}

/// The processes in a unit's control group and those below it.
pub fn processes(machine: &mut dyn Machine, unit: &str) -> Result<Vec<String>> {
    let script = format!(
        "group=$(systemctl show --value -p ControlGroup {unit}); [ -n \"$group\" ] || exit 0
         find /sys/fs/cgroup\"$group\" -name cgroup.procs -exec cat {{}} + | while read -r pid; do cat /proc/$pid/comm; done"
    );
    Ok(machine.run(&script)?.lines().map(str::to_owned).collect())
}

/// Stops a unit and checks that it went as with any service: soon, in order, with nothing left.
pub fn stops_cleanly(machine: &mut dyn Machine, unit: &str) -> Result<()> {
    let took: u64 = machine
        .run(&format!("t=$(date +%s%N); systemctl stop {unit}; echo $(( ($(date +%s%N) - t) / 1000000 ))"))?
        .parse()?;
    ensure!(took < 2000, "stopping {unit} took {took} ms");
    for (property, wanted) in
        [("ActiveState", "inactive"), ("Result", "success"), ("ExecMainStatus", "0"), ("ExecMainCode", "1")]
    {
        let found = machine.property(unit, property)?;
        ensure!(found == wanted, "after the stop {property} of {unit} is {found}, not {wanted}");
    }
    ensure!(processes(machine, unit)?.is_empty(), "processes of {unit} outlived it");
    Ok(())
}
