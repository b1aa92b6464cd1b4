//! Registries, as the
//! [distribution specification](https://github.com/opencontainers/distribution-spec/blob/main/spec.md) describes them.
//!
//! ```text
//! mod       an image by its reference
//! places    mirrors, then its own registry: the first that has it, and the next where that one fails
//! endpoint  one repository of one registry: ask, log in where that is asked for, ask again where it failed for now
//! failure   why there was no answer
//! download  a blob that goes on where a connection broke
//! login     what a registry wants to see before it answers
//! tls       proxies, authorities, client certificates
//! retry     how long to wait, and how often
//! ```
//!
//! The one asynchronous place: a private thread talks, and callers see blocking calls. Of `oci-client` there are the types of manifests
//! and of errors. It does not talk: it drops `Retry-After`, reads manifests and tokens whole before their size can be refused, follows
//! redirects away from TLS, asks for a login at whatever address it is told, and shows no client certificate.

mod download;
mod endpoint;
mod failure;
mod login;
mod places;
mod retry;
mod tls;

use std::{io::Read, sync::Arc};

use anyhow::Result;
use oci_spec::distribution::Reference;

use self::{download::Download, places::Places};
use super::{blob::Blob, registries::Registries, source::BlobSource};
use crate::model::{digest::Digest, settings::Settings};

/// An image's repository, at the places that have it.
pub struct Registry {
    places: Arc<Places>,
    top: Vec<u8>,
}

impl Registry {
    /// Asks the places that may have the image, one after the other.
    pub fn find(reference: &Reference, registries: Registries, settings: &Settings) -> Result<Registry> {
        let places = Places::of(reference, registries, settings)?;
        let (top, _) = places.ask(|endpoint| endpoint.manifest(&endpoint.reference))?;
        Ok(Registry { places: Arc::new(places), top })
    }
}

impl BlobSource for Registry {
    fn top(&self) -> Result<Vec<u8>> {
        Ok(self.top.clone())
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        let named = digest.to_string();
        let (manifest, _) =
            self.places.ask(|endpoint| endpoint.manifest(&endpoint.reference.clone_with_digest(named.clone())))?;
        Ok(manifest)
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Download::begin(self.places.clone(), blob.clone())?))
    }

    fn foreign(&self, blob: &Blob, url: &str) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Download::elsewhere(self.places.now()?, blob.clone(), url)?))
    }
}
