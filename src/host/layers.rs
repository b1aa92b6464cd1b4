//! An image's layers, fetched and stored side by side and merged in their order.
//!
//! Each worker takes the next layer: fetches, checks, inflates and stores it, and sends what is left of its entries. The caller's
//! thread takes them layer by layer. A worker that is ahead waits once its queue is full, so that memory stays bounded.

use std::{
    io::{self, Read},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};

use super::{
    blob::LayerReader,
    layer::{self, Piece, Room, Tree},
    objects::Objects,
    source::{Layer, Resolved},
};

/// Two keep two processors busy, as each has a thread that inflates beside it; more would only fill the memory.
const WORKERS: usize = 2;
/// Entries that a worker may be ahead of the merging.
const AHEAD: usize = 8192;
/// How often a caller that waits hears how much was fetched.
const TELL: Duration = Duration::from_millis(100);

/// What a worker sends of its layer; none at its end.
type Sent = Result<Option<Piece>>;

/// Stores all layers in `objects` and merges them into `tree`; `tell` hears of bytes that came meanwhile.
pub fn import(
    resolved: &Resolved,
    objects: &Objects,
    tree: &mut Tree,
    free: u64,
    tell: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut queues = Vec::new();
    let mut work = Vec::new();
    for layer in &resolved.layers {
        let (sender, receiver) = sync_channel(AHEAD);
        queues.push((layer, receiver));
        work.push((layer, sender));
    }
    let workers = WORKERS.min(work.len());
    let (work, fetched) = (Mutex::new(work.into_iter()), Arc::new(Fetched::default()));
    let worker = Worker { resolved, objects, room: Room::of(free), fetched: fetched.clone() };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some((layer, to)) = next() {
                    let end = worker.store(layer, &to);
                    // Nobody listens any more where the merging failed.
                    if to.send(end.map(|()| None)).is_err() {
                        break;
                    }
                }
            });
        }
        let mut tell = || match fetched.bytes.swap(0, Ordering::Relaxed) {
            0 => {}
            bytes => tell(bytes),
        };
        let merged = queues.into_iter().try_for_each(|(layer, pieces)| {
            let pieces = Pieces { pieces, tell: &mut tell };
            tree.apply(pieces).with_context(|| format!("layer {}", layer.blob.digest.short()))
        });
        fetched.stopped.store(true, Ordering::Relaxed);
        merged
    })
}

/// What all workers share.
struct Worker<'a> {
    resolved: &'a Resolved,
    objects: &'a Objects,
    room: Room,
    fetched: Arc<Fetched>,
}

impl Worker<'_> {
    fn store(&self, layer: &Layer, to: &SyncSender<Sent>) -> Result<()> {
        let content = Box::new(Counted { inner: self.resolved.open(layer)?, fetched: self.fetched.clone() });
        // headers and padding are not stored: a layer may be a little longer than its files
        let limit = self.room.limit().saturating_mul(2);
        let mut reader = LayerReader::start(content, layer.blob.clone(), layer.diff_id.clone(), limit);
        let read = layer::read(&mut reader, &mut self.objects.writer(), &self.room, &mut |piece| {
            to.send(Ok(Some(piece))).map_err(|_| anyhow!("the import was stopped"))
        });
        reader.finish(read)
    }
}

/// The entries of one layer as they come.
struct Pieces<'a> {
    pieces: Receiver<Sent>,
    tell: &'a mut dyn FnMut(),
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        loop {
            match self.pieces.recv_timeout(TELL) {
                Ok(Ok(Some(piece))) => return Some(Ok(piece)),
                Ok(Ok(None)) => {
                    (self.tell)();
                    return None;
                }
                Ok(Err(error)) => return Some(Err(error)),
                Err(RecvTimeoutError::Timeout) => (self.tell)(),
                Err(RecvTimeoutError::Disconnected) => return Some(Err(anyhow!("the import broke off"))),
            }
        }
    }
}

#[derive(Default)]
struct Fetched {
    bytes: AtomicU64,
    stopped: AtomicBool,
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
        let count = self.inner.read(buffer)?;
        self.fetched.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
