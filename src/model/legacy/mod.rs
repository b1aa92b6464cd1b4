//! The format of Project Atomic's system containers (`atomic install --system`): `"version": "1.0"` in the manifest, or none.
//!
//! ```text
//! /exports/manifest.json         defaultValues renameFiles installedFilesTemplate noContainerService useLinks
//!         /service.template      the unit; config.json.template, tmpfiles.template: $NAME ${NAME} $$
//!         /config.json           as it is, before the template
//!         /hostfs/...            files for the host
//! ```
//!
//! Its texts are filled in as the old tool did it, brought up to date with a note for each change, and from there on judged like any
//! other image's. docs/legacy.md has the old tool's rules beside ours.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use oci_spec::{image::ImageConfiguration, runtime::Spec};
use serde_json::json;

use super::{
    devices, essential,
    host_files::{self, Content, Ready, Source},
    host_lines, layout,
    manifest::Manifest as Newer,
    render::{self, Inputs, Rendered},
    request::{self, Requests},
    spec,
    unit::UnitFile,
    user::User,
};

mod config;
mod limits;
mod manifest;
mod template;
mod tmpfiles;
mod unit;
mod variables;

pub use manifest::Manifest;
use variables::Variables;

const SERVICE: &str = "service.template";
const TMPFILES: &str = "tmpfiles.template";
const CONFIG: &str = "config.json";
const CONFIG_TEMPLATE: &str = "config.json.template";

/// Whether an image is run once and leaves nothing: its label says so.
pub fn is_run_once(image: &ImageConfiguration) -> bool {
    let labels = image.config().as_ref().and_then(|config| config.labels().as_ref());
    labels.and_then(|labels| labels.get("atomic.run")).is_some_and(|run| run == "once")
}

/// The manifest of an image in this format; none where it is in another one, or in none at all.
pub fn manifest(inputs: &Inputs) -> Result<Option<Manifest>> {
    let exports = inputs.exports;
    if let Some(bytes) = exports.get("manifest.json") {
        let text = String::from_utf8_lossy(bytes);
        return Manifest::parse(&text).context("/exports/manifest.json");
    }
    let has = |file: &str| exports.contains_key(file);
    let is_old = [SERVICE, TMPFILES, CONFIG, CONFIG_TEMPLATE].into_iter().any(has)
        || exports.keys().any(|file| file.starts_with("hostfs/"))
        || !inputs.hostfs.is_empty();
    let is_new = exports.keys().any(|file| file.ends_with(".hbs"));
    Ok((is_old && !is_new).then(Manifest::default))
}

/// The values that an admin has to give.
pub fn wanted(inputs: &Inputs) -> Result<Vec<String>> {
    let manifest = manifest(inputs)?.unwrap_or_default();
    let own_config = inputs.exports.contains_key(CONFIG);
    let mut used = BTreeSet::new();
    for name in [SERVICE, TMPFILES, CONFIG_TEMPLATE].into_iter().filter(|name| *name != CONFIG_TEMPLATE || !own_config)
    {
        if let Some(text) = render::text(inputs, name)? {
            used.extend(template::names(&format!("/exports/{name}"), text)?);
        }
    }
    used.extend(names_of_host_files(inputs, &manifest)?);
    let variables = Variables::resolve(inputs, &manifest, &used)?;
    Ok(used.into_iter().filter(|name| variables.get(name).is_none()).collect())
}

