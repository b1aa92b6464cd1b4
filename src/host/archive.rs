//! Images in files: the image specification's
//! [layout](https://github.com/opencontainers/image-spec/blob/main/image-layout.md), in a folder or a tar file, and what
//! `docker save` writes.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Descriptor, DescriptorBuilder, ImageConfiguration, ImageIndex, ImageManifestBuilder, MediaType};
use serde::Deserialize;

use super::{
    blob::{Blob, decompressed},
    ostree::sha256,
    paths::MAX_PATH,
    source::{BlobSource, MAX_JSON},
    tarball::{Kind, TarReader},
};
use crate::model::{digest::Digest, reference::Archived};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Members of an archive: a few for each layer.
const MAX_MEMBERS: usize = 100_000;
/// Bytes of their names and of what links lead to, all of which are in memory.
const MAX_NAMES: usize = 16 * 1024 * 1024;

/// Files by name, from a folder or from inside a tar file.
enum Files {
    Folder(PathBuf),
    Tar { file: Arc<File>, members: HashMap<String, Member> },
}

enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

impl Files {
    fn tar(path: &Path) -> Result<Files> {
        let opening = || format!("opening {}", path.display());
        let file = File::open(path).with_context(opening)?;
        ensure!(file.metadata()?.is_file(), "{} is not a file", path.display());
        let file = unpacked(file).with_context(opening)?;
        let members = members(&file).with_context(|| format!("reading {}", path.display()))?;
        Ok(Files::Tar { file: Arc::new(file), members })
    }

    fn open(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64)> {
        match self {
            Files::Folder(folder) => {
                let path = folder.join(name);
                let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
                let size = file.metadata()?.len();
                Ok((Box::new(file), size))
            }
            Files::Tar { file, members } => {
                let mut name = name.to_owned();
                // the old format shares layers by links
                for _ in 0..8 {
                    match members.get(&name) {
                        Some(Member::File { offset, size }) => {
                            let slice = Slice { file: file.clone(), at: *offset, end: offset + size };
                            return Ok((Box::new(slice), *size));
                        }
                        Some(Member::Link(target)) => name = target.clone(),
                        None => break,
                    }
                }
                bail!("{name:?} is missing in the archive")
            }
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (content, _) = self.open(name)?;
        let mut data = Vec::new();
        content.take(MAX_JSON + 1).read_to_end(&mut data).with_context(|| format!("reading {name}"))?;
        ensure!(data.len() as u64 <= MAX_JSON, "{name} is larger than {MAX_JSON} bytes");
        Ok(data)
    }
}

/// Part of a file that several readers share.
pub(super) struct Slice {
    pub file: Arc<File>,
    pub at: u64,
    pub end: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The file itself, or where it is compressed, a temporary file with its content.
fn unpacked(mut file: File) -> Result<File> {
    let mut magic = [0; 4];
    let count = file.read_at(&mut magic, 0)?;
    let packed = magic[..count].starts_with(&[0x1f, 0x8b]) || magic[..count] == [0x28, 0xb5, 0x2f, 0xfd];
    if !packed {
        return Ok(file);
    }
    let mut plain = tempfile::tempfile_in("/var/tmp")?;
    let free = rustix::fs::fstatvfs(&plain)?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    let mut content = decompressed(BufReader::new(&mut file))?.take(free);
    let written = io::copy(&mut content, &mut plain).context("unpacking it into /var/tmp")?;
    ensure!(written < free, "it unpacks to more than /var/tmp can hold");
    plain.seek(SeekFrom::Start(0))?;
    Ok(plain)
}

fn members(file: &File) -> Result<HashMap<String, Member>> {
    let length = file.metadata()?.len();
    let mut members = HashMap::new();
    let mut names = 0;
    let mut reader = TarReader::new(BufReader::new(file));
    while let Some(entry) = reader.next_entry()? {
        ensure!(members.len() < MAX_MEMBERS, "it has more than {MAX_MEMBERS} members");
        ensure!(entry.path.len().max(entry.link.len()) <= MAX_PATH, "it has a member whose name is too long");
        // the target of a symbolic link is told with the folder that it begins in
        names += 2 * entry.path.len() + entry.link.len();
        ensure!(names <= MAX_NAMES, "the names of its members are longer than {MAX_NAMES} bytes together");
        let Ok(name) = String::from_utf8(entry.path) else { continue };
        let name = normal(&name);
        match entry.kind {
            Kind::File => {
                let offset = reader.offset();
                let end = offset.checked_add(entry.size);
                ensure!(end.is_some_and(|end| end <= length), "it is cut short within {name:?}");
                members.insert(name, Member::File { offset, size: entry.size });
                reader.leap()?;
            }
            Kind::Symlink | Kind::Hardlink => {
                let link = String::from_utf8_lossy(&entry.link).into_owned();
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = if entry.kind == Kind::Hardlink { link } else { format!("{folder}/{link}") };
                members.insert(name, Member::Link(normal(&target)));
            }
            Kind::Dir | Kind::Special => {}
        }
    }
    Ok(members)
}

/// A name without `.`, `..` and a leading slash.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// An image layout.
pub struct Layout {
    files: Files,
    image: Option<String>,
    shown: PathBuf,
}

impl Layout {
    /// In a folder.
    pub fn folder(at: &Archived) -> Result<Layout> {
        let metadata = at.path.metadata().with_context(|| format!("opening {}", at.path.display()))?;
        ensure!(metadata.is_dir(), "{} is not a folder", at.path.display());
        Layout::new(Files::Folder(at.path.clone()), at)
    }

