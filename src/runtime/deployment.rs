//! A deployment as it lies on disk: `config.json` and, beside it, the root file system.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;

use super::{check, lenient};
use crate::model::instance::Instance;

/// A deployment whose config.json this runtime can carry out whole.
#[derive(Debug)]
pub struct Deployment {
    /// The folder, absolute and without symbolic links.
    pub dir: PathBuf,
    /// Its config.json.
    pub spec: Spec,
}

impl Deployment {
    /// Reads and checks `dir/config.json`.
    pub fn load(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| format!("finding the deployment {}", dir.display()))?;
        let path = dir.join("config.json");
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut spec = lenient::parse(&text).with_context(|| format!("reading {}", path.display()))?;
        lenient::from_the_root(&mut spec);
        check::supported(&spec).with_context(|| format!("checking {}", path.display()))?;
        Ok(Self { dir, spec })
    }

    /// An annotation that is there and says "true".
    pub fn annotated(&self, key: &str) -> bool {
        self.spec.annotations().as_ref().and_then(|all| all.get(key)).is_some_and(|value| value == "true")
    }
}

/// What messages call the container: NAME of `.../NAME/deployments/N`, with `@INSTANCE` where there is one.
pub fn name_of(dir: &Path, instance: Option<&str>) -> Result<String> {
    let folder = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = match dir.parent() {
        Some(parent) if folder(parent).as_deref() == Some("deployments") => parent.parent().and_then(folder),
        _ => folder(dir),
    };
    let name = name.unwrap_or_else(|| dir.display().to_string());
    match instance {
        None => Ok(name),
        Some(instance) => Ok(format!("{name}@{}", instance.parse::<Instance>()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_comes_from_the_deployments_path() {
        for (dir, instance, name) in [
            ("/var/lib/sysctr/containers/etcd/deployments/3", None, "etcd"),
            ("/var/lib/sysctr/containers/etcd/deployments/3/", Some("a"), "etcd@a"),
            ("/tmp/bundle", None, "bundle"),
        ] {
            assert_eq!(name_of(Path::new(dir), instance).unwrap(), name);
        }
        assert!(name_of(Path::new("/tmp/bundle"), Some("a/b")).is_err());
    }
}
