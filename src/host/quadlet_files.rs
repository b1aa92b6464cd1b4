//! A Quadlet file and what it names beside it, from the folder where it lies.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use crate::model::quadlet::{self, Source};

/// No such file is near this size.
const LIMIT: u64 = 1 << 20;

/// Reads them.
pub fn load(path: &Path) -> Result<Source> {
    let file = path.file_name().and_then(|name| name.to_str());
    let file = file.with_context(|| format!("{} is no name of a file", path.display()))?.to_owned();
    let text = read(path)?;
    let drop_ins = path.with_file_name(format!("{file}.d"));
    let of_podman = |name: &str| name.ends_with(".conf");
    let mut found = fs::read_dir(&drop_ins).into_iter().flatten().flatten();
    if let Some(one) = found.find(|one| one.file_name().to_str().is_some_and(of_podman)) {
        bail!("{}: drop-ins are not read: put its lines into {file}", one.path().display());
    }
    let mut beside = BTreeMap::new();
    for name in quadlet::named(&file, &text)? {
        let other = path.parent().unwrap_or(Path::new("")).join(&name);
        // Which line names a file that is not there is said where it is read.
        if other.exists() {
            beside.insert(name, read(&other)?);
        }
    }
    Ok(Source { file, text, beside })
}

fn read(path: &Path) -> Result<String> {
    let reading = || format!("reading {}", path.display());
    let size = fs::metadata(path).with_context(reading)?.len();
    ensure!(size <= LIMIT, "{} is larger than {LIMIT} bytes", path.display());
    fs::read_to_string(path).with_context(reading)
}
