//! Records on disk, as JSON. Each has a version; a newer one than ours is refused.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A record of a known version.
pub trait Record: Serialize + DeserializeOwned {
    /// The newest version that this program reads, and the one that it writes.
    const VERSION: u32;
}

/// Reads a record; a newer version is refused before anything else of it is believed.
pub fn parse<R: Record>(text: &str) -> Result<R> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(text).context("no record of sysctr")?;
    ensure!(
        version <= R::VERSION,
        "written by a newer sysctr (record version {version}, this one reads {})",
        R::VERSION
    );
    serde_json::from_str(text).context("a damaged record")
}

/// The text of a record.
pub fn to_text(record: &impl Record) -> Result<String> {
    Ok(serde_json::to_string_pretty(record).context("writing a record")? + "\n")
}
