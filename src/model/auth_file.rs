//! Logins for registries, as
//! [containers-auth.json(5)](https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md) and Docker's
//! config.json write them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use oci_spec::distribution::Reference;
use serde::Deserialize;

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// a name and password
    Password {
        /// the name
        user: String,
        /// the password
        password: String,
    },
    /// a token that a login server takes in place of them
    Token(String),
}

/// What a file says of a repository.
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    /// the login itself
    Login(Secret),
    /// a program that knows it
    Helper(Helper),
}

/// `docker-credential-NAME`, asked for one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// behind `docker-credential-`
    pub name: String,
    /// as the program knows it
    pub server: String,
}

/// One file.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthFile {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    identitytoken: Option<String>,
}

const HUB: &str = "docker.io";
/// What Docker calls its own registry in these files.
const HUB_SERVER: &str = "https://index.docker.io/v1/";

impl AuthFile {
    /// Reads a file.
    pub fn parse(text: &[u8]) -> Result<AuthFile> {
        Ok(serde_json::from_slice(text)?)
    }

    /// Reads a `.dockercfg`, which has nothing but the logins.
    pub fn parse_old(text: &[u8]) -> Result<AuthFile> {
        Ok(AuthFile { auths: serde_json::from_slice(text)?, ..AuthFile::default() })
    }

    /// The login for a repository, or whom to ask: the registry's own helper, the most specific entry, the helper for all.
    pub fn find(&self, reference: &Reference) -> Result<Option<Entry>> {
        let registry = reference.registry();
        let server = if registry == HUB { HUB_SERVER } else { registry };
        let keys = [registry, server];
        if let Some((key, name)) = keys.iter().find_map(|key| self.cred_helpers.get_key_value(*key)) {
            return helper(name, key).map(Some);
        }
        match self.stored(reference) {
            Some(auth) => login(&auth).map(Entry::Login).map(Some),
            None => self.creds_store.as_ref().map(|name| helper(name, server)).transpose(),
        }
    }

    /// The entry with the longest prefix of `registry/repository`, then the registry as old files write it.
    fn stored(&self, reference: &Reference) -> Option<Auth> {
        let registry = reference.registry();
        let whole = format!("{registry}/{}", reference.repository());
        let shorter = whole.match_indices('/').rev().map(|(at, _)| whole[..at].to_owned());
        let old = ["http://", "https://"].map(|scheme| format!("{scheme}{registry}"));
        let old = old.iter().flat_map(|url| ["", "/", "/v1/", "/v2/"].map(|end| format!("{url}{end}")));
        let hub = [HUB_SERVER, "index.docker.io"].into_iter().filter(|_| registry == HUB).map(str::to_owned);
        let keys = [whole.clone()].into_iter().chain(shorter).chain(old).chain(hub);
        // an entry without a password is left there by credential helpers
        keys.into_iter().find_map(|key| {
            let auth = self.auths.get(&key)?;
            let says = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
            (says(&auth.auth) || says(&auth.identitytoken)).then(|| auth.clone())
        })
    }
}

fn login(entry: &Auth) -> Result<Secret> {
    if let Some(token) = entry.identitytoken.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Secret::Token(token.clone()));
    }
    let text = STANDARD.decode(entry.auth.as_deref().unwrap_or_default()).ok();
    let text = text.and_then(|text| String::from_utf8(text).ok());
    let (user, password) =
        text.as_deref().and_then(|text| text.split_once(':')).context("a login is not the base64 of USER:PASSWORD")?;
    // Docker pads them
    Ok(Secret::Password { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}

fn helper(name: &str, server: &str) -> Result<Entry> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    ensure!(plain, "a credential helper is called {name:?}, which is no part of a program's name");
    Ok(Entry::Helper(Helper { name: name.to_owned(), server: server.to_owned() }))
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    username: String,
    secret: String,
}

