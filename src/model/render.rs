//! An image and the admin's settings become the files of a deployment. Pure: what it needs of the store is handed in.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_spec::{
    image::ImageConfiguration,
    runtime::{LinuxSeccomp, Spec},
};
use serde_json::Value as Json;

mod data;
mod places;
mod unit;

use data::{data, filter};
pub use places::homes;
pub(super) use places::{own_folders, tmpfiles_path};
use places::{state, tmpfiles_line};
use unit::DEFAULT_SERVICE;
#[cfg(test)]
pub(super) use unit::LOADERS_VARIABLES;
pub(super) use unit::{complete, recovered_first, requests as unit_requests, with_poststop};

use super::{
    deployment::OwnedFolder,
    devices,
    digest::Digest,
    directives::{self, Finding, Verdict},
    early, essential,
    fault::{Code, Fault},
    health::HealthTest,
    host_files::{self, Content, Ready, Source, Sources},
    host_lines, layout, legacy,
    manifest::Manifest,
    name::ContainerName,
    other_runtime::RuntimePath,
    overrides::Overrides,
    request::{self, Requests},
    rules, spec,
    template::{self, Kind},
    unit::UnitFile,
    user::User,
    values::{self, Carried, Setting, Values},
};

/// What is rendered.
#[allow(missing_docs)]
pub struct Inputs<'a> {
    pub name: &'a ContainerName,
    pub id: u32,
    /// The image's reference as people write it.
    pub image: &'a str,
    pub digest: &'a Digest,
    pub config: &'a ImageConfiguration,
    /// The files of `/exports`, by their path below it.
    pub exports: &'a BTreeMap<String, Vec<u8>>,
    /// What lies below `hostfs/`.
    pub hostfs: &'a Sources,
    /// The image's own passwd(5) and group(5).
    pub passwd: &'a str,
    pub group: &'a str,
    pub settings: &'a [Setting],
    /// Those of the deployment in force, where this one is to replace it.
    pub before: Option<&'a Values>,
    /// What starts it in the bundled runtime's place.
    pub runtime: Option<&'a RuntimePath>,
    /// The first number of a range of the host's for users of its own; none where none is free.
    pub range: Option<u32>,
    /// What the admin gives it beyond what the image says.
    pub overrides: &'a Overrides,
    /// A random UUID, for an image that asks for one.
    pub uuid: &'a str,
    /// Whether the host has something at this path that this container did not make.
    pub is_there: &'a dyn Fn(&str) -> bool,
}

/// The files of a deployment, and what they ask of the host.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Rendered {
    pub values: Values,
    /// Settings of an admin that the image does not ask for any more.
    pub gone: Vec<String>,
    /// What was changed to bring an old image up to date, or is different from the deployment before, for people.
    pub notes: Vec<String>,
    /// Settings that are no one's to read but the container's and root's.
    pub secrets: BTreeMap<String, String>,
    pub spec: Spec,
    /// By the names that they have in the set: units, [`layout::TMPFILES`], [`layout::SYSUSERS`].
    pub files: BTreeMap<String, String>,
    /// Files for the host.
    pub host_files: Vec<Ready>,
    pub state: Vec<OwnedFolder>,
    /// Format of the state.
    pub epoch: u32,
    /// How to tell that it works.
    pub health: Option<HealthTest>,
    pub requests: Requests,
}

/// Renders everything and refuses what cannot work; an error names the file, line or value.
pub fn render(inputs: &Inputs) -> Result<Rendered> {
    let rendered = compose(inputs)?;
    if legacy::manifest(inputs)?.is_some() {
        return Ok(rendered); // judged line by line already
    }
    for (place, finding) in rendered.findings(inputs)? {
        // What nobody knows is systemd's to refuse: it may be newer than the table.
        ensure!(finding.verdict == Verdict::Unknown, "{place}: {}", finding.line());
    }
    Ok(rendered)
}

