//! `sysctr list`: what is installed.

use anyhow::Result;
use serde::Serialize;

use super::Context;
use crate::output::{one_line, table};
use sysctr::{
    host::{
        dir::Folder,
        enablement, health,
        state::{self, Container},
        systemd::Manager,
    },
    model::{deployment::Deployment, health::Known, name::ContainerName, retention},
};

/// One line of the list; the keys are part of the command line's contract.
#[derive(Serialize)]
pub struct Row {
    pub name: ContainerName,
    pub image: String,
    pub digest: String,
    pub version: Option<String>,
    pub deployment: u32,
    pub previous: Option<u32>,
    pub state: String,
    pub enabled: bool,
    /// What is known without a try; none where systemd does not run this system.
    pub health: Option<Known>,
    /// By what the last start was judged, or what was wrong with it.
    pub judged: Option<String>,
    /// An operation was cut short, or runs just now.
    pub pending: bool,
}

/// Prints the list.
pub fn run(context: &Context) -> Result<()> {
    let root = context.folder()?;
    let manager = context.manager()?;
    let mut rows = Vec::new();
    for container in state::containers(&root)? {
        if let Some(id) = container.active {
            let deployment = state::deployment(&root, &container.name, id)?;
            rows.push(row(&root, manager.as_ref(), &container, &deployment)?);
        }
    }
    context.output.result(&rows, || {
        if rows.is_empty() {
            return "nothing is installed; `sysctr install IMAGE` does".to_owned();
        }
        table(&["NAME", "STATE", "HEALTH", "ENABLED", "VERSION", "DIGEST", "IMAGE"], rows.iter().map(Row::cells))
    })
}

/// What is told of a container in one line.
pub fn row(root: &Folder, manager: Option<&Manager>, container: &Container, deployment: &Deployment) -> Result<Row> {
    let name = &container.name;
    let unit = name.service_unit();
    let (state, enabled, health, judged) = match manager {
        Some(manager) => {
            let state = manager.state(&unit)?;
            let (known, judged) = health::known(manager, deployment, &state, container.journal.is_some())?;
            (state.active, state.file_state.starts_with("enabled"), Some(known), judged)
        }
        None => ("offline".to_owned(), enablement::is_enabled(root, name, deployment.id)?, None, None),
    };
    Ok(Row {
        name: name.clone(),
        image: deployment.image.clone(),
        digest: deployment.digest.to_string(),
        version: deployment.image_version.clone(),
        deployment: deployment.id,
        previous: retention::previous(&state::deployment_ids(root, name)?, deployment.id, deployment.replaces),
        state,
        enabled,
        health,
        judged,
        pending: container.journal.is_some(),
    })
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let state = if self.pending { format!("{} (pending)", self.state) } else { self.state.clone() };
        let digest = self.digest.trim_start_matches("sha256:").chars().take(12).collect();
        let yes_no = if self.enabled { "yes" } else { "no" };
        let version = self.version.as_deref().map_or_else(|| "-".to_owned(), one_line);
        let health = self.health.map_or("-", Known::word).to_owned();
        vec![self.name.to_string(), state, health, yes_no.to_owned(), version, digest, self.image.clone()]
    }
}
