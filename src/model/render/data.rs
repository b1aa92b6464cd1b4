//! What templates see, and the filter of system calls that goes into config.json.

use anyhow::{Context, Result};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value as Json, json};

use super::{Inputs, text, unit::unit_name};
use crate::model::{
    layout,
    manifest::{Container, Manifest},
    seccomp::{self, Choice, Profile},
    spec,
    values::{Value, Values},
};

/// The filter of system calls that the manifest chooses.
pub(super) fn filter(inputs: &Inputs, container: &Container) -> Result<Option<LinuxSeccomp>> {
    let architecture = inputs.config.architecture().to_string();
    let held = spec::bounding(container)?;
    match Choice::of(container.seccomp.as_deref()) {
        Choice::Default => seccomp::default(&architecture, &held).map(Some),
        Choice::Unconfined => Ok(None),
        Choice::File(file) => {
            let text = text(inputs, &file)?.with_context(|| {
                format!(
                    "/exports/manifest.json: container.seccomp is \"default\", \"unconfined\" or a file of /exports, and there is no {file:?} in it"
                )
            })?;
            let profile = Profile::parse(text).and_then(|profile| profile.resolve(&architecture, &held));
            profile.with_context(|| format!("/exports/{file}")).map(Some)
        }
    }
}

/// What templates see.
pub(super) fn data(
    inputs: &Inputs,
    manifest: &Manifest,
    values: &Values,
    filter: Option<&LinuxSeccomp>,
) -> Result<Json> {
    let values: serde_json::Map<String, Json> =
        values.iter().map(|(name, value)| (name.clone(), shown(inputs, name, value))).collect();
    let description = manifest.description.as_deref().map(str::trim).filter(|text| !text.is_empty());
    Ok(json!({
        "name": inputs.name,
        "description": description.map_or_else(|| format!("{} ({})", inputs.name, inputs.image), str::to_owned),
        "image_name": inputs.image,
        "image_id": inputs.digest.hex(),
        "seccomp": filter,
        "capabilities": spec::bounding(&manifest.container)?,
        "range": inputs.range,
        "state_directory": "/var/lib",
        "run_directory": "/run",
        "conf_directory": "/etc",
        "after": manifest.after.iter().map(|unit| unit_name(unit)).collect::<Vec<_>>(),
        "before": manifest.before.iter().map(|unit| unit_name(unit)).collect::<Vec<_>>(),
        "requires": manifest.requires.iter().map(|unit| unit_name(unit)).collect::<Vec<_>>(),
        "wants": manifest.wants.iter().map(|unit| unit_name(unit)).collect::<Vec<_>>(),
        "values": values,
    }))
}

/// A value as templates see it: of a secret only where the program finds it.
fn shown(inputs: &Inputs, name: &str, value: &Value) -> Json {
    if value.secret { layout::handed_over(inputs.name, name).into() } else { value.value.clone() }
}
