//! A tar stream, entry by entry, with every length bounded before memory is given to it.
//!
//! The format is [pax](https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html) with GNU long names, which is
//! what layers are written in. Sparse members are refused: no tool writes them into a layer.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use anyhow::{Context, Result, bail, ensure};
use tar::{EntryType, Header};

use super::layer::shortened;

const BLOCK: u64 = 512;
/// A long name or a set of extended attributes; the kernel takes at most 64 KiB for one attribute.
const MAX_EXTENSION: u64 = 1024 * 1024;
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// a regular file, its content follows
    File,
    /// a folder
    Dir,
    /// a symbolic link
    Symlink,
    /// another name of an earlier file
    Hardlink,
    /// a device, a fifo or a socket
    Special,
}

/// One entry's header, with what its extensions say put in.
#[derive(Clone, Debug)]
pub struct Entry {
    /// as written
    pub path: Vec<u8>,
    /// what it is
    pub kind: Kind,
    /// permission bits, with setuid, setgid and sticky
    pub mode: u32,
    /// owner
    pub uid: u32,
    /// group
    pub gid: u32,
    /// length of the content; 0 for all but files
    pub size: u64,
    /// when the content was last changed, in whole seconds since 1970
    pub mtime: i64,
    /// where a link leads
    pub link: Vec<u8>,
    /// extended attributes
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Reads entries; as a [`Read`] it gives the content of the entry last returned.
pub struct TarReader<R> {
    inner: R,
    offset: u64,
    content: u64,
    padding: u64,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    /// Reads the archive that starts here.
    pub fn new(inner: R) -> TarReader<R> {
        TarReader { inner, offset: 0, content: 0, padding: 0 }
    }

    /// How far into the stream the reader is: right after `next_entry`, where the content starts.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry; none at the end of the archive. Content not read is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        let mut extended = 0;
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.entry_size().context("reading a tar header")?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    // also of many together
                    extended += size;
                    ensure!(extended <= MAX_EXTENSION, "a tar entry has more than {MAX_EXTENSION} bytes of headers");
                    read_pax(&records, &mut extensions.pax)?;
                }
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                EntryType::GNULongName => extensions.path = Some(until_nul(self.extension(size)?)),
                EntryType::GNULongLink => extensions.link = Some(until_nul(self.extension(size)?)),
                _ => return self.entry(&header, size, extensions).map(Some),
            }
        }
    }

    /// Passes over the content of the entry last returned without reading it.
    pub fn leap(&mut self) -> Result<()>
    where
        R: io::Seek,
    {
        let distance = i64::try_from(self.content).context("a tar entry's size is too large")?;
        self.inner.seek_relative(distance)?;
        self.offset += self.content;
        self.content = 0;
        Ok(())
    }

    fn entry(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Entry> {
        let Extensions { path, link, mut pax } = extensions;
        let path = pax.remove(&b"path"[..]).or(path).unwrap_or_else(|| header.path_bytes().into_owned());
        let named = || shortened(&path);
        let number = |key: &str| -> Result<Option<u64>> {
            let Some(value) = pax.get(key.as_bytes()) else { return Ok(None) };
            let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            Ok(Some(text.with_context(|| format!("tar entry {}: {key} is no number", named()))?))
        };
        let owner = |key: &str, plain: io::Result<u64>| -> Result<u32> {
            let id = number(key)?.map_or(plain, Ok).with_context(|| format!("tar entry {}: bad {key}", named()))?;
            // the last number means "nobody in particular" to chown(2)
            ensure!(id < u64::from(u32::MAX), "tar entry {}: {key} {id} is too large", named());
            Ok(id as u32)
        };
        ensure!(
            !pax.keys().any(|key| key.starts_with(b"GNU.sparse.")),
            "tar entry {}: sparse files are not supported",
            named()
        );

        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if header.as_bytes()[156] == 0 && path.ends_with(b"/") => {
                Kind::Dir
            }
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Hardlink,
            EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
            EntryType::GNUSparse => bail!("tar entry {}: sparse files are not supported", named()),
            other => bail!("tar entry {}: unknown type {:?}", named(), char::from(other.as_byte())),
        };
        let size = if kind == Kind::File { number("size")?.unwrap_or(size) } else { 0 };
        self.content = size;
        self.padding = padding(size)?;
        Ok(Entry {
            kind,
            mode: header.mode().with_context(|| format!("tar entry {}: bad mode", named()))? & 0o7777,
            uid: owner("uid", header.uid())?,
            gid: owner("gid", header.gid())?,
            size,
            mtime: mtime(header, pax.get(&b"mtime"[..])),
            link: pax
                .remove(&b"linkpath"[..])
                .or(link)
                .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
                .unwrap_or_default(),
            xattrs: pax
                .into_iter()
                .filter_map(|(key, value)| Some((key.strip_prefix(XATTR_PREFIX)?.to_vec(), value)))
                .collect(),
            path,
        })
    }

    /// The next header block; none at a zero block or where the stream ends between two entries.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => bail!("the tar archive ends within a header"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.offset += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block);
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        ensure!(header.cksum().is_ok_and(|written| written == sum), "not a tar archive: a header's checksum is wrong");
        Ok(Some(with_zeros(header)))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        ensure!(size <= MAX_EXTENSION, "a tar header of {size} bytes is too large (limit {MAX_EXTENSION})");
        self.content = size;
        self.padding = padding(size)?;
        let mut data = Vec::with_capacity(size as usize);
        self.read_to_end(&mut data)?;
        Ok(data)
    }

    fn skip_content(&mut self) -> Result<()> {
        io::copy(self, &mut io::sink())?;
        let skipped = io::copy(&mut (&mut self.inner).take(self.padding), &mut io::sink())?;
        ensure!(skipped == self.padding, "the tar archive ends within a file");
        self.offset += skipped;
        self.padding = 0;
        Ok(())
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar archive ends within a file"));
        }
        self.content -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

