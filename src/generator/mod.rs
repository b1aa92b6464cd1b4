//! What systemd is told before it reads any unit, because a boot cannot wait for what is mended later.
//!
//! ```text
//! journal.json of another boot   EARLY/ has one whole unit set: the one that sysctr-recover.service will leave in force
//! probation.json                 NORMAL/NAME.service.d/ lets a failure of the service be counted
//!                                NORMAL/sysctr.boot, where this boot is not counted yet, lets sysctr-recover.service run
//! neither                        nothing
//! ```
//!
//! It reads /etc alone: /var need not be mounted yet. A journal of this boot is an operation that runs, or one that the next changing command
//! mends: what systemd reads then is what that operation has placed. Nothing that it meets keeps the machine from booting: what it
//! cannot read is told to the kernel's log, and passed over.

use std::{fs, io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result};

use crate::model::{
    journal::{Group, Journal},
    layout,
    name::ContainerName,
    probation::Probation,
    record::{self, Record},
};

mod set;

/// Where systemd wants what.
struct Output<'a> {
    normal: &'a Path,
    early: &'a Path,
}

/// Runs for the system of `/`.
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let [normal, early, ..] = &words[..] else {
        eprintln!("usage: sysctr-generator NORMAL EARLY LATE (run by systemd, see systemd.generator(7))");
        return ExitCode::from(2);
    };
    generate(Path::new("/"), &Output { normal: Path::new(normal), early: Path::new(early) });
    ExitCode::SUCCESS
}

fn generate(root: &Path, output: &Output) {
    let Ok(containers) = fs::read_dir(root.join(layout::CONTAINERS)) else { return };
    for name in containers.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<ContainerName>().ok()) {
        if let Err(error) = one(root, &name, output) {
            tell(&format!("{name}: {error:#}"));
        }
    }
}

fn one(root: &Path, name: &ContainerName, output: &Output) -> Result<()> {
    let folder = root.join(layout::settings(name));
    let journal = read::<Journal>(&folder, layout::JOURNAL);
    let probations = [layout::PROBATION, layout::PROBATION_BEFORE].map(|file| read::<Probation>(&folder, file));
    if matches!((&journal, &probations), (Ok(None), [Ok(None), Ok(None)])) {
        return Ok(());
    }
    let boot = fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
    let boot = boot.trim();
    let active = fs::read_to_string(folder.join(layout::ACTIVE)).ok().and_then(|text| text.trim().parse().ok());
    if let Some(journal) = journal?
        && journal.boot.as_deref() != Some(boot)
    {
        let (place, file) = layout::GROUP;
        let group = journal.group && read::<Group>(&root.join(place), file)?.is_some();
        set::write(root, name, &journal, journal.winner(active, group), output.early)?;
    }
    let [own, before] = probations;
    if let Some(probation) = [own?, before?].into_iter().flatten().find(|it| Some(it.deployment) == active) {
        watch(name, output.normal)?;
        if probation.boot.as_deref() != Some(boot) {
            put(&output.normal.join("sysctr.boot"), "")?;
        }
    }
    Ok(())
}

/// A failure of the service starts the unit that counts it. While a new version is not known to be good, its failures shall neither use up
/// the start limit nor, with a connection that waits, close its socket for good.
fn watch(name: &ContainerName, normal: &Path) -> Result<()> {
    let folder = normal.join(format!("{}.d", name.service_unit()));
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let text = format!(
        "# While an update is on probation: `sysctr show {name}` tells for how long.\n\
         [Unit]\nOnFailure=sysctr-failed@{name}.service\nStartLimitIntervalSec=0\n\
         # When it restarts the service, systemd starts no unit of OnFailure= before version 254, nor with RestartMode=direct.\n\
         [Service]\nExecStopPost=+-/bin/sh -c '[ \"$$SERVICE_RESULT\" = success ] || \
         exec systemctl --no-block start sysctr-failed@{name}.service'\n"
    );
    put(&folder.join("50-sysctr-probation.conf"), &text)
}

fn read<R: Record>(folder: &Path, file: &str) -> Result<Option<R>> {
    let path = folder.join(file);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    record::parse(&text).with_context(|| path.display().to_string()).map(Some)
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// The kernel's log: nothing else is there to write to while systemd reads its units.
fn tell(message: &str) {
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let kernel = fs::OpenOptions::new().write(true).open("/dev/kmsg");
    // Level 3 (error) of facility 3 (daemons), as sd-daemon(3) writes it.
    let told = kernel.and_then(|mut log| log.write_all(format!("<27>sysctr-generator: {line}\n").as_bytes()));
    if told.is_err() {
        eprintln!("sysctr-generator: {line}");
    }
}

#[cfg(test)]
mod tests;
