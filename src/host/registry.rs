//! A registry, as the
//! [distribution specification](https://github.com/opencontainers/distribution-spec/blob/main/spec.md) describes it.
//!
//! The one asynchronous place: requests run on a private thread, and callers see blocking calls. What a registry sends is bounded
//! here and checked by the caller.

use std::{
    io::{self, Read},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use http_auth::{ChallengeParser, ChallengeRef};
use oci_spec::distribution::Reference;
use reqwest::{Response, StatusCode, header};
use serde::Deserialize;
use tokio::{runtime::Runtime, sync::mpsc};

use super::{
    blob::Blob,
    credentials::{self, Credentials},
    source::{BlobSource, MAX_JSON},
};
use crate::model::{
    digest::Digest,
    fault::{Code, Fault},
    settings::Settings,
};

const CONNECT: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60);
/// Pieces of a body that wait for the reader.
const AHEAD: usize = 8;
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// One repository of a registry.
pub struct Registry {
    reference: Reference,
    base: String,
    client: reqwest::Client,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<String>>,
    runtime: Runtime,
}

impl Registry {
    /// Prepares to talk to the registry. One that may do without TLS is asked whether it has it all the same.
    pub fn connect(reference: &Reference, settings: &Settings) -> Result<Registry> {
        let host = reference.resolve_registry();
        let insecure = is_loopback(host) || settings.registry.insecure.iter().any(|known| known == host);
        // a second installation fails, and leaves the first in force
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(IDLE)
            .user_agent(concat!("sysctr/", env!("CARGO_PKG_VERSION")))
            .https_only(!insecure)
            .danger_accept_invalid_certs(insecure);
        if is_loopback(host) {
            builder = builder.no_proxy();
        }
        let client = builder.build().context("preparing TLS")?;
        // one worker, so that a download goes on while its reader is busy
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let tls = !insecure || {
            let probe = client.get(format!("https://{host}/v2/"));
            runtime.block_on(async { probe.send().await }).is_ok()
        };
        let scheme = if tls { "https" } else { "http" };
        Ok(Registry {
            base: format!("{scheme}://{host}/v2/{}", reference.repository()),
            client,
            credentials: credentials::find(reference)?,
            authorization: Mutex::new(None),
            runtime,
            reference: reference.clone(),
        })
    }

