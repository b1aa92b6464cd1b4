//! Where an image comes from, as
//! [containers-transports(5)](https://github.com/containers/image/blob/main/docs/containers-transports.5.md) writes it.

use std::{fmt, path::PathBuf, str::FromStr};

use oci_spec::distribution::Reference;
use serde::{Deserialize, Serialize};

use super::{digest::Digest, registries_conf::is_short};

mod archived;
mod tag_ref;

pub use archived::Archived;
use archived::plain_path;

/// A place that an image can be had from. `Display` writes text that parses to the same value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ImageSource {
    /// `registry/repository[:tag][@digest]`
    Registry(Reference),
    /// `oci:DIR[:TAG]`, an image layout in a folder
    OciDir(Archived),
    /// `oci-archive:FILE[:TAG]`, an image layout in a tar file
    OciArchive(Archived),
    /// `docker-archive:FILE[:REPOSITORY:TAG]`, what `docker save` writes
    DockerArchive(Archived),
    /// `docker-daemon:REPOSITORY:TAG`, an image that a Docker daemon has
    DockerDaemon(String),
    /// `containers-storage:NAME`, an image that podman, buildah or CRI-O have
    ContainersStorage(String),
    /// `rootfs:DIR`, an unpacked root file system, or the folder that has it as `rootfs`
    Rootfs(PathBuf),
}

/// An image as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    /// In full.
    Full(ImageSource),
    /// Without its registry: what it stands for is in registries.conf.
    Short(String),
}

/// Text that names no source.
#[derive(Debug, thiserror::Error)]
#[error("invalid image {text:?}: {why}")]
pub struct BadSource {
    text: String,
    why: String,
}

/// For who writes another one.
const TRANSPORTS: &str =
    "use docker://, oci:, oci-archive:, docker-archive:, docker-daemon:, containers-storage: or rootfs:";
const SHORT: &str = "it does not name its registry, write REGISTRY/REPOSITORY[:TAG]";

impl ImageSource {
    /// The transport's name, as containers-policy.json(5) uses it.
    pub fn transport(&self) -> &'static str {
        match self {
            ImageSource::Registry(_) => "docker",
            ImageSource::OciDir(_) => "oci",
            ImageSource::OciArchive(_) => "oci-archive",
            ImageSource::DockerArchive(_) => "docker-archive",
            ImageSource::DockerDaemon(_) => "docker-daemon",
            ImageSource::ContainersStorage(_) => "containers-storage",
            ImageSource::Rootfs(_) => "rootfs",
        }
    }

    /// The last part of the repository or of the path: what a container is called unless told otherwise.
    pub fn repository_name(&self) -> &str {
        match self {
            ImageSource::Registry(reference) => reference.repository().rsplit('/').next().unwrap_or_default(),
            ImageSource::OciDir(Archived { path, .. }) | ImageSource::Rootfs(path) => {
                path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
            }
            ImageSource::OciArchive(at) | ImageSource::DockerArchive(at) => at.docker_name().unwrap_or_else(|| {
                let name = at.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.split_once('.').map_or(name, |(stem, _)| stem)
            }),
            ImageSource::DockerDaemon(name) | ImageSource::ContainersStorage(name) => {
                let last = name.rsplit(['/', ']']).next().unwrap_or_default();
                last.split([':', '@']).next().unwrap_or_default()
            }
        }
    }

    /// The digest that the reference itself asks for.
    pub fn wanted_digest(&self) -> Option<Digest> {
        match self {
            ImageSource::Registry(reference) => reference.digest().and_then(|digest| digest.parse().ok()),
            _ => None,
        }
    }

    /// The same place, asked for this image whatever its tag names now; where it knows no digests, the place as it is.
    pub fn pinned(&self, digest: &Digest) -> ImageSource {
        match self {
            ImageSource::Registry(reference) => ImageSource::Registry(reference.clone_with_digest(digest.to_string())),
            other => other.clone(),
        }
    }

    fn parse(text: &str) -> Result<ImageSource, String> {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("it holds control characters".into());
        }
        match text.split_once(':') {
            Some(("docker", rest)) => match rest.strip_prefix("//") {
                Some(reference) => parse_registry(reference).map(ImageSource::Registry),
                None => Err("write docker://REGISTRY/REPOSITORY".into()),
            },
            Some(("oci", rest)) => Archived::parse(rest).map(ImageSource::OciDir),
            Some(("oci-archive", rest)) => Archived::parse(rest).map(ImageSource::OciArchive),
            Some(("docker-archive", rest)) => Archived::parse(rest).map(ImageSource::DockerArchive),
            Some(("docker-daemon", rest)) => engines_name(rest).map(ImageSource::DockerDaemon),
            Some(("containers-storage", rest)) => engines_name(rest).map(ImageSource::ContainersStorage),
            Some(("rootfs", rest)) => plain_path(rest).map(ImageSource::Rootfs),
            Some((transport @ ("dir" | "tarball" | "sif" | "ostree" | "atomic" | "docker-registry"), _)) => {
                Err(format!("the transport {transport}: is not supported"))
            }
            Some((scheme, rest)) if rest.starts_with("//") => {
                Err(format!("unknown transport {scheme}: ({TRANSPORTS})"))
            }
            Some((transport, rest)) if rest.starts_with('/') => {
                Err(format!("unknown transport {transport}: ({TRANSPORTS})"))
            }
            _ => parse_registry(text).map(ImageSource::Registry),
        }
    }
}

