//! A config.json of the runtime specification 0.3 to 1.0 is brought up to date, with a note for each thing that was changed.

use anyhow::{Context, Result, bail, ensure};
use oci_spec::{
    image::ImageConfiguration,
    runtime::{Capability, Spec},
};
use serde_json::{Map, Value as Json, json};

use crate::model::{
    name::ContainerName,
    spec::{self, DEFAULT_PATH},
};

/// The version that is written.
const VERSION: &str = "1.0.2";
/// The program of an image that names none.
pub const DEFAULT_PROGRAM: &str = "run.sh";

/// A configuration, and what there was to change.
pub struct Mended {
    /// Of today's specification.
    pub spec: Spec,
    /// Limits of it that are the unit's: lines of `[Service]`.
    pub directives: Vec<(&'static str, String)>,
    /// For people.
    pub notes: Vec<String>,
}

/// Reads the finished text of `file`. `notify` is whether the program says itself when it is ready.
pub fn mend(file: &str, text: &str, name: &ContainerName, image: &ImageConfiguration, notify: bool) -> Result<Mended> {
    let mut config: Json = serde_json::from_str(text).context(file.to_owned())?;
    ensure!(config.is_object(), "{file}: it is no object");
    drop_empty(&mut config);
    let mut notes = Vec::new();
    let config_notes = |notes: &mut Vec<String>, words: String| notes.push(format!("{file}: {words}"));
    for step in [version, moved, process_fields, capabilities, root, linux_fields, mounts, doubled, seccomp] {
        let mut found = Vec::new();
        step(&mut config, &mut found).with_context(|| file.to_owned())?;
        found.into_iter().for_each(|words| config_notes(&mut notes, words));
    }
    if config["process"].get("args").is_none() {
        let args = program(image);
        config_notes(&mut notes, format!("it names no program: {} is run", args.join(" ")));
        config["process"]["args"] = json!(args);
    }
    let (directives, found) = super::limits::of(&mut config);
    found.into_iter().for_each(|words| config_notes(&mut notes, words));
    // Ours, whatever the image says of them.
    config["annotations"][spec::NAME] = json!(name.as_str());
    config["annotations"][spec::NOTIFY] = json!(notify.to_string());
    let spec = serde_json::from_value(config).context(file.to_owned())?;
    Ok(Mended { spec, directives, notes })
}

/// What the image's own config starts.
pub fn program(image: &ImageConfiguration) -> Vec<String> {
    let config = image.config().as_ref();
    let entrypoint = config.and_then(|config| config.entrypoint().clone()).unwrap_or_default();
    let args = [entrypoint, config.and_then(|config| config.cmd().clone()).unwrap_or_default()].concat();
    if args.is_empty() { vec![DEFAULT_PROGRAM.to_owned()] } else { args }
}

/// Other tools wrote null and "" where they meant nothing.
fn drop_empty(value: &mut Json) {
    match value {
        Json::Object(fields) => {
            fields.retain(|_, field| !matches!(field, Json::Null));
            fields.values_mut().for_each(drop_empty);
        }
        Json::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(drop_empty);
        }
        _ => {}
    }
}

/// A part of the configuration, made where it is missing; what is no object is refused.
fn part<'a>(config: &'a mut Json, key: &str) -> Result<&'a mut Map<String, Json>> {
    let fields = config.as_object_mut().with_context(|| format!("{key}: its parent is no object"))?;
    let part = fields.entry(key).or_insert_with(|| json!({}));
    part.as_object_mut().with_context(|| format!("{key} is no object"))
}

fn version(config: &mut Json, notes: &mut Vec<String>) -> Result<()> {
    let given = config.get("ociVersion").and_then(Json::as_str).unwrap_or_default().to_owned();
    let is_old = given.starts_with("0.") || given.starts_with("1.0.0-") || given.is_empty();
    if is_old {
        let what = if given.is_empty() { "no version".to_owned() } else { format!("version {given}") };
        notes.push(format!("brought up to date from {what} of the runtime specification"));
        config["ociVersion"] = json!(VERSION);
    }
    part(config, "linux")?;
    part(config, "process")?;
    if let Some(fields) = config.as_object_mut() {
        fields.remove("platform");
    }
    Ok(())
}

/// What stood below `linux` before it stood below `process`.
fn moved(config: &mut Json, notes: &mut Vec<String>) -> Result<()> {
    for (old, new) in [
        ("capabilities", "capabilities"),
        ("rlimits", "rlimits"),
        ("apparmorProfile", "apparmorProfile"),
        ("selinuxProcessLabel", "selinuxLabel"),
    ] {
        let Some(value) = part(config, "linux")?.remove(old) else { continue };
        if value.as_str() == Some("") {
            continue;
        }
        notes.push(format!("linux.{old} is process.{new} today"));
        part(config, "process")?.entry(new).or_insert(value);
    }
    let resources = config.pointer_mut("/linux/resources").and_then(Json::as_object_mut);
    if let Some(score) = resources.and_then(|resources| resources.remove("oomScoreAdj")) {
        notes.push("linux.resources.oomScoreAdj is process.oomScoreAdj today".to_owned());
        part(config, "process")?.entry("oomScoreAdj").or_insert(score);
    }
    Ok(())
}

