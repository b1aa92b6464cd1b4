//! What the layers in the store consist of, so that a layer which an image shares with another is neither fetched nor read again.
//!
//! ```text
//! ROOT/var/lib/sysctr/layers/HEX           the entries of the layer whose tar has this SHA-256, their contents as objects: a zstd frame
//!                           .whole-HEX     the same, of a layer that came whole and whose objects are not the store's yet
//!                           .new-NUMBER    one that is being written
//! ```
//! They are made of what was verified, can be made again, and are believed only whole: the frame has a checksum. So nothing is synced.
//! Objects may be gone meanwhile, since prune keeps only what the merged tree of an image has: who uses a record looks for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{DirBuilder, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};

use super::{
    layer::{Attributes, ObjectId, Piece},
    paths::MAX_PATH,
    tarball::Kind,
};
use crate::model::digest::Digest;

const FOLDER: &str = "layers";
/// A record that is being written; nobody's when its writer is gone.
const NEW: &str = ".new-";
/// A record whose layer's objects are not published; [`super::leftovers`] where its writer is gone.
const WHOLE: &str = ".whole-";
/// Also the format's version: another one is as good as no record.
const MAGIC: &[u8; 8] = b"sysctrL1";
const KINDS: [Kind; 5] = [Kind::File, Kind::Dir, Kind::Symlink, Kind::Hardlink, Kind::Special];
/// The kernel takes no longer value of an attribute.
const MAX_VALUE: usize = 1024 * 1024;

/// The records of one store.
#[derive(Clone, Debug)]
pub struct Entries {
    folder: PathBuf,
}

impl Entries {
    /// Of the store in this state folder.
    pub fn of(state: &Path) -> Entries {
        Entries { folder: state.join(FOLDER) }
    }

    /// The entries of a layer; none where they are not known, or damaged.
    pub fn open(&self, diff_id: &Digest) -> Option<Stored> {
        Stored::whole(&self.folder.join(diff_id.hex())).or_else(|| Stored::whole(&self.whole(diff_id)))
    }

    /// The same, of a layer that an earlier pull left.
    pub fn left(&self, diff_id: &Digest) -> Option<(Stored, Finished)> {
        let whole = self.whole(diff_id);
        Some((Stored::whole(&whole)?, Finished { whole, path: self.folder.join(diff_id.hex()), armed: true }))
    }

    fn whole(&self, diff_id: &Digest) -> PathBuf {
        self.folder.join(format!("{WHOLE}{}", diff_id.hex()))
    }

    /// Whether any layer was left.
    pub fn any_left(&self) -> bool {
        let mut names = std::fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.any(|name| name.as_encoded_bytes().starts_with(WHOLE.as_bytes()))
    }

    /// Begins a record.
    pub fn create(&self, diff_id: &Digest) -> Result<Recorder> {
        let creating = || format!("writing to {}", self.folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).with_context(creating)?;
        let path = self.folder.join(diff_id.hex());
        // an image may have a layer twice
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let fresh = self.folder.join(format!("{NEW}{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let mut frame = zstd::Encoder::new(File::create(&fresh).with_context(creating)?, 1)?;
        frame.include_checksum(true)?;
        let mut out = BufWriter::new(frame);
        out.write_all(MAGIC)?;
        Ok(Recorder { out, fresh, whole: self.whole(diff_id), path })
    }

    /// Drops what was never finished, and what was left but these.
    pub fn clear_unfinished(&self, kept: &[Finished]) -> Result<()> {
        let kept = |name: &str| kept.iter().any(|record| record.whole.ends_with(name));
        self.drop_others(|name| !name.starts_with('.') || kept(name))
    }

    /// Drops the records of all layers but these, and what was never finished.
    pub fn retain(&self, diff_ids: &BTreeSet<String>) -> Result<()> {
        self.drop_others(|name| diff_ids.contains(name))
    }

    fn drop_others(&self, keep: impl Fn(&str) -> bool) -> Result<()> {
        let pruning = || format!("pruning {}", self.folder.display());
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(pruning)?,
        };
        for entry in entries {
            let entry = entry.with_context(pruning)?;
            if !entry.file_name().to_str().is_some_and(&keep) {
                std::fs::remove_file(entry.path()).with_context(pruning)?;
            }
        }
        Ok(())
    }
}

/// A record on its way to the disk.
pub struct Recorder {
    out: BufWriter<zstd::Encoder<'static, File>>,
    fresh: PathBuf,
    whole: PathBuf,
    path: PathBuf,
}

impl Recorder {
    /// Adds the next entry.
    pub fn add(&mut self, piece: &Piece) -> Result<()> {
        write(piece, &mut self.out).with_context(|| format!("writing {}", self.fresh.display()))
    }

