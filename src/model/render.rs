//! An image and the admin's settings become the files of a deployment. Pure: what it needs of the store is handed in.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_spec::{
    image::ImageConfiguration,
    runtime::{LinuxSeccomp, Spec},
};
use serde_json::{Value as Json, json};

use super::{
    deployment::OwnedFolder,
    devices,
    digest::Digest,
    directives::{self, Finding, Verdict},
    early, essential,
    fault::{Code, Fault},
    health::HealthTest,
    host_lines, layout,
    manifest::{Container, Manifest},
    name::ContainerName,
    other_runtime::RuntimePath,
    request::{self, RECOVER_UNIT, Requests},
    seccomp::{self, Choice, Profile},
    spec,
    template::{self, Kind},
    unit::UnitFile,
    user::User,
    values::{self, Setting, Values},
};

/// The service of an image that ships none.
const DEFAULT_SERVICE: &str = include_str!("../../templates/service.hbs");

/// The unit templates that an image may ship.
const UNIT_TEMPLATES: [&str; 4] = ["service", "socket", "timer", "path"];

/// What ld.so(8) and malloc obey. An admin who sets one for the program would set it for the launcher, as root on the host.
const LOADERS_VARIABLES: &str = "LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT LD_BIND_NOW LD_BIND_NOT LD_DEBUG LD_DEBUG_OUTPUT \
    LD_DYNAMIC_WEAK LD_HWCAP_MASK LD_ORIGIN_PATH LD_POINTER_GUARD LD_PREFER_MAP_32BIT_EXEC LD_PROFILE LD_PROFILE_OUTPUT \
    LD_SHOW_AUXV LD_TRACE_LOADED_OBJECTS LD_TRACE_PRELINKING LD_USE_LOAD_BIAS LD_VERBOSE LD_WARN GLIBC_TUNABLES MALLOC_PERTURB_";

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
}

/// The files of a deployment, and what they ask of the host.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Rendered {
    pub values: Values,
    /// Settings of an admin that the image does not ask for any more.
    pub gone: Vec<String>,
    pub spec: Spec,
    /// By the names that they have in the set: units, [`layout::TMPFILES`], [`layout::SYSUSERS`].
    pub files: BTreeMap<String, String>,
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
    for (place, finding) in rendered.findings(inputs)? {
        // What nobody knows is systemd's to refuse: it may be newer than the table.
        ensure!(finding.verdict == Verdict::Unknown, "{place}: {}", finding.line());
    }
    Ok(rendered)
}

