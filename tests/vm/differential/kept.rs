//! The reports that came out of a machine, kept on disk: `FOLDER/N/`, a number for each time that the driver ran.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

/// The end of a file's name that each bundle has.
const CODE: &str = ".sysctr.code";

/// What came of the driver once.
pub struct Run {
    /// name and content
    pub files: BTreeMap<String, Vec<u8>>,
    /// words for the kind of machine
    pub place: Vec<String>,
}

impl Run {
    /// The bundles in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().filter_map(|name| name.strip_suffix(CODE))
    }
}

/// All of them; none where there is no such folder yet.
pub fn runs(folder: &Path) -> Result<Vec<Run>> {
    let mut all = Vec::new();
    while let number = all.len()
        && let folder = folder.join(number.to_string())
        && folder.exists()
    {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            files.insert(entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?);
        }
        let place = files.remove("place").with_context(|| format!("no place in {}", folder.display()))?;
        let place = String::from_utf8(place)?.lines().map(str::to_owned).collect();
        all.push(Run { files, place });
    }
    Ok(all)
}

/// The bundles that have a report.
pub fn names(folder: &Path) -> Result<BTreeSet<String>> {
    Ok(runs(folder)?.iter().flat_map(|run| run.names().map(str::to_owned).collect::<Vec<_>>()).collect())
}

/// Adds what came of one more run.
pub fn keep(folder: &Path, files: &BTreeMap<String, Vec<u8>>, place: &[String]) -> Result<()> {
    let number = runs(folder)?.len();
    let coming = folder.join("coming");
    if coming.exists() {
        std::fs::remove_dir_all(&coming)?;
    }
    std::fs::create_dir_all(&coming)?;
    for (name, content) in files {
        std::fs::write(coming.join(name), content)?;
    }
    std::fs::write(coming.join("place"), place.join("\n"))?;
    Ok(std::fs::rename(coming, folder.join(number.to_string()))?)
}
