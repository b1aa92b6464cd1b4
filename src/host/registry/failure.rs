//! Why a registry gave no answer, in words.

use std::{error::Error, iter, time::Duration};

use anyhow::anyhow;
use oci_client::errors::{OciEnvelope, OciErrorCode};
use reqwest::StatusCode;

use super::{endpoint::DEADLINE, login::Login};
use crate::model::fault::{Code, Fault};

/// Why there was no answer.
pub enum Failure {
    /// Nothing came, or not all.
    Broken(reqwest::Error),
    /// In time.
    Late,
    /// A status that is none of success.
    Refused { code: StatusCode, after: Option<Duration>, words: String },
    /// The registry wants to see other credentials, or some.
    NotLetIn,
    /// No answer of the login server.
    NoLogin(reqwest::Error),
    /// The login server refused, in its words.
    Login(String),
    /// In words.
    Odd(String),
}

impl Failure {
    /// In words: what was asked of a registry.
    pub fn explain(self, registry: &str, what: &str, login: &Login) -> anyhow::Error {
        match self {
            Failure::NotLetIn => anyhow!(login.not_let_in(registry)),
            Failure::Refused { code, after, words } => explain_status(registry, code, after, &words, what, login),
            Failure::Broken(error) | Failure::NoLogin(error) => unreachable(registry, error),
            Failure::Late => anyhow!("the registry {registry} did not answer in {} seconds", DEADLINE.as_secs()),
            Failure::Odd(words) => anyhow!("the registry {registry}: {words}"),
            Failure::Login(words) if words.is_empty() => anyhow!(login.not_let_in(registry)),
            Failure::Login(words) => anyhow!(line(&words)).context(login.not_let_in(registry)),
        }
    }
}

fn explain_status(
    registry: &str,
    code: StatusCode,
    after: Option<Duration>,
    words: &str,
    what: &str,
    login: &Login,
) -> anyhow::Error {
    use OciErrorCode as C;
    let envelope: Option<OciEnvelope> = serde_json::from_str(words).ok();
    let says = |codes: &[C]| envelope.iter().flat_map(|said| &said.errors).any(|error| codes.contains(&error.code));
    let missing = [C::BlobUnknown, C::ManifestBlobUnknown, C::ManifestUnknown, C::NameUnknown, C::NotFound];
    if code == StatusCode::FORBIDDEN || says(&[C::Denied]) {
        return anyhow!(login.not_let_in(registry));
    }
    if code == StatusCode::NOT_FOUND || says(&missing) {
        let message = format!("the registry {registry} has no {what} (404 Not Found)");
        return Fault::new(Code::NotFound, message).into();
    }
    let words = envelope.map_or_else(|| words.to_owned(), |envelope| envelope.to_string());
    let message = format!("the registry {registry} answered {} {}", code.as_u16(), line(&words));
    match after {
        Some(after) => {
            Fault::new(Code::Failed, message).hint(format!("it asks to wait {} seconds", after.as_secs())).into()
        }
        None => anyhow!(message),
    }
}

/// The registry, or the login server that it sent us to.
fn unreachable(registry: &str, error: reqwest::Error) -> anyhow::Error {
    let whom = error.url().map_or_else(|| registry.to_owned(), |url| url.origin().ascii_serialization());
    let how = if error.is_body() || error.is_decode() { "broke off" } else { "cannot be reached" };
    anyhow!("{whom} {how}: {}", cause(&error.without_url()))
}

/// The bottom of an error: what lies above names addresses, which may be signed ones.
pub(super) fn cause(error: &(dyn Error + 'static)) -> String {
    let bottom = iter::successors(Some(error), |&error| error.source()).last();
    line(&bottom.unwrap_or(error).to_string())
}

/// A registry's words, fit for a message.
fn line(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
