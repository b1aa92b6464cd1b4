//! Applies a container's sysusers.d and tmpfiles.d files on the running system; below another root the first boot does it.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::dir::Folder;
use crate::model::{
    layout::{self, SYSUSERS, TMPFILES},
    name::ContainerName,
};

/// Makes the system users that the image ships (systemd-sysusers(8)).
pub fn sysusers(running: bool, name: &ContainerName, root: &Folder) -> Result<()> {
    if running { run("systemd-sysusers", &[], SYSUSERS, name, root) } else { Ok(()) }
}

/// Makes the files and folders that the image ships (systemd-tmpfiles(8)).
pub fn tmpfiles(running: bool, name: &ContainerName, root: &Folder) -> Result<()> {
    if running { run("systemd-tmpfiles", &["--create"], TMPFILES, name, root) } else { Ok(()) }
}

fn run(program: &str, arguments: &[&str], file: &str, name: &ContainerName, root: &Folder) -> Result<()> {
    let (folder, placed) = layout::place(name, file);
    let there = root.open(folder)?.map(|folder| folder.kind(&placed)).transpose()?.flatten().is_some();
    if !there {
        return Ok(());
    }
    let path = format!("/{folder}/{placed}");
    let output = match Command::new(program).args(arguments).arg(&path).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("running {program} {path}")),
    };
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {path}: {}", words.lines().last().unwrap_or("failed"));
    Ok(())
}
