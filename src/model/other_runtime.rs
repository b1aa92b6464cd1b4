//! An OCI runtime other than the bundled one, chosen for one container with `install --runtime`.

use std::{fmt, str::FromStr};

use super::name::ContainerName;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

/// Its absolute path, of characters that mean nothing else in a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuntimePath(String);

/// Why a text is no such path.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid runtime {0:?}: use an absolute path such as /usr/bin/crun, of a-z, A-Z, 0-9, '/', '.', '_', '+' and '-'"
)]
pub struct BadRuntime(String);

impl RuntimePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RuntimePath {
    type Err = BadRuntime;

    fn from_str(text: &str) -> Result<Self, BadRuntime> {
        let good = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
        };
        match text.strip_prefix('/') {
            Some(rest) if rest.split('/').all(good) => Ok(Self(text.to_owned())),
            _ => Err(BadRuntime(text.to_owned())),
        }
    }
}

impl TryFrom<String> for RuntimePath {
    type Error = BadRuntime;

    fn try_from(text: String) -> Result<Self, BadRuntime> {
        text.parse()
    }
}

impl From<RuntimePath> for String {
    fn from(path: RuntimePath) -> String {
        path.0
    }
}

impl fmt::Display for RuntimePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What such a runtime cannot have of this configuration, and what to know about it, in plain words.
pub fn hints(runtime: &RuntimePath, name: &ContainerName, spec: &Spec) -> Vec<String> {
    let mut hints =
        vec![format!("its state for {runtime} is elsewhere: `{runtime} --root /run/sysctr/foreign/{name}/state list`")];
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    let private_pids =
        namespaces.into_iter().flatten().any(|one| one.typ() == LinuxNamespaceType::Pid && one.path().is_none());
    if !private_pids {
        hints.push(format!(
            "{runtime} shares the host's processes here: LISTEN_FDS and WATCHDOG_USEC do not reach the program, since nobody knows its number beforehand"
        ));
    }
    if linux.is_some_and(|linux| linux.seccomp().is_some()) {
        hints.push(format!("{runtime} builds the seccomp filter anew at each start, which takes some milliseconds"));
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_absolute_path_is_taken() {
        for good in ["/usr/bin/crun", "/opt/x_1/runc-1.2+deb"] {
            assert_eq!(good.parse::<RuntimePath>().expect(good).as_str(), good);
        }
        for bad in [
            "",
            "/",
            "crun",
            "./crun",
            "/usr//crun",
            "/usr/bin/",
            "/usr/../crun",
            "/a b",
            "/a%n",
            "/a$X",
            "/a;b",
            "/a\n",
        ] {
            assert!(bad.parse::<RuntimePath>().is_err(), "{bad:?} was taken");
        }
        assert!(serde_json::from_str::<RuntimePath>("\"crun\"").is_err());
    }
}
