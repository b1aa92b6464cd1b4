//! A blob that goes on where a connection broke: what has come is kept, and the rest is asked for with a range.

use std::{
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use reqwest::Response;

use super::{
    endpoint::{Endpoint, Request},
    failure::cause,
    retry::Tries,
};
use crate::host::blob::Blob;

/// A registry that lets us wait for longer in all is too slow: so much, and as long as the blob takes at [`SLOWEST`].
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes a second.
const SLOWEST: u64 = 10_000;

/// The bytes of a blob, unchecked, whatever becomes of connections meanwhile.
pub struct Download {
    endpoint: Arc<Endpoint>,
    request: Request,
    size: u64,
    at: u64,
    /// Bytes to pass over: a registry without ranges begins anew.
    skip: u64,
    body: Option<Response>,
    piece: bytes::Bytes,
    tries: Tries,
    waited: Duration,
}

impl Download {
    /// Asks for the blob; a registry that does not have it says so here.
    pub fn begin(endpoint: Arc<Endpoint>, blob: &Blob, at: Option<&str>) -> Result<Download> {
        let request = endpoint.blob_request(&blob.digest, at);
        let mut tries = endpoint.tries();
        let body = endpoint.ask(&request, &mut tries).map_err(|failure| endpoint.explain(failure, &request.what))?;
        Ok(Download {
            endpoint,
            request,
            size: blob.size,
            at: 0,
            skip: 0,
            body: Some(body),
            piece: bytes::Bytes::new(),
            tries,
            waited: Duration::ZERO,
        })
    }

    fn next(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let broken = match &mut self.body {
                Some(body) => match self.endpoint.runtime.block_on(body.chunk()) {
                    Ok(Some(piece)) => {
                        let skipped = self.skip.min(piece.len() as u64);
                        self.skip -= skipped;
                        self.piece = piece.slice(skipped as usize..);
                        self.at += self.piece.len() as u64;
                        // What is passed over is no progress, and takes its time.
                        match self.piece.is_empty() {
                            true if self.waited + begun.elapsed() > self.patience() => "it is too slow".to_owned(),
                            true => continue,
                            false => {
                                self.tries.progress();
                                return Ok(());
                            }
                        }
                    }
                    // a registry that tells of its end has no more, and our caller's check says what is missing
                    Ok(None) if self.at >= self.size || body.content_length().is_some() => return Ok(()),
                    Ok(None) => "it ended early".to_owned(),
                    Err(error) => cause(&error),
                },
                None => {
                    self.resume()?;
                    continue;
                }
            };
            self.body = None;
            let Some(pause) = self.tries.pause(None).filter(|_| self.waited + begun.elapsed() < self.patience()) else {
                return Err(aborted(format!("the registry broke off: {broken}")));
            };
            std::thread::sleep(pause);
        }
    }

    /// Asks for what is missing.
    fn resume(&mut self) -> io::Result<()> {
        self.request.from = self.at;
        let answer = self.endpoint.ask(&self.request, &mut self.tries);
        let body =
            answer.map_err(|failure| aborted(format!("{:#}", self.endpoint.explain(failure, &self.request.what))))?;
        self.skip = match body.status() {
            reqwest::StatusCode::PARTIAL_CONTENT => 0,
            _ => self.at,
        };
        self.body = Some(body);
        Ok(())
    }

    fn patience(&self) -> Duration {
        PATIENCE + Duration::from_secs(self.size / SLOWEST)
    }
}

fn aborted(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, words)
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let begun = Instant::now();
            self.next()?;
            self.waited += begun.elapsed();
            if self.waited > self.patience() {
                return Err(aborted(format!("the registry is too slow: {} bytes in {:?}", self.at, self.waited)));
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