impl Secret {
    /// Reads what a helper printed for `get`.
    pub fn from_helper(text: &[u8]) -> Result<Secret> {
        let Told { username, secret } = serde_json::from_slice(text)?;
        Ok(match username.as_str() {
            "<token>" => Secret::Token(secret),
            _ => Secret::Password { user: username, password: secret },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str) -> String {
        STANDARD.encode(text)
    }

    fn found(file: &str, image: &str) -> String {
        match AuthFile::parse(file.as_bytes()).expect(file).find(&image.parse().expect(image)).expect(file) {
            None => "none".into(),
            Some(Entry::Login(Secret::Password { user, password })) => format!("{user} {password}"),
            Some(Entry::Login(Secret::Token(token))) => format!("token {token}"),
            Some(Entry::Helper(helper)) => format!("ask {} for {}", helper.name, helper.server),
        }
    }

    #[test]
    fn the_most_specific_login_is_taken() {
        let file = format!(
            r#"{{"auths": {{"reg.io": {{"auth": "{}"}}, "reg.io/a/b": {{"auth": "{}"}}, "https://old.io/v1/": {{"auth": "{}"}},
                "empty.io": {{}}, "token.io": {{"auth": "{}", "identitytoken": "t"}}, "https://index.docker.io/v1/": {{"auth": "{}"}}}},
                "credHelpers": {{"x.io": "y", "reg.io:5000": "z"}}, "detachKeys": "ctrl-e"}}"#,
            encode("u:registry"),
            encode("u:repository"),
            encode("u:old\0\0"),
            encode("u:"),
            encode("u:with:colon"),
        );
        for (image, expected) in [
            ("reg.io/x", "u registry"),
            ("reg.io/a/b", "u repository"),
            ("reg.io/a/b/c:1", "u repository"),
            ("reg.io/a/bc", "u registry"),
            ("old.io/x", "u old"),
            ("empty.io/x", "none"),
            ("other.io/x", "none"),
            ("token.io/x", "token t"),
            ("docker.io/library/x", "u with:colon"),
            ("x.io/a", "ask y for x.io"),
            ("reg.io:5000/a", "ask z for reg.io:5000"),
        ] {
            assert_eq!(found(&file, image), expected, "{image}");
        }
    }

    #[test]
    fn a_store_for_all_is_asked_last() {
        let file = format!(
            r#"{{"auths": {{"reg.io": {{"auth": "{}"}}, "empty.io": {{}}}}, "credHelpers": {{"own.io": "own"}}, "credsStore": "all"}}"#,
            encode("u:p")
        );
        for (image, expected) in [
            ("reg.io/x", "u p"),
            ("empty.io/x", "ask all for empty.io"),
            ("own.io/x", "ask own for own.io"),
            ("docker.io/library/x", "ask all for https://index.docker.io/v1/"),
        ] {
            assert_eq!(found(&file, image), expected, "{image}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let reference: Reference = "reg.io/x".parse().expect("a reference");
        assert!(AuthFile::parse(b"{").is_err());
        for (file, why) in [
            (r#"{"auths": {"reg.io": {"auth": "no base64!"}}}"#, "base64"),
            (r#"{"credHelpers": {"reg.io": "../../tmp/evil"}}"#, "../../tmp/evil"),
            (r#"{"credsStore": ""}"#, "\"\""),
        ] {
            let error = AuthFile::parse(file.as_bytes()).expect(file).find(&reference).err().expect(file).to_string();
            assert!(error.contains(why), "{error}");
        }
        let old = AuthFile::parse_old(format!(r#"{{"reg.io": {{"auth": "{}"}}}}"#, encode("u:p")).as_bytes());
        assert!(old.expect("a file").find(&reference).expect("sound").is_some());
        assert!(Secret::from_helper(b"{}").is_err());
        let told = Secret::from_helper(br#"{"ServerURL": "x", "Username": "<token>", "Secret": "s"}"#);
        assert!(told.expect("a secret") == Secret::Token("s".into()));
    }
}
