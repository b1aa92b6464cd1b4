//! What sysctr promises, on any booted machine. `main.rs` says which machine each of them runs on.

pub mod auto;
pub mod boot;
pub mod boots;
pub mod cni;
pub mod dependents;
pub mod directives;
pub mod engine;
pub mod etcd;
pub mod exec;
pub mod failures;
pub mod foreign;
pub mod handover;
pub mod health;
pub mod hooks;
pub mod httpd;
pub mod instances;
pub mod kubelet;
pub mod legacy;
pub mod limits;
pub mod load;
pub mod many;
pub mod on_demand;
pub mod order;
pub mod phases;
pub mod power;
pub mod probation;
pub mod refuse;
pub mod secret;
pub mod sockets;
pub mod state;
pub mod together;
pub mod trace;
pub mod update;
pub mod updates;
pub mod users;

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::machine::Machine;

/// The registry that every machine has, and starts by itself.
pub const REGISTRY: &str = "127.0.0.1:5000";

/// Puts one of the small images where a container of that name is installed from.
pub fn image(machine: &mut dyn Machine, name: &str, image: &str) -> Result<()> {
    machine
        .run(&format!(
            "rm -rf /root/images/{name} && mkdir -p /root/images && cp -r /srv/payload/images/{image} /root/images/{name}"
        ))
        .map(drop)
}

/// Installs a container of such an image, and starts it.
pub fn install(machine: &mut dyn Machine, name: &str) -> Result<()> {
    image(machine, name, "tiny")?;
    machine.run(&format!("sysctr -q install --now oci:/root/images/{name}:1 --name {name}")).map(drop)
}

/// How long a service has to stay up.
pub fn settle(machine: &mut dyn Machine, seconds: u32) -> Result<()> {
    machine
        .run(&format!("mkdir -p /etc/sysctr && printf '[update]\\nsettle = {seconds}\\n' >/etc/sysctr/sysctr.toml"))
        .map(drop)
}

/// The service runs this deployment, which is in force.
pub fn runs(machine: &mut dyn Machine, name: &str, deployment: u32) -> Result<()> {
    let script = format!(
        "systemctl is-active {name}; cat /etc/sysctr/containers/{name}/active
         systemctl show --value -p ExecStart {name} | grep -o 'deployments/[0-9]*' | head -1
         ls /etc/sysctr/containers/{name}/journal.json 2>/dev/null"
    );
    let found = machine.try_run(&script, Duration::from_secs(20))?.stdout;
    let found: Vec<&str> = found.split_whitespace().collect();
    let (number, folder) = (deployment.to_string(), format!("deployments/{deployment}"));
    ensure!(found.starts_with(&["active", &number, &folder]), "{name} should run deployment {deployment}: {found:?}");
    ensure!(!found.iter().any(|word| word.ends_with("json")), "an operation of {name} is under way: {found:?}");
    Ok(())
}

/// Which run of a service this is.
pub fn run_of(machine: &mut dyn Machine, name: &str) -> Result<String> {
    machine.property(name, "InvocationID")
}

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
