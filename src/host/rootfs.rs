//! An unpacked root file system as an image of one layer.
//!
//! It is read once into a temporary tar, so that what is imported is what the digest was made of, whoever goes on writing to it. The
//! same files make the same digest. Its folders are opened one from the other and no link in it is followed: it may be a running
//! container's.

use std::{
    collections::BTreeMap,
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::{blob::Blob, machine::this_architecture, ostree::sha256, source::BlobSource};
use crate::model::{
    digest::Digest,
    fault::{Code, Fault},
};

/// Room for a root file system, unlike /tmp.
const WORK: &str = "/var/tmp";
/// The longest value that the kernel keeps (xattr(7)).
const MAX_XATTR: usize = 64 << 10;

/// The image, its layer in a file that goes when nobody reads it any more.
pub struct Packed {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: File,
    layer_digest: Digest,
}

impl Packed {
    /// Reads a root file system, or the folder that has one as `rootfs`.
    pub fn of(path: &Path) -> Result<Packed> {
        let root = find(path)?;
        let packing = || format!("reading {}", path.display());
        let spool = Hashed { file: BufWriter::new(tempfile::tempfile_in(WORK)?), hash: Sha256::new(), size: 0 };
        let device = rustix::fs::fstat(&root).with_context(packing)?.st_dev;
        let mut packer = Packer { archive: Builder::new(spool), device, seen: BTreeMap::new() };
        packer.folder(root, Path::new("")).with_context(packing)?;
        let Hashed { file, hash, size } = packer.archive.into_inner().with_context(packing)?;
        let mut layer = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(packing)?;
        layer.seek(SeekFrom::Start(0))?;
        let layer_digest = Digest::from_sha256(hash.finalize().into());
        let config = json!({
            "architecture": this_architecture(), "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        });
        let config = serde_json::to_vec(&config)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": size}],
        });
        Ok(Packed { manifest: serde_json::to_vec(&manifest)?, config, layer, layer_digest })
    }
}

impl BlobSource for Packed {
    fn top(&self) -> Result<Vec<u8>> {
        Ok(self.manifest.clone())
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        bail!("{digest} is not of it")
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        match blob.digest == self.layer_digest {
            true => Ok(Box::new(self.layer.try_clone()?)),
            false => Ok(Box::new(io::Cursor::new(self.config.clone()))),
        }
    }
}

fn find(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("opening {}", path.display()))?;
    if rustix::fs::statat(&folder, "usr", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Ok(folder);
    }
    rustix::fs::openat(&folder, "rootfs", flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|_| {
        let message = format!("{} is no root file system", path.display());
        Fault::new(Code::Failed, message).hint("it has to hold usr/, or a folder rootfs/").into()
    })
}

/// What is written, counted and hashed.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.file.write(data)?;
        self.hash.update(&data[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct Packer {
    archive: Builder<Hashed>,
    device: u64,
    /// The first name of each file that has several.
    seen: BTreeMap<u64, PathBuf>,
}

impl Packer {
    /// Everything in a folder, by name; of another file system only the folder that it is mounted on.
    fn folder(&mut self, folder: OwnedFd, path: &Path) -> Result<()> {
        let mut names = Dir::read_from(&folder)?
            .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
            .collect::<Result<Vec<_>, Errno>>()?;
        names.retain(|name| !matches!(name.to_bytes(), b"." | b".."));
        names.sort();
        for name in names {
            let below = path.join(Path::new(OsStr::from_bytes(name.to_bytes())));
            self.entry(&folder, &name, &below).with_context(|| format!("/{}", below.display()))?;
        }
        Ok(())
    }

    fn entry(&mut self, folder: &OwnedFd, name: &CStr, path: &Path) -> Result<()> {
        let open = |flags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::openat(folder, name, flags, Mode::empty())
        };
        let about = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(about.st_mode);
        if kind != FileType::Directory && about.st_nlink > 1 {
            if let Some(first) = self.seen.get(&about.st_ino) {
                return Ok(self.archive.append_link(&mut header(&about, EntryType::Link), path, first)?);
            }
            self.seen.insert(about.st_ino, path.to_owned());
        }
        match kind {
            FileType::Directory => {
                let inner = open(OFlags::RDONLY | OFlags::DIRECTORY)?;
                let about = rustix::fs::fstat(&inner)?;
                self.attributes(&inner)?;
                self.archive.append_data(&mut header(&about, EntryType::Directory), path, io::empty())?;
                if about.st_dev == self.device { self.folder(inner, path) } else { Ok(()) }
            }
            FileType::RegularFile => {
                let file = open(OFlags::RDONLY)?;
                let about = rustix::fs::fstat(&file)?;
                let mut header = header(&about, EntryType::Regular);
                let size = u64::try_from(about.st_size)?;
                header.set_size(size);
                self.attributes(&file)?;
                // One that is cut meanwhile is filled up, as tar(1) does; the archive's frame has to hold.
                let content = File::from(file).chain(io::repeat(0)).take(size);
                Ok(self.archive.append_data(&mut header, path, content)?)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                let target = OsStr::from_bytes(target.to_bytes());
                Ok(self.archive.append_link(&mut header(&about, EntryType::Symlink), path, target)?)
            }
            // Devices, fifos and sockets are nothing that an image may bring.
            _ => Ok(()),
        }
    }

    /// Extended attributes, which stand before the entry that they belong to.
    fn attributes(&mut self, file: &OwnedFd) -> Result<()> {
        let mut list = vec![0; MAX_XATTR];
        let count = match rustix::fs::flistxattr(file.as_fd(), &mut list[..]) {
            Err(Errno::NOTSUP) => return Ok(()),
            count => count?,
        };
        let mut names: Vec<&str> =
            list[..count].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()).collect();
        names.retain(|name| super::layer::kept(name.as_bytes()));
        names.sort_unstable();
        let mut found = Vec::new();
        for name in names {
            let mut value = vec![0; MAX_XATTR];
            let count = rustix::fs::fgetxattr(file.as_fd(), name, &mut value[..])?;
            value.truncate(count);
            found.push((format!("SCHILY.xattr.{name}"), value));
        }
        if found.is_empty() {
            return Ok(());
        }
        let pairs = found.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.archive.append_pax_extensions(pairs).map_err(|error| anyhow!(error))
    }
}

fn header(about: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(about.st_mode & 0o7777);
    header.set_uid(about.st_uid.into());
    header.set_gid(about.st_gid.into());
    header.set_mtime(u64::try_from(about.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}
