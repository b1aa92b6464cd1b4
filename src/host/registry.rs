//! A registry, as the
//! [distribution specification](https://github.com/opencontainers/distribution-spec/blob/main/spec.md) describes it.
//!
//! The one asynchronous place: `oci-client` talks on a private thread, and callers see blocking calls. Blobs stream. Two things are not
//! bounded, because `oci-client` has no way to:
//!
//! - A manifest, an error and a login server's answer are read whole. Only [`DEADLINE`] limits them; whoever resolves an image refuses
//!   a manifest that is too large once it is here.
//! - A registry with TLS may redirect to an address, or name a login server, without it.

use std::{
    error::Error,
    io::{self, Read},
    iter,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use futures_util::{StreamExt, TryStreamExt, future::ready};
use oci_client::{
    Client, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    errors::{DigestError, OciDistributionError, OciEnvelope, OciErrorCode},
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
    },
    secrets::RegistryAuth,
};
use oci_spec::distribution::Reference;
use tokio::runtime::Runtime;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{
    blob::Blob,
    credentials::{self, Credentials},
    source::BlobSource,
};
use crate::model::{
    digest::Digest,
    fault::{Code, Fault},
    settings::Settings,
};

const CONNECT: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60);
/// For an answer that is not a blob, however it trickles.
const DEADLINE: Duration = Duration::from_secs(120);
const MANIFESTS: &[&str] =
    &[OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE];

type Answer<T> = std::result::Result<T, OciDistributionError>;

/// One repository of a registry.
pub struct Registry {
    reference: Reference,
    client: Client,
    credentials: Option<Credentials>,
    runtime: Runtime,
}

impl Registry {
    /// Logs in to the registry. One that may do without TLS is asked whether it has it all the same.
    pub fn connect(reference: &Reference, settings: &Settings) -> Result<Registry> {
        let host = reference.resolve_registry();
        let insecure = is_loopback(host) || settings.registry.insecure.iter().any(|known| known == host);
        let mut registry = Registry {
            client: client(ClientProtocol::Https, host, insecure)?,
            credentials: credentials::find(reference)?,
            // one worker, so that a download goes on while its reader is busy
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
            reference: reference.clone(),
        };
        let mut login = registry.wait(registry.login());
        if insecure && login.as_ref().is_err_and(is_without_tls) {
            registry.client = client(ClientProtocol::Http, host, insecure)?;
            login = registry.wait(registry.login());
        }
        login.map_err(|error| registry.explain(error, "repository"))?;
        Ok(registry)
    }

