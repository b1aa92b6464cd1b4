//! The settings of a container: what the image asks for, joined with what the admin gives.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Result as Anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    fault::{Code, Fault},
    manifest::{Manifest, ValueKind, ValueSpec},
    value_spec::plain,
};

/// One `--set KEY=VALUE`.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The value's name.
    pub key: String,
    /// Its text, everything behind the first `=`.
    pub value: String,
}

/// An argument that is no setting.
#[derive(Debug, thiserror::Error)]
#[error("invalid setting {0:?}: expected KEY=VALUE")]
pub struct BadSetting(String);

impl FromStr for Setting {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Setting, BadSetting> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Setting { key: key.to_owned(), value: value.to_owned() }),
            _ => Err(BadSetting(text.to_owned())),
        }
    }
}

/// A value in force and who gave it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// String, number or boolean.
    pub value: Json,
    /// Where it comes from.
    pub source: Source,
    /// The type that the image gave it.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ValueKind>,
    /// It is in a file that only root reads, and `null` here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

impl Value {
    /// A value that is no secret.
    pub fn new(value: Json, source: Source) -> Value {
        Value { value, source, kind: None, secret: false }
    }
}

/// Who gave a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Source {
    Default,
    Admin,
    /// Once, by sysctr, and kept.
    Made,
}

/// All values of a container, by name.
pub type Values = BTreeMap<String, Value>;

/// Joins defaults and settings. A missing, unknown or ill-typed value is refused by name, with what was expected.
pub fn resolve(manifest: &Manifest, settings: &[Setting]) -> Result<Values, Fault> {
    for (index, setting) in settings.iter().enumerate() {
        let known = || manifest.values.keys().cloned().collect::<Vec<_>>().join(", ");
        if !manifest.values.contains_key(&setting.key) {
            let fault = Fault::new(Code::Failed, format!("the value {}: the image has no such value", setting.key));
            return Err(match manifest.values.is_empty() {
                true => fault.hint("this image asks for no values"),
                false => fault.hint(format!("it asks for: {}", known())),
            });
        }
        if settings[..index].iter().any(|earlier| earlier.key == setting.key) {
            return Err(Fault::new(Code::Failed, format!("the value {}: given twice", setting.key)));
        }
    }
    manifest.values.iter().map(|(name, spec)| Ok((name.clone(), pick(name, spec, settings)?))).collect()
}

/// What has to be kept out of records, by name: the settings that the image calls secret.
pub fn secrets(manifest: &Manifest, settings: &[Setting]) -> BTreeMap<String, String> {
    let is_secret = |setting: &&Setting| manifest.values.get(&setting.key).is_some_and(|spec| spec.secret);
    settings.iter().filter(is_secret).map(|setting| (setting.key.clone(), setting.value.clone())).collect()
}

/// What becomes of the settings of an earlier deployment.
#[derive(Debug, Default)]
pub struct Carried {
    /// What the admin gave then and does not give anew.
    pub kept: Vec<Setting>,
    /// The names of what this image does not ask for any more.
    pub gone: Vec<String>,
    /// What else is different, for people.
    pub notes: Vec<String>,
}

/// The old defaults, the admin's settings and the new image's defaults become one: what the admin gave stays, whatever else there was is
/// the new image's. A value that no longer fits is refused: only the admin knows what it is to be.
///
/// Secrets of `old` are `null` or, where somebody read them for this, text.
pub fn carry(manifest: &Manifest, old: &Values, given: &[Setting]) -> Result<Carried, Fault> {
    let mut carried = Carried::default();
    for (name, value) in old.iter().filter(|(name, _)| !given.iter().any(|setting| setting.key == **name)) {
        let by_admin = value.source == Source::Admin;
        let Some(spec) = manifest.values.get(name) else {
            carried.gone.extend(by_admin.then(|| name.clone()));
            continue;
        };
        if let Some(kind) = value.kind.filter(|kind| *kind != spec.kind) {
            carried.notes.push(format!("the value {name} is of type {} now, and was of type {kind}", spec.kind));
        }
        if value.secret && !spec.secret {
            let message = format!("the value {name} is no secret any more: units and records would show it");
            return Err(Fault::new(Code::Failed, message).hint(format!("give it anew with --set {name}=...")));
        }
        if !by_admin {
            let new = spec.default.as_ref().and_then(|default| spec.read(&plain(default)).ok());
            if let Some(new) = new.filter(|new| *new != value.value) {
                carried.notes.push(format!("the default of {name} is {new} now, and was {}", value.value));
            }
            continue;
        }
        if value.value.is_null() {
            continue;
        }
        let text = plain(&value.value);
        match spec.read(&text) {
            Ok(_) => carried.kept.push(Setting { key: name.clone(), value: text }),
            Err(expected) => {
                let shown = if spec.secret { String::new() } else { format!("={text}") };
                let message =
                    format!("the value {name}{shown} that was given before no longer fits: expected {expected}");
                return Err(Fault::new(Code::Failed, message).hint(format!("give it anew with --set {name}=...")));
            }
        }
    }
    Ok(carried)
}

