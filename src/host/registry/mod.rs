//! Registries, as the
//! [distribution specification](https://github.com/opencontainers/distribution-spec/blob/main/spec.md) describes them.
//!
//! ```text
//! mod       an image by its reference: the first of its places that has it (mirrors, then its own)
//! endpoint  one repository of one registry: ask, log in where that is asked for, ask again where it failed for now
//! failure   why there was no answer
//! download  a blob that goes on where a connection broke
//! login     what a registry wants to see before it answers
//! tls       proxies, authorities, client certificates
//! retry     how long to wait, and how often
//! ```
//!
//! The one asynchronous place: a private thread talks, and callers see blocking calls. `oci-client` fetches tokens. The rest it has no
//! way to do: it drops `Retry-After`, reads a manifest whole before its size can be refused, follows redirects away from TLS, and shows
//! no client certificate.

mod download;
mod endpoint;
mod failure;
mod login;
mod retry;
mod tls;

use std::{io::Read, sync::Arc};

use anyhow::{Result, bail};
use oci_spec::distribution::Reference;

use self::{download::Download, endpoint::Endpoint};
use super::{blob::Blob, registries::Registries, source::BlobSource};
use crate::model::{digest::Digest, settings::Settings};

/// An image's repository, at the place that has it.
pub struct Registry {
    endpoint: Arc<Endpoint>,
    top: Vec<u8>,
}

impl Registry {
    /// Asks the places that may have the image, one after the other.
    pub fn find(reference: &Reference, registries: &Registries, settings: &Settings) -> Result<Registry> {
        // one worker, so that a download goes on while its reader is busy
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let runtime = Arc::new(runtime);
        let mut failures: Vec<anyhow::Error> = Vec::new();
        for place in registries.places(reference)? {
            let found = Endpoint::open(&place, registries, settings, runtime.clone())
                .and_then(|endpoint| Ok((endpoint.manifest(&place.reference)?, endpoint)));
            match found {
                Ok((top, endpoint)) => return Ok(Registry { endpoint: Arc::new(endpoint), top }),
                Err(error) => failures.push(error),
            }
        }
        // the last place is the image's own
        match failures.pop() {
            Some(own) if failures.is_empty() => Err(own),
            Some(own) => {
                let mirrors: Vec<String> = failures.iter().map(|error| format!("{error:#}")).collect();
                Err(own.context(format!("no mirror has it ({})", mirrors.join("; "))))
            }
            None => bail!("no registry is configured for it"),
        }
    }
}

impl BlobSource for Registry {
    fn top(&self) -> Result<Vec<u8>> {
        Ok(self.top.clone())
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.endpoint.manifest(&self.endpoint.reference.clone_with_digest(digest.to_string()))
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Download::begin(self.endpoint.clone(), blob, None)?))
    }

    fn foreign(&self, blob: &Blob, url: &str) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Download::begin(self.endpoint.clone(), blob, Some(url))?))
    }
}
