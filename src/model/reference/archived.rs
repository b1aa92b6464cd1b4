//! What follows the name of a transport that reads files: `PATH[:IMAGE]`.

use std::{
    fmt,
    path::{Component, PathBuf},
};

/// A file or folder, and which of the images in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Archived {
    /// absolute and without `.` or `..`
    pub path: PathBuf,
    /// the image's name in it; absent where it holds only one
    pub image: Option<String>,
}

impl Archived {
    pub(super) fn parse(text: &str) -> Result<Archived, String> {
        let (path, image) = match text.split_once(':') {
            Some((_, "")) => return Err("nothing follows the last ':'".into()),
            Some((path, image)) => (path, Some(image.to_owned())),
            None => (text, None),
        };
        Ok(Archived { path: plain_path(path)?, image })
    }

    /// `name` of an image called `repository/name:tag`.
    pub(super) fn docker_name(&self) -> Option<&str> {
        let image = self.image.as_deref()?;
        let last = image.rsplit('/').next()?;
        let (name, _tag) = last.split_once([':', '@']).filter(|(name, _)| !name.is_empty())?;
        Some(name)
    }
}

/// Absolute, and `..` taken away as text, so that one folder has one name; a path over links should be written out.
pub(super) fn plain_path(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() {
        return Err("it names no file".into());
    }
    let mut plain = PathBuf::new();
    for part in std::path::absolute(path).map_err(|error| error.to_string())?.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    Ok(plain)
}

impl fmt::Display for Archived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.image.as_ref().map_or(Ok(()), |image| write!(f, ":{image}"))
    }
}