/// Renders everything, whether it can work or not.
pub fn compose(inputs: &Inputs) -> Result<Rendered> {
    let manifest = match text(inputs, "manifest.json")? {
        Some(text) => Manifest::parse(text).context("/exports/manifest.json")?,
        None => {
            let legacy = inputs.exports.keys().find(|file| file.ends_with(".template"));
            ensure!(
                legacy.is_none(),
                "/exports/{}: the format of version 1.0 (atomic's) is not supported yet",
                legacy.map_or("", |f| f)
            );
            Manifest::default()
        }
    };
    for folder in own_folders(inputs.name) {
        if let Some(place) = host_lines::forbidden(&folder) {
            let message =
                format!("the name {} would give {folder} to the container, and {place} is the host's", inputs.name);
            bail!(Fault::new(Code::Failed, message).hint("choose another one with --name"));
        }
    }
    let before = inputs.before.map(|before| values::carry(&manifest, before, inputs.settings)).transpose()?;
    let (mut settings, gone) = before.unwrap_or_default();
    settings.extend(inputs.settings.iter().cloned());
    let values = values::resolve(&manifest, &settings)?;
    let filter = filter(inputs, &manifest.container)?;
    let data = data(inputs, &manifest, &values, filter.as_ref());
    let raw = [("exec_start", layout::launch(inputs.name, inputs.id, inputs.runtime))];
    let fill = |kind, file: &str, text: &str| template::render(kind, &format!("/exports/{file}"), text, &data, &raw);

    let image_user = inputs.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let user = manifest.container.user.clone().unwrap_or(image_user);
    let user = User::resolve(&user, inputs.passwd, inputs.group)?;
    let state = state(inputs, &manifest, &user)?;

    let spec = match text(inputs, "config.json.hbs")? {
        Some(text) => {
            serde_json::from_str(&fill(Kind::Json, "config.json.hbs", text)?).context("/exports/config.json.hbs")?
        }
        None => {
            let plain = |what: &str, text: &String| {
                template::render(Kind::Plain, &format!("/exports/manifest.json: {what}"), text, &data, &raw)
            };
            let args = manifest.container.args.as_ref();
            spec::generate(&spec::Inputs {
                name: inputs.name,
                image: inputs.config,
                container: &manifest.container,
                user: &user,
                args: args.map(|args| args.iter().map(|arg| plain("container.args", arg)).collect()).transpose()?,
                env: (manifest.container.env.iter())
                    .map(|(key, value)| Ok((key.clone(), plain("container.env", value)?)))
                    .collect::<Result<_>>()?,
                state: state.iter().map(|(folder, inside)| (folder.path.clone(), inside.clone())).collect(),
                seccomp: filter.as_ref(),
                range: inputs.range,
            })?
        }
    };
    let state: Vec<OwnedFolder> = state.into_iter().map(|(folder, _)| folder).collect();

    let poststop = spec.hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref()).is_some_and(|all| !all.is_empty());
    let after_stop = layout::poststop(inputs.name, inputs.id);
    let program = spec.process().as_ref().and_then(|process| Some(process.args().as_ref()?.first()?.as_str()));
    let mut files = BTreeMap::new();
    for kind in UNIT_TEMPLATES {
        let file = format!("{kind}.hbs");
        let text = match text(inputs, &file)? {
            Some(text) => fill(Kind::Unit, &file, text)?,
            None if kind == "service" => fill(Kind::Unit, "service.hbs (the default)", DEFAULT_SERVICE)?,
            None => continue,
        };
        let unit = format!("{}.{kind}", inputs.name);
        let mut text = complete(inputs, &manifest, &unit, &text, program)?;
        // Our launcher is gone by then, so systemd calls it again; another runtime stays and runs them itself.
        if poststop && inputs.runtime.is_none() && kind == "service" {
            let mut service = UnitFile::parse(&unit, &text)?;
            service.add("Service", "ExecStopPost", &after_stop);
            text = service.to_text();
        }
        files.insert(unit.clone(), text);
    }
    let mut launcher = vec![raw[0].1.clone()];
    launcher.extend(inputs.runtime.map(|other| layout::clean_up(inputs.name, inputs.id, other)));
    launcher.push(after_stop.clone());
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    let mut requests = Requests::new();
    let own: Vec<String> = own_folders(inputs.name).into_iter().collect();
    let places: Vec<String> = state.iter().map(|folder| folder.path.clone()).collect();
    requests.extend(request::of_spec(&spec, &own, &places).context("config.json")?);
    for (file, text) in &files {
        let unit = UnitFile::parse(file, text)?;
        layout::links(file, &unit)?;
        requests.extend(request::of_unit(file, &unit, inputs.name, &launcher));
    }
    // Ours, so after the requests.
    if let Some(text) = files.get_mut(&inputs.name.service_unit()) {
        let mut service = UnitFile::parse("the service", text)?;
        devices::confine(&spec, &mut service);
        early::require_mounts(&mut service, &early::places(&spec, state.iter().map(|folder| folder.path.clone())));
        *text = service.to_text();
    }
    requests.extend(essential::apply(manifest.essential, inputs.name, &mut files).context("/exports")?);
    for folder in &state {
        if let Some(place) = host_lines::forbidden(&folder.path) {
            bail!("state in {}: nothing of an image is written below {place}", folder.path);
        }
    }
    for folder in state.iter().filter(|folder| !own.iter().any(|own| request::is_below(&folder.path, own))) {
        requests.insert(format!("keep state in {} of the host", folder.path));
    }

    let mut tmpfiles: String = state.iter().map(tmpfiles_line).collect();
    if let Some(text) = text(inputs, "tmpfiles.hbs")? {
        let text = fill(Kind::Fields, "tmpfiles.hbs", text)?;
        requests.extend(host_lines::of_tmpfiles("/exports/tmpfiles.hbs", &text, inputs.name)?);
        tmpfiles.push_str(&text);
    }
    if !tmpfiles.is_empty() {
        files.insert(layout::TMPFILES.to_owned(), tmpfiles);
    }
    if let Some(text) = text(inputs, "sysusers.hbs")? {
        let text = fill(Kind::Fields, "sysusers.hbs", text)?;
        requests.extend(host_lines::of_sysusers("/exports/sysusers.hbs", &text, inputs.name)?);
        files.insert(layout::SYSUSERS.to_owned(), text);
    }
    let (tmpfiles, sysusers) = (files.contains_key(layout::TMPFILES), files.contains_key(layout::SYSUSERS));
    for (file, text) in files.iter_mut().filter(|(file, _)| layout::is_unit(file)) {
        let mut unit = UnitFile::parse(file, text)?;
        early::complete(&mut unit, tmpfiles, sysusers);
        *text = unit.to_text();
    }
    let epoch = manifest.state.epoch;
    let fill_in = |key: &str, text: &str| template::render(Kind::Plain, key, text, &data, &raw);
    let health = manifest.health.as_ref().map(|section| section.resolve(&fill_in)).transpose();
    let health = health.context("/exports/manifest.json")?;
    Ok(Rendered { values, gone, spec, files, state, epoch, health, requests })
}