fn pick(name: &str, spec: &ValueSpec, settings: &[Setting]) -> Result<Value, Fault> {
    let about = spec.description.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    let typed = |value, source| Value { kind: Some(spec.kind), ..Value::new(value, source) };
    if let Some(setting) = settings.iter().find(|setting| setting.key == name) {
        let value = spec.read(&setting.value).map_err(|expected| {
            let shown = if spec.secret { String::new() } else { format!("={}", setting.value) };
            Fault::new(Code::Failed, format!("the value {name}{shown}: expected {expected}{about}"))
        })?;
        return Ok(match spec.secret {
            true => Value { secret: true, ..typed(Json::Null, Source::Admin) },
            false => typed(value, Source::Admin),
        });
    }
    match &spec.default {
        Some(default) if !spec.required => {
            let value = spec.read(&plain(default)).map_err(|expected| {
                Fault::new(Code::Failed, format!("the image's default {default} for {name}: expected {expected}"))
            })?;
            Ok(typed(value, Source::Default))
        }
        _ if spec.secret => Err(Fault::new(Code::Failed, format!("the value {name} is missing{about}"))
            .hint(format!("give it with --set-file {name}=FILE"))),
        _ => Err(Fault::new(Code::Failed, format!("the value {name} is missing{about}"))
            .hint(format!("give it with --set {name}=..."))),
    }
}

