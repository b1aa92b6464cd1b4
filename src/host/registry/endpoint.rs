//! One repository of one registry: questions, and answers or what to say instead.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use chrono::Utc;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use oci_spec::distribution::Reference;
use reqwest::{
    Response, StatusCode,
    header::{ACCEPT, CONTENT_RANGE, HeaderMap, RANGE, RETRY_AFTER},
};
use tokio::runtime::Runtime;

use super::{
    failure::Failure,
    login::Login,
    retry::{self, Tries},
    tls::{self, Trust},
};
use crate::{
    host::{credentials, ostree::sha256, registries::Registries, source::MAX_JSON},
    model::{digest::Digest, registries_conf::Place, settings::Settings},
};

/// For an answer's head and for all of one that is not a blob, however it trickles.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// Bytes of an error that are still read.
const MAX_ERROR: u64 = 64 * 1024;
const DIGEST: &str = "docker-content-digest";

/// What is asked for.
pub struct Request {
    place: Where,
    accept: String,
    /// the first byte wanted
    pub from: u64,
    /// in messages
    pub what: String,
}

enum Where {
    /// Below the repository.
    Here(String),
    /// At an address of somebody else's, who is shown no login.
    At(String),
}

type Answer<T> = std::result::Result<T, Failure>;

/// A repository and the way to it.
pub struct Endpoint {
    /// With the repository as this registry calls it.
    pub reference: Reference,
    /// What runs its questions.
    pub runtime: Arc<Runtime>,
    http: reqwest::Client,
    login: Login,
    /// It may do without TLS.
    insecure: bool,
    /// It does.
    plain: AtomicBool,
    /// It was there once.
    answered: AtomicBool,
    retries: u32,
}

impl Endpoint {
    /// Prepares the way; nothing is asked yet.
    pub fn open(
        place: &Place,
        registries: &Registries,
        settings: &Settings,
        runtime: Arc<Runtime>,
    ) -> Result<Endpoint> {
        let reference = place.reference.clone();
        let host = reference.resolve_registry();
        let known = settings.registry.insecure.iter().any(|known| known == host);
        let insecure = place.insecure || known || tls::is_loopback(host);
        let trust = Trust { insecure, idle: settings.registry.idle(), certificates: registries.certificates(host)? };
        let http = tls::client(host, &trust)?;
        let login = Login::new(credentials::find(&reference, registries)?, trust);
        Ok(Endpoint {
            reference,
            runtime,
            http,
            login,
            insecure,
            plain: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            retries: settings.registry.retries(),
        })
    }

    /// As many as the settings let a question fail.
    pub fn tries(&self) -> Tries {
        Tries::new(self.retries)
    }

    /// A manifest or index by its tag or digest.
    pub fn manifest(&self, reference: &Reference) -> Result<Vec<u8>> {
        let name = reference.digest().or(reference.tag()).unwrap_or("latest");
        let types = [
            OCI_IMAGE_INDEX_MEDIA_TYPE,
            OCI_IMAGE_MEDIA_TYPE,
            IMAGE_MANIFEST_LIST_MEDIA_TYPE,
            IMAGE_MANIFEST_MEDIA_TYPE,
        ];
        let request = Request {
            place: Where::Here(format!("manifests/{name}")),
            accept: types.join(", "),
            from: 0,
            what: format!("image {}", reference.whole()),
        };
        let answer = self.runtime.block_on(self.patiently(&mut self.tries(), async || {
            let response = self.once(&request).await?;
            let promised = response.headers().get(DIGEST).map(|value| String::from_utf8_lossy(value.as_bytes()).into());
            Ok((read(response, MAX_JSON + 1).await?, promised))
        }));
        let (manifest, promised): (Vec<u8>, Option<String>) =
            answer.map_err(|failure| self.explain(failure, &request.what))?;
        ensure!(manifest.len() as u64 <= MAX_JSON, "the manifest is larger than {MAX_JSON} bytes");
        if let Some(promised) = promised.map(|promised| promised.parse::<Digest>()).transpose()? {
            let found = sha256(&manifest);
            ensure!(found == promised, "the registry sent the manifest {found} and called it {promised}");
        }
        Ok(manifest)
    }

    /// The question for a blob, which may be kept at another address.
    pub fn blob_request(&self, digest: &Digest, at: Option<&str>) -> Request {
        Request {
            place: at.map_or_else(|| Where::Here(format!("blobs/{digest}")), |url| Where::At(url.to_owned())),
            accept: "*/*".to_owned(),
            from: 0,
            what: format!("blob {digest} of {}", self.reference.repository()),
        }
    }

