//! A layer on its way in: fetched, hashed, inflated and hashed again on a thread of its own, so that the network, the
//! inflating and the import overlap.

use std::{
    io::{self, BufReader, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};

use sha2::{Digest as _, Sha256};

use crate::model::digest::Digest;

const CHUNK: usize = 128 * 1024;
/// Chunks waiting for the importer.
const AHEAD: usize = 8;
/// A layer that unpacks to more than both is there to fill the disk.
const SUSPICIOUS_RATIO: u64 = 100;
const SUSPICIOUS_SIZE: u64 = 8 << 30;
/// zstd frames may ask for a window of up to 2 GiB, and several layers are read at once. Builders of images take 8 MiB at most, those
/// before 2024, whose best level had 32.
const ZSTD_WINDOW_LOG: u32 = 25;

/// A blob as its descriptor tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// of its bytes as stored
    pub digest: Digest,
    /// its length as stored
    pub size: u64,
}

/// Reads a blob and fails at its end unless it has the digest and size that were promised.
pub struct Checked<R> {
    inner: R,
    hash: Option<Sha256>,
    left: u64,
    blob: Blob,
}

impl<R: Read> Checked<R> {
    /// Checks what comes from `inner` against `blob`.
    pub fn new(inner: R, blob: Blob) -> Checked<R> {
        Checked { inner, hash: Some(Sha256::new()), left: blob.size, blob }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let Some(hash) = &mut self.hash else { return Ok(0) };
        let digest = &self.blob.digest;
        // the first failure is the one to tell: after it there is nothing more to read
        let count = match self.inner.read(buffer) {
            Ok(count) => count,
            Err(error) => {
                self.hash = None;
                return Err(error);
            }
        };
        if count > 0 {
            hash.update(&buffer[..count]);
            let Some(left) = self.left.checked_sub(count as u64) else {
                let text = format!("{digest} is longer than the {} bytes promised", self.blob.size);
                self.hash = None;
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            };
            self.left = left;
            return Ok(count);
        }
        if self.left > 0 {
            let text = format!("{digest} is cut short: {} of {} bytes are missing", self.left, self.blob.size);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let found = self.hash.take().map(|hash| Digest::from_sha256(hash.finalize().into()));
        match found {
            Some(found) if found != *digest => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{digest} is corrupted: its content has {found}"),
            )),
            _ => Ok(0),
        }
    }
}

/// The tar archive of a layer, both digests of which are checked by the time its end is read.
pub struct LayerReader {
    chunks: Receiver<io::Result<Vec<u8>>>,
    /// those that were read, to be filled again: new memory for each would cost more than what is done with it
    spent: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl LayerReader {
    /// Starts reading `content`, the stored form of a layer whose tar has `diff_id` and at most `limit` bytes.
    pub fn start(content: Box<dyn Read + Send>, blob: Blob, diff_id: Digest, limit: u64) -> LayerReader {
        let (sender, chunks) = sync_channel(AHEAD);
        let (spent, empty) = channel();
        thread::spawn(move || {
            let to = Chunks { sender, empty };
            if let Err(error) = pump(content, blob, &diff_id, limit, &to) {
                // nobody listens any more where the import failed
                let _ = to.sender.send(Err(error));
            }
        });
        LayerReader { chunks, spent, chunk: Vec::new(), at: 0 }
    }

    /// Reads to the end, where the digests are known. A wrong digest explains every other error, so this one wins.
    pub fn finish<T>(mut self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        match io::copy(&mut self, &mut io::sink()) {
            Err(error) => Err(error.into()),
            Ok(_) => result,
        }
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Ok(chunk) = self.chunks.recv() else { return Ok(0) };
            // the other side may be done
            let _ = self.spent.send(std::mem::replace(&mut self.chunk, chunk?));
            self.at = 0;
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Where a layer's bytes go.
struct Chunks {
    sender: SyncSender<io::Result<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
}

fn pump(content: Box<dyn Read + Send>, blob: Blob, diff_id: &Digest, limit: u64, to: &Chunks) -> io::Result<()> {
    let suspicious = blob.size.saturating_mul(SUSPICIOUS_RATIO).max(SUSPICIOUS_SIZE);
    let mut stored = BufReader::with_capacity(CHUNK, Checked::new(content, blob));
    let result = inflate(&mut stored, diff_id, (limit, suspicious), to);
    // a wrong digest explains a broken archive, not the other way round; and what the archive does not need is hashed too
    match io::copy(&mut stored, &mut io::sink()) {
        Err(error) => Err(error),
        Ok(_) => result,
    }
}

fn inflate(
    stored: &mut impl io::BufRead,
    diff_id: &Digest,
    (limit, suspicious): (u64, u64),
    to: &Chunks,
) -> io::Result<()> {
    let mut plain = decompressed(stored)?;
    let mut hash = Sha256::new();
    let mut length = 0;
    loop {
        let mut chunk = to.empty.try_recv().unwrap_or_default();
        chunk.clear();
        chunk.reserve(CHUNK);
        (&mut plain).take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        length += chunk.len() as u64;
        if length > limit {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "a layer unpacks to more than the free space"));
        }
        if length > suspicious {
            let text = format!("a layer unpacks to more than {suspicious} bytes and {SUSPICIOUS_RATIO} times its size");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        hash.update(&chunk);
        if to.sender.send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
    let found = Digest::from_sha256(hash.finalize().into());
    if found != *diff_id {
        let text = format!("the layer's content has {found}, the image's config promises {diff_id}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(())
}

/// By its first bytes rather than by its media type, which tools get wrong: gzip, zstd, or as it is.
pub fn decompressed<'a, R: io::BufRead + 'a>(mut stored: R) -> io::Result<Box<dyn Read + 'a>> {
    let begin = stored.fill_buf()?;
    Ok(match begin {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stored)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(Windowed(decoder))
        }
        _ => Box::new(stored),
    })
}

/// Says what to do about a window that is too large.
struct Windowed<R>(R);

impl<R: Read> Read for Windowed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            if !error.to_string().contains("requires too much memory") {
                return error;
            }
            let most = 1 << (ZSTD_WINDOW_LOG - 20);
            let text = format!("zstd packed it with a window of more than {most} MiB: leave out --long and --ultra");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn digest(data: &[u8]) -> Digest {
        Digest::from_sha256(Sha256::digest(data).into())
    }

    fn read(stored: Vec<u8>, blob: Blob, diff_id: Digest, limit: u64) -> anyhow::Result<Vec<u8>> {
        let mut reader = LayerReader::start(Box::new(io::Cursor::new(stored)), blob, diff_id, limit);
        let mut out = Vec::new();
        let result = reader.read_to_end(&mut out).map_err(anyhow::Error::from);
        reader.finish(result.map(|_| out))
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).expect("in memory");
        encoder.finish().expect("in memory")
    }