/// The settings of a file: one table, TOML or JSON. The error names the line or the key.
pub fn parse_file(text: &str, is_json: bool) -> Anyhow<Vec<Setting>> {
    let table: BTreeMap<String, Json> = match is_json {
        true => serde_json::from_str(text)?,
        false => toml::from_str(text)?,
    };
    let setting = |(key, value): (String, Json)| match value {
        Json::String(_) | Json::Number(_) | Json::Bool(_) => Ok(Setting { value: plain(&value), key }),
        Json::Null | Json::Array(_) | Json::Object(_) => {
            bail!("{key}: expected text, a number, or true or false")
        }
    };
    table.into_iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = r#"{"version": "2.0", "values": {
            "port": {"type": "integer", "default": 80, "description": "where it listens"},
            "mode": {"type": "enum", "enum": ["a", "b"]},
            "wait": {"type": "duration", "default": "90s"},
            "host": {"type": "string", "default": "a", "pattern": "[a-z.]+"} }}"#;
        Manifest::parse(text).expect("a manifest")
    }

    fn set(text: &str) -> Setting {
        text.parse().expect("a setting")
    }

    #[test]
    fn defaults_are_overridden_and_keep_their_type() {
        let values = resolve(&manifest(), &[set("mode=b"), set("port=8080")]).expect("values");
        assert_eq!(values["port"], Value { kind: Some(ValueKind::Integer), ..Value::new(8080.into(), Source::Admin) });
        assert_eq!(
            values["wait"],
            Value { kind: Some(ValueKind::Duration), ..Value::new("90s".into(), Source::Default) }
        );
    }

    #[test]
    fn each_wrong_value_is_named_with_what_was_expected() {
        for (settings, expected) in [
            (vec![], "the value mode is missing"),
            (vec!["mode=c"], "one of a, b"),
            (vec!["mode=a", "port=x"], "the value port=x: expected a whole number (where it listens)"),
            (vec!["mode=a", "prot=1"], "the value prot: the image has no such value"),
            (vec!["mode=a", "mode=b"], "given twice"),
            (vec!["mode=a", "host=a b"], "text like [a-z.]+"),
            (vec!["mode=a", "wait=5 parsecs"], "90s or 5min"),
        ] {
            let settings: Vec<_> = settings.into_iter().map(set).collect();
            let message = resolve(&manifest(), &settings).expect_err(expected).to_string();
            assert!(message.contains(expected), "{message:?} does not say {expected:?}");
        }
    }

    #[test]
    fn a_secret_is_in_no_record_and_in_no_message() {
        let text = r#"{"version": "2.0", "values": {"key": {"type": "string", "secret": true, "pattern": "k-.*", "description": "of the API"}}}"#;
        let manifest = Manifest::parse(text).expect("a manifest");
        let values = resolve(&manifest, &[set("key=k-1")]).expect("values");
        assert_eq!(
            serde_json::to_string(&values).expect("JSON"),
            r#"{"key":{"value":null,"source":"admin","type":"string","secret":true}}"#
        );
        assert_eq!(secrets(&manifest, &[set("key=k-1")])["key"], "k-1");
        let wrong = resolve(&manifest, &[set("key=hunter2")]).expect_err("another pattern").to_string();
        assert!(
            !wrong.contains("hunter2") && wrong.contains("the value key: expected text like k-.* (of the API)"),
            "{wrong}"
        );
        // What somebody read for it is carried, and nothing where nobody did.
        assert!(carry(&manifest, &values, &[]).expect("settings").kept.is_empty());
        let mut read = values.clone();
        read.get_mut("key").expect("it").value = "k-2".into();
        assert_eq!(carry(&manifest, &read, &[]).expect("settings").kept[0].value, "k-2");
        read.get_mut("key").expect("it").value = "hunter2".into();
        assert!(!carry(&manifest, &read, &[]).expect_err("no fit").to_string().contains("hunter2"));
        let open = Manifest::parse(r#"{"version": "2.0", "values": {"key": {"type": "string"}}}"#).expect("a manifest");
        assert!(carry(&open, &read, &[]).expect_err("it would be shown").to_string().contains("no secret any more"));
    }

    #[test]
    fn three_ways_become_one() {
        let old = resolve(&manifest(), &[set("mode=b"), set("host=a.b")]).expect("values");
        let text = r#"{"version": "2.0", "values": {
            "port": {"type": "integer", "default": 81}, "mode": {"type": "string", "default": "z"},
            "wait": {"type": "duration", "default": "90s"}, "new": {"type": "boolean", "default": true}}}"#;
        let manifest = Manifest::parse(text).expect("a manifest");
        let carried = carry(&manifest, &old, &[]).expect("settings");
        assert_eq!(carried.gone, ["host"]);
        assert_eq!(
            carried.notes,
            ["the value mode is of type string now, and was of type enum", "the default of port is 81 now, and was 80"]
        );
        let values = resolve(&manifest, &carried.kept).expect("values");
        let plain: Vec<String> =
            values.iter().map(|(name, one)| format!("{name}={} {:?}", one.value, one.source)).collect();
        assert_eq!(plain, ["mode=\"b\" Admin", "new=true Default", "port=81 Default", "wait=\"90s\" Default"]);
        let text = r#"{"version": "2.0", "values": {"mode": {"type": "integer"}}}"#;
        let message = carry(&Manifest::parse(text).expect("a manifest"), &old, &[]).expect_err("no number").to_string();
        assert!(message.contains("mode=b") && message.contains("a whole number"), "{message}");
    }

    #[test]
    fn a_file_of_values_is_toml_or_json() {
        let as_text = |settings: Vec<Setting>| -> Vec<String> {
            settings.into_iter().map(|one| format!("{}={}", one.key, one.value)).collect()
        };
        let toml = parse_file("port = 80\nname = \"a b\"\non = true\n", false).expect("TOML");
        let json = parse_file(r#"{"port": 80, "name": "a b", "on": true}"#, true).expect("JSON");
        assert_eq!(as_text(toml), ["name=a b", "on=true", "port=80"]);
        assert_eq!(as_text(json), ["name=a b", "on=true", "port=80"]);
        for (text, is_json, expected) in [
            ("a = [1]", false, "a: expected"),
            ("a = 1\nb =", false, "line 2"),
            ("{\n\"a\": }", true, "line 2"),
            ("{\"a\": null}", true, "a: expected"),
        ] {
            let message = format!("{:#}", parse_file(text, is_json).expect_err(text));
            assert!(message.contains(expected), "{message}");
        }
    }
}
