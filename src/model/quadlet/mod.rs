//! Podman's Quadlet files
//! ([podman-systemd.unit(5)](https://docs.podman.io/en/latest/markdown/podman-systemd.unit.5.html)): a `.container` becomes what an image
//! of ours would say in `/exports`, a manifest and a service. What cannot be done is refused by its key and line.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::{name::ContainerName, template};

mod container;
mod file;
mod mounts;

use container::Container;
use file::Line;

/// A `.container` file with what it names beside it: all that is needed to read it again with the next image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file's name.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Texts of other files, by the name that it has for them.
    #[serde(default)]
    pub beside: BTreeMap<String, String>,
}

/// A `.container` file, read.
#[derive(Debug)]
pub struct Quadlet {
    /// As the file names it.
    pub image: String,
    /// For people: what means nothing here.
    pub notes: Vec<String>,
    manifest: Json,
    /// In the place of the image's Cmd.
    command: Option<Vec<String>>,
    service: String,
    seccomp: Option<String>,
}

/// The files that it names, which are read along.
pub fn named(file: &str, text: &str) -> Result<Vec<String>> {
    let mut named = Vec::new();
    for line in file::lines(file, text)? {
        match (line.section.as_str(), line.key.as_str()) {
            ("Container", "SeccompProfile") if line.value != "unconfined" => named.push(line.value),
            ("Container", "Network") if line.value.ends_with(".network") => named.push(line.value),
            ("Container", "Volume" | "Mount") => {
                let words = line.value.split([':', ',', '=']).filter(|word| word.ends_with(".volume"));
                named.extend(words.map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(named)
}

/// The name that systemd would give the service: that of the file.
pub fn name(file: &str) -> Result<ContainerName> {
    let base = file.rsplit('/').next().unwrap_or(file);
    let stem = base.strip_suffix(".container").with_context(|| format!("{file} does not end in .container"))?;
    ensure!(!stem.contains('@'), "{file}: instances of a Quadlet file are not supported");
    stem.parse().with_context(|| format!("naming the container after {file}"))
}

/// Reads it.
pub fn read(source: &Source, name: &ContainerName) -> Result<Quadlet> {
    let file = source.file.as_str();
    let mut container = Container::new(name);
    let (mut service, mut section) = (String::new(), String::new());
    for line in file::lines(file, &source.text)? {
        let place = || format!("{file}, line {}: {}=", line.number, line.key);
        match line.section.as_str() {
            "Container" => container.take(&line, &source.beside).with_context(place)?,
            "Quadlet" => container.notes.push(format!("line {}: {}= means nothing here", line.number, line.key)),
            "Unit" | "Service" | "Install" => {
                if line.section == "Service" && matches!(line.key.as_str(), "ExecStart" | "ExecStop" | "ExecStopPost") {
                    bail!("{}: the command is sysctr's", place());
                }
                if section != line.section {
                    service.push_str(&format!("[{}]\n", line.section));
                    section.clone_from(&line.section);
                }
                service.push_str(&template::verbatim(&format!("{}={}\n", line.key, dependencies(&line))));
            }
            other => bail!("{file}, line {}: the section [{other}] is not supported", line.number),
        }
    }
    service.push_str("[Service]\nExecStart={{exec_start}}\n");
    let mut quadlet = container.finish(service).with_context(|| file.to_owned())?;
    quadlet.notes.iter_mut().for_each(|words| *words = format!("{file}: {words}"));
    Ok(quadlet)
}

impl Quadlet {
    /// What takes the place of the image's `/exports`.
    pub fn exports(&self, image: &ImageConfiguration) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut manifest = self.manifest.clone();
        if let Some(command) = &self.command {
            let entrypoint = image.config().as_ref().and_then(|config| config.entrypoint().clone()).unwrap_or_default();
            manifest["container"]["args"] = json!([entrypoint, command.clone()].concat());
        }
        // What is a template in a manifest is none in a Quadlet file, nor in the image's config.
        for place in ["/container/args", "/container/env", "/health/exec"] {
            manifest.pointer_mut(place).into_iter().for_each(verbatim);
        }
        let manifest = serde_json::to_string_pretty(&manifest).context("writing the manifest")?;
        let seccomp = self.seccomp.iter().map(|text| (container::SECCOMP.to_owned(), text.clone()));
        let files = [("manifest.json".to_owned(), manifest), ("service.hbs".to_owned(), self.service.clone())];
        Ok(files.into_iter().chain(seccomp).map(|(file, text)| (file, text.into_bytes())).collect())
    }
}

/// Lets each text of a list or of an object come out as it is.
fn verbatim(texts: &mut Json) {
    match texts {
        Json::String(text) => *text = template::verbatim(text),
        Json::Array(items) => items.iter_mut().for_each(verbatim),
        Json::Object(members) => members.values_mut().for_each(verbatim),
        _ => {}
    }
}

/// Where another `.container` is the service that it makes.
const DEPENDENCIES: &str = "Wants Requires Requisite BindsTo PartOf Upholds Conflicts Before After OnFailure OnSuccess \
    PropagatesReloadTo ReloadPropagatedFrom PropagatesStopTo StopPropagatedFrom";

fn dependencies(line: &Line) -> String {
    if line.section != "Unit" || !DEPENDENCIES.split_whitespace().any(|key| key == line.key) {
        return line.value.clone();
    }
    let service = |word: &str| match word.strip_suffix(".container") {
        Some(stem) => format!("{stem}.service"),
        None => word.to_owned(),
    };
    line.value.split_whitespace().map(service).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