    fn get(&self, path: &str, accept: Option<&str>) -> Result<Response> {
        let url = format!("{}/{path}", self.base);
        let mut response = self.send(&url, accept)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // the first time, or a token that has run out
            let authorization = self.authorize(&response)?;
            *self.authorization.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(authorization);
            response = self.send(&url, accept)?;
        }
        let registry = self.reference.registry();
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => bail!(self.not_let_in()),
            StatusCode::NOT_FOUND => {
                let message = format!("the registry {registry} has no {} (404 Not Found)", self.what_is(path));
                bail!(Fault::new(Code::NotFound, message))
            }
            status => {
                let text = self.runtime.block_on(body(response, 4096)).unwrap_or_default();
                let text =
                    String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).take(200).collect::<String>();
                bail!("the registry {registry} answered {status} {text}")
            }
        }
    }

    fn send(&self, url: &str, accept: Option<&str>) -> Result<Response> {
        let mut request = self.client.get(url);
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(authorization) = &*self.authorization.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let registry = self.reference.registry();
        self.runtime
            .block_on(async { request.send().await })
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("the registry {registry} cannot be reached"))
    }

    /// Answers the challenge of a 401: with the credentials themselves, or with a token had for them.
    fn authorize(&self, response: &Response) -> Result<String> {
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let texts: Vec<&str> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
        let challenges: Vec<ChallengeRef<'_>> =
            texts.iter().flat_map(|text| ChallengeParser::new(text).flatten()).collect();
        let asks_for = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        if let Some(challenge) = asks_for("bearer") {
            let value = |key: &str| {
                let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
                found.map(|(_, value)| value.to_unescaped())
            };
            let realm = value("realm").context("the registry's challenge names no realm")?;
            return self.token(&realm, value("service"));
        }
        ensure!(
            asks_for("basic").is_some(),
            "the registry {} asks for an unknown kind of login",
            self.reference.registry()
        );
        match &self.credentials {
            Some(credentials) => Ok(credentials.basic()),
            None => bail!(self.not_let_in()),
        }
    }

    fn token(&self, realm: &str, service: Option<String>) -> Result<String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut url = reqwest::Url::parse(realm).with_context(|| format!("the registry's login address {realm:?}"))?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("scope", &format!("repository:{}:pull", self.reference.repository()));
            if let Some(service) = service {
                query.append_pair("service", &service);
            }
        }
        let mut request = self.client.get(url);
        if let Some(credentials) = &self.credentials {
            request = request.header(header::AUTHORIZATION, credentials.basic());
        }
        let asking = || format!("asking {realm} for a token");
        self.runtime.block_on(async {
            let response = request.send().await.map_err(reqwest::Error::without_url).with_context(asking)?;
            match response.status() {
                status if status.is_success() => {}
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => bail!(self.not_let_in()),
                status => bail!("{}: it answered {status}", asking()),
            }
            let token: Token = serde_json::from_slice(&body(response, MAX_JSON).await?).with_context(asking)?;
            let token = token.token.or(token.access_token).with_context(asking)?;
            Ok(format!("Bearer {token}"))
        })
    }

    fn not_let_in(&self) -> String {
        let registry = self.reference.registry();
        match &self.credentials {
            Some(credentials) => {
                format!("the registry {registry} refused the credentials of {}", credentials.origin.display())
            }
            None => format!(
                "the registry {registry} asks for credentials and none are known (try `podman login {registry}`)"
            ),
        }
    }

    /// The last part of a request, in words.
    fn what_is(&self, path: &str) -> String {
        let repository = self.reference.repository();
        match path.split_once('/') {
            Some(("manifests", digest)) if digest.contains(':') => format!("image {repository}@{digest}"),
            Some(("manifests", tag)) => format!("image {repository}:{tag}"),
            Some((_, digest)) => format!("blob {digest} of {repository}"),
            None => path.to_owned(),
        }
    }

    fn manifest_at(&self, what: &str) -> Result<Vec<u8>> {
        let response = self.get(&format!("manifests/{what}"), Some(MANIFESTS))?;
        self.runtime.block_on(body(response, MAX_JSON)).context("fetching a manifest")
    }
}

impl BlobSource for Registry {
    fn top(&self) -> Result<Vec<u8>> {
        let what = self.reference.digest().or(self.reference.tag()).unwrap_or("latest");
        self.manifest_at(what)
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.manifest_at(&digest.to_string())
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        let mut response = self.get(&format!("blobs/{}", blob.digest), None)?;
        let (sender, chunks) = mpsc::channel(AHEAD);
        self.runtime.spawn(async move {
            loop {
                let chunk = match response.chunk().await {
                    Ok(Some(chunk)) => Ok(chunk.to_vec()),
                    Ok(None) => return,
                    Err(error) => Err(interrupted(error)),
                };
                let failed = chunk.is_err();
                if sender.send(chunk).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Box::new(Body { chunks, chunk: Vec::new(), at: 0 }))
    }
}

/// A body that another thread receives.
struct Body {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
            self.at = 0;
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

async fn body(mut response: Response, limit: u64) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(interrupted)? {
        data.extend_from_slice(&chunk);
        ensure!(data.len() as u64 <= limit, "the registry's answer is larger than {limit} bytes");
    }
    Ok(data)
}

fn interrupted(error: reqwest::Error) -> io::Error {
    let text = format!("the registry broke off: {:#}", anyhow::Error::from(error.without_url()));
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
}

/// `localhost`, 127.0.0.0/8 or `[::1]`, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_talked_to_without_tls() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.org", "128.0.0.1:5000", "reg.io", "127.0.0.1.example.org", "10.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
