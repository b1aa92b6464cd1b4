//! The names that the store has for its commits. libostree changes them one by one, each by a temporary file beside it that a kill leaves
//! there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::{
    controls,
    ostree::{IMAGE_PREFIX, NO_CANCEL, Store},
};
use crate::model::reference::ImageSource;

impl Store {
    pub(super) fn refs(&self) -> Result<BTreeMap<String, String>> {
        let refs = self.repo.list_refs(None, NO_CANCEL).context("listing the store's images")?;
        let whole = refs.into_iter().filter(|(name, _)| !is_temporary(name.rsplit('/').next().unwrap_or_default()));
        Ok(whole.collect())
    }

    pub(super) fn rev(&self, name: &str) -> Result<Option<String>> {
        let commit = self.repo.resolve_rev(name, true).with_context(|| format!("looking for {name} in the store"))?;
        Ok(commit.map(String::from))
    }

    /// Whether another process has taken the name away meanwhile, and with it what it stood for.
    pub(super) fn is_gone(&self, name: &str, commit: &str) -> bool {
        self.rev(name).is_ok_and(|found| found.as_deref() != Some(commit))
    }

    /// Lets these names stand for a commit, each group once the one before is on the disk, the first once all objects are. A transaction
    /// of libostree would sync each of 256 folders.
    pub(super) fn set_refs(&self, groups: &[&[String]], commit: &str) -> Result<()> {
        self.sync()?;
        for names in groups.iter().filter(|names| !names.is_empty()) {
            for name in *names {
                self.repo
                    .set_ref_immediate(None, name, Some(commit), NO_CANCEL)
                    .with_context(|| format!("noting {name}"))?;
            }
            self.sync()?;
        }
        Ok(())
    }

    /// Takes no room: whoever makes room begins with a full disk. It is on the disk before any object goes.
    pub(super) fn remove_refs(&self, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            self.repo.set_ref_immediate(None, name, None, NO_CANCEL).with_context(|| format!("forgetting {name}"))?;
        }
        if controls::without_sync("references before objects") {
            return Ok(());
        }
        self.sync_file_system()
    }

    /// Makes what was changed in the store outlive a power cut.
    #[cfg_attr(feature = "controls", track_caller)]
    fn sync(&self) -> Result<()> {
        if controls::without_sync("file system") { Ok(()) } else { self.sync_file_system() }
    }

    fn sync_file_system(&self) -> Result<()> {
        let store = std::fs::File::open(&self.path)?;
        rustix::fs::syncfs(store).with_context(|| format!("syncing {}", self.path.display()))
    }

    /// Drops references whose image was still to be named, or is not named any more, when that was cut short.
    pub(super) fn untag_imageless(&self, needed: &BTreeSet<String>) -> Result<()> {
        let refs = self.refs()?;
        let images: BTreeSet<&String> =
            refs.iter().filter(|(name, _)| name.starts_with(IMAGE_PREFIX)).map(|(_, commit)| commit).collect();
        let imageless = refs.iter().filter(|(name, commit)| {
            ImageSource::from_tag_ref(name).is_some() && !images.contains(commit) && !needed.contains(*commit)
        });
        let names: Vec<String> = imageless.map(|(name, _)| name.clone()).collect();
        self.remove_refs(&names)
    }

    pub(super) fn clear_unfinished_refs(&self) -> Result<()> {
        let mut folders = vec![self.path.join("refs/heads")];
        while let Some(folder) = folders.pop() {
            let clearing = || format!("clearing {}", folder.display());
            for entry in std::fs::read_dir(&folder).with_context(clearing)? {
                let entry = entry.with_context(clearing)?;
                if entry.file_type().with_context(clearing)?.is_dir() {
                    folders.push(entry.path());
                } else if is_temporary(&entry.file_name().to_string_lossy()) {
                    std::fs::remove_file(entry.path()).with_context(clearing)?;
                }
            }
        }
        Ok(())
    }
}

/// libostree's `tmp.XXXXXX`. No reference of ours is as short: it has at least a colon or a slash, which takes three signs.
fn is_temporary(name: &str) -> bool {
    name.strip_prefix("tmp.")
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}
