//! What a boot recovered and did not wait for: a note below /run, for `sysctr-settle.service`.

use anyhow::Result;

use super::dir::Folder;
use crate::model::name::ContainerName;

/// Its condition.
const FOLDER: &str = "run/sysctr/recovered";

/// Notes a container whose service is to be looked at.
pub fn note(name: &ContainerName) -> Result<()> {
    let root = Folder::root("/".as_ref())?;
    root.create("run/sysctr", 0o700)?;
    root.create(FOLDER, 0o700)?.write_new(name.as_str(), "", 0o600)
}

/// All that are noted, and forgets them.
pub fn take() -> Result<Vec<ContainerName>> {
    let Some(folder) = Folder::root("/".as_ref())?.open(FOLDER)? else { return Ok(Vec::new()) };
    let names = folder.names()?;
    names.iter().try_for_each(|name| folder.remove(name).map(drop))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}
