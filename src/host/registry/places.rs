//! The places that an image may be had from, one after the other: where one fails, the next goes on, also in the midst of a blob.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, bail};
use oci_spec::distribution::Reference;
use tokio::runtime::Runtime;

use super::endpoint::Endpoint;
use crate::{
    host::registries::Registries,
    model::{registries_conf::Place, settings::Settings},
};

/// Mirrors, then the image's own place.
pub struct Places {
    registries: Registries,
    settings: Settings,
    runtime: Arc<Runtime>,
    state: Mutex<State>,
}

struct State {
    /// the one that is asked
    now: Option<Arc<Endpoint>>,
    left: VecDeque<Place>,
    /// why those before it are not asked any more
    failures: Vec<anyhow::Error>,
}

impl Places {
    /// Those that registries.conf has for this image; none is asked yet.
    pub fn of(reference: &Reference, registries: Registries, settings: &Settings) -> Result<Places> {
        // one worker, so that a download goes on while its reader is busy
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let left = registries.places(reference)?.into();
        let state = Mutex::new(State { now: None, left, failures: Vec::new() });
        Ok(Places { registries, settings: settings.clone(), runtime: Arc::new(runtime), state })
    }

    /// Asks until one answers, and gives that one too.
    pub fn ask<T>(&self, question: impl Fn(&Arc<Endpoint>) -> Result<T>) -> Result<(T, Arc<Endpoint>)> {
        let mut endpoint = self.now()?;
        loop {
            match question(&endpoint) {
                Ok(answer) => return Ok((answer, endpoint)),
                Err(error) => endpoint = self.after(&endpoint, error)?,
            }
        }
    }

    /// The one that is asked.
    pub fn now(&self) -> Result<Arc<Endpoint>> {
        let mut state = self.state();
        match &state.now {
            Some(now) => Ok(now.clone()),
            None => self.advance(&mut state),
        }
    }

    /// The one to ask where this one failed, for everybody: what a dead mirror has to be waited for, nobody waits for again.
    pub fn after(&self, failed: &Arc<Endpoint>, error: anyhow::Error) -> Result<Arc<Endpoint>> {
        let mut state = self.state();
        match &state.now {
            Some(now) if !Arc::ptr_eq(now, failed) => return Ok(now.clone()),
            _ => state.failures.push(error),
        }
        self.advance(&mut state)
    }

    fn advance(&self, state: &mut State) -> Result<Arc<Endpoint>> {
        while let Some(place) = state.left.pop_front() {
            match Endpoint::open(&place, &self.registries, &self.settings, self.runtime.clone()) {
                Ok(endpoint) => return Ok(state.now.insert(Arc::new(endpoint)).clone()),
                Err(error) => state.failures.push(error),
            }
        }
        // the last place is the image's own
        match state.failures.pop() {
            Some(own) if state.failures.is_empty() => Err(own),
            Some(own) => {
                let mirrors: Vec<String> = state.failures.iter().map(|error| format!("{error:#}")).collect();
                Err(own.context(format!("no mirror has it ({})", mirrors.join("; "))))
            }
            None => bail!("no registry is configured for it"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