    #[test]
    fn what_unpacks_out_of_all_proportion_is_refused() {
        let stored = gzip(&vec![0; 3_000_000]);
        let (sender, chunks) = sync_channel(100);
        let (_, empty) = channel();
        let result = inflate(&mut &stored[..], &digest(b""), (u64::MAX, 2_000_000), &Chunks { sender, empty });
        assert!(result.expect_err("a bomb").to_string().contains("100 times its size"));
        assert!(chunks.try_iter().count() < 17);
    }

    #[test]
    fn a_window_that_no_builder_takes_is_refused() {
        let plain = vec![7; 300_000];
        for log in [23, 25, 26] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("in memory");
            encoder.window_log(log).expect("a window");
            // in parts: of what is there at once, zstd takes no larger window than it has
            plain.chunks(1000).for_each(|part| encoder.write_all(part).expect("in memory"));
            let stored = encoder.finish().expect("in memory");
            let blob = Blob { digest: digest(&stored), size: stored.len() as u64 };
            match read(stored, blob, digest(&plain), u64::MAX) {
                Ok(content) => assert!(log <= 25 && content == plain, "{log}"),
                Err(error) => assert!(log == 26 && error.to_string().contains("more than 32 MiB"), "{log}: {error}"),
            }
        }
    }

    #[test]
    fn each_compression_reads_back_and_each_altered_byte_is_named_as_corruption() {
        let plain: Vec<u8> = (0..900_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let two_members = [gzip(&plain[..1000]), gzip(&plain[1000..])].concat();
        let zstd = zstd::encode_all(&plain[..], 1).expect("in memory");
        for stored in [plain.clone(), gzip(&plain), two_members, zstd] {
            let blob = Blob { digest: digest(&stored), size: stored.len() as u64 };
            assert!(read(stored.clone(), blob.clone(), digest(&plain), u64::MAX).expect("sound") == plain);
            for at in [0, 5, stored.len() / 2, stored.len() - 1] {
                let mut altered = stored.clone();
                altered[at] ^= 1;
                let error = read(altered, blob.clone(), digest(&plain), u64::MAX).expect_err("altered").to_string();
                assert!(error.contains("is corrupted"), "byte {at}: {error}");
            }
            let cut = stored[..stored.len() / 2].to_vec();
            let error = read(cut, blob.clone(), digest(&plain), u64::MAX).expect_err("cut").to_string();
            assert!(error.contains("is cut short"), "{error}");
            let longer = [&stored[..], b"more"].concat();
            let error = read(longer, blob.clone(), digest(&plain), u64::MAX).expect_err("longer").to_string();
            assert!(error.contains("longer than"), "{error}");
            let error = read(stored.clone(), blob.clone(), digest(b"else"), u64::MAX).expect_err("another").to_string();
            assert!(error.contains("promises"), "{error}");
            let error = read(stored, blob, digest(&plain), 1_000_000).expect_err("too large").to_string();
            assert!(error.contains("free space"), "{error}");
        }
    }
}
