//! The records of what is installed: read by everyone, written under the lock.

use anyhow::{Context, Result};

use super::dir::Folder;
use crate::model::{
    deployment::{self, Deployment, Journal, Record},
    fault::{Code, Fault},
    layout,
    name::ContainerName,
};

/// A container with a deployment in force, or with an operation under way.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub name: ContainerName,
    /// The deployment in force.
    pub active: Option<u32>,
    /// An operation that was cut short, or is running just now.
    pub journal: Option<Journal>,
}

/// The names of all containers, whether or not their records can be read.
pub fn names(root: &Folder) -> Result<Vec<ContainerName>> {
    let names = root.open(layout::CONTAINERS)?.map_or(Ok(Vec::new()), |folder| folder.names())?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Everything installed, by name.
pub fn containers(root: &Folder) -> Result<Vec<Container>> {
    let mut containers = Vec::new();
    for name in names(root)? {
        containers.extend(container(root, &name)?);
    }
    Ok(containers)
}

/// One container; none where nothing of it is in force or under way.
pub fn container(root: &Folder, name: &ContainerName) -> Result<Option<Container>> {
    let Some(folder) = root.open(&layout::settings(name))? else { return Ok(None) };
    let active = match folder.read(layout::ACTIVE)? {
        Some(text) => {
            let number = text
                .trim()
                .parse()
                .with_context(|| format!("{}: {text:?} is no number", folder.path().join(layout::ACTIVE).display()))?;
            Some(number)
        }
        None => None,
    };
    let journal = record(&folder, layout::JOURNAL)?;
    Ok((active.is_some() || journal.is_some()).then(|| Container { name: name.clone(), active, journal }))
}

/// An installed container, or the failure that says there is none.
pub fn installed(root: &Folder, name: &ContainerName) -> Result<(Container, Deployment)> {
    let missing = || Fault::new(Code::NotFound, format!("no container {name:?} is installed", name = name.as_str()));
    let container = container(root, name)?.ok_or_else(|| missing().hint("`sysctr list` shows what is"))?;
    let id = container.active.ok_or_else(missing)?;
    let deployment = deployment(root, name, id)?;
    Ok((container, deployment))
}

/// A deployment's record.
pub fn deployment(root: &Folder, name: &ContainerName, id: u32) -> Result<Deployment> {
    let folder = root.open(&layout::deployment(name, id))?;
    let record = folder.map(|folder| record(&folder, DEPLOYMENT)).transpose()?.flatten();
    record.with_context(|| format!("deployment {id} of {name} has no record"))
}

/// A deployment's config.json, as the specification's type or as it is.
pub fn config<T: serde::de::DeserializeOwned>(root: &Folder, deployment: &Deployment) -> Result<T> {
    const CONFIG: &str = "config.json";
    let folder = root.open(&layout::deployment(&deployment.name, deployment.id))?;
    let text = folder.map(|folder| folder.read(CONFIG)).transpose()?.flatten();
    serde_json::from_str(&text.with_context(|| format!("{CONFIG} is missing"))?).context(CONFIG)
}

/// Every deployment of a container that has a record, oldest first.
pub fn deployments(root: &Folder, name: &ContainerName) -> Result<Vec<Deployment>> {
    let mut all = Vec::new();
    for id in deployment_ids(root, name)? {
        if let Some(folder) = root.open(&layout::deployment(name, id))? {
            all.extend(record::<Deployment>(&folder, DEPLOYMENT)?);
        }
    }
    Ok(all)
}

/// The numbers of the deployments on disk, staged ones too, in order.
pub fn deployment_ids(root: &Folder, name: &ContainerName) -> Result<Vec<u32>> {
    let names = root.open(&layout::deployments(name))?.map(|folder| folder.names()).transpose()?.unwrap_or_default();
    let mut ids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// The record's file in a deployment's folder.
pub const DEPLOYMENT: &str = "deployment.json";

pub(super) fn record<R: Record>(folder: &Folder, file: &str) -> Result<Option<R>> {
    let text = folder.read(file)?;
    let read = |text: String| deployment::parse(&text).with_context(|| folder.path().join(file).display().to_string());
    text.map(read).transpose()
}