    async fn login(&self) -> Answer<()> {
        let token = self.client.auth(&self.reference, &self.auth(), RegistryOperation::Pull).await?;
        // oci-client would panic over it, as over a later one that it fetches by itself, which nobody sees here
        if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(OciDistributionError::RegistryTokenDecodeError("it does not fit into a header".into()));
        }
        Ok(())
    }

    fn auth(&self) -> RegistryAuth {
        let login = self.credentials.as_ref();
        login.map_or(RegistryAuth::Anonymous, |login| RegistryAuth::Basic(login.user.clone(), login.password.clone()))
    }

    fn wait<T>(&self, answer: impl Future<Output = Answer<T>>) -> Answer<T> {
        self.runtime.block_on(async { tokio::time::timeout(DEADLINE, answer).await.map_err(io::Error::from)? })
    }

    /// Asks for something that is called `what` in messages.
    fn ask<T>(&self, what: &str, request: impl AsyncFn() -> Answer<T>) -> Result<T> {
        let answer = self.wait(async {
            match request().await {
                // the token may have run out; and oci-client keeps to itself why it got no new one
                Err(OciDistributionError::UnauthorizedError { .. }) => {
                    self.login().await?;
                    request().await
                }
                answer => answer,
            }
        });
        answer.map_err(|error| self.explain(error, what))
    }

    fn manifest_at(&self, reference: &Reference) -> Result<Vec<u8>> {
        let (manifest, _) = self.ask(&format!("image {}", reference.whole()), async || {
            self.client.pull_manifest_raw(reference, &self.auth(), MANIFESTS).await
        })?;
        Ok(manifest.into())
    }

    fn explain(&self, error: OciDistributionError, what: &str) -> anyhow::Error {
        use {OciDistributionError as E, OciErrorCode as C};
        let registry = self.reference.registry();
        let says =
            |envelope: &OciEnvelope, codes: &[C]| envelope.errors.iter().any(|error| codes.contains(&error.code));
        let missing = [C::BlobUnknown, C::ManifestBlobUnknown, C::ManifestUnknown, C::NameUnknown, C::NotFound];
        let not_found =
            || Fault::new(Code::NotFound, format!("the registry {registry} has no {what} (404 Not Found)")).into();
        match error {
            // the status is lost, so that an ill login server can only be told by its own words
            E::AuthenticationFailure(words) if !words.is_empty() => anyhow!(line(&words)).context(self.not_let_in()),
            E::AuthenticationFailure(_) | E::UnauthorizedError { .. } | E::ServerError { code: 403, .. } => {
                anyhow!(self.not_let_in())
            }
            E::ServerError { code: 404, .. } => not_found(),
            E::ServerError { code, message, .. } => {
                anyhow!("the registry {registry} answered {code} {}", line(&message))
            }
            E::RegistryError { envelope, .. } if says(&envelope, &missing) => not_found(),
            E::RegistryError { envelope, .. } if says(&envelope, &[C::Denied]) => anyhow!(self.not_let_in()),
            E::RegistryError { envelope, .. } => {
                anyhow!("the registry {registry} answered {}", line(&envelope.to_string()))
            }
            E::RequestError(error) => {
                // the registry, or the login server that it sent us to
                let whom = error.url().map_or_else(|| registry.to_owned(), |url| url.origin().ascii_serialization());
                let how = if error.is_body() || error.is_decode() { "broke off" } else { "cannot be reached" };
                anyhow!("{whom} {how}: {}", cause(&error.without_url()))
            }
            other => anyhow!("the registry {registry}: {}", line(&other.to_string())),
        }
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
}

impl BlobSource for Registry {
    fn top(&self) -> Result<Vec<u8>> {
        self.manifest_at(&self.reference)
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.manifest_at(&self.reference.clone_with_digest(digest.to_string()))
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        let digest = blob.digest.to_string();
        let what = format!("blob {digest} of {}", self.reference.repository());
        let body = self
            .ask(&what, async || self.client.pull_blob_stream(&self.reference, digest.as_str()).await)?
            // oci-client's check ends the stream, and our caller's says what is wrong: cut, too long or altered
            .take_while(|piece| ready(!piece.as_ref().is_err_and(is_wrong_digest)))
            .map_err(|error| {
                io::Error::new(io::ErrorKind::ConnectionAborted, format!("the registry broke off: {}", cause(&error)))
            });
        let reader = StreamReader::new(Box::pin(body));
        Ok(Box::new(SyncIoBridge::new_with_handle(reader, self.runtime.handle().clone())))
    }
}

fn client(protocol: ClientProtocol, host: &str, insecure: bool) -> Result<Client> {
    // a second installation fails, and leaves the first in force
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ClientConfig {
        protocol,
        accept_invalid_certificates: insecure,
        connect_timeout: Some(CONNECT),
        read_timeout: Some(IDLE),
        user_agent: concat!("sysctr/", env!("CARGO_PKG_VERSION")),
        // a proxy of our own keeps those of the environment away, and is for no host at all
        http_proxy: is_loopback(host).then(|| format!("http://{host}")),
        no_proxy: Some("*,0.0.0.0/0,::/0".into()),
        ..ClientConfig::default()
    };
    Client::try_from(config).context("preparing TLS")
}

/// The registry itself did not answer; a login server that does not is another matter.
fn is_without_tls(error: &OciDistributionError) -> bool {
    matches!(error, OciDistributionError::RequestError(error) if error.url().is_some_and(|url| url.path() == "/v2/"))
}

fn is_wrong_digest(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<DigestError>())
}

/// The bottom of an error: what lies above names addresses, which may be signed ones.
fn cause(error: &(dyn Error + 'static)) -> String {
    let bottom = iter::successors(Some(error), |&error| error.source()).last();
    line(&bottom.unwrap_or(error).to_string())
}

/// A registry's words, fit for a message.
fn line(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
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
