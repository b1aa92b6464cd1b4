//! Images of other engines, handed over by [skopeo(1)](https://github.com/containers/skopeo), which knows their stores.
//!
//! It writes what `docker save` would: layers as plain tar files, so that the same image has the same digest each time.

use std::{
    io::{ErrorKind, Read},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

use super::{archive::DockerArchive, blob::Blob, source::BlobSource};
use crate::model::{
    digest::Digest,
    fault::{Code, Fault},
    reference::{Archived, ImageSource},
};

/// Room for an image, unlike /tmp.
const WORK: &str = "/var/tmp";

/// An image in a file that goes when nobody reads it any more.
pub struct HandedOver {
    archive: DockerArchive,
    _folder: TempDir,
}

/// Has an engine's image written out.
pub fn fetch(source: &ImageSource) -> Result<HandedOver> {
    let folder = tempfile::Builder::new().prefix("sysctr-").tempdir_in(WORK).context("making a folder in /var/tmp")?;
    let path = folder.path().join("image.tar");
    let mut command = Command::new("skopeo");
    // we have asked the policy ourselves
    command.args(["--insecure-policy", "copy", "--quiet", &source.to_string()]);
    command.arg(format!("docker-archive:{}", path.display()));
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let message = format!("images of {}: are fetched by skopeo, which is not installed", source.transport());
            return Err(Fault::new(Code::Failed, message).hint("install skopeo").into());
        }
        Err(error) => return Err(error).context("running skopeo"),
    };
    if !output.status.success() {
        return Err(anyhow!(words(&String::from_utf8_lossy(&output.stderr)))).context("skopeo could not fetch it");
    }
    let archive = DockerArchive::open(&Archived { path, image: None })?;
    Ok(HandedOver { archive, _folder: folder })
}

/// The message of a line such as `time="..." level=fatal msg="..."`.
fn words(said: &str) -> String {
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let message = last.split_once("msg=").map_or(last, |(_, message)| message);
    let message: String = serde_json::from_str(message).unwrap_or_else(|_| message.to_owned());
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

impl BlobSource for HandedOver {
    fn top(&self) -> Result<Vec<u8>> {
        self.archive.top()
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.archive.manifest(digest)
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        self.archive.blob(blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_skopeo_says_the_message_is_told() {
        let said = "a warning\ntime=\"2026-01-01T00:00:00Z\" level=fatal msg=\"reading \\\"x\\\": no such image\"\n";
        assert_eq!(words(said), "reading \"x\": no such image");
        assert_eq!(words("panic: x\n\n"), "panic: x");
        assert_eq!(words(""), "it said nothing");
    }
}
