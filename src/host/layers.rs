//! An image's layers, fetched and stored side by side and merged in their order.
//!
//! Each worker takes the next layer: fetches, checks, inflates and stores it, and sends what is left of its entries; of a layer that the
//! store knows it only sends the entries. The caller's thread merges them layer by layer.

use std::{
    collections::HashSet,
    io::{self, Read},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, ensure};

use super::{
    blob::LayerReader,
    entries::{Entries, Finished},
    layer::{self, ObjectId, Piece, Room},
    objects::Objects,
    pieces::{Queue, Sender},
    source::{Layer, Resolved},
    tree::Tree,
};

/// Two keep two processors busy, as each has a thread that inflates beside it; more than four would only fill the memory.
fn workers() -> usize {
    thread::available_parallelism().map_or(2, |processors| processors.get().clamp(2, 4))
}

/// The layers of one image, and what is to be done with each.
pub struct Layers<'a> {
    resolved: &'a Resolved,
    entries: &'a Entries,
    todo: Vec<Todo>,
    /// records of layers whose objects are not the store's yet
    records: Vec<Finished>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Todo {
    Fetch,
    /// its entries are known, and its objects were in the store
    Replay,
    Nothing,
}

impl<'a> Layers<'a> {
    /// Looks for layers that need not be fetched, `left` being the records of those that an earlier pull left.
    pub fn new(resolved: &'a Resolved, entries: &'a Entries, left: Vec<Finished>) -> Layers<'a> {
        let todo = |layer: &Layer| if entries.open(&layer.diff_id).is_some() { Todo::Replay } else { Todo::Fetch };
        Layers { resolved, entries, todo: resolved.layers.iter().map(todo).collect(), records: left }
    }

    /// Bytes to fetch.
    pub fn download_size(&self) -> u64 {
        let layers = self.resolved.layers.iter().zip(&self.todo);
        layers.filter(|(_, todo)| **todo == Todo::Fetch).fold(0, |sum, (layer, _)| sum.saturating_add(layer.blob.size))
    }

    /// Stores all layers in `objects`, in at most `free` bytes, and merges them into `tree`; `tell` hears of bytes that came meanwhile.
    /// The records of the layers that came are to be kept once their objects are the store's; where the rest could not be fetched, they
    /// are left to the next pull.
    pub fn import(
        mut self,
        objects: &Objects,
        tree: &mut Tree,
        free: u64,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Vec<Finished>> {
        let room = Room::of(free);
        self.run(objects, &room, tell, |layer, pieces| {
            tree.apply(pieces).with_context(|| format!("layer {}", layer.blob.digest.short()))
        })?;
        // What an upper layer hides of a known one went with the last prune; this image may need it again.
        let mut missing = HashSet::new();
        for object in tree.objects().filter(|_| self.todo.contains(&Todo::Replay)) {
            if !objects.have(object)? {
                missing.insert(*object);
            }
        }
        if !missing.is_empty() {
            self.fetch_those_with(&missing)?;
            self.run(objects, &Room::of(free), tell, |_, pieces| {
                for piece in pieces {
                    piece?;
                }
                Ok(())
            })?;
        }
        Ok(self.records)
    }

    /// The layers that bring these objects have to be fetched after all, and the others are done.
    fn fetch_those_with(&mut self, missing: &HashSet<ObjectId>) -> Result<()> {
        let mut left = missing.clone();
        for (layer, todo) in self.resolved.layers.iter().zip(&mut self.todo) {
            let before = left.len();
            if let Some(stored) = self.entries.open(&layer.diff_id).filter(|_| *todo == Todo::Replay) {
                for piece in stored {
                    if let Some(object) = piece?.object {
                        left.remove(&object);
                    }
                }
            }
            *todo = if left.len() == before { Todo::Nothing } else { Todo::Fetch };
        }
        ensure!(left.is_empty(), "the store lacks {} objects that no layer of the image has", left.len());
        Ok(())
    }

    fn run(
        &mut self,
        objects: &Objects,
        room: &Room,
        tell: &mut dyn FnMut(u64),
        mut merge: impl FnMut(&Layer, &mut dyn Iterator<Item = Result<Piece>>) -> Result<()>,
    ) -> Result<()> {
        let queue = Queue::new(self.resolved.layers.len());
        let work = Mutex::new(self.resolved.layers.iter().zip(&self.todo).enumerate());
        let fetched = Arc::new(Fetched::default());
        let records = Mutex::new(Vec::new());
        let worker = Worker { layers: self, objects, room, fetched: fetched.clone() };
        let merged = thread::scope(|scope| {
            for _ in 0..workers().min(self.resolved.layers.len()) {
                scope.spawn(|| {
                    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
                    while let Some((at, (layer, todo))) = next() {
                        let mut to = queue.sender(at);
                        let stored = match todo {
                            Todo::Fetch => worker.store(layer, &mut to).map(Some),
                            Todo::Replay => worker.replay(layer, &mut to).map(|()| None),
                            Todo::Nothing => Ok(None),
                        };
                        let end = stored.map(|record| {
                            records.lock().unwrap_or_else(PoisonError::into_inner).extend(record);
                        });
                        // Nobody listens any more where the merging failed.
                        if to.end(end).is_err() {
                            break;
                        }
                    }
                });
            }
            let mut tick = || match fetched.bytes.swap(0, Ordering::Relaxed) {
                0 => {}
                bytes => tell(bytes),
            };
            let merged = self
                .resolved
                .layers
                .iter()
                .enumerate()
                .try_for_each(|(at, layer)| merge(layer, &mut queue.receive(at, &mut tick)));
            tick();
            fetched.stopped.store(true, Ordering::Relaxed);
            queue.stop();
            merged
        });
        self.records.extend(records.into_inner().unwrap_or_else(PoisonError::into_inner));
        if merged.is_err() && fetched.broke_off.load(Ordering::Relaxed) {
            self.records.drain(..).for_each(Finished::leave);
        }
        merged
    }
}