fn process_fields(config: &mut Json, notes: &mut Vec<String>) -> Result<()> {
    let has_uts = has_namespace(config, "uts");
    let process = part(config, "process")?;
    let user = part_of(process, "user")?;
    user.entry("uid").or_insert(json!(0));
    user.entry("gid").or_insert(json!(0));
    process.entry("cwd").or_insert(json!("/"));
    for label in ["apparmorProfile", "selinuxLabel"] {
        if process.get(label).and_then(Json::as_str) == Some("") {
            process.remove(label);
        }
    }
    if process.remove("terminal") == Some(json!(true)) {
        notes.push("process.terminal: a service has no terminal".to_owned());
    }
    process.remove("consoleSize");
    process.insert("terminal".to_owned(), json!(false));
    if process.get("noNewPrivileges") == Some(&json!(false)) {
        process.remove("noNewPrivileges");
    }
    let env = process.entry("env").or_insert(json!([])).as_array_mut().context("process.env is no list")?;
    if !env.iter().any(|variable| variable.as_str().is_some_and(|text| text.starts_with("PATH="))) {
        notes.push("process.env has no PATH: the usual one is set".to_owned());
        env.push(json!(format!("PATH={DEFAULT_PATH}")));
    }
    let whole = config.as_object_mut().context("it is no object")?;
    if whole.get("hostname").and_then(Json::as_str) == Some("") {
        whole.remove("hostname");
    }
    if !has_uts && whole.remove("hostname").is_some() {
        notes.push("hostname is left out: without a uts namespace it would be the host's".to_owned());
    }
    Ok(())
}

fn part_of<'a>(fields: &'a mut Map<String, Json>, key: &str) -> Result<&'a mut Map<String, Json>> {
    fields.entry(key).or_insert_with(|| json!({})).as_object_mut().with_context(|| format!("{key} is no object"))
}

fn has_namespace(config: &Json, kind: &str) -> bool {
    let namespaces = config.pointer("/linux/namespaces").and_then(Json::as_array);
    namespaces.into_iter().flatten().any(|namespace| namespace["type"] == kind)
}

/// One list is five sets today; of the old ones none outlasted the change to another user.
fn capabilities(config: &mut Json, notes: &mut Vec<String>) -> Result<()> {
    let process = part(config, "process")?;
    let sets = match process.remove("capabilities") {
        None => json!({}),
        Some(Json::Array(list)) => {
            notes.push("process.capabilities: the one list is the bounding, effective and permitted set".to_owned());
            json!({ "bounding": list, "effective": list, "permitted": list })
        }
        Some(sets) => sets,
    };
    let Json::Object(mut sets) = sets else { bail!("process.capabilities is neither a list nor sets") };
    for names in sets.values_mut().filter_map(Json::as_array_mut) {
        names.retain(|name| {
            let is_known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            let words = format!("the capability {name} is not known, and left out");
            if !is_known && !notes.contains(&words) {
                notes.push(words);
            }
            is_known
        });
    }
    for kind in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        sets.entry(kind).or_insert(json!([]));
    }
    process.insert("capabilities".to_owned(), Json::Object(sets));
    Ok(())
}

fn root(config: &mut Json, notes: &mut Vec<String>) -> Result<()> {
    let root = part(config, "root")?;
    let path = root.entry("path").or_insert(json!("rootfs")).as_str().unwrap_or_default().to_owned();
    ensure!(
        matches!(path.as_str(), "rootfs" | "./rootfs" | "rootfs/"),
        "root.path is {path:?}, and only \"rootfs\" can be"
    );
    root.insert("path".to_owned(), json!("rootfs"));
    if root.get("readonly") != Some(&json!(true)) {
        notes.push("root.readonly is not set: what is written to the root is forgotten at each stop".to_owned());
        root.insert("readonly".to_owned(), json!(false));
    }
    Ok(())
}

fn linux_fields(config: &mut Json, notes: &mut Vec<String>) -> Result<()> {
    if !has_namespace(config, "mount") {
        notes.push("a mount namespace is added: a container is none without".to_owned());
        let namespaces = part(config, "linux")?.entry("namespaces").or_insert(json!([]));
        namespaces.as_array_mut().context("linux.namespaces is no list")?.push(json!({ "type": "mount" }));
    }
    let linux = part(config, "linux")?;
    for namespace in linux.get_mut("namespaces").and_then(Json::as_array_mut).into_iter().flatten() {
        if namespace.get("path").and_then(Json::as_str) == Some("")
            && let Some(fields) = namespace.as_object_mut()
        {
            fields.remove("path");
        }
    }
    for key in ["mountLabel", "rootfsPropagation", "cgroupsPath"] {
        if key == "cgroupsPath" || linux.get(key).and_then(Json::as_str) == Some("") {
            linux.remove(key);
        }
    }
    Ok(())
}

