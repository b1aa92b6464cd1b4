//! The instance of a template unit: what stands between `@` and `.service`.

use std::{fmt, str::FromStr};

/// What systemd takes as an instance, see systemd.unit(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(String);

/// Text that cannot name an instance.
#[derive(Debug, thiserror::Error)]
#[error("invalid instance {0:?}: use letters, digits, ':', '-', '_', '.' and '\\'")]
pub struct BadInstance(String);

impl FromStr for Instance {
    type Err = BadInstance;

    fn from_str(text: &str) -> Result<Instance, BadInstance> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\".contains(&byte);
        if !text.is_empty() && text.bytes().all(known) {
            Ok(Instance(text.to_owned()))
        } else {
            Err(BadInstance(text.to_owned()))
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
