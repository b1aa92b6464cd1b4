//! The secret settings of a deployment: files that only root reads, beside its config.json; systemd hands them to the program.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::dir::Folder;
use crate::model::{deployment::Deployment, layout, values::Values};

/// Writes those of a deployment into its folder.
pub fn write(deployment: &Folder, secrets: &BTreeMap<String, String>) -> Result<()> {
    if secrets.is_empty() {
        return Ok(());
    }
    let folder = deployment.create(layout::SECRETS, 0o700)?;
    for (secret, text) in secrets {
        folder.write_new(secret, text, 0o600).with_context(|| format!("writing the value {secret}"))?;
    }
    folder.sync()
}

/// Those of a deployment.
pub fn of(root: &Folder, deployment: &Deployment) -> Result<BTreeMap<String, String>> {
    let names = deployment.values.iter().filter(|(_, value)| value.secret).map(|(name, _)| name);
    let Some(folder) = root.open(&layout::secrets(&deployment.name, deployment.id))? else {
        return Ok(BTreeMap::new());
    };
    let mut secrets = BTreeMap::new();
    for name in names {
        secrets.extend(folder.read(name)?.map(|text| (name.clone(), text)));
    }
    Ok(secrets)
}

/// The values of a deployment with its secrets where the record has `null`, for the next one to take over.
pub fn put_back(root: &Folder, deployment: &Deployment) -> Result<Values> {
    let mut values = deployment.values.clone();
    for (name, text) in of(root, deployment)? {
        if let Some(value) = values.get_mut(&name) {
            value.value = text.into();
        }
    }
    Ok(values)
}