    /// A failure in words, of what was asked for.
    pub fn explain(&self, failure: Failure, what: &str) -> anyhow::Error {
        failure.explain(self.reference.registry(), what, &self.login)
    }

    /// The head of an answer, its body still to be read.
    pub fn ask(&self, request: &Request, tries: &mut Tries) -> Answer<Response> {
        self.runtime.block_on(self.patiently(tries, async || self.once(request).await))
    }

    async fn patiently<T>(&self, tries: &mut Tries, ask: impl AsyncFn() -> Answer<T>) -> Answer<T> {
        loop {
            let failure = match tokio::time::timeout(DEADLINE, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Late,
            };
            let Some(pause) = self.passing(&failure).and_then(|after| tries.pause(after)) else {
                return Err(failure);
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether the same question may have another answer later, and how much later if that was said.
    fn passing(&self, failure: &Failure) -> Option<Option<Duration>> {
        match failure {
            Failure::Broken(error) | Failure::NoLogin(error) if error.is_builder() || error.is_redirect() => None,
            // who was never there is not waited for: its name may be mistyped
            Failure::Broken(_) | Failure::Late => self.answered.load(Ordering::Relaxed).then_some(None),
            Failure::Refused { code, after, .. } => {
                let later = match *code {
                    StatusCode::TOO_MANY_REQUESTS => true,
                    StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
                    code => code.is_server_error(),
                };
                later.then_some(*after)
            }
            Failure::NoLogin(error) => (!error.is_connect()).then_some(None),
            Failure::Login(_) | Failure::NotLetIn | Failure::Odd(_) => None,
        }
    }

    /// Asks, and shows what is wanted to be seen: a login, or a new one in place of one that has run out.
    async fn once(&self, request: &Request) -> Answer<Response> {
        let mut shown = self.login.header();
        let mut response = self.send(request, &shown).await?;
        for _ in 0..2 {
            if response.status() != StatusCode::UNAUTHORIZED || matches!(request.place, Where::At(_)) {
                break;
            }
            let plain = self.plain.load(Ordering::Relaxed);
            self.login.answer(&self.http, &self.reference, &shown, response.headers(), plain).await?;
            shown = self.login.header();
            response = self.send(request, &shown).await?;
        }
        let status = response.status();
        match status {
            StatusCode::OK => Ok(response),
            StatusCode::PARTIAL_CONTENT if request.from > 0 => match begins_at(response.headers()) {
                Some(from) if from == request.from => Ok(response),
                _ => Err(Failure::Odd(format!("it sent another part than the one from byte {}", request.from))),
            },
            StatusCode::UNAUTHORIZED => Err(Failure::NotLetIn),
            code => {
                let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let after = after.and_then(|value| retry::retry_after(value, Utc::now()));
                // words that do not come are no reason to keep the status back
                let words = read(response, MAX_ERROR).await.unwrap_or_default();
                Err(Failure::Refused { code, after, words: String::from_utf8_lossy(&words).into_owned() })
            }
        }
    }

    async fn send(&self, request: &Request, shown: &HeaderMap) -> Answer<Response> {
        let plain = self.plain.load(Ordering::Relaxed);
        match self.send_by(if plain { "http" } else { "https" }, request, shown).await {
            Err(error) if error.is_connect() && self.insecure && !self.answered.load(Ordering::Relaxed) => {
                self.plain.store(true, Ordering::Relaxed);
                self.send_by("http", request, shown).await
            }
            answer => answer,
        }
        .inspect(|_| self.answered.store(true, Ordering::Relaxed))
        .map_err(Failure::Broken)
    }

    async fn send_by(&self, scheme: &str, request: &Request, shown: &HeaderMap) -> reqwest::Result<Response> {
        let (registry, repository) = (self.reference.resolve_registry(), self.reference.repository());
        let asking = match &request.place {
            Where::Here(path) => {
                self.http.get(format!("{scheme}://{registry}/v2/{repository}/{path}")).headers(shown.clone())
            }
            Where::At(url) => self.http.get(url),
        };
        let mut asking = asking.header(ACCEPT, &request.accept);
        if request.from > 0 {
            asking = asking.header(RANGE, format!("bytes={}-", request.from));
        }
        asking.send().await
    }
}

/// An answer's body, cut off where it is longer.
pub(super) async fn read(mut response: Response, limit: u64) -> Answer<Vec<u8>> {
    let mut data = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(Failure::Broken)? {
        data.extend_from_slice(&piece);
        if data.len() as u64 >= limit {
            data.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            break;
        }
    }
    Ok(data)
}

/// `Content-Range: bytes FROM-TO/SIZE`.
fn begins_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes")?;
    range.trim().split_once('-')?.0.parse().ok()
}
