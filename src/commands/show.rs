//! `sysctr show NAME`: one container in full.

use anyhow::Result;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    Context,
    list::{self, Row},
};
use crate::output::one_line;
use sysctr::{
    host::{dir::Folder, state, units},
    model::{
        deployment::{Deployment, OwnedFolder},
        digest::Digest,
        layout,
        name::ContainerName,
        other_runtime::RuntimePath,
        values::Values,
    },
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(flatten)]
    row: Row,
    values: &'a Values,
    units: &'a [String],
    host_files: Vec<HostFile>,
    state_folders: &'a [OwnedFolder],
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a RuntimePath>,
    accepted: Vec<&'a String>,
    deployments: Vec<Version>,
}

/// A file on the host that is not a unit.
#[derive(Serialize)]
struct HostFile {
    path: String,
    sha256: String,
}

#[derive(Serialize)]
struct Version {
    id: u32,
    image: String,
    digest: String,
    commit: String,
    created: String,
}

/// Prints everything about a container.
pub fn run(context: &Context, name: &ContainerName) -> Result<()> {
    let root = context.folder()?;
    let (container, deployment) = state::installed(&root, name)?;
    let row = list::row(&root, context.manager()?.as_ref(), &container, &deployment)?;
    let deployments = state::deployments(&root, name)?;
    let shown = Shown {
        row,
        values: &deployment.values,
        units: &deployment.units,
        host_files: host_files(&root, &deployment)?,
        state_folders: &deployment.state,
        runtime: deployment.runtime.as_ref(),
        accepted: deployment.accepted.iter().collect(),
        deployments: deployments.into_iter().map(Version::of).collect(),
    };
    context.output.result(&shown, || shown.text())
}

fn host_files(root: &Folder, deployment: &Deployment) -> Result<Vec<HostFile>> {
    let mut files = Vec::new();
    for file in units::set_files(root, &deployment.name, deployment.id)?.iter().filter(|file| !layout::is_unit(file)) {
        let (folder, placed) = layout::place(&deployment.name, file);
        if let Some(text) = root.open(folder)?.map(|folder| folder.read(&placed)).transpose()?.flatten() {
            let digest = Digest::from_sha256(Sha256::digest(text.as_bytes()).into());
            files.push(HostFile { path: format!("/{folder}/{placed}"), sha256: digest.hex().to_owned() });
        }
    }
    Ok(files)
}

impl Version {
    fn of(deployment: Deployment) -> Version {
        let Deployment { id, image, digest, commit, created, .. } = deployment;
        Version { id, image, digest: digest.to_string(), commit, created }
    }
}

impl Shown<'_> {
    fn text(&self) -> String {
        let row = &self.row;
        let mut text = String::new();
        let mut line = |label: &str, value: &str| text.push_str(&format!("{label:>12}: {}\n", one_line(value)));
        line("Name", row.name.as_str());
        line("Image", &row.image);
        line("Digest", &row.digest);
        if let Some(version) = &row.version {
            line("Version", version);
        }
        line("State", &format!("{}{}", row.state, if row.pending { " (an operation is pending)" } else { "" }));
        if let Some(known) = row.health {
            let judged = row.judged.as_ref().map_or_else(String::new, |words| format!(" ({words})"));
            line("Health", &format!("{}{judged}", known.word()));
        }
        line("Enabled", if row.enabled { "yes" } else { "no" });
        if let Some(runtime) = self.runtime {
            line("Runtime", runtime.as_str());
        }
        for (name, value) in self.values {
            let given = if value.source == sysctr::model::values::Source::Admin { " (given)" } else { "" };
            line("Value", &format!("{name} = {}{given}", value.value));
        }
        for unit in self.units {
            line("Unit", unit);
        }
        for folder in self.state_folders {
            line("State folder", &format!("{} ({:04o}, {}:{})", folder.path, folder.mode, folder.uid, folder.gid));
        }
        for file in &self.host_files {
            line("Host file", &file.path);
        }
        for request in &self.accepted {
            line("Accepted", request);
        }
        for version in &self.deployments {
            let mark = if version.id == row.deployment { " (in force)" } else { "" };
            line("Deployment", &format!("{} of {}{mark}", version.id, version.created));
        }
        text
    }
}