/// What all workers share.
struct Worker<'a> {
    layers: &'a Layers<'a>,
    objects: &'a Objects,
    room: &'a Room,
    fetched: Arc<Fetched>,
}

impl Worker<'_> {
    fn store(&self, layer: &Layer, to: &mut Sender<'_>) -> Result<Finished> {
        let content = Box::new(Counted { inner: self.layers.resolved.open(layer)?, fetched: self.fetched.clone() });
        // headers and padding are not stored: a layer may be a little longer than its files
        let limit = self.room.limit().saturating_mul(2);
        let mut reader = LayerReader::start(content, layer.blob.clone(), layer.diff_id.clone(), limit);
        let mut record = self.layers.entries.create(&layer.diff_id)?;
        let read = layer::read(&mut reader, &mut self.objects.writer(), self.room, &mut |piece| {
            record.add(&piece)?;
            to.send(piece)
        });
        reader.finish(read)?;
        record.finish()
    }

    fn replay(&self, layer: &Layer, to: &mut Sender<'_>) -> Result<()> {
        let stored = self.layers.entries.open(&layer.diff_id).context("its entries are not in the store any more")?;
        for piece in stored {
            to.send(piece?)?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Fetched {
    bytes: AtomicU64,
    stopped: AtomicBool,
    /// a place gave no more of a layer, which says nothing of the image
    broke_off: AtomicBool,
}

/// Counts what is fetched, and ends early where nobody wants it any more.
struct Counted {
    inner: Box<dyn Read + Send>,
    fetched: Arc<Fetched>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fetched.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("the import was stopped"));
        }
        let broken = |_: &io::Error| self.fetched.broke_off.store(true, Ordering::Relaxed);
        let count = self.inner.read(buffer).inspect_err(broken)?;
        self.fetched.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
