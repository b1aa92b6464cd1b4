//! What cannot be installed changes nothing.

use anyhow::{Result, ensure};

use super::{REGISTRY, registry};
use crate::machine::Machine;
use crate::snapshot::Snapshot;

/// Each of these ends with one line, its own exit code, and the machine as before.
pub fn bad_installs_change_nothing(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.booted()?;
    let before = Snapshot::take(machine)?;
    let cases = [
        (1, "sysctr install 127.0.0.1:5000/none".to_owned(), "none"),
        (1, "sysctr install 127.0.0.1:5999/etcd".to_owned(), "127.0.0.1:5999"),
        (2, format!("sysctr install --name ../etcd {REGISTRY}/etcd"), "../etcd"),
        (1, format!("sysctr install --name docker-registry {REGISTRY}/etcd"), "docker-registry"),
        (1, format!("sysctr install --set client_port=many {REGISTRY}/etcd"), "client_port"),
        (1, format!("sysctr install --set no_such=1 {REGISTRY}/etcd"), "no_such"),
        (4, format!("sysctr install {REGISTRY}/httpd"), "/var/www"),
    ];
    for (code, command, named) in cases {
        let said = machine.fails(code, &command)?;
        ensure!(said.contains(named), "`{command}` does not name {named:?}: {said}");
        ensure!(said.contains("error: "), "`{command}` said {said}");
        before.ensure_same(&Snapshot::take(machine)?)?;
    }
    Ok(())
}