    /// In a tar file.
    pub fn file(at: &Archived) -> Result<Layout> {
        Layout::new(Files::tar(&at.path)?, at)
    }

    fn new(files: Files, at: &Archived) -> Result<Layout> {
        Ok(Layout { files, image: at.image.clone(), shown: at.path.clone() })
    }

    fn blob_name(digest: &Digest) -> String {
        format!("blobs/sha256/{}", digest.hex())
    }
}

impl BlobSource for Layout {
    fn top(&self) -> Result<Vec<u8>> {
        let shown = self.shown.display();
        let data = self.files.read("index.json").with_context(|| format!("{shown} is not an OCI image layout"))?;
        let index: ImageIndex =
            serde_json::from_slice(&data).with_context(|| format!("reading {shown}'s index.json"))?;
        let name = |entry: &Descriptor| entry.annotations().as_ref().and_then(|notes| notes.get(REF_NAME)).cloned();
        let entry = match (&self.image, index.manifests().as_slice()) {
            (Some(image), entries) => {
                let found = entries.iter().find(|entry| name(entry).as_ref() == Some(image));
                let names: Vec<String> = entries.iter().filter_map(name).collect();
                found.with_context(|| format!("{shown} has no image {image:?}: it has {names:?}"))?
            }
            (None, []) => bail!("{shown} holds no image"),
            (None, [entry]) => entry,
            // one image for several architectures, or several images
            (None, entries) if entries.iter().all(|entry| name(entry).is_none()) => return Ok(data),
            (None, entries) => {
                let names: Vec<String> = entries.iter().filter_map(name).collect();
                bail!("{shown} holds several images, name one of {names:?}")
            }
        };
        let digest: Digest = entry.digest().to_string().parse()?;
        let manifest = self.manifest(&digest)?;
        let found = sha256(&manifest);
        ensure!(found == digest, "the manifest {digest} is corrupted: its content has {found}");
        Ok(manifest)
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.files.read(&Layout::blob_name(digest))
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        Ok(self.files.open(&Layout::blob_name(&blob.digest))?.0)
    }
}

/// What `docker save` and `podman save` write. It has no manifest with digests, so one is made of it.
pub struct DockerArchive {
    files: Files,
    manifest: Vec<u8>,
    names: HashMap<Digest, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    /// Opens the archive and chooses the image in it.
    pub fn open(at: &Archived) -> Result<DockerArchive> {
        let files = Files::tar(&at.path)?;
        let shown = at.path.display();
        let list = files.read("manifest.json").with_context(|| format!("{shown} is not a docker archive"))?;
        let list: Vec<Saved> =
            serde_json::from_slice(&list).with_context(|| format!("reading {shown}'s manifest.json"))?;
        let tags: Vec<String> = list.iter().flat_map(|saved| saved.repo_tags.iter().flatten().cloned()).collect();
        let saved = match (&at.image, list.as_slice()) {
            (_, []) => bail!("{shown} holds no image"),
            (None, [saved]) => saved,
            (None, _) => bail!("{shown} holds several images, name one of {tags:?}"),
            (Some(image), all) => {
                let found = all.iter().find(|saved| saved.repo_tags.iter().flatten().any(|tag| tag == image));
                found.with_context(|| format!("{shown} has no image {image:?}: it has {tags:?}"))?
            }
        };
        DockerArchive::with_manifest(files, saved).with_context(|| format!("reading {shown}"))
    }