/// Renders everything, as [`render::compose`] does for an image of ours.
pub fn compose(inputs: &Inputs, manifest: &Manifest) -> Result<Rendered> {
    let file = |name: &str| format!("/exports/{name}");
    let service = render::text(inputs, SERVICE)?.unwrap_or(unit::DEFAULT);
    let own_config = render::text(inputs, CONFIG)?;
    let config_template = render::text(inputs, CONFIG_TEMPLATE)?.filter(|_| own_config.is_none());
    let tmpfiles = render::text(inputs, TMPFILES)?;

    let mut used = BTreeSet::new();
    for (name, text) in [(CONFIG_TEMPLATE, config_template), (TMPFILES, tmpfiles), (SERVICE, Some(service))] {
        used.extend(text.map(|text| template::names(&file(name), text)).transpose()?.unwrap_or_default());
    }
    used.extend(names_of_host_files(inputs, manifest)?);
    let variables = Variables::resolve(inputs, manifest, &used)?;
    let fill = |name: &str, text: &str| template::fill(&file(name), text, |name| variables.get(name));
    let mut notes = variables.notes.clone();

    let mut files = BTreeMap::new();
    let own = render::own_folders(inputs.name);
    let mut requests = Requests::new();
    let spec = if manifest.no_container_service {
        nothing_to_run(inputs)?
    } else {
        let launch = layout::launch(inputs.name, inputs.id, inputs.runtime);
        let unit = unit::mend(&file(SERVICE), &fill(SERVICE, service)?, &launch, variables.destdir())?;
        let text = match (own_config, config_template) {
            (Some(text), _) => Some((CONFIG, text.to_owned())),
            (None, Some(text)) => Some((CONFIG_TEMPLATE, fill(CONFIG_TEMPLATE, text)?)),
            (None, None) => None,
        };
        let (spec, directives) = match text {
            Some((name, text)) => {
                let mended = config::mend(&file(name), &text, inputs.name, inputs.config, unit.notifies)?;
                notes.extend(mended.notes);
                (mended.spec, mended.directives)
            }
            None => (generated(inputs, unit.notifies)?, Vec::new()),
        };
        let by_image = spec;
        let spec = inputs.overrides.apply(&by_image)?;
        notes.extend(unit.notes);
        let name = inputs.name.service_unit();
        let mut service = unit.unit;
        if unit.is_container {
            directives.iter().for_each(|(key, value)| service.add_missing("Service", key, value));
            let program = spec.process().as_ref().and_then(|process| process.args().as_ref()?.first().cloned());
            let text = render::complete(inputs, &Newer::default(), &name, &service.to_text(), program.as_deref())?;
            files.insert(name.clone(), render::with_poststop(inputs, &spec, &name, text)?);
            requests.extend(request::of_both(&by_image, &spec, &own, &[]).context(file(CONFIG))?);
        } else {
            files.insert(name.clone(), render::recovered_first(&file(SERVICE), service)?);
        }
        requests.extend(render::unit_requests(inputs, &files)?);
        // Ours, so after the requests.
        if let Some(text) = files.get_mut(&name).filter(|_| unit.is_container) {
            let mut service = UnitFile::parse("the service", text)?;
            devices::confine(&spec, &mut service);
            inputs.overrides.limit(&mut service);
            *text = service.to_text();
        }
        requests.extend(essential::apply(false, inputs.name, &mut files).context("/exports")?);
        spec
    };

    let lines = match tmpfiles {
        Some(text) => {
            let (text, found) = tmpfiles::mend(&file(TMPFILES), &fill(TMPFILES, text)?);
            notes.extend(found);
            text
        }
        None => tmpfiles::for_missing(missing(inputs, &spec)),
    };
    requests.extend(host_lines::of_tmpfiles(&file(TMPFILES), &lines, inputs.name)?);
    if !lines.is_empty() {
        files.insert(layout::TMPFILES.to_owned(), lines);
    }
    let host_files = files_for_the_host(inputs, manifest, &variables)?;
    requests.extend(host_files.iter().map(Ready::request));
    let Variables { values, gone, .. } = variables;
    Ok(Rendered {
        values,
        gone,
        notes,
        secrets: BTreeMap::new(),
        spec,
        files,
        host_files,
        state: Vec::new(),
        epoch: 0,
        health: None,
        requests,
    })
}