impl Rendered {
    /// What is to be said about the directives of its service, each with the place in the image's template.
    pub fn findings(&self, inputs: &Inputs) -> Result<Vec<(String, Finding)>> {
        let file = inputs.name.service_unit();
        let unit = UnitFile::parse(&file, self.files.get(&file).map_or("", String::as_str))?;
        let template = text(inputs, "service.hbs")?.unwrap_or(DEFAULT_SERVICE);
        // Filled in, it may have other lines; where the key itself is a value there is none to name.
        let line = |key: &str| {
            let is =
                |line: &str| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
            template.lines().position(is).map_or(String::new(), |number| format!(", line {}", number + 1))
        };
        let place = |finding: Finding| (format!("/exports/service.hbs{}", line(&finding.key)), finding);
        Ok(directives::judge([&unit]).into_iter().map(|(_, finding)| place(finding)).collect())
    }

    /// The host folders named after the container that it uses: its own only if nobody else has them.
    pub fn homes(&self, name: &ContainerName) -> Vec<String> {
        let directives = [("State", "lib"), ("Cache", "cache"), ("Logs", "log")]
            .map(|(kind, place)| (kind, format!("/var/{place}/{name}")));
        let directives = directives.into_iter().chain([("Runtime", format!("/run/{name}"))]);
        let by_directive = directives.filter(|(kind, _)| {
            let line = format!("{kind}Directory=");
            self.files.values().any(|text| text.lines().any(|given| given.starts_with(&line)))
        });
        let sources = self.spec.mounts().iter().flatten().filter_map(|mount| mount.source().as_ref()?.to_str());
        let paths: Vec<&str> = sources
            .chain(self.state.iter().map(|folder| folder.path.as_str()))
            .chain(self.files.get(layout::TMPFILES).map_or("", String::as_str).split_ascii_whitespace())
            .chain(self.files.values().flat_map(|text| text.lines()).filter_map(listened))
            .collect();
        let by_path =
            own_folders(name).into_iter().filter(|home| paths.iter().any(|path| request::is_below(path, home)));
        let mut homes: Vec<String> = by_path.chain(by_directive.map(|(_, path)| path)).collect();
        homes.sort();
        homes.dedup();
        homes
    }
}

/// What a line of a socket unit listens on.
fn listened(line: &str) -> Option<&str> {
    line.strip_prefix("Listen")?.split_once('=').map(|(_, value)| value)
}

/// The places that a container has for itself.
fn own_folders(name: &ContainerName) -> [String; 2] {
    [format!("/var/lib/{name}"), format!("/run/{name}")]
}

fn text<'a>(inputs: &'a Inputs, file: &str) -> Result<Option<&'a str>> {
    let bytes = inputs.exports.get(file).map(Vec::as_slice);
    bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| anyhow!("/exports/{file}: not UTF-8"))).transpose()
}

/// The filter of system calls that the manifest chooses.
fn filter(inputs: &Inputs, container: &Container) -> Result<Option<LinuxSeccomp>> {
    let architecture = inputs.config.architecture().to_string();
    let held = spec::bounding(container)?;
    match Choice::of(container.seccomp.as_deref()) {
        Choice::Default => seccomp::default(&architecture, &held).map(Some),
        Choice::Unconfined => Ok(None),
        Choice::File(file) => {
            let text = text(inputs, &file)?.with_context(|| {
                format!(
                    "/exports/manifest.json: container.seccomp is \"default\", \"unconfined\" or a file of /exports, and there is no {file:?} in it"
                )
            })?;
            let profile = Profile::parse(text).and_then(|profile| profile.resolve(&architecture, &held));
            profile.with_context(|| format!("/exports/{file}")).map(Some)
        }
    }
}

/// What templates see.
fn data(inputs: &Inputs, manifest: &Manifest, values: &Values, filter: Option<&LinuxSeccomp>) -> Json {
    let values: serde_json::Map<String, Json> =
        values.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect();
    json!({
        "name": inputs.name,
        "description": manifest.description.clone().unwrap_or_else(|| format!("{} ({})", inputs.name, inputs.image)),
        "image_name": inputs.image,
        "image_id": inputs.digest.hex(),
        "seccomp": filter,
        "range": inputs.range,
        "state_directory": "/var/lib",
        "run_directory": "/run",
        "conf_directory": "/etc",
        "after": manifest.after.iter().map(|unit| unit_name(unit)).collect::<Vec<_>>(),
        "before": manifest.before.iter().map(|unit| unit_name(unit)).collect::<Vec<_>>(),
        "requires": manifest.requires.iter().map(|unit| unit_name(unit)).collect::<Vec<_>>(),
        "wants": manifest.wants.iter().map(|unit| unit_name(unit)).collect::<Vec<_>>(),
        "values": values,
    })
}