/// Options that mean something to another kind of mount only, paths in another form, and a missing type.
fn mounts(config: &mut Json, notes: &mut Vec<String>) -> Result<()> {
    let Some(mounts) = config.get_mut("mounts") else { return Ok(()) };
    for mount in mounts.as_array_mut().context("mounts is no list")? {
        let Some(fields) = mount.as_object_mut() else { bail!("mounts: one is no object") };
        let destination = fields.get("destination").or(fields.get("path")).and_then(Json::as_str).unwrap_or_default();
        let destination = shortest(destination);
        fields.remove("path");
        fields.insert("destination".to_owned(), json!(destination));
        let option = |fields: &Map<String, Json>, name: &str| {
            fields.get("options").and_then(Json::as_array).into_iter().flatten().any(|option| option == name)
        };
        let is_bind = fields.get("type") == Some(&json!("bind")) || option(fields, "bind") || option(fields, "rbind");
        if is_bind {
            fields.insert("type".to_owned(), json!("bind"));
            let source = fields.get("source").and_then(Json::as_str).map(shortest);
            fields.insert("source".to_owned(), json!(source.context("mounts: a bind mount has no source")?));
            if !option(fields, "bind") && !option(fields, "rbind") {
                notes.push(format!("mounts: {destination}: bind is added to its options"));
                if let Some(options) = fields.entry("options").or_insert(json!([])).as_array_mut() {
                    options.push(json!("bind"));
                }
            }
        }
        let kind = fields.get("type").and_then(Json::as_str).unwrap_or_default().to_owned();
        let means_nothing = |option: &Json| {
            let text = option.as_str().unwrap_or_default();
            match kind.as_str() {
                "bind" => text.starts_with("mode=") || text.starts_with("size=") || text == "defaults",
                "proc" | "sysfs" | "cgroup" => {
                    matches!(text, "private" | "rprivate" | "slave" | "rslave" | "defaults" | "strictatime" | "bind")
                }
                _ => text == "defaults",
            }
        };
        if let Some(options) = fields.get_mut("options").and_then(Json::as_array_mut) {
            let left_out: Vec<String> =
                options.iter().filter(|option| means_nothing(option)).map(|option| option.to_string()).collect();
            options.retain(|option| !means_nothing(option));
            let words = |option: String| {
                format!("mounts: the option {option} means nothing for a mount of type {kind}, and is left out")
            };
            for words in left_out.into_iter().map(words) {
                if !notes.contains(&words) {
                    notes.push(words);
                }
            }
        }
    }
    Ok(())
}

/// A mount in a place that a shared one has already would show on the host; where it is the same thing there, it is none the less there.
fn doubled(config: &mut Json, notes: &mut Vec<String>) -> Result<()> {
    let Some(mounts) = config.get_mut("mounts").and_then(Json::as_array_mut) else { return Ok(()) };
    let text = |mount: &Json, key: &str| mount[key].as_str().unwrap_or_default().to_owned();
    let is_shared = |mount: &Json| {
        mount["options"].as_array().into_iter().flatten().any(|option| option == "shared" || option == "rshared")
    };
    let shared: Vec<(String, String)> = mounts
        .iter()
        .filter(|mount| mount["type"] == "bind" && is_shared(mount))
        .map(|mount| (text(mount, "destination"), text(mount, "source")))
        .collect();
    mounts.retain(|mount| {
        let (inside, on_host) = (text(mount, "destination"), text(mount, "source"));
        let same = |(destination, source): &(String, String)| {
            let below = |path: &str, above: &str| path.strip_prefix(above.trim_end_matches('/')).map(str::to_owned);
            let rest = below(&inside, destination).filter(|rest| rest.starts_with('/'));
            rest.is_some() && rest == below(&on_host, source)
        };
        let is_double = mount["type"] == "bind" && shared.iter().any(same);
        if is_double {
            notes.push(format!("mounts: {inside} is left out: it is there by a shared mount above it"));
        }
        !is_double
    });
    Ok(())
}

/// An absolute path without what changes nothing in it; a relative one is meant from the root.
fn shortest(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

fn seccomp(config: &mut Json, notes: &mut Vec<String>) -> Result<()> {
    let linux = part(config, "linux")?;
    let Some(seccomp) = linux.get_mut("seccomp").and_then(Json::as_object_mut) else {
        linux.remove("seccomp");
        return Ok(());
    };
    if seccomp.get("defaultAction").and_then(Json::as_str).unwrap_or_default().is_empty() {
        notes.push("linux.seccomp is empty: there is no filter of system calls".to_owned());
        linux.remove("seccomp");
        return Ok(());
    }
    for rule in seccomp.get_mut("syscalls").and_then(Json::as_array_mut).into_iter().flatten() {
        let Some(rule) = rule.as_object_mut() else { continue };
        if let Some(name) = rule.remove("name") {
            let words = "linux.seccomp: a rule's name is the list names today".to_owned();
            if !notes.contains(&words) {
                notes.push(words);
            }
            rule.entry("names").or_insert(json!([name]));
        }
        if rule.get("args").and_then(Json::as_array).is_some_and(Vec::is_empty) {
            rule.remove("args");
        }
    }
    Ok(())
}