/// Takes only what names its registry: guessing one would let whoever owns the guess choose what runs.
pub(super) fn parse_registry(text: &str) -> Result<Reference, String> {
    if is_short(text) {
        return Err(SHORT.into());
    }
    let reference = Reference::from_str(text).map_err(|error| error.to_string())?;
    if let Some(digest) = reference.digest() {
        digest.parse::<Digest>().map_err(|error| error.to_string())?;
    }
    Ok(reference)
}

/// What an engine calls an image is the engine's to read.
fn engines_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it names no image".into()) } else { Ok(text.to_owned()) }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageSource::Registry(reference) => f.write_str(&reference.whole()),
            ImageSource::OciDir(at) => write!(f, "oci:{at}"),
            ImageSource::OciArchive(at) => write!(f, "oci-archive:{at}"),
            ImageSource::DockerArchive(at) => write!(f, "docker-archive:{at}"),
            ImageSource::DockerDaemon(name) => write!(f, "docker-daemon:{name}"),
            ImageSource::ContainersStorage(name) => write!(f, "containers-storage:{name}"),
            ImageSource::Rootfs(path) => write!(f, "rootfs:{}", path.display()),
        }
    }
}

impl FromStr for ImageName {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<ImageName, BadSource> {
        match text.parse::<ImageSource>() {
            // any registry will do to see whether the rest is sound
            Err(error) if error.why == SHORT && parse_registry(&format!("localhost/{text}")).is_ok() => {
                Ok(ImageName::Short(text.to_owned()))
            }
            other => other.map(ImageName::Full),
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageName::Full(source) => source.fmt(f),
            ImageName::Short(name) => f.write_str(name),
        }
    }
}

impl FromStr for ImageSource {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<ImageSource, BadSource> {
        ImageSource::parse(text).map_err(|why| BadSource { text: text.to_owned(), why })
    }
}

impl TryFrom<String> for ImageSource {
    type Error = BadSource;

    fn try_from(text: String) -> Result<ImageSource, BadSource> {
        text.parse()
    }
}

impl From<ImageSource> for String {
    fn from(source: ImageSource) -> String {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parsed(text: &str) -> ImageSource {
        text.parse().expect(text)
    }

    #[test]
    fn what_is_written_parses_to_the_same_source() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let table = [
            ("localhost:5000/etcd", "localhost:5000/etcd:latest", "etcd"),
            ("docker://reg.example.org/a/b/httpd:2.4", "reg.example.org/a/b/httpd:2.4", "httpd"),
            (&format!("reg.example.org/x@{digest}"), &format!("reg.example.org/x@{digest}"), "x"),
            (&format!("localhost/x:1@{digest}"), &format!("localhost/x:1@{digest}"), "x"),
            ("oci:/srv/img", "oci:/srv/img", "img"),
            ("oci:/srv/./a/../img/:3.5", "oci:/srv/img:3.5", "img"),
            ("oci-archive:/srv/etcd.tar", "oci-archive:/srv/etcd.tar", "etcd"),
            ("docker-archive:/x/y.tar.gz:reg.io/lib/web:1", "docker-archive:/x/y.tar.gz:reg.io/lib/web:1", "web"),
            ("docker-daemon:reg.io:5000/lib/web:1", "docker-daemon:reg.io:5000/lib/web:1", "web"),
            ("containers-storage:localhost/app", "containers-storage:localhost/app", "app"),
            ("rootfs:/srv/./a:1/../web/", "rootfs:/srv/web", "web"),
            ("containers-storage:[vfs@/var/x+/run/x]app:1", "containers-storage:[vfs@/var/x+/run/x]app:1", "app"),
        ];
        for (text, written, name) in table {
            let source = parsed(text);
            assert_eq!(source.to_string(), written);
            assert_eq!(parsed(written), source);
            assert_eq!(source.repository_name(), name, "{text}");
        }
        let here = std::env::current_dir().expect("a current folder");
        assert_eq!(parsed("oci:img").to_string(), format!("oci:{}/img", here.display()));
    }

    #[test]
    fn a_guess_is_never_made_and_the_refusal_says_what_to_write() {
        let table = [
            ("etcd", "does not name its registry"),
            ("library/etcd:3", "does not name its registry"),
            ("", "does not name its registry"),
            ("containers-storage:", "names no image"),
            ("docker-daemon:", "names no image"),
            ("dir:/x", "not supported"),
            ("http://reg.io/x", "unknown transport http:"),
            ("foo:/x", "unknown transport foo:"),
            ("oci:", "names no file"),
            ("rootfs:", "names no file"),
            ("oci:/x:", "nothing follows"),
            ("docker:reg.io/x", "docker://"),
            ("reg.io/UPPER", "invalid reference"),
            ("reg.io/x:bad tag", ""),
            ("reg.io/x@sha256:12", ""),
            ("reg.io/x@sha512:00", ""),
            ("reg.io/x\n", "control"),
        ];
        for (text, why) in table {
            let error = text.parse::<ImageSource>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn a_short_name_is_kept_as_it_is() {
        for short in ["etcd", "library/etcd:3", &format!("team/app@sha256:{}", "a".repeat(64))] {
            assert_eq!(short.parse::<ImageName>().expect(short), ImageName::Short(short.into()));
        }
        for full in ["localhost/x", "reg.io/x:1", "oci:img", "oci:/img", "docker-daemon:x:1", "oci-archive:x.tar"] {
            assert_eq!(full.parse::<ImageName>().expect(full), ImageName::Full(parsed(full)), "{full}");
        }
        for bad in ["", "UPPER", "x y", "foo:/x", "http://reg.io/x", "dir:x", "x@sha256:12"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }
}
