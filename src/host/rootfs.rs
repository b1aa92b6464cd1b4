//! An unpacked root file system as an image of one layer.
//!
//! It is read once into a temporary tar, so that what is imported is what the digest was made of, whoever goes on writing to it. The
//! same files make the same digest. Its folders are opened one from the other and no link in it is followed: it may be a running
//! container's.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::{
    archive::Slice,
    blob::Blob,
    layer::kept,
    machine::this_architecture,
    ostree::sha256,
    source::BlobSource,
    walk::{self, FileId, XATTR_MAX, below, entries, id, is_folder, open, xattrs},
};
use crate::model::{
    digest::Digest,
    fault::{Code, Fault},
};

/// Room for a root file system, unlike /tmp.
const WORK: &str = "/var/tmp";

/// The image, its layer in a file that goes when nobody reads it any more.
pub struct Packed {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Arc<File>,
    layer_digest: Digest,
}

impl Packed {
    /// Reads a root file system, or the folder that has one as `rootfs`.
    pub fn of(path: &Path) -> Result<Packed> {
        let root = find(path)?;
        let packing = || format!("reading {}", path.display());
        let spool = Hashed { file: BufWriter::new(tempfile::tempfile_in(WORK)?), hash: Sha256::new(), size: 0 };
        let mount = walk::mount(root.as_fd(), c"").with_context(packing)?;
        let mut packer = Packer { archive: Builder::new(spool), mount, seen: HashMap::new() };
        packer.folder(root.as_fd(), Path::new("")).with_context(packing)?;
        let Hashed { file, hash, size } = packer.archive.into_inner().with_context(packing)?;
        let layer = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(packing)?;
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
        Ok(Packed { manifest: serde_json::to_vec(&manifest)?, config, layer: Arc::new(layer), layer_digest })
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
            // Each reader has a place of its own in it.
            true => Ok(Box::new(Slice { file: self.layer.clone(), at: 0, end: blob.size })),
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
    mount: u64,
    /// The first name of each file that has several.
    seen: HashMap<FileId, PathBuf>,
}

impl Packer {
    /// Everything in a folder, by name; where something is mounted, only the folder that it is mounted on.
    fn folder(&mut self, folder: BorrowedFd<'_>, path: &Path) -> Result<()> {
        for (name, about) in entries(folder)? {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            match self.entry(folder, &name, &path, &about) {
                // removed meanwhile
                Err(error) if error.downcast_ref() == Some(&Errno::NOENT) => {}
                done => done.with_context(|| format!("/{}", path.display()))?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: &Path, about: &Stat) -> Result<()> {
        let foreign = walk::mount(folder, name)? != self.mount;
        if is_folder(about) {
            self.attributes(&below(folder, name))?;
            self.archive.append_data(&mut header(about, EntryType::Directory), path, io::empty())?;
            return if foreign { Ok(()) } else { self.folder(open(folder, name, OFlags::DIRECTORY)?.as_fd(), path) };
        }
        if foreign {
            return Ok(());
        }
        if let Some(first) = self.seen.get(&id(about)) {
            return Ok(self.archive.append_link(&mut header(about, EntryType::Link), path, first)?);
        }
        match FileType::from_raw_mode(about.st_mode) {
            FileType::RegularFile => {
                let file = open(folder, name, OFlags::NONBLOCK)?;
                let about = &rustix::fs::fstat(&file)?;
                ensure!(FileType::from_raw_mode(about.st_mode).is_file(), "it became another thing while it was read");
                let mut header = header(about, EntryType::Regular);
                let size = u64::try_from(about.st_size)?;
                header.set_size(size);
                self.attributes(&below(folder, name))?;
                // One that is cut meanwhile is filled up, as tar(1) does; the archive's frame has to hold.
                self.archive.append_data(&mut header, path, File::from(file).chain(io::repeat(0)).take(size))?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                let target = OsStr::from_bytes(target.to_bytes());
                self.archive.append_link(&mut header(about, EntryType::Symlink), path, target)?;
            }
            // Devices, fifos and sockets are nothing that an image may bring.
            _ => return Ok(()),
        }
        if about.st_nlink > 1 {
            self.seen.insert(id(about), path.to_owned());
        }
        Ok(())
    }

    /// Extended attributes, which stand before the entry that they belong to.
    fn attributes(&mut self, path: &Path) -> Result<()> {
        let mut names = xattrs(path)?;
        names.retain(|name| kept(name));
        names.sort_unstable();
        let mut found = Vec::new();
        for name in &names {
            let mut value = vec![0; XATTR_MAX];
            let count = rustix::fs::lgetxattr(path, name.as_slice(), &mut value[..])?;
            value.truncate(count);
            found.push((format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)), value));
        }
        if found.is_empty() {
            return Ok(());
        }
        let pairs = found.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        Ok(self.archive.append_pax_extensions(pairs)?)
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
