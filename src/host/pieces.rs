//! The entries of several layers on their way from who reads them to who merges them.
//!
//! The merger wants one layer after the other, its readers work on several. A reader that is ahead waits once all of them hold more
//! than [`MOST`] bytes; the one whose layer is merged never waits for the others, so that none waits for ever.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Result, anyhow};

use super::layer::Piece;

/// Bytes of entries that wait, over all layers.
const MOST: usize = 4 * 1024 * 1024;
/// Bytes of entries that are handed over at once.
const BATCH: usize = 32 * 1024;
/// How often a merger that waits hears a clock tick.
const TICK: Duration = Duration::from_millis(100);

/// What waits to be merged.
pub struct Queue {
    state: Mutex<State>,
    taken: Condvar,
    added: Condvar,
}

struct State {
    layers: Vec<VecDeque<Batch>>,
    merging: usize,
    held: usize,
    stopped: bool,
}

#[derive(Default)]
struct Batch {
    pieces: Vec<Piece>,
    weight: usize,
    /// what comes after them, at the layer's end
    end: Option<Result<()>>,
}

impl Queue {
    /// For so many layers.
    pub fn new(layers: usize) -> Queue {
        let layers = (0..layers).map(|_| VecDeque::new()).collect();
        let state = State { layers, merging: 0, held: 0, stopped: false };
        Queue { state: Mutex::new(state), taken: Condvar::new(), added: Condvar::new() }
    }

    /// The way in for who reads this layer.
    pub fn sender(&self, layer: usize) -> Sender<'_> {
        Sender { queue: self, layer, batch: Batch::default() }
    }

    /// The entries of this layer, in order; to be asked for one layer after the other. `tick` is called now and then.
    pub fn receive<'a>(&'a self, layer: usize, tick: &'a mut dyn FnMut()) -> impl Iterator<Item = Result<Piece>> + 'a {
        self.state().merging = layer;
        self.taken.notify_all();
        let mut batch = Batch::default().pieces.into_iter();
        let mut end = None;
        std::iter::from_fn(move || {
            loop {
                if let Some(piece) = batch.next() {
                    return Some(Ok(piece));
                }
                match end.take() {
                    Some(Ok(())) => return None,
                    Some(Err(error)) => return Some(Err(error)),
                    None => {}
                }
                let next = self.next(layer, tick);
                (batch, end) = (next.pieces.into_iter(), next.end);
            }
        })
    }

    /// Nobody merges any more: readers get an error.
    pub fn stop(&self) {
        self.state().stopped = true;
        self.taken.notify_all();
    }

    fn next(&self, layer: usize, tick: &mut dyn FnMut()) -> Batch {
        let mut state = self.state();
        loop {
            if let Some(batch) = state.layers[layer].pop_front() {
                state.held -= batch.weight;
                self.taken.notify_all();
                return batch;
            }
            let waited = self.added.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() {
                tick();
            }
        }
    }

    fn add(&self, layer: usize, batch: Batch) -> Result<()> {
        let mut state = self.state();
        let waits = |state: &mut State| {
            let next = state.merging == layer && state.layers[layer].is_empty();
            !state.stopped && !next && state.held + batch.weight > MOST
        };
        state = self.taken.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return Err(anyhow!("the import was stopped"));
        }
        state.held += batch.weight;
        state.layers[layer].push_back(batch);
        self.added.notify_one();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the entries of one layer go. Dropped, it ends the layer with an error.
pub struct Sender<'a> {
    queue: &'a Queue,
    layer: usize,
    batch: Batch,
}

impl Sender<'_> {
    /// The next entry.
    pub fn send(&mut self, piece: Piece) -> Result<()> {
        self.batch.weight += piece.weight();
        self.batch.pieces.push(piece);
        if self.batch.weight < BATCH { Ok(()) } else { self.queue.add(self.layer, std::mem::take(&mut self.batch)) }
    }

    /// There are no more.
    pub fn end(mut self, end: Result<()>) -> Result<()> {
        self.batch.end = Some(end);
        self.queue.add(self.layer, std::mem::take(&mut self.batch)).inspect(|()| self.layer = usize::MAX)
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        if self.layer != usize::MAX {
            let end = Some(Err(anyhow!("the import broke off")));
            // nobody listens where the merging was stopped
            let _ = self.queue.add(self.layer, Batch { end, ..Batch::default() });
        }
    }
}
