//! `manifest.json` of version 1.0, or of none.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value as Json;

/// What the old tool read of it. Other keys it passed over, and so does this.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    /// Values that nobody has to give.
    pub default_values: BTreeMap<String, Json>,
    /// Where files of `hostfs/` go instead, by the place that they have in there; the new place is a template.
    pub rename_files: BTreeMap<String, String>,
    /// Which files of `hostfs/` are templates, by the place where they go.
    pub installed_files_template: Vec<String>,
    /// It is nothing but files for the host.
    pub no_container_service: bool,
    /// Whether the old tool might put a hard link below /usr; a copy is what we place in any case.
    pub use_links: Option<bool>,
}

/// Keys that only version 2.0 has.
const NEWER: [&str; 9] =
    ["values", "container", "health", "state", "hostFiles", "after", "before", "requires", "wants"];

impl Manifest {
    /// Reads the file's text; none where it is of a newer format, or no JSON at all.
    pub fn parse(text: &str) -> Result<Option<Manifest>> {
        let Ok(value) = serde_json::from_str::<Json>(text) else { return Ok(None) };
        let is_old = match value.get("version") {
            None | Some(Json::Null) => true,
            Some(Json::String(version)) => version == "1.0" || version == "1",
            Some(Json::Number(number)) => number.as_f64() == Some(1.0),
            Some(_) => false,
        };
        if !is_old || !value.is_object() {
            return Ok(None);
        }
        if let Some(key) = NEWER.iter().find(|key| value.get(**key).is_some()) {
            bail!("{key:?} is of version 2.0, and the file does not say \"version\": \"2.0\"");
        }
        let manifest: Manifest = serde_json::from_str(text)?;
        for (name, value) in &manifest.default_values {
            let plain = !matches!(value, Json::Array(_) | Json::Object(_));
            ensure!(plain, "defaultValues.{name}: {value} is no text");
        }
        Ok(Some(manifest))
    }
}

/// A value as the old tool wrote it into a template.
pub fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        Json::Null => "None".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_old_unless_it_says_otherwise() {
        for (text, old) in [
            ("{}", true),
            (r#"{"version": "1.0", "something": 1}"#, true),
            (r#"{"version": 1.0}"#, true),
            (r#"{"version": "2.0"}"#, false),
            (r#"{"version": "7"}"#, false),
            ("{", false),
        ] {
            assert_eq!(Manifest::parse(text).expect(text).is_some(), old, "{text}");
        }
        let all = r#"{"defaultValues": {"A": 5, "B": "x"}, "renameFiles": {"/a": "/b"}, "installedFilesTemplate": ["/b"],
            "noContainerService": true, "useLinks": false}"#;
        let all = Manifest::parse(all).expect("a manifest").expect("an old one");
        assert_eq!((plain(&all.default_values["A"]), plain(&all.default_values["B"])), ("5".into(), "x".into()));
        assert!(all.no_container_service && all.use_links == Some(false));
        assert_eq!(
            (all.rename_files["/a"].as_str(), &all.installed_files_template[..]),
            ("/b", &["/b".to_owned()][..])
        );
    }

    #[test]
    fn what_it_cannot_mean_is_named() {
        for (text, expected) in [
            (r#"{"values": {}}"#, "\"values\" is of version 2.0"),
            (r#"{"defaultValues": {"A": []}}"#, "defaultValues.A"),
            ("{\"version\": \"1.0\",\n\"renameFiles\": []}", "line 2"),
        ] {
            let message = format!("{:#}", Manifest::parse(text).expect_err(text));
            assert!(message.contains(expected), "{message}");
        }
    }
}
