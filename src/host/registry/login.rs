//! What a registry wants to see before it answers: nothing, a name and password, or a token that its login server gives for them
//! ([the token protocol](https://distribution.github.io/distribution/spec/auth/token/)).

use std::sync::{Mutex, PoisonError};

use base64::{Engine, engine::general_purpose::STANDARD};
use oci_spec::distribution::Reference;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::{endpoint::read, failure::Failure, tls::Trust};
use crate::{host::credentials::Credentials, model::auth_file::Secret};

/// Bytes of a login server's answer.
const MAX_TOKEN: u64 = 256 * 1024;

/// Whom we are to one registry, and what we last showed.
pub struct Login {
    credentials: Option<Credentials>,
    trust: Trust,
    shown: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Login {
    /// Nothing is shown before it is asked for.
    pub fn new(credentials: Option<Credentials>, trust: Trust) -> Login {
        Login { credentials, trust, shown: Mutex::new(None) }
    }

    /// What goes with a question.
    pub fn header(&self) -> HeaderMap {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        shown.into_iter().map(|value| (AUTHORIZATION, value)).collect()
    }

    /// Finds what the registry wants to see, which by the headers of its answer is not what it was shown.
    pub async fn answer(
        &self,
        http: &reqwest::Client,
        reference: &Reference,
        shown: &HeaderMap,
        headers: &HeaderMap,
        plain: bool,
    ) -> Result<(), Failure> {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut basic = false;
        let mut bearer = None;
        for challenge in challenges.flat_map(|text| http_auth::parse_challenges(text).unwrap_or_default()) {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            basic |= challenge.scheme.eq_ignore_ascii_case("Basic");
            if let Some(realm) = parameter("realm").filter(|_| challenge.scheme.eq_ignore_ascii_case("Bearer")) {
                bearer = bearer.or(Some((realm, parameter("service"))));
            }
        }
        let value = match (bearer, self.credentials.as_ref().map(|known| &known.secret)) {
            (Some((realm, service)), _) => {
                if !plain && !self.trust.insecure && !realm.starts_with("https://") {
                    return Err(Failure::Odd("it names a login server without TLS".into()));
                }
                format!("Bearer {}", self.token(http, reference, &realm, service).await?)
            }
            (None, Some(Secret::Password { user, password })) if basic => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            _ => return Err(Failure::NotLetIn),
        };
        let mut value =
            HeaderValue::try_from(value).map_err(|_| Failure::Odd("its token does not fit into a header".into()))?;
        value.set_sensitive(true);
        if shown.get(AUTHORIZATION) == Some(&value) {
            return Err(Failure::NotLetIn);
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// Of the login server at `realm`, and of no other.
    async fn token(
        &self,
        http: &reqwest::Client,
        reference: &Reference,
        realm: &str,
        service: Option<String>,
    ) -> Result<String, Failure> {
        let scope = format!("repository:{}:pull", reference.repository());
        let mut fields = vec![("scope", scope.as_str())];
        fields.extend(service.as_deref().map(|service| ("service", service)));
        let secret = self.credentials.as_ref().map(|known| &known.secret);
        let request = match secret {
            Some(Secret::Token(token)) => {
                fields.extend([("grant_type", "refresh_token"), ("client_id", "sysctr"), ("refresh_token", token)]);
                let form = reqwest::Url::parse_with_params("http://form", &fields);
                let form = form.map_err(|error| Failure::Odd(error.to_string()))?;
                let kind = "application/x-www-form-urlencoded";
                http.post(realm).header("Content-Type", kind).body(form.query().unwrap_or_default().to_owned())
            }
            Some(Secret::Password { user, password }) => {
                http.get(realm).query(&fields).basic_auth(user, Some(password))
            }
            None => http.get(realm).query(&fields),
        };
        let response = request.send().await.map_err(Failure::NoLogin)?;
        let status = response.status();
        let body = read(response, MAX_TOKEN).await?;
        if !status.is_success() {
            return Err(Failure::Login(String::from_utf8_lossy(&body).into_owned()));
        }
        let token: Option<Token> = serde_json::from_slice(&body).ok();
        let token = token.and_then(|token| token.token.or(token.access_token)).filter(|token| !token.is_empty());
        token.ok_or_else(|| Failure::Odd("its login server gave no token".into()))
    }

    /// The refusal in words.
    pub fn not_let_in(&self, registry: &str) -> String {
        match &self.credentials {
            Some(credentials) => format!("the registry {registry} refused the credentials of {}", credentials.origin),
            None => format!(
                "the registry {registry} asks for credentials and none are known (try `podman login {registry}`)"
            ),
        }
    }
}
