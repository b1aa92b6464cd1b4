//! Logins for registries, from the files that
//! [containers-auth.json(5)](https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md) names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use oci_spec::distribution::Reference;
use serde::Deserialize;

/// A user's name and password, and the file that they are from.
pub struct Credentials {
    /// the name
    pub user: String,
    /// the password
    pub password: String,
    /// for messages
    pub origin: PathBuf,
}

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
}

/// The login for this repository, if any file has one.
pub fn find(reference: &Reference) -> Result<Option<Credentials>> {
    find_in(&places(|name| std::env::var_os(name).map(PathBuf::from)), reference)
}

fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = variable("HOME").unwrap_or_else(|| "/root".into());
    let runtime = variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
    let config = variable("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
    runtime
        .into_iter()
        .chain([
            // where podman keeps root's when there is no session
            PathBuf::from("/run/containers/0/auth.json"),
            config.join("containers/auth.json"),
            home.join(".docker/config.json"),
        ])
        .collect()
}

fn find_in(places: &[PathBuf], reference: &Reference) -> Result<Option<Credentials>> {
    for place in places {
        let text = match std::fs::read(place) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", place.display())),
        };
        let file: AuthFile = serde_json::from_slice(&text).with_context(|| format!("reading {}", place.display()))?;
        if let Some(encoded) = choose(&file, reference) {
            return decode(&encoded, place).map(Some);
        }
    }
    Ok(None)
}

/// The entry with the longest prefix of `registry/repository`, then the registry as old files write it.
fn choose(file: &AuthFile, reference: &Reference) -> Option<String> {
    let whole = format!("{}/{}", reference.registry(), reference.repository());
    let mut keys = vec![whole.as_str()];
    while let Some((shorter, _)) = keys.last().and_then(|key| key.rsplit_once('/')) {
        keys.push(shorter);
    }
    let registry = reference.registry();
    let old = ["http://", "https://"].map(|scheme| format!("{scheme}{registry}"));
    let old = old.iter().flat_map(|url| ["", "/", "/v1/", "/v2/"].map(|end| format!("{url}{end}")));
    let hub = (registry == "docker.io").then(|| "https://index.docker.io/v1/".to_owned());
    let keys = keys.into_iter().map(str::to_owned).chain(old).chain(hub);
    // an entry without a password is left there by credential helpers
    keys.into_iter().find_map(|key| file.auths.get(&key)?.auth.clone().filter(|auth| !auth.is_empty()))
}

fn decode(encoded: &str, origin: &Path) -> Result<Credentials> {
    let text = STANDARD.decode(encoded).ok().and_then(|text| String::from_utf8(text).ok());
    let (user, password) = text
        .as_deref()
        .and_then(|text| text.split_once(':'))
        .with_context(|| format!("{}: a login is not the base64 of USER:PASSWORD", origin.display()))?;
    Ok(Credentials { user: user.to_owned(), password: password.to_owned(), origin: origin.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().expect(text)
    }

    #[test]
    fn the_most_specific_login_is_taken_and_broken_files_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("auth.json");
        let write = |text: &str| std::fs::write(&file, text).expect("written");
        let encode = |text: &str| STANDARD.encode(text);
        write(&format!(
            r#"{{"auths": {{"reg.io": {{"auth": "{}"}}, "reg.io/a/b": {{"auth": "{}"}}, "https://old.io/v1/": {{"auth": "{}"}}, "empty.io": {{}}}},
                "credHelpers": {{"x.io": "y"}}}}"#,
            encode("u:registry"),
            encode("u:repository"),
            encode("u:old"),
        ));
        let places = [folder.path().join("missing.json"), file.clone()];
        for (image, password) in [
            ("reg.io/x", Some("registry")),
            ("reg.io/a/b", Some("repository")),
            ("reg.io/a/b/c", Some("repository")),
            ("reg.io/a/bc", Some("registry")),
            ("old.io/x", Some("old")),
            ("empty.io/x", None),
            ("other.io/x", None),
        ] {
            let found = find_in(&places, &reference(image)).expect("sound files");
            let found = found.map(|found| (found.user, found.password));
            assert_eq!(found, password.map(|password| ("u".to_owned(), password.to_owned())), "{image}");
        }
        for broken in ["{", r#"{"auths": {"reg.io": {"auth": "no base64!"}}}"#] {
            write(broken);
            let error = format!("{:#}", find_in(&places, &reference("reg.io/x")).err().expect(broken));
            assert!(error.contains("auth.json"), "{error}");
        }
    }

    #[test]
    fn a_file_named_by_the_environment_is_the_only_one() {
        let only = places(|name| (name == "REGISTRY_AUTH_FILE").then(|| "/x/auth.json".into()));
        assert_eq!(only, [PathBuf::from("/x/auth.json")]);
        let all = places(|name| match name {
            "XDG_RUNTIME_DIR" => Some("/run/user/0".into()),
            "HOME" => Some("/home/me".into()),
            _ => None,
        });
        assert!(
            all.contains(&"/run/user/0/containers/auth.json".into())
                && all.contains(&"/home/me/.docker/config.json".into())
        );
    }
}