    /// Ends it, the layer's digests having been checked; [`Finished::keep`] gives it its name.
    pub fn finish(self) -> Result<Finished> {
        let finishing = || format!("writing {}", self.fresh.display());
        let frame = self.out.into_inner().map_err(|error| error.into_error()).with_context(finishing)?;
        frame.finish().with_context(finishing)?;
        std::fs::rename(&self.fresh, &self.whole).with_context(finishing)?;
        Ok(Finished { whole: self.whole, path: self.path, armed: true })
    }
}

/// A record that is whole, of a layer whose objects are not in the store yet. Dropped, it takes itself away again.
pub struct Finished {
    whole: PathBuf,
    path: PathBuf,
    armed: bool,
}

impl Finished {
    /// From now on the layer is known.
    pub fn keep(mut self) -> Result<()> {
        self.armed = false;
        match std::fs::rename(&self.whole, &self.path) {
            // an image that has a layer twice has its record once
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.exists() => Ok(()),
            kept => kept.with_context(|| format!("naming {}", self.path.display())),
        }
    }

    /// The layer is known to the next pull.
    pub fn leave(mut self) {
        self.armed = false;
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if self.armed {
            // what is left over goes with the next prune
            let _ = std::fs::remove_file(&self.whole);
        }
    }
}

/// The entries of a layer as they were recorded.
pub struct Stored {
    from: BufReader<zstd::Decoder<'static, BufReader<File>>>,
}

impl Stored {
    /// The checksum stands at the end, and nothing may be used before it was seen.
    fn whole(path: &Path) -> Option<Stored> {
        Stored::open(path).ok()?.try_for_each(|piece| piece.map(drop)).ok()?;
        Stored::open(path).ok()
    }

    fn open(path: &Path) -> Result<Stored> {
        let mut from = BufReader::new(zstd::Decoder::new(File::open(path)?)?);
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic)?;
        ensure!(magic == *MAGIC, "another format");
        Ok(Stored { from })
    }
}

impl Iterator for Stored {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        let mut kind = [0];
        match self.from.read(&mut kind) {
            Ok(0) => None,
            Ok(_) => Some(read(kind[0], &mut self.from).context("reading the entries of a stored layer")),
            Err(error) => Some(Err(error.into())),
        }
    }
}

fn write(piece: &Piece, out: &mut impl Write) -> Result<()> {
    let Piece { path, kind, link, size, attributes, left_out, object } = piece;
    let kind = KINDS.iter().position(|it| it == kind).unwrap_or_default() as u8;
    out.write_all(&[kind, u8::from(object.is_some())])?;
    out.write_all(object.as_ref().map_or(&[][..], |id| id))?;
    out.write_all(&size.to_le_bytes())?;
    for number in [attributes.uid, attributes.gid, attributes.mode] {
        out.write_all(&number.to_le_bytes())?;
    }
    write_bytes(path, out)?;
    write_bytes(link, out)?;
    write_length(attributes.xattrs.len(), out)?;
    for (name, value) in &attributes.xattrs {
        write_bytes(name, out)?;
        write_bytes(value, out)?;
    }
    write_length(left_out.len(), out)?;
    left_out.iter().try_for_each(|name| write_bytes(name, out))
}