/// Renders everything, whether it can work or not.
pub fn compose(inputs: &Inputs) -> Result<Rendered> {
    let own = own_folders(inputs.name);
    for folder in &own {
        if let Some(place) = host_lines::forbidden(folder) {
            let message =
                format!("the name {} would give {folder} to the container, and {place} is the host's", inputs.name);
            bail!(Fault::new(Code::Failed, message).hint("choose another one with --name"));
        }
    }
    if let Some(old) = legacy::manifest(inputs)? {
        return legacy::compose(inputs, &old);
    }
    let manifest = manifest(inputs)?;
    let before = inputs.before.map(|before| values::carry(&manifest, before, inputs.settings)).transpose()?;
    let Carried { kept: mut settings, gone, notes } = before.unwrap_or_default();
    settings.extend(inputs.settings.iter().cloned());
    let values = values::resolve(&manifest, &settings)?;
    let secrets = values::secrets(&manifest, &settings);
    let filter = filter(inputs, &inputs.overrides.capabilities_of(&manifest.container))?;
    let templates = Templates {
        data: data(inputs, &manifest, &values, filter.as_ref())?,
        exec_start: layout::launch(inputs.name, inputs.id, inputs.runtime),
    };
    let user = user(inputs, &manifest)?;
    let state = state(inputs, &manifest, &user)?;
    let make = |manifest: &Manifest| config(inputs, manifest, &templates, &user, &state, filter.as_ref());
    let by_image = make(&manifest)?;
    let spec = match inputs.overrides.is_empty() {
        true => by_image.clone(),
        false => {
            let container = inputs.overrides.capabilities_of(&manifest.container);
            inputs.overrides.apply(&make(&Manifest { container, ..manifest.clone() })?)?
        }
    };
    let state: Vec<OwnedFolder> = state.into_iter().map(|(folder, _)| folder).collect();
    let mut files = unit::set(inputs, &manifest, &templates, &spec)?;

    let mut requests = Requests::new();
    let places: Vec<String> = state.iter().map(|folder| folder.path.clone()).collect();
    requests.extend(request::of_both(&by_image, &spec, &own, &places)?);
    requests.extend(unit::requests(inputs, &files)?);
    // Ours, so after the requests.
    for (_, text) in files.iter_mut().filter(|(file, _)| file.ends_with(".service")) {
        let mut service = UnitFile::parse("the service", text)?;
        devices::confine(&spec, &mut service);
        early::require_mounts(&mut service, &early::places(&spec, state.iter().map(|folder| folder.path.clone())));
        inputs.overrides.limit(&mut service);
        for secret in secrets.keys() {
            service.add("Service", "LoadCredential", &layout::credential(inputs.name, inputs.id, secret));
        }
        *text = service.to_text();
    }
    requests.extend(essential::apply(manifest.essential, inputs.name, &mut files).context("/exports")?);
    for folder in &state {
        if let Some(place) = host_lines::forbidden(&folder.path) {
            bail!("state in {}: nothing of an image is written below {place}", folder.path);
        }
    }
    for folder in state.iter().filter(|folder| !own.iter().any(|own| request::is_below(&folder.path, own))) {
        requests.insert(rules::STATE.ask(&[&folder.path]));
    }

    let mut tmpfiles: String = state.iter().map(tmpfiles_line).collect();
    if let Some(text) = text(inputs, "tmpfiles.hbs")? {
        let text = templates.file(Kind::Tmpfiles, "tmpfiles.hbs", text)?;
        requests.extend(host_lines::of_tmpfiles("/exports/tmpfiles.hbs", &text, inputs.name)?);
        tmpfiles.push_str(&text);
    }
    if !tmpfiles.is_empty() {
        files.insert(layout::TMPFILES.to_owned(), tmpfiles);
    }
    if let Some(text) = text(inputs, "sysusers.hbs")? {
        let text = templates.file(Kind::Sysusers, "sysusers.hbs", text)?;
        requests.extend(host_lines::of_sysusers("/exports/sysusers.hbs", &text, inputs.name)?);
        files.insert(layout::SYSUSERS.to_owned(), text);
    }
    let (tmpfiles, sysusers) = (files.contains_key(layout::TMPFILES), files.contains_key(layout::SYSUSERS));
    for (file, text) in files.iter_mut().filter(|(file, _)| layout::is_unit(file)) {
        let mut unit = UnitFile::parse(file, text)?;
        early::complete(&mut unit, tmpfiles, sysusers);
        *text = unit.to_text();
    }
    let host_files = host_files(inputs, &manifest, &templates)?;
    requests.extend(host_files.iter().map(Ready::request));
    let fill_in = |key: &str, text: &str| templates.plain(key, text);
    let health = manifest.health.as_ref().map(|section| section.resolve(&fill_in)).transpose();
    let health = health.context("/exports/manifest.json")?;
    Ok(Rendered {
        values,
        gone,
        notes,
        secrets,
        spec,
        files,
        host_files,
        state,
        epoch: manifest.state.epoch,
        health,
        requests,
    })
}

/// The image's manifest; an image that is none of ours has an empty one.
fn manifest(inputs: &Inputs) -> Result<Manifest> {
    let text = text(inputs, "manifest.json")?;
    Ok(text.map(Manifest::parse).transpose().context("/exports/manifest.json")?.unwrap_or_default())
}

/// Who the program runs as: the manifest's choice, or that of the image's config.
fn user(inputs: &Inputs, manifest: &Manifest) -> Result<User> {
    let image_user = inputs.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let user = manifest.container.user.clone().unwrap_or(image_user);
    User::resolve(&user, inputs.passwd, inputs.group)
}