/// As the header says, or the extension, which may be negative and have a fraction. Nothing rests on it: what cannot be read is 1970.
fn mtime(header: &Header, extended: Option<&Vec<u8>>) -> i64 {
    let extended = extended.map(|value| {
        let text = std::str::from_utf8(value).unwrap_or_default();
        text.split('.').next().unwrap_or_default().parse().unwrap_or_default()
    });
    let plain = || header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or_default();
    extended.unwrap_or_else(plain).clamp(0, i64::from(u32::MAX))
}

/// Where a number is blank, other readers take it as 0, and some writers leave out what is 0.
fn with_zeros(header: &Header) -> Header {
    let mut header = header.clone();
    let numbers = header.as_old_mut();
    for number in [&mut numbers.mode, &mut numbers.uid, &mut numbers.gid] {
        if number.iter().all(|byte| matches!(byte, 0 | b' ')) {
            number[0] = b'0';
        }
    }
    header
}

fn padding(size: u64) -> Result<u64> {
    let whole = size.checked_next_multiple_of(BLOCK).context("a tar entry's size is too large")?;
    Ok(whole - size)
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|byte| *byte == 0) {
        data.truncate(end);
    }
    data
}

/// Records are `LENGTH KEY=VALUE\n`; a value may hold any byte, so only the length says where it ends.
fn read_pax(mut data: &[u8], into: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
    while !data.is_empty() {
        let (length, key, value) = pax_record(data).context("a tar archive's extended header is malformed")?;
        // an empty value takes back what an earlier record said
        if value.is_empty() {
            into.remove(key);
        } else {
            into.insert(key.to_vec(), value.to_vec());
        }
        data = &data[length..];
    }
    Ok(())
}

fn pax_record(data: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = data.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let body = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((length, &body[..equals], &body[equals + 1..]))
}

#[cfg(test)]
#[path = "tarball_tests.rs"]
mod tests;
