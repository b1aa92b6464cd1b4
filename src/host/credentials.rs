//! Logins for registries, from the files that
//! [containers-auth.json(5)](https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md) names and from the programs
//! that those name, which speak
//! [docker-credential-helpers](https://github.com/docker/docker-credential-helpers#development)' protocol.

use std::{
    fmt,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use oci_spec::distribution::Reference;

use super::registries::Registries;
use crate::model::auth_file::{AuthFile, Entry, Helper, Secret};

/// What registries.conf calls the files, among its helpers.
const FILES: &str = "containers-auth.json";
/// Bytes of a file or an answer that are still believed.
const LIMIT: u64 = 1 << 20;

/// A login and where it is from.
pub struct Credentials {
    /// What the registry is shown.
    pub secret: Secret,
    /// For messages.
    pub origin: Origin,
}

/// A file or a program.
pub enum Origin {
    /// the file
    File(PathBuf),
    /// what follows `docker-credential-`
    Helper(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Helper(name) => write!(f, "docker-credential-{name}"),
        }
    }
}

/// The login for this repository, if any file or helper has one.
pub fn find(reference: &Reference, registries: &Registries) -> Result<Option<Credentials>> {
    let places = places(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from));
    for source in registries.credential_helpers() {
        let found = match source.as_str() {
            FILES => find_in(&places, reference)?,
            name => ask(&Helper { name: name.to_owned(), server: reference.registry().to_owned() })?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = variable("HOME").unwrap_or_else(|| "/root".into());
    let runtime = variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
    let config = variable("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
    let docker = variable("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker"));
    // where podman keeps root's when there is no session
    let root = PathBuf::from("/run/containers/0/auth.json");
    let others = [root, config.join("containers/auth.json"), docker.join("config.json"), home.join(".dockercfg")];
    runtime.into_iter().chain(others).collect()
}

fn find_in(places: &[PathBuf], reference: &Reference) -> Result<Option<Credentials>> {
    for place in places {
        let text = match std::fs::File::open(place) {
            Ok(file) => read(file),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) => Err(error.into()),
        };
        let old = place.ends_with(".dockercfg");
        let parse = if old { AuthFile::parse_old } else { AuthFile::parse };
        let entry = text.and_then(|text| parse(&text)?.find(reference));
        let found = match entry.with_context(|| format!("reading {}", place.display()))? {
            Some(Entry::Login(secret)) => Some(Credentials { secret, origin: Origin::File(place.clone()) }),
            Some(Entry::Helper(helper)) => ask(&helper).with_context(|| format!("as {} says", place.display()))?,
            None => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn read(file: std::fs::File) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text)?;
    Ok(text)
}

/// Asks a helper; none where it knows of no login.
fn ask(helper: &Helper) -> Result<Option<Credentials>> {
    let program = format!("docker-credential-{}", helper.name);
    let asking = || format!("asking {program} for {}", helper.server);
    let mut command = Command::new(Path::new(&program));
    let child = command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(asking)?;
    if let Some(mut input) = child.stdin.take() {
        // one that does not read answers all the same
        let _ = input.write_all(helper.server.as_bytes());
    }
    let output = child.wait_with_output().with_context(asking)?;
    if output.status.success() {
        let secret = Secret::from_helper(&output.stdout).with_context(asking)?;
        return Ok(Some(Credentials { secret, origin: Origin::Helper(helper.name.clone()) }));
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().chars().take(200).collect::<String>();
    if said.contains("credentials not found") {
        return Ok(None);
    }
    bail!("{}: {}, it said {said:?}", asking(), output.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_named_and_a_missing_one_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("auth.json");
        let places = [folder.path().join("missing.json"), file.clone()];
        let reference = "reg.io/x".parse().expect("a reference");
        for broken in ["{", r#"{"auths": {"reg.io": {"auth": "no base64!"}}}"#] {
            std::fs::write(&file, broken).expect("written");
            let error = format!("{:#}", find_in(&places, &reference).err().expect(broken));
            assert!(error.contains("auth.json"), "{error}");
        }
        std::fs::write(&file, r#"{"auths": {"reg.io": {"auth": "dTpw"}}}"#).expect("written");
        let found = find_in(&places, &reference).expect("sound").expect("a login");
        assert_eq!(found.origin.to_string(), file.display().to_string());
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
        let expected = [
            "/run/user/0/containers/auth.json",
            "/run/containers/0/auth.json",
            "/home/me/.config/containers/auth.json",
            "/home/me/.docker/config.json",
            "/home/me/.dockercfg",
        ];
        assert_eq!(all, expected.map(PathBuf::from));
    }
}