    fn with_manifest(files: Files, saved: &Saved) -> Result<DockerArchive> {
        let config = files.read(&normal(&saved.config))?;
        let parsed: ImageConfiguration = serde_json::from_slice(&config).context("reading the image's config")?;
        let diff_ids = parsed.rootfs().diff_ids();
        ensure!(
            diff_ids.len() == saved.layers.len(),
            "it lists {} layers, its config {}",
            saved.layers.len(),
            diff_ids.len()
        );
        let mut names = HashMap::new();
        let mut layers = Vec::new();
        for (name, diff_id) in saved.layers.iter().zip(diff_ids) {
            let name = normal(name);
            let (content, size) = files.open(&name)?;
            let mut content = BufReader::new(content);
            // a plain tar's digest is the one that the config promises; it is checked when the layer is read
            let begin = io::BufRead::fill_buf(&mut content).with_context(|| format!("reading {name}"))?;
            let packed = begin.starts_with(&[0x1f, 0x8b]) || begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
            let (digest, media_type) = if packed {
                (hash(content).with_context(|| format!("reading {name}"))?, MediaType::ImageLayerGzip)
            } else {
                (diff_id.parse()?, MediaType::ImageLayer)
            };
            layers.push(describe(media_type, size, &digest)?);
            names.insert(digest, name);
        }
        let digest = sha256(&config);
        let described = describe(MediaType::ImageConfig, config.len() as u64, &digest)?;
        names.insert(digest, normal(&saved.config));
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(described)
            .layers(layers)
            .build()?;
        Ok(DockerArchive { files, manifest: serde_json::to_vec(&manifest)?, names })
    }
}

fn describe(media_type: MediaType, size: u64, digest: &Digest) -> Result<Descriptor> {
    let digest = oci_spec::image::Digest::try_from(digest.to_string())?;
    Ok(DescriptorBuilder::default().media_type(media_type).size(size).digest(digest).build()?)
}

fn hash(mut content: impl Read) -> Result<Digest> {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(Digest::from_sha256(hash.finalize().into())),
            count => hash.update(&buffer[..count]),
        }
    }
}

impl BlobSource for DockerArchive {
    fn top(&self) -> Result<Vec<u8>> {
        Ok(self.manifest.clone())
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        bail!("a docker archive holds no manifest {digest}")
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        let name = self.names.get(&blob.digest).with_context(|| format!("the archive has no {}", blob.digest))?;
        Ok(self.files.open(name)?.0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_archive_of_many_long_names_ends_in_an_error() {
        let mut archive = tar::Builder::new(tempfile::tempfile().expect("a file"));
        let folder = "n".repeat(200);
        for number in 0..3000 {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            let (path, target) = (format!("{number}/{}", [&*folder; 10].join("/")), [&*folder; 10].join("/"));
            archive.append_link(&mut header, path, target).expect("written");
        }
        let mut file = archive.into_inner().expect("written");
        file.flush().expect("written");
        file.seek(SeekFrom::Start(0)).expect("a file");
        let error = members(&file).err().expect("too long").to_string();
        assert!(error.contains("longer than 16777216 bytes together"), "{error}");
    }
}
