//! The units of a deployment: rendered, and completed with what an image's template leaves out.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::Spec;

use super::{Inputs, Templates, text};
use crate::model::{
    layout,
    manifest::Manifest,
    request::{self, RECOVER_UNIT, Requests},
    syntax,
    template::Kind,
    unit::UnitFile,
};

/// The service of an image that ships none.
pub(super) const DEFAULT_SERVICE: &str = include_str!("../../../templates/service.hbs");

/// The unit templates that an image may ship. `service@` makes `NAME@.service`, of which systemd makes instances.
pub(in crate::model) const TEMPLATES: [&str; 9] =
    ["service", "socket", "timer", "path", "target", "service@", "socket@", "timer@", "path@"];

/// What ld.so(8) and malloc obey. An admin who sets one for the program would set it for the launcher, as root on the host.
pub(in crate::model) const LOADERS_VARIABLES: &str = "LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT LD_BIND_NOW LD_BIND_NOT LD_DEBUG LD_DEBUG_OUTPUT \
    LD_DYNAMIC_WEAK LD_HWCAP_MASK LD_ORIGIN_PATH LD_POINTER_GUARD LD_PREFER_MAP_32BIT_EXEC LD_PROFILE LD_PROFILE_OUTPUT \
    LD_SHOW_AUXV LD_TRACE_LOADED_OBJECTS LD_TRACE_PRELINKING LD_USE_LOAD_BIAS LD_VERBOSE LD_WARN GLIBC_TUNABLES MALLOC_PERTURB_";

/// The units of a deployment, by name.
pub(super) fn set(
    inputs: &Inputs,
    manifest: &Manifest,
    templates: &Templates,
    spec: &Spec,
) -> Result<BTreeMap<String, String>> {
    let program = spec.process().as_ref().and_then(|process| Some(process.args().as_ref()?.first()?.as_str()));
    // Where each connection has a service of its own, the boot does not start another one. What is wrong with the socket is told below.
    let socket = text(inputs, "socket.hbs")?.and_then(|text| templates.file(Kind::Unit, "socket.hbs", text).ok());
    let socket = socket.and_then(|text| UnitFile::parse("socket.hbs", &text).ok());
    let default = match socket.is_some_and(|socket| socket.accepts()) {
        true => DEFAULT_SERVICE.split("[Install]").next().unwrap_or_default(),
        false => DEFAULT_SERVICE,
    };
    let mut files = BTreeMap::new();
    for kind in TEMPLATES {
        let file = format!("{kind}.hbs");
        let text = match text(inputs, &file)? {
            Some(text) => templates.file(Kind::Unit, &file, text)?,
            None if kind == "service" => templates.file(Kind::Unit, "service.hbs (the default)", default)?,
            None => continue,
        };
        // A value may leave a unit out; a service there is always.
        if kind != "service" && text.trim().is_empty() {
            continue;
        }
        let unit = match kind.strip_suffix('@') {
            Some(kind) => format!("{}@.{kind}", inputs.name),
            None => format!("{}.{kind}", inputs.name),
        };
        let text = complete(inputs, manifest, &unit, &text, program)?;
        let text = if unit.ends_with(".service") { with_poststop(inputs, spec, &unit, text)? } else { text };
        files.insert(unit, text);
    }
    Ok(files)
}

/// A service that calls the launcher for the hooks of after the stop: ours is gone by then, another runtime stays and runs them itself.
pub(in crate::model) fn with_poststop(inputs: &Inputs, spec: &Spec, unit: &str, text: String) -> Result<String> {
    let poststop = spec.hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref()).is_some_and(|all| !all.is_empty());
    if !poststop || inputs.runtime.is_some() {
        return Ok(text);
    }
    let mut service = UnitFile::parse(unit, &text)?;
    service.add("Service", "ExecStopPost", &layout::poststop(inputs.name, inputs.id));
    Ok(service.to_text())
}

/// A unit that starts no container: all that it gets is its place behind what mends a cut.
pub(in crate::model) fn recovered_first(file: &str, mut unit: UnitFile) -> Result<String> {
    ensure!(unit.values("Service", "ExecStart").any(|line| !line.is_empty()), "{file}: it has no ExecStart=");
    unit.add("Unit", "After", RECOVER_UNIT);
    unit.add("Unit", "Requires", RECOVER_UNIT);
    Ok(unit.to_text())
}

/// What the units ask of the host.
pub(in crate::model) fn requests(inputs: &Inputs, files: &BTreeMap<String, String>) -> Result<Requests> {
    let mut launcher = vec![layout::launch(inputs.name, inputs.id, inputs.runtime)];
    launcher.extend(inputs.runtime.map(|other| layout::clean_up(inputs.name, inputs.id, other)));
    launcher.push(layout::poststop(inputs.name, inputs.id));
    launcher.push(format!("{}{}", launcher[0], layout::INSTANCE));
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    let mut requests = Requests::new();
    for (file, text) in files {
        let unit = UnitFile::parse(file, text)?;
        layout::links(file, &unit)?;
        requests.extend(request::of_unit(file, &unit, inputs.name, &launcher));
    }
    Ok(requests)
}

/// A container's name stands for its service; anything with a unit's ending is a unit.
pub(super) fn unit_name(text: &str) -> String {
    const ENDINGS: &str = ".service .socket .target .mount .automount .swap .timer .path .slice .scope .device";
    if ENDINGS.split_whitespace().any(|ending| text.ends_with(ending)) {
        text.to_owned()
    } else {
        format!("{text}.service")
    }
}

/// Adds what each unit of ours has and the template left out.
pub(in crate::model) fn complete(
    inputs: &Inputs,
    manifest: &Manifest,
    file: &str,
    text: &str,
    program: Option<&str>,
) -> Result<String> {
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
        if let Some(own) = syntax::value("SyslogIdentifier", own) {
            unit.add("Service", "SyslogIdentifier", &own);
        }
    }
    if let Some(signal) = inputs.config.config().as_ref().and_then(|config| config.stop_signal().clone()) {
        let name = signal_name(&signal).with_context(|| format!("the image's StopSignal {signal:?}"))?;
        unit.add_missing("Service", "KillSignal", &name);
    }
    unit.add("Service", "LogExtraFields", &format!("SYSCTR_IMAGE={}", syntax::escaped(inputs.image, false)));
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
