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
    host::{clock, dir::Folder, probation, settings, snapshot, state, units},
    model::{
        deployment::{Deployment, OwnedFolder},
        diff::host_files::Listed,
        digest::Digest,
        layout,
        name::ContainerName,
        other_runtime::RuntimePath,
        overrides::Overrides,
        probation::Probation,
        settings::Policy,
        size::shown,
        snapshot::KeptState,
        values::Values,
    },
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(flatten)]
    row: Row,
    /// What the timer does with it.
    update: Policy,
    values: &'a Values,
    units: &'a [String],
    /// Those that are no units.
    host_files: Vec<Listed>,
    state_folders: &'a [OwnedFolder],
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a RuntimePath>,
    /// What the admin gave it beyond what the image says.
    given: &'a Overrides,
    accepted: Vec<&'a String>,
    probation: Option<OnProbation>,
    deployments: Vec<Version>,
}

/// The deployment in force may still be taken back by itself.
#[derive(Serialize)]
struct OnProbation {
    deployment: u32,
    replaces: u32,
    /// RFC 3339; none before its time began.
    until: Option<String>,
    boots: u32,
    crashes: u32,
}

#[derive(Serialize)]
struct Version {
    id: u32,
    image: String,
    digest: String,
    commit: String,
    created: String,
    /// State that a rollback to it puts back.
    state: Option<KeptState>,
}

/// Prints everything about a container.
pub fn run(context: &Context, name: &ContainerName) -> Result<()> {
    let root = context.folder()?;
    let (container, deployment) = state::installed(&root, name)?;
    let row = list::row(&root, context.manager()?.as_ref(), &container, &deployment)?;
    let deployments = state::deployments(&root, name)?;
    let shown = Shown {
        row,
        update: settings::load(&root)?.policy(name),
        values: &deployment.values,
        units: &deployment.units,
        host_files: host_files(&root, &deployment)?,
        state_folders: &deployment.state,
        runtime: deployment.runtime.as_ref(),
        given: &deployment.overrides,
        accepted: deployment.accepted.iter().collect(),
        probation: probation::load(&root, name)?.filter(|it| !it.is_over(&clock::now())).map(OnProbation::of),
        deployments: deployments.into_iter().map(|one| Version::of(&root, one)).collect::<Result<_>>()?,
    };
    context.output.result(&shown, || shown.text())
}

fn host_files(root: &Folder, deployment: &Deployment) -> Result<Vec<Listed>> {
    let mut files = Vec::new();
    for file in units::set_files(root, &deployment.name, deployment.id)?.iter().filter(|file| !layout::is_unit(file)) {
        let (folder, placed) = layout::place(&deployment.name, file);
        if let Some(text) = root.open(folder)?.map(|folder| folder.read(&placed)).transpose()?.flatten() {
            let digest = Digest::from_sha256(Sha256::digest(text.as_bytes()).into());
            files.push(Listed::file(format!("/{folder}/{placed}"), digest.hex().to_owned()));
        }
    }
    files.extend(deployment.host_files.iter().map(Listed::of));
    Ok(files)
}

impl OnProbation {
    fn of(probation: Probation) -> OnProbation {
        let Probation { deployment, replaces, boots, crashes, .. } = probation;
        let until = probation.boot.and_then(|_| chrono::DateTime::from_timestamp(probation.until, 0));
        let until = until.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        OnProbation { deployment, replaces, until, boots, crashes }
    }

    fn text(&self) -> String {
        let until =
            self.until.as_ref().map_or("its first boot and some time".to_owned(), |time| format!("until {time}"));
        let failed = match self.crashes {
            0 => String::new(),
            1 => ", failed once".to_owned(),
            count => format!(", failed {count} times"),
        };
        format!("on probation {until}{failed}; goes back to deployment {} by itself", self.replaces)
    }
}

impl Version {
    fn of(root: &Folder, deployment: Deployment) -> Result<Version> {
        let Deployment { id, name, image, digest, commit, created, .. } = deployment;
        let state = snapshot::of(root, &name, id)?;
        Ok(Version { id, image, digest: digest.to_string(), commit, created, state })
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
        line("Update", &self.update.to_string());
        if let Some(runtime) = self.runtime {
            line("Runtime", runtime.as_str());
        }
        for (name, value) in self.values {
            let given = if value.source == sysctr::model::values::Source::Admin { " (given)" } else { "" };
            match value.secret {
                true => line("Value", &format!("{name} is secret{given}")),
                false => line("Value", &format!("{name} = {}{given}", value.value)),
            }
        }
        for (label, given) in self.given.lines() {
            line(label, &format!("{given} (given)"));
        }
        for unit in self.units {
            line("Unit", unit);
        }
        for folder in self.state_folders {
            line("State folder", &format!("{} ({:04o}, {}:{})", folder.path, folder.mode, folder.uid, folder.gid));
        }
        for file in &self.host_files {
            match &file.what.target {
                Some(target) => line("Host file", &format!("{} -> {target}", file.path)),
                None => line("Host file", &file.path),
            }
        }
        for request in &self.accepted {
            line("Accepted", request);
        }
        if let Some(probation) = &self.probation {
            line("Probation", &probation.text());
        }
        for version in &self.deployments {
            let mark = if version.id == row.deployment { " (in force)" } else { "" };
            let kept = |kept: &KeptState| format!(", with its state of {} ({})", kept.created, shown(kept.bytes()));
            let state = version.state.as_ref().map_or_else(String::new, kept);
            line("Deployment", &format!("{} of {}{mark}{state}", version.id, version.created));
        }
        text
    }
}
