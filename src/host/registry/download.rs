//! A blob that goes on where a connection broke: what has come is kept, and the rest is asked for with a range; of the next place that
//! has the image, where this one gives no more.

use std::{
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Error, Result, anyhow};
use reqwest::Response;

use super::{
    endpoint::{Endpoint, Request},
    failure::cause,
    places::Places,
    retry::Tries,
};
use crate::host::blob::Blob;

/// A registry that lets us wait for longer in all is too slow: so much, and as long as the blob takes at [`SLOWEST`].
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes a second.
const SLOWEST: u64 = 10_000;

/// The bytes of a blob, unchecked, whatever becomes of connections meanwhile.
pub struct Download {
    /// who else may have it
    places: Option<Arc<Places>>,
    endpoint: Arc<Endpoint>,
    request: Request,
    blob: Blob,
    at: u64,
    /// Bytes to pass over: a registry without ranges begins anew.
    skip: u64,
    body: Option<Response>,
    piece: bytes::Bytes,
    tries: Tries,
    /// for this place, before the question at hand
    waited: Duration,
    /// when our reader last asked
    begun: Instant,
}

impl Download {
    /// Asks for the blob; where no place has it, that is said here.
    pub fn begin(places: Arc<Places>, blob: Blob) -> Result<Download> {
        let (asked, endpoint) = places.ask(|endpoint| ask(endpoint, endpoint.blob_request(&blob.digest, None)))?;
        Ok(Download::new(Some(places), endpoint, asked, blob))
    }

    /// Asks for it at an address of somebody else's.
    pub fn elsewhere(endpoint: Arc<Endpoint>, blob: Blob, url: &str) -> Result<Download> {
        let asked = ask(&endpoint, endpoint.blob_request(&blob.digest, Some(url)))?;
        Ok(Download::new(None, endpoint, asked, blob))
    }

    fn new(places: Option<Arc<Places>>, endpoint: Arc<Endpoint>, asked: Asked, blob: Blob) -> Download {
        let (request, body, tries) = asked;
        Download {
            places,
            endpoint,
            request,
            blob,
            at: 0,
            skip: 0,
            body: Some(body),
            piece: bytes::Bytes::new(),
            tries,
            waited: Duration::ZERO,
            begun: Instant::now(),
        }
    }

    fn next(&mut self) -> io::Result<()> {
        loop {
            let Some(body) = &mut self.body else {
                self.resume()?;
                continue;
            };
            let broken = match self.endpoint.runtime.block_on(body.chunk()) {
                Ok(Some(piece)) => {
                    let skipped = self.skip.min(piece.len() as u64);
                    self.skip -= skipped;
                    self.piece = piece.slice(skipped as usize..);
                    self.at += self.piece.len() as u64;
                    // What is passed over is no progress, and takes its time.
                    match self.piece.is_empty() {
                        true if self.is_too_slow() => "it is too slow".to_owned(),
                        true => continue,
                        false => {
                            self.tries.progress();
                            return Ok(());
                        }
                    }
                }
                // a registry that tells of its end has no more, and our caller's check says what is missing
                Ok(None) if self.at >= self.blob.size || body.content_length().is_some() => return Ok(()),
                Ok(None) => "it ended early".to_owned(),
                // an end that is missing is nothing to ask for: all that was promised is here
                Err(_) if self.at >= self.blob.size => return Ok(()),
                Err(error) => cause(&error),
            };
            self.body = None;
            match self.tries.pause(None).filter(|_| !self.is_too_slow()) {
                Some(pause) => std::thread::sleep(pause),
                None => self.move_on(anyhow!("the registry broke off: {broken}"))?,
            }
        }
    }

    /// Asks for what is missing.
    fn resume(&mut self) -> io::Result<()> {
        self.request.from = self.at;
        match self.endpoint.ask(&self.request, &mut self.tries) {
            Ok(body) => {
                let is_part = body.status() == reqwest::StatusCode::PARTIAL_CONTENT;
                self.skip = if is_part { 0 } else { self.at };
                self.body = Some(body);
                Ok(())
            }
            Err(failure) => self.move_on(self.endpoint.explain(failure, &self.request.what)),
        }
    }

    /// Leaves what is missing to the next place: whoever has the blob has the same bytes, or our caller's check says so.
    fn move_on(&mut self, error: Error) -> io::Result<()> {
        let next = match &self.places {
            Some(places) => places.after(&self.endpoint, error),
            None => Err(error),
        };
        self.endpoint = next.map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, format!("{error:#}")))?;
        self.request = self.endpoint.blob_request(&self.blob.digest, None);
        self.tries = self.endpoint.tries();
        self.body = None;
        (self.waited, self.begun) = (Duration::ZERO, Instant::now());
        Ok(())
    }

    fn is_too_slow(&self) -> bool {
        self.waited + self.begun.elapsed() > PATIENCE + Duration::from_secs(self.blob.size / SLOWEST)
    }
}

type Asked = (Request, Response, Tries);

fn ask(endpoint: &Endpoint, request: Request) -> Result<Asked> {
    let mut tries = endpoint.tries();
    match endpoint.ask(&request, &mut tries) {
        Ok(body) => Ok((request, body, tries)),
        Err(failure) => Err(endpoint.explain(failure, &request.what)),
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.begun = Instant::now();
            self.next()?;
            self.waited += self.begun.elapsed();
            self.begun = Instant::now();
            if self.is_too_slow() {
                let error = anyhow!("the registry is too slow: {} bytes in {:?}", self.at, self.waited);
                self.move_on(error)?;
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
