//! Reads the settings: /etc/sysctr/sysctr.toml, then the drop-ins of sysctr.toml.d in the order of their names.

use anyhow::{Context, Result};

use super::dir::Folder;
use crate::model::settings::Settings;

/// The settings in force below a root.
pub fn load(root: &Folder) -> Result<Settings> {
    let mut settings = Settings::default();
    let mut add = |folder: &Folder, file: &str| -> Result<()> {
        if let Some(text) = folder.read(file)? {
            let parsed = Settings::parse(&text);
            settings.extend(parsed.with_context(|| format!("reading {}", folder.path().join(file).display()))?);
        }
        Ok(())
    };
    if let Some(folder) = root.open("etc/sysctr")? {
        add(&folder, "sysctr.toml")?;
    }
    if let Some(folder) = root.open("etc/sysctr/sysctr.toml.d")? {
        for file in folder.names()?.iter().filter(|name| name.ends_with(".toml")) {
            add(&folder, file)?;
        }
    }
    Ok(settings)
}
