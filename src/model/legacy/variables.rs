//! What the names in a template stand for: what the old tool set itself, what the admin gives, and the image's defaults.
//!
//! The order is the old tool's: its own ten names are nobody's to give; what else it knows by itself comes before the image's default,
//! so that only the admin changes it; UUID is made once and kept.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::{Manifest, plain};
use crate::model::{
    fault::{Code, Fault},
    layout,
    render::Inputs,
    spec,
    values::{Setting, Source, Value, Values},
};

/// Set by the tool, whatever anybody says.
const FORCED: [&str; 10] = [
    "DESTDIR",
    "NAME",
    "EXEC_START",
    "EXEC_STOP",
    "EXEC_STARTPRE",
    "EXEC_STOPPOST",
    "HOST_UID",
    "HOST_GID",
    "IMAGE_ID",
    "IMAGE_NAME",
];

/// Made at the first install, and the same over all updates.
const UUID: &str = "UUID";

/// All names, and what there is to say about them.
pub struct Variables {
    /// What is recorded: what the admin gave, the image's defaults, and what was made.
    pub values: Values,
    /// What the admin gave before and nothing of this image uses.
    pub gone: Vec<String>,
    /// For people.
    pub notes: Vec<String>,
    all: BTreeMap<String, String>,
}

impl Variables {
    /// `used` are the names in the image's templates.
    pub fn resolve(inputs: &Inputs, manifest: &Manifest, used: &BTreeSet<String>) -> Result<Variables, Fault> {
        let (mut notes, mut gone) = (Vec::new(), Vec::new());
        let settings = inputs.settings;
        for (index, setting) in settings.iter().enumerate() {
            if settings[..index].iter().any(|earlier| earlier.key == setting.key) {
                return Err(Fault::new(Code::Failed, format!("--set {}: given twice", setting.key)));
            }
        }
        let known = |key: &str| used.contains(key) || manifest.default_values.contains_key(key);
        let mut given: BTreeMap<&str, String> = BTreeMap::new();
        let before = inputs.before.into_iter().flatten().filter(|(_, value)| value.source == Source::Admin);
        for (key, value) in before.filter(|(key, _)| !settings.iter().any(|setting| setting.key == **key)) {
            match known(key) {
                true => drop(given.insert(key, plain(&value.value))),
                false => gone.push(key.clone()),
            }
        }
        for Setting { key, value } in settings {
            if FORCED.contains(&key.as_str()) {
                notes.push(format!("--set {key} changes nothing: sysctr sets it"));
                continue;
            }
            if !known(key) {
                notes.push(format!("--set {key}: nothing of the image uses it"));
            }
            given.insert(key, value.clone());
        }

        let mut all = own(inputs, &given);
        let mut values = Values::new();
        for (key, value) in &manifest.default_values {
            if !given.contains_key(key.as_str()) && !all.contains_key(key) && !FORCED.contains(&key.as_str()) {
                all.insert(key.clone(), plain(value));
                values.insert(key.clone(), Value::new(value.clone(), Source::Default));
            }
        }
        for (key, value) in given {
            all.insert(key.to_owned(), value.clone());
            values.insert(key.to_owned(), Value::new(value.into(), Source::Admin));
        }
        if used.contains(UUID) && !all.contains_key(UUID) {
            let kept = inputs.before.and_then(|before| before.get(UUID)).map(|value| plain(&value.value));
            let uuid = kept.unwrap_or_else(|| inputs.uuid.to_owned());
            all.insert(UUID.to_owned(), uuid.clone());
            values.insert(UUID.to_owned(), Value::new(uuid.into(), Source::Made));
        }
        all.extend(forced(inputs));
        Ok(Variables { values, gone, notes, all })
    }

    /// What a name stands for.
    pub fn get(&self, name: &str) -> Option<String> {
        self.all.get(name).cloned()
    }

    /// The folder of the deployment.
    pub fn destdir(&self) -> &str {
        self.all.get("DESTDIR").map_or("", String::as_str)
    }
}

/// What the tool knows by itself, where the admin says nothing else.
fn own(inputs: &Inputs, given: &BTreeMap<&str, String>) -> BTreeMap<String, String> {
    let run = given.get("RUN_DIRECTORY").map_or("/run", String::as_str);
    let runtime = inputs.runtime.map_or(layout::RUNTIME, |other| other.as_str());
    let capabilities: Vec<String> = spec::every_capability().map(|name| format!("\"{name}\"")).collect();
    let own = [
        ("RUN_DIRECTORY", "/run".to_owned()),
        ("PIDFILE", format!("{run}/container-{}.pid", inputs.name)),
        ("CONF_DIRECTORY", "/etc".to_owned()),
        ("STATE_DIRECTORY", "/var/lib".to_owned()),
        ("ALL_PROCESS_CAPABILITIES", format!("{}\n", capabilities.join(",\n"))),
        ("RUNTIME", runtime.to_owned()),
        ("ATOMIC", "sysctr".to_owned()),
    ];
    own.into_iter().filter(|(key, _)| !given.contains_key(key)).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn forced(inputs: &Inputs) -> impl Iterator<Item = (String, String)> {
    let texts = [
        format!("/{}", layout::deployment(inputs.name, inputs.id)),
        inputs.name.to_string(),
        layout::launch(inputs.name, inputs.id, inputs.runtime),
        // systemd stops the program itself, and nothing is left to clean up.
        String::new(),
        String::new(),
        String::new(),
        "0".to_owned(),
        "0".to_owned(),
        inputs.digest.hex().to_owned(),
        inputs.image.to_owned(),
    ];
    FORCED.map(str::to_owned).into_iter().zip(texts)
}
