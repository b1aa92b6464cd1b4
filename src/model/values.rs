//! The settings of a container: what the image asks for, joined with what the admin gives.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    fault::{Code, Fault},
    manifest::{Manifest, ValueKind, ValueSpec},
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
            let fault = Fault::new(Code::Failed, format!("--set {}: the image has no such value", setting.key));
            return Err(match manifest.values.is_empty() {
                true => fault.hint("this image asks for no values"),
                false => fault.hint(format!("it asks for: {}", known())),
            });
        }
        if settings[..index].iter().any(|earlier| earlier.key == setting.key) {
            return Err(Fault::new(Code::Failed, format!("--set {}: given twice", setting.key)));
        }
    }
    manifest.values.iter().map(|(name, spec)| Ok((name.clone(), pick(name, spec, settings)?))).collect()
}

/// What an admin gave for an earlier deployment and does not give anew, as settings for this one; and the names of what this image does
/// not ask for any more. A value that no longer fits is refused: only the admin knows what it is to be.
pub fn carry(manifest: &Manifest, old: &Values, given: &[Setting]) -> Result<(Vec<Setting>, Vec<String>), Fault> {
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    let by_admin = old.iter().filter(|(_, value)| value.source == Source::Admin);
    for (name, value) in by_admin.filter(|(name, _)| !given.iter().any(|setting| setting.key == **name)) {
        let text = plain(&value.value);
        match manifest.values.get(name).map(|spec| spec.read(&text)) {
            None => gone.push(name.clone()),
            Some(Ok(_)) => kept.push(Setting { key: name.clone(), value: text }),
            Some(Err(expected)) => {
                let message =
                    format!("the value {name}={text} that was given before no longer fits: expected {expected}");
                return Err(Fault::new(Code::Failed, message).hint(format!("give it anew with --set {name}=...")));
            }
        }
    }
    Ok((kept, gone))
}

/// A value as it would be typed.
fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn pick(name: &str, spec: &ValueSpec, settings: &[Setting]) -> Result<Value, Fault> {
    let about = spec.description.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    if let Some(setting) = settings.iter().find(|setting| setting.key == name) {
        let value = spec.read(&setting.value).map_err(|expected| {
            Fault::new(Code::Failed, format!("--set {name}={}: expected {expected}{about}", setting.value))
        })?;
        return Ok(Value { value, source: Source::Admin });
    }
    match &spec.default {
        Some(default) if !spec.required => {
            let value = spec.read(&plain(default)).map_err(|expected| {
                Fault::new(Code::Failed, format!("the image's default {default} for {name}: expected {expected}"))
            })?;
            Ok(Value { value, source: Source::Default })
        }
        _ => Err(Fault::new(Code::Failed, format!("the value {name} is missing{about}"))
            .hint(format!("give it with --set {name}=..."))),
    }
}

impl ValueSpec {
    /// The typed value of a text, or what was expected instead.
    pub fn read(&self, text: &str) -> Result<Json, String> {
        let string = || Json::String(text.to_owned());
        if text.chars().any(char::is_control) {
            return Err("text without control characters".to_owned());
        }
        if let (Ok(Some(pattern)), Some(text_of)) = (self.pattern(), self.pattern.as_ref())
            && !pattern.is_match(text)
        {
            return Err(format!("text like {text_of}"));
        }
        let parsed = match self.kind {
            ValueKind::String => Some(string()),
            ValueKind::Integer => text.parse::<i64>().ok().map(Json::from),
            ValueKind::Boolean => match text {
                "true" | "yes" | "on" | "1" => Some(true.into()),
                "false" | "no" | "off" | "0" => Some(false.into()),
                _ => None,
            },
            ValueKind::Enum => self.choices.iter().any(|choice| choice == text).then(string),
            ValueKind::Url => is_url(text).then(string),
            ValueKind::Path => super::manifest::absolute(text).is_ok().then(string),
            ValueKind::Duration => duration(text).map(|_| string()),
        };
        parsed.ok_or_else(|| match self.kind {
            ValueKind::Integer => "a whole number".to_owned(),
            ValueKind::Boolean => "true or false".to_owned(),
            ValueKind::Enum => format!("one of {}", self.choices.join(", ")),
            ValueKind::Url => "a URL such as https://host:port".to_owned(),
            ValueKind::Path => "an absolute path without '.' and '..'".to_owned(),
            ValueKind::Duration => "a time such as 90s or 5min".to_owned(),
            ValueKind::String => "text".to_owned(),
        })
    }
}

/// `scheme://something`, without blanks.
fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let letters = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b));
    letters && !scheme.is_empty() && !rest.is_empty() && !text.contains(char::is_whitespace)
}

/// A number with a unit of systemd.time(7); without one it is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "min" => seconds(60),
        "h" => seconds(60 * 60),
        "d" => seconds(24 * 60 * 60),
        _ => None,
    }
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
        assert_eq!(values["port"], Value { value: 8080.into(), source: Source::Admin });
        assert_eq!(values["wait"], Value { value: "90s".into(), source: Source::Default });
    }

    #[test]
    fn each_wrong_value_is_named_with_what_was_expected() {
        for (settings, expected) in [
            (vec![], "the value mode is missing"),
            (vec!["mode=c"], "one of a, b"),
            (vec!["mode=a", "port=x"], "--set port=x: expected a whole number (where it listens)"),
            (vec!["mode=a", "prot=1"], "--set prot"),
            (vec!["mode=a", "mode=b"], "given twice"),
            (vec!["mode=a", "host=a b"], "text like [a-z.]+"),
            (vec!["mode=a", "wait=5 parsecs"], "90s or 5min"),
        ] {
            let settings: Vec<_> = settings.into_iter().map(set).collect();
            let message = resolve(&manifest(), &settings).expect_err(expected).to_string();
            assert!(message.contains(expected), "{message:?} does not say {expected:?}");
        }
    }
}