fn read(kind: u8, from: &mut impl Read) -> Result<Piece> {
    let kind = *KINDS.get(usize::from(kind)).context("an unknown kind")?;
    let object = match number::<1>(from)? {
        [0] => None,
        _ => Some(number::<32>(from)? as ObjectId),
    };
    let size = u64::from_le_bytes(number(from)?);
    let [uid, gid, mode] = [number(from)?, number(from)?, number(from)?].map(u32::from_le_bytes);
    let (path, link) = (read_bytes(from, MAX_PATH)?, read_bytes(from, MAX_PATH)?);
    let mut xattrs = BTreeMap::new();
    for _ in 0..u32::from_le_bytes(number(from)?) {
        xattrs.insert(read_bytes(from, MAX_VALUE)?, read_bytes(from, MAX_VALUE)?);
    }
    let mut left_out = Vec::new();
    for _ in 0..u32::from_le_bytes(number(from)?) {
        left_out.push(read_bytes(from, MAX_VALUE)?);
    }
    Ok(Piece { path, kind, link, size, attributes: Attributes { uid, gid, mode, xattrs }, left_out, object })
}

fn write_bytes(bytes: &[u8], out: &mut impl Write) -> Result<()> {
    write_length(bytes.len(), out)?;
    Ok(out.write_all(bytes)?)
}

fn write_length(length: usize, out: &mut impl Write) -> Result<()> {
    Ok(out.write_all(&u32::try_from(length)?.to_le_bytes())?)
}

fn read_bytes(from: &mut impl Read, most: usize) -> Result<Vec<u8>> {
    let length = u32::from_le_bytes(number(from)?) as usize;
    ensure!(length <= most, "a length of {length}");
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> Vec<Piece> {
        let xattrs = BTreeMap::from([(b"user.a".to_vec(), vec![0, 1]), (b"user.b".to_vec(), vec![])]);
        let attributes = Attributes { uid: 1, gid: 70_000, mode: 0o4755, xattrs };
        let left_out = vec![b"trusted.x".to_vec()];
        let at = |kind, path: &str, link: &str, object| Piece {
            path: path.into(),
            kind,
            link: link.into(),
            size: 5_000_000_000,
            attributes: attributes.clone(),
            left_out: left_out.clone(),
            object,
        };
        vec![
            at(Kind::Dir, "./", "", None),
            at(Kind::File, "a/b", "", Some([7; 32])),
            at(Kind::Symlink, "c", "a/b", Some([8; 32])),
            at(Kind::Hardlink, "d", "a/b", None),
            at(Kind::Special, "e", "", None),
        ]
    }

    #[test]
    fn what_is_recorded_reads_back_and_a_damaged_record_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let entries = Entries::of(folder.path());
        let diff_id = super::super::ostree::sha256(b"layer");
        assert!(entries.open(&diff_id).is_none());
        let mut recorder = entries.create(&diff_id).expect("writable");
        pieces().iter().try_for_each(|piece| recorder.add(piece)).expect("writable");
        drop(recorder.finish().expect("writable"));
        assert!(entries.open(&diff_id).is_none() && !entries.any_left(), "its objects never came into the store");
        let mut recorder = entries.create(&diff_id).expect("writable");
        pieces().iter().try_for_each(|piece| recorder.add(piece)).expect("writable");
        recorder.finish().expect("writable").leave();
        assert!(entries.any_left());
        entries.left(&diff_id).expect("left").1.keep().expect("writable");
        let read = entries.open(&diff_id).expect("known").collect::<Result<Vec<_>>>().expect("whole");
        assert_eq!(read, pieces());

        let path = folder.path().join(FOLDER).join(diff_id.hex());
        let whole = std::fs::read(&path).expect("there");
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 4;
            std::fs::write(&path, &altered).expect("writable");
            let read = entries.open(&diff_id).map(|stored| stored.collect::<Result<Vec<_>>>().expect("whole"));
            // a bit of the frame's header may mean nothing
            assert!(read.is_none_or(|read| read == pieces()), "byte {at}");
            std::fs::write(&path, &whole[..at]).expect("writable");
            assert!(entries.open(&diff_id).is_none(), "cut at {at}");
        }
        entries.retain(&BTreeSet::new()).expect("removable");
        assert!(!path.exists());
    }
}
