//! What the specification says and the crate that reads config.json does not.
//!
//! A config.json that is read at once costs nothing more; one that is not is looked at again before it is refused.

use std::path::Path;

use anyhow::Result;
use oci_spec::runtime::{Capability, Spec};
use serde_json::Value;

/// Reads config.json. Unknown capabilities are warned of and left out, as config.md#linux-process has it: a container made for a
/// newer kernel should start on an older one.
pub fn parse(text: &[u8]) -> Result<Spec> {
    let first = match serde_json::from_slice(text) {
        Ok(spec) => return Ok(spec),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_slice(text)?;
    let unknown = drop_unknown_capabilities(&mut value);
    let renamed = rename_scheduler_flags(&mut value);
    if unknown.is_empty() && !renamed {
        return Err(first.into());
    }
    let spec = serde_json::from_value(value)?;
    for name in unknown {
        eprintln!("warning: the capability {name} is not known, and left out");
    }
    Ok(spec)
}

/// Makes destinations of mounts absolute: a relative one is meant from the root.
pub fn from_the_root(spec: &mut Spec) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if mount.destination().is_relative() {
            let absolute = Path::new("/").join(mount.destination());
            mount.set_destination(absolute);
        }
    }
}

fn drop_unknown_capabilities(spec: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let sets = spec.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    for names in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        names.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known && !unknown.contains(&name.to_string()) {
                unknown.push(name.to_string());
            }
            known
        });
    }
    unknown
}

/// The crate has other names for two of them.
fn rename_scheduler_flags(spec: &mut Value) -> bool {
    let flags = spec.pointer_mut("/process/scheduler/flags").and_then(Value::as_array_mut);
    let mut renamed = false;
    for flag in flags.into_iter().flatten() {
        let crates = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = crates.into();
        renamed = true;
    }
    renamed
}
