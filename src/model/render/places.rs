//! The places on the host that a container has: its own, and those of its state.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::Spec;

use super::{Inputs, Rendered};
use crate::model::{
    deployment::OwnedFolder,
    layout,
    manifest::{self, Manifest},
    name::ContainerName,
    request,
    user::User,
};

impl Rendered {
    /// [`homes`] of it.
    pub fn homes(&self, name: &ContainerName) -> Vec<String> {
        homes(name, &self.spec, &self.state, &self.files)
    }
}

/// The host folders named after a container that a deployment uses: its own only if nobody else has them.
pub fn homes(
    name: &ContainerName,
    spec: &Spec,
    state: &[OwnedFolder],
    files: &BTreeMap<String, String>,
) -> Vec<String> {
    let directives = [("State", "lib"), ("Cache", "cache"), ("Logs", "log")]
        .map(|(kind, place)| (kind, format!("/var/{place}/{name}")));
    let directives = directives.into_iter().chain([("Runtime", format!("/run/{name}"))]);
    let by_directive = directives.filter(|(kind, _)| {
        let line = format!("{kind}Directory=");
        files.values().any(|text| text.lines().any(|given| given.starts_with(&line)))
    });
    let sources = spec.mounts().iter().flatten().filter_map(|mount| mount.source().as_ref()?.to_str());
    let paths: Vec<&str> = sources
        .chain(state.iter().map(|folder| folder.path.as_str()))
        .chain(files.get(layout::TMPFILES).map_or("", String::as_str).split_ascii_whitespace())
        .chain(files.values().flat_map(|text| text.lines()).filter_map(listened))
        .collect();
    let by_path = own_folders(name).into_iter().filter(|home| paths.iter().any(|path| request::is_below(path, home)));
    let mut homes: Vec<String> = by_path.chain(by_directive.map(|(_, path)| path)).collect();
    homes.sort();
    homes.dedup();
    homes
}

/// What a line of a socket unit listens on.
fn listened(line: &str) -> Option<&str> {
    line.strip_prefix("Listen")?.split_once('=').map(|(_, value)| value)
}

/// The places that a container has for itself.
pub(in crate::model) fn own_folders(name: &ContainerName) -> [String; 2] {
    [format!("/var/lib/{name}"), format!("/run/{name}")]
}

/// State that the manifest declares, and the volumes of the image's config, each with the place where the container sees it.
pub(super) fn state(inputs: &Inputs, manifest: &Manifest, user: &User) -> Result<Vec<(OwnedFolder, String)>> {
    let folder = |path: String, mode| OwnedFolder { path, mode, uid: user.uid, gid: user.gid };
    let mut state = Vec::new();
    for declared in &manifest.state.folders {
        state.push((folder(declared.path.clone(), declared.mode()?), declared.inside().clone()));
    }
    let volumes = inputs.config.config().as_ref().and_then(|config| config.volumes().clone()).unwrap_or_default();
    for volume in volumes {
        let volume = volume.trim_end_matches('/');
        manifest::absolute(volume).context("the image's volumes")?;
        if !state.iter().any(|(_, inside)| inside == volume) {
            let flat = volume.trim_start_matches('/').replace('/', "-");
            let path = format!("/var/lib/{}/{flat}", inputs.name);
            ensure!(
                !state.iter().any(|(known, _)| known.path == path),
                "the image's volumes: two of them would lie in {path}"
            );
            state.push((folder(path, 0o755), volume.to_owned()));
        }
    }
    Ok(state)
}

pub(super) fn tmpfiles_line(folder: &OwnedFolder) -> String {
    format!("d {} {:04o} {} {} -\n", tmpfiles_path(&folder.path), folder.mode, folder.uid, folder.gid)
}

/// A path as tmpfiles.d(5) reads it: a word that may be quoted, in which there are specifiers and no escapes.
pub(in crate::model) fn tmpfiles_path(path: &str) -> String {
    let path = path.replace('%', "%%");
    if path.contains(' ') { format!("\"{path}\"") } else { path }
}
