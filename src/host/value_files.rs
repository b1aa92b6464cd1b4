//! Values that an admin keeps in files: one for each (`--set-file`), or a table of them (`--values`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::model::{
    fault::{Code, Fault},
    values::{self, Setting},
};

/// Bytes of such a file that are still believed; systemd hands no larger credential over.
const LIMIT: u64 = 1 << 20;

/// All that was given, each value once: `set` and `set_file` win over the tables, and a later table over an earlier one.
pub fn gather(set: &[Setting], set_file: &[Setting], tables: &[PathBuf]) -> Result<Vec<Setting>> {
    let mut given = set.to_vec();
    for Setting { key, value: path } in set_file {
        let text = read(Path::new(path)).with_context(|| format!("the value {key}"))?;
        // Whoever wrote a line with an editor meant what is on it.
        let line = text.strip_suffix('\n').filter(|line| !line.contains('\n'));
        given.push(Setting { key: key.clone(), value: line.unwrap_or(&text).to_owned() });
    }
    let named: Vec<String> = given.iter().map(|setting| setting.key.clone()).collect();
    let mut of_tables: Vec<Setting> = Vec::new();
    for path in tables {
        let text = read(path)?;
        let is_json = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
        let settings = values::parse_file(&text, is_json).map_err(|error| {
            let words = format!("{error:#}");
            let words = words.trim().replace('\n', " ");
            Fault::new(Code::Failed, format!("{}: {words}", path.display()))
        })?;
        of_tables.retain(|earlier| !settings.iter().any(|later| later.key == earlier.key));
        of_tables.extend(settings);
    }
    given.extend(of_tables.into_iter().filter(|setting| !named.contains(&setting.key)));
    Ok(given)
}

fn read(path: &Path) -> Result<String> {
    let reading = || format!("reading {}", path.display());
    let length = std::fs::metadata(path).with_context(reading)?.len();
    anyhow::ensure!(length <= LIMIT, "{}: more than {LIMIT} bytes", path.display());
    std::fs::read_to_string(path).with_context(reading)
}