/// A container's name stands for its service; anything with a unit's ending is a unit.
fn unit_name(text: &str) -> String {
    const ENDINGS: [&str; 11] = [
        ".service",
        ".socket",
        ".target",
        ".mount",
        ".automount",
        ".swap",
        ".timer",
        ".path",
        ".slice",
        ".scope",
        ".device",
    ];
    if ENDINGS.iter().any(|ending| text.ends_with(ending)) { text.to_owned() } else { format!("{text}.service") }
}

/// State that the manifest declares, and the volumes of the image's config, each with the place where the container sees it.
fn state(inputs: &Inputs, manifest: &Manifest, user: &User) -> Result<Vec<(OwnedFolder, String)>> {
    let folder = |path: String, mode| OwnedFolder { path, mode, uid: user.uid, gid: user.gid };
    let mut state = Vec::new();
    for declared in &manifest.state.folders {
        state.push((folder(declared.path.clone(), declared.mode()?), declared.path.clone()));
    }
    let volumes = inputs.config.config().as_ref().and_then(|config| config.volumes().clone()).unwrap_or_default();
    for volume in volumes {
        let volume = volume.trim_end_matches('/');
        super::manifest::absolute(volume).context("the image's volumes")?;
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

fn tmpfiles_line(folder: &OwnedFolder) -> String {
    format!(
        "d {} {:04o} {} {} -\n",
        folder.path.replace('%', "%%").replace(' ', "\\x20"),
        folder.mode,
        folder.uid,
        folder.gid
    )
}

/// Adds what each unit of ours has and the template left out.
fn complete(inputs: &Inputs, manifest: &Manifest, file: &str, text: &str, program: Option<&str>) -> Result<String> {
    let mut unit = UnitFile::parse(file, text)?;
    unit.add("Unit", "After", RECOVER_UNIT);
    unit.add("Unit", "Requires", RECOVER_UNIT);
    if !file.ends_with(".service") {
        return Ok(unit.to_text());
    }
    ensure!(unit.values("Service", "ExecStart").any(|line| !line.is_empty()), "{file}: it has no ExecStart=");
    unit.add("Unit", "RequiresMountsFor", &format!("/{}", layout::deployment(inputs.name, inputs.id)));
    if let Some(other) = inputs.runtime {
        unit.add("Unit", "RequiresMountsFor", other.as_str());
        unit.add("Service", "ExecStopPost", &layout::clean_up(inputs.name, inputs.id, other));
    }
    for (key, units) in [
        ("After", &manifest.after),
        ("Before", &manifest.before),
        ("Requires", &manifest.requires),
        ("Wants", &manifest.wants),
    ] {
        for other in units {
            let other = unit_name(other);
            if !unit.values("Unit", key).flat_map(str::split_whitespace).any(|known| known == other) {
                unit.add("Unit", key, &other);
            }
        }
    }
    unit.add_missing("Service", "Type", "notify");
    // The launcher reports from a process that is no longer the main one.
    unit.add_missing("Service", "NotifyAccess", "all");
    unit.add_missing("Service", "Delegate", "yes");
    unit.add_missing("Service", "KillMode", "mixed");
    unit.add_missing("Service", "OOMPolicy", "stop");
    // The launcher is dynamically linked: what its loader obeys would act on the host, before the program is there.
    unit.add("Service", "UnsetEnvironment", LOADERS_VARIABLES);
    if let Some(program) = program.filter(|_| unit.values("Service", "SyslogIdentifier").next().is_none()) {
        let own = program.rsplit('/').next().unwrap_or(program);
        unit.add("Service", "SyslogIdentifier", &template::unit_argument(own));
    }
    if let Some(signal) = inputs.config.config().as_ref().and_then(|config| config.stop_signal().clone()) {
        let name = signal_name(&signal).with_context(|| format!("the image's StopSignal {signal:?}"))?;
        unit.add_missing("Service", "KillSignal", &name);
    }
    unit.add("Service", "LogExtraFields", &format!("SYSCTR_IMAGE={}", template::unit_argument(inputs.image)));
    unit.add("Service", "LogExtraFields", &format!("SYSCTR_DIGEST={}", inputs.digest));
    Ok(unit.to_text())
}

/// `SIGTERM`, `TERM`, `15` and `SIGRTMIN+3` as systemd reads them.
fn signal_name(text: &str) -> Result<String> {
    let upper = text.to_ascii_uppercase();
    let good = upper.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'-') && !upper.is_empty();
    ensure!(good, "no signal");
    let number = upper.parse::<u32>().is_ok();
    Ok(if number || upper.starts_with("SIG") { upper } else { format!("SIG{upper}") })
}

#[cfg(test)]
mod tests;
