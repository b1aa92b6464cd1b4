//! Lets other programs do their part of an install: the bundled runtime judges a config.json, systemd's tools make system users and
//! files. Below another root the first boot does the latter.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::dir::Folder;
use crate::model::{
    deployment::Deployment,
    host_lines,
    layout::{self, SYSUSERS, TMPFILES},
    name::ContainerName,
    other_runtime::RuntimePath,
};

/// Makes the system users that the image ships (systemd-sysusers(8)).
pub fn sysusers(running: bool, name: &ContainerName, root: &Folder) -> Result<()> {
    if running { run("systemd-sysusers", &[], SYSUSERS, name, root) } else { Ok(()) }
}

/// Makes the files and folders that the image ships (systemd-tmpfiles(8)).
pub fn tmpfiles(running: bool, name: &ContainerName, root: &Folder) -> Result<()> {
    if running { run("systemd-tmpfiles", &["--create"], TMPFILES, name, root) } else { Ok(()) }
}

/// Makes the files and folders of these lines, now and not again.
pub fn tmpfiles_once(lines: &str) -> Result<()> {
    lines_of_tmpfiles("--create", lines)
}

/// The lines of a deployment that take something away when it is uninstalled.
pub fn removals(root: &Folder, record: &Deployment, purge: bool) -> Result<String> {
    let set = root.open(&layout::unit_set(&record.name, record.id))?;
    let text = set.map(|set| set.read(TMPFILES)).transpose()?.flatten().unwrap_or_default();
    Ok(host_lines::removals(&text, record, purge))
}

/// Takes that away.
pub fn remove_tmpfiles(root: &Folder, record: &Deployment, purge: bool) -> Result<()> {
    let lines = removals(root, record, purge)?;
    if lines.is_empty() { Ok(()) } else { lines_of_tmpfiles("--remove", &lines) }
}

fn lines_of_tmpfiles(action: &str, lines: &str) -> Result<()> {
    let mut command = Command::new("systemd-tmpfiles");
    command.args([action, "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("running systemd-tmpfiles")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes()).context("running systemd-tmpfiles")?;
    }
    let output = child.wait_with_output().context("running systemd-tmpfiles")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "systemd-tmpfiles: {}", words.lines().last().unwrap_or("failed"));
    Ok(())
}

/// Lets the runtime check a deployment's config.json, so that what it refuses is refused at install and not at the first start; it
/// also leaves there what makes the start quicker. Where it is not installed there is nothing to ask.
/// `other` is the runtime that starts it in the bundled one's place.
pub fn prepare(deployment: &Folder, other: Option<&RuntimePath>) -> Result<()> {
    let mut command = Command::new(layout::RUNTIME);
    match other {
        None => command.arg("prepare"),
        Some(other) => command.args(["prepare-with", other.as_str()]),
    };
    let output = match command.arg(deployment.path()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("running {}", layout::RUNTIME)),
    };
    let words = String::from_utf8_lossy(&output.stderr);
    let cause = words.lines().last().unwrap_or("it gave no reason").trim_start_matches("error: ");
    ensure!(output.status.success(), "the runtime refuses config.json: {cause}");
    Ok(())
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