/// config.json: the image's own, or one that is made of its manifest.
fn config(
    inputs: &Inputs,
    manifest: &Manifest,
    templates: &Templates,
    user: &User,
    state: &[(OwnedFolder, String)],
    filter: Option<&LinuxSeccomp>,
) -> Result<Spec> {
    if let Some(text) = text(inputs, "config.json.hbs")? {
        let text = templates.file(Kind::Json, "config.json.hbs", text)?;
        return serde_json::from_str(&text).context("/exports/config.json.hbs");
    }
    let plain = |what: &str, text: &String| templates.plain(&format!("/exports/manifest.json: container.{what}"), text);
    let container = &manifest.container;
    // An argument that is one condition and comes to nothing is none.
    let is_condition = |arg: &&String| {
        ["if", "unless"]
            .iter()
            .any(|word| arg.starts_with(&format!("{{{{#{word} ")) && arg.ends_with(&format!("{{{{/{word}}}}}")))
    };
    let arg = |arg: &String| match plain("args", arg) {
        Ok(text) if text.is_empty() && is_condition(&arg) => None,
        other => Some(other),
    };
    let args = container.args.as_ref();
    spec::generate(&spec::Inputs {
        name: inputs.name,
        image: inputs.config,
        container,
        user,
        args: args.map(|args| args.iter().filter_map(arg).collect()).transpose()?,
        env: container.env.iter().map(|(key, value)| Ok((key.clone(), plain("env", value)?))).collect::<Result<_>>()?,
        state: state.iter().map(|(folder, inside)| (folder.path.clone(), inside.clone())).collect(),
        seccomp: filter,
        range: inputs.range,
    })
}

/// The files for the host that the manifest lists.
fn host_files(inputs: &Inputs, manifest: &Manifest, templates: &Templates) -> Result<Vec<Ready>> {
    const MANIFEST: &str = "/exports/manifest.json";
    let mut files: Vec<Ready> = Vec::new();
    for file in &manifest.host_files {
        let path = templates.plain("/exports/manifest.json: hostFiles", &file.path)?;
        let source = file.source();
        let lies = inputs.hostfs.get(&source);
        let content = match (file.content(lies).context(MANIFEST)?, inputs.exports.get(&source)) {
            (Some(content), _) => content,
            (None, Some(bytes)) => {
                let bytes = match file.template {
                    true => {
                        templates.file(Kind::Plain, &source, text(inputs, &source)?.unwrap_or_default())?.into_bytes()
                    }
                    false => bytes.clone(),
                };
                let own = if let Some(Source::File { mode }) = lies { *mode } else { 0o644 };
                Content::File { bytes, mode: file.mode(own).context(MANIFEST)? }
            }
            (None, None) => {
                let inside = format!("{source}/");
                let holds = inputs.exports.keys().chain(inputs.hostfs.keys()).any(|other| other.starts_with(&inside));
                let why = if holds { "is a folder that holds something: list what is in it" } else { "is not there" };
                bail!("{MANIFEST}: hostFiles: {path}: /exports/{source} {why}")
            }
        };
        files.push(Ready { path, content, optional: false, replaces: false });
    }
    host_files::ordered(files).with_context(|| format!("{MANIFEST}: hostFiles"))
}

/// What is filled into templates.
struct Templates {
    data: Json,
    /// The command that starts the container.
    exec_start: String,
}

impl Templates {
    /// A file of `/exports`.
    fn file(&self, kind: Kind, file: &str, text: &str) -> Result<String> {
        // systemd fills in which instance it is.
        let instance = if file.contains("@.") { layout::INSTANCE } else { "" };
        let ours = [("exec_start", format!("{}{instance}", self.exec_start))];
        template::render(kind, &format!("/exports/{file}"), text, &self.data, &ours)
    }

    /// A text of the manifest's.
    fn plain(&self, what: &str, text: &str) -> Result<String> {
        template::render(Kind::Plain, what, text, &self.data, &[("exec_start", self.exec_start.clone())])
    }
}

impl Rendered {
    /// What is to be said about the directives of its services, each with the place in the image's template.
    pub fn findings(&self, inputs: &Inputs) -> Result<Vec<(String, Finding)>> {
        let mut found = Vec::new();
        for (file, unit) in self.files.iter().filter(|(file, _)| file.ends_with(".service")) {
            let unit = UnitFile::parse(file, unit)?;
            let export = if file.contains("@.") { "service@.hbs".to_owned() } else { "service.hbs".to_owned() };
            let template = text(inputs, &export)?.unwrap_or(DEFAULT_SERVICE);
            // Filled in, it may have other lines; where the key itself is a value there is none to name.
            let line = |key: &str| {
                let is = |line: &str| {
                    line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
                };
                template.lines().position(is).map_or(String::new(), |number| format!(", line {}", number + 1))
            };
            let place = |finding: Finding| (format!("/exports/{export}{}", line(&finding.key)), finding);
            found.extend(directives::judge([&unit]).into_iter().map(|(_, finding)| place(finding)));
        }
        Ok(found)
    }
}

pub(super) fn text<'a>(inputs: &'a Inputs, file: &str) -> Result<Option<&'a str>> {
    let bytes = inputs.exports.get(file).map(Vec::as_slice);
    bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| anyhow!("/exports/{file}: not UTF-8"))).transpose()
}

#[cfg(test)]
mod asked;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