/// All of `hostfs/`, renamed and filled in as the manifest says.
fn files_for_the_host(inputs: &Inputs, manifest: &Manifest, variables: &Variables) -> Result<Vec<Ready>> {
    let value = |name: &str| variables.get(name);
    let renamed: BTreeMap<&str, String> = (manifest.rename_files.iter())
        .map(|(old, new)| Ok((old.as_str(), template::fill("/exports/manifest.json: renameFiles", new, value)?)))
        .collect::<Result<_>>()?;
    // A folder that is renamed takes what is in it along.
    let place = |export: &str| {
        export.split('/').skip(1).fold(String::new(), |above, part| {
            let path = format!("{above}/{part}");
            renamed.get(path.as_str()).cloned().unwrap_or(path)
        })
    };
    let ready = |path, content| Ready { path, content, optional: true, replaces: false };
    let mut files: Vec<Ready> = Vec::new();
    for (export, bytes) in inputs.exports.iter().filter(|(export, _)| export.starts_with("hostfs/")) {
        let path = place(export);
        let is_template = manifest.installed_files_template.contains(&path);
        let bytes = match is_template.then(|| render::text(inputs, export)).transpose()?.flatten() {
            Some(text) => template::fill(&format!("/exports/{export}"), text, value)?.into_bytes(),
            None => bytes.clone(),
        };
        let own = if let Some(Source::File { mode }) = inputs.hostfs.get(export) { *mode } else { 0o644 };
        files.push(ready(path, Content::File { bytes, mode: host_files::plain(own) }));
    }
    for (export, source) in inputs.hostfs {
        let content = match source {
            Source::Link { target } => Content::Link { target: target.clone() },
            Source::Folder { .. } if tmpfiles::SYSTEM.contains(&place(export).as_str()) => continue,
            Source::Folder { mode } => Content::Folder { mode: host_files::plain(*mode) },
            Source::File { .. } => continue,
        };
        files.push(ready(place(export), content));
    }
    host_files::ordered(files).context("/exports/hostfs")
}

/// The names in the templates among the files for the host, and in their new places.
fn names_of_host_files(inputs: &Inputs, manifest: &Manifest) -> Result<BTreeSet<String>> {
    let mut used = BTreeSet::new();
    for new in manifest.rename_files.values() {
        used.extend(template::names("/exports/manifest.json: renameFiles", new)?);
    }
    if !manifest.installed_files_template.is_empty() {
        // Which ones they are is known when the names are: a name in another file does no harm.
        for export in inputs.exports.keys().filter(|export| export.starts_with("hostfs/")) {
            let text = render::text(inputs, export).ok().flatten().unwrap_or_default();
            used.extend(template::names(export, text).unwrap_or_default());
        }
    }
    Ok(used)
}

/// Sources of bind mounts that the host does not have.
fn missing<'a>(inputs: &'a Inputs, spec: &'a Spec) -> impl Iterator<Item = &'a str> {
    let binds = spec.mounts().iter().flatten().filter(|mount| mount.typ().as_deref() == Some("bind"));
    let sources = binds.filter_map(|mount| mount.source().as_ref()?.to_str());
    sources.filter(|source| *source != "/" && !source.starts_with("/dev/") && !(inputs.is_there)(source))
}

/// Without a configuration of its own an image is started as its config says.
fn generated(inputs: &Inputs, notify: bool) -> Result<Spec> {
    let user = inputs.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let container = super::manifest::Container { notify, ..Default::default() };
    let filter = super::seccomp::default(&inputs.config.architecture().to_string(), &spec::bounding(&container)?)?;
    spec::generate(&spec::Inputs {
        name: inputs.name,
        image: inputs.config,
        container: &container,
        user: &User::resolve(&user, inputs.passwd, inputs.group)?,
        args: Some(config::program(inputs.config)),
        env: BTreeMap::new(),
        state: Vec::new(),
        seccomp: Some(&filter),
        range: inputs.range,
    })
}

/// The configuration of what is never started.
fn nothing_to_run(inputs: &Inputs) -> Result<Spec> {
    let config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs", "readonly": true },
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/false"], "cwd": "/", "noNewPrivileges": true,
            "env": [format!("PATH={}", spec::DEFAULT_PATH)] },
        "linux": { "namespaces": [{ "type": "mount" }] },
        "annotations": { spec::NAME: inputs.name.as_str() },
    });
    serde_json::from_value(config).context("making config.json")
}

#[cfg(test)]
mod tests;
