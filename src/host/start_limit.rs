//! While an update runs, systemd's start limit is lifted: a new program that fails at once, with a connection queued at its socket, would
//! else use it up and close the socket for good. A drop-in below /run, so that a boot forgets it.

use anyhow::Result;

use super::dir::Folder;
use crate::model::name::ContainerName;

const DROP_IN: &str = "50-sysctr-update.conf";
const TEXT: &str = "# while sysctr updates it\n[Unit]\nStartLimitIntervalSec=0\n";

/// Lifts it with the next reload of systemd.
pub fn lift(name: &ContainerName) -> Result<()> {
    running()?.create(&folder(name), 0o755)?.write(DROP_IN, TEXT, 0o644)
}

/// Puts it back with the next reload of systemd; whether there is anything to reload.
pub fn restore(name: &ContainerName) -> Result<bool> {
    let root = running()?;
    let Some(drop_ins) = root.open(&folder(name))? else { return Ok(false) };
    let there = drop_ins.remove(DROP_IN)?;
    if let Some(units) = root.open(UNITS)? {
        units.remove_empty(&folder_name(name))?;
    }
    Ok(there)
}

const UNITS: &str = "run/systemd/system";

fn running() -> Result<Folder> {
    Folder::root("/".as_ref())
}

fn folder(name: &ContainerName) -> String {
    format!("{UNITS}/{}", folder_name(name))
}

fn folder_name(name: &ContainerName) -> String {
    format!("{}.d", name.service_unit())
}
