//! State that is kept beside a deployment when a later one has it in another format, and that is put back with it.
//!
//! ```text
//! update    1 to 2   copied to 1/.state.new, synced → 1/state → `active`      failed: folders of 1/state are back → `active`
//! rollback  2 to 1   2/.state.new made → `active` → each folder to 2/.state.new, that of 1/state in its place → 2/state
//! ```
//! In the folders of deployments. Going back takes renames, and space only where the state lies on another file system than
//! /var/lib/sysctr. Each step can be done again, and a folder in `state` is one that is not back yet. The service is down meanwhile.

use anyhow::{Context, Result, ensure};
use rustix::{
    fs::{self, FileType},
    io::Errno,
};

use super::{
    copies::{self, Size},
    dir::Folder,
    lock::StoreLock,
    owned, state,
};
use crate::model::{
    deployment::{Deployment, OwnedFolder, Record, to_text},
    layout::{self, KEPT_STATE},
    name::ContainerName,
    snapshot::{KeptFolder, KeptState},
};

const RECORD: &str = "state.json";
/// While it is made; in a deployment that may have to make way, the place for its own state.
const NEW: &str = ".state.new";
/// A folder that was copied back and goes.
const DONE: &str = ".done";
/// A copy that is not whole.
const PART: &str = ".part";
/// What is to stay free, of blocks for the copy's own folders and for everybody else.
const MARGIN: u64 = 16 << 20;

/// State that can be kept.
pub struct Plan {
    folders: Vec<KeptFolder>,
}

/// The state of a deployment in force, if it can be kept beside it; else why not, as the end of a sentence. Of what takes space, `limit`
/// bytes may be copied.
pub fn plan(root: &Folder, deployment: &Deployment, limit: u64) -> Result<Result<Plan, String>> {
    let name = &deployment.name;
    let store = root.open(&layout::deployment(name, deployment.id))?.context("it has no folder")?;
    let (mut folders, mut copied) = (Vec::new(), 0);
    for path in outermost(&deployment.state) {
        let Some(folder) = root.open(&path[1..])? else { continue };
        if owned::is_foreign(root, name, path)? {
            return Ok(Err(format!("{path} does not bear its name")));
        }
        let size = match copies::measure(&folder) {
            Ok(size) => size,
            Err(error) => return Ok(Err(format!("{error:#}"))),
        };
        if copies::can_share(&folder, &store)? == Some(false) {
            copied += size.bytes;
        }
        folders.push(KeptFolder { path: path.to_owned(), bytes: size.bytes });
    }
    let free = fs::statvfs(store.path()).context("asking for free space")?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    let shown = crate::model::size::shown;
    if copied > limit {
        let (copied, limit) = (shown(copied), shown(limit));
        return Ok(Err(format!("its state is {copied}, and [update] snapshot lets {limit} be copied")));
    }
    if copied > 0 && copied + MARGIN > free {
        let (copied, free) = (shown(copied), shown(free));
        return Ok(Err(format!("its state is {copied}, and {free} are free in /{}", layout::STATE)));
    }
    Ok(Ok(Plan { folders }))
}

/// What is kept beside a deployment.
pub fn of(root: &Folder, name: &ContainerName, id: u32) -> Result<Option<KeptState>> {
    let folder = root.open(&layout::deployment(name, id))?;
    let kept = folder.map(|folder| folder.open(KEPT_STATE)).transpose()?.flatten();
    Ok(kept.map(|kept| state::record(&kept, RECORD)).transpose()?.flatten())
}

/// Keeps the state beside `id`, synced, before `next` takes its place.
pub fn take(root: &Folder, _lock: &StoreLock, name: &ContainerName, id: u32, next: u32, plan: Plan) -> Result<()> {
    forget(root, name, id)?;
    let deployment = root.open(&layout::deployment(name, id))?.context("it has no folder")?;
    let fresh = deployment.synced_together()?.create(NEW, 0o700)?;
    let copied = || -> Result<()> {
        for (place, folder) in plan.folders.iter().enumerate() {
            let from = root.open(&folder.path[1..])?.with_context(|| format!("{} is gone", folder.path))?;
            copies::copy(&from, &fresh.create(&place.to_string(), 0o700)?)?;
        }
        write_record(&fresh, plan.folders)?;
        fresh.sync_all()?;
        // made now, because going back may find a full disk
        root.create(&format!("{}/{NEW}", layout::deployment(name, next)), 0o700)?;
        deployment.rename(NEW, KEPT_STATE)
    };
    copied().inspect_err(|_| drop(deployment.remove_tree(NEW))).context("keeping its state")
}

/// Before a rollback from `from` to `to`, where state is kept: makes the place for that of `from`.
pub fn prepare(root: &Folder, _lock: &StoreLock, name: &ContainerName, from: u32, to: u32) -> Result<()> {
    let Some(kept) = of(root, name, to)? else { return Ok(()) };
    sweep_one(root, name, from)?;
    let aside = root.synced_together()?.create(&format!("{}/{NEW}", layout::deployment(name, from)), 0o700)?;
    let prepared = || -> Result<()> {
        let mut folders = Vec::new();
        for (place, folder) in kept.folders.iter().enumerate() {
            let live = ours(root, name, &folder.path)?;
            let Size { bytes, .. } = copies::measure(&live)?;
            folders.push(KeptFolder { path: folder.path.clone(), bytes });
            if !is_beside(root, &folder.path, &aside)? {
                // it cannot be moved there
                copies::copy(&live, &aside.create(&place.to_string(), 0o700)?)?;
            }
        }
        write_record(&aside, folders)?;
        aside.sync_all()
    };
    prepared().inspect_err(|_| drop(sweep_one(root, name, from))).context("keeping its state")
}

/// Puts the state back that is kept beside `to`; what is there goes to `from`. Can be done again.
pub fn put_back(root: &Folder, name: &ContainerName, from: u32, to: u32) -> Result<()> {
    let Some(to) = root.open(&layout::deployment(name, to))? else { return Ok(()) };
    let Some(kept) = to.open(KEPT_STATE)? else { return Ok(()) };
    let from = root.create(&layout::deployment(name, from), 0o755)?;
    if let Some(record) = state::record::<KeptState>(&kept, RECORD)? {
        for (place, folder) in record.folders.iter().enumerate() {
            let putting = || format!("putting {} back as it was", folder.path);
            put_one_back(root, name, &folder.path, &kept, &place.to_string(), &from).with_context(putting)?;
        }
    }
    if from.kind(&format!("{NEW}/{RECORD}"))?.is_some() {
        from.remove_tree(KEPT_STATE)?;
        from.rename(NEW, KEPT_STATE)?;
    }
    to.remove_tree(KEPT_STATE)?;
    to.sync()
}

/// Drops what is kept beside a deployment, and what was being kept.
pub fn forget(root: &Folder, name: &ContainerName, id: u32) -> Result<()> {
    sweep_one(root, name, id)?;
    let Some(folder) = root.open(&layout::deployment(name, id))? else { return Ok(()) };
    if folder.kind(KEPT_STATE)?.is_none() {
        return Ok(());
    }
    // in one step: half of it is no state
    folder.rename(KEPT_STATE, NEW)?;
    sweep_one(root, name, id)
}

/// Drops what no operation needs any more.
pub fn sweep(root: &Folder, name: &ContainerName) -> Result<()> {
    state::deployment_ids(root, name)?.into_iter().try_for_each(|id| sweep_one(root, name, id))
}

fn sweep_one(root: &Folder, name: &ContainerName, id: u32) -> Result<()> {
    let Some(folder) = root.open(&layout::deployment(name, id))? else { return Ok(()) };
    if folder.kind(NEW)?.is_none() {
        return Ok(());
    }
    folder.remove_tree(NEW)?;
    folder.sync()
}

/// One folder: the live one goes to the deployment `from`, the kept one in its place.
fn put_one_back(
    root: &Folder,
    name: &ContainerName,
    path: &str,
    kept: &Folder,
    place: &str,
    from: &Folder,
) -> Result<()> {
    if kept.kind(place)?.is_none() {
        return kept.remove_tree(DONE);
    }
    let aside = from.create(NEW, 0o700)?;
    let (parent, last) = split(path);
    let parent = root.open(parent)?.context("its parent is not there")?;
    if aside.kind(place)?.is_none() {
        ours(root, name, path)?;
    }
    let moved = || -> rustix::io::Result<()> {
        if fs::statat(&aside, place, fs::AtFlags::SYMLINK_NOFOLLOW).err() == Some(Errno::NOENT) {
            fs::renameat(&parent, last, &aside, place)?;
        }
        fs::renameat(kept, place, &parent, last)
    };
    let is_link = parent.kind(last)? == Some(FileType::Symlink);
    match if is_link { Err(Errno::XDEV) } else { moved() } {
        Ok(()) => {
            aside.sync()?;
            parent.sync()?;
            kept.sync()
        }
        // A disk or subvolume of its own, or on another disk: its content is changed.
        Err(Errno::XDEV | Errno::BUSY | Errno::NOTEMPTY | Errno::EXIST) => {
            let live = ours(root, name, path)?;
            if aside.kind(RECORD)?.is_some() && aside.kind(place)?.is_none() {
                aside.remove_tree(PART)?;
                copies::copy(&live, &aside.synced_together()?.create(PART, 0o700)?)?;
                aside.sync_all()?;
                aside.rename(PART, place)?;
            }
            copies::empty(&live)?;
            copies::copy(&kept.open(place)?.context("it is gone")?, &live)?;
            live.sync_all()?;
            // in one step: half of it must not be copied again
            kept.rename(place, DONE)?;
            kept.remove_tree(DONE)
        }
        Err(error) => Err(error.into()),
    }
}

/// The container's own folder of the host; not the place where its disk is to be mounted.
fn ours(root: &Folder, name: &ContainerName, path: &str) -> Result<Folder> {
    let folder = root.open(&path[1..])?.with_context(|| format!("{path} is not there"))?;
    ensure!(!owned::is_foreign(root, name, path)?, "{path} does not bear the name of {name}; is its disk mounted?");
    Ok(folder)
}

/// Whether a folder can be renamed to another one.
fn is_beside(root: &Folder, path: &str, other: &Folder) -> Result<bool> {
    let (parent, last) = split(path);
    let Some(parent) = root.open(parent)? else { return Ok(false) };
    let stat = fs::statat(&parent, last, fs::AtFlags::SYMLINK_NOFOLLOW)?;
    let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let device = |folder: &Folder| fs::fstat(folder).map(|stat| stat.st_dev);
    Ok(is_folder && stat.st_dev == device(other)? && device(&parent)? == device(other)?)
}

fn split(path: &str) -> (&str, &str) {
    path[1..].rsplit_once('/').unwrap_or((".", &path[1..]))
}

/// Those that are not below another one.
fn outermost(folders: &[OwnedFolder]) -> Vec<&str> {
    let below = |path: &str, other: &str| path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
    let paths = || folders.iter().map(|folder| folder.path.as_str());
    paths().filter(|path| !paths().any(|other| below(path, other))).collect()
}

fn write_record(folder: &Folder, folders: Vec<KeptFolder>) -> Result<()> {
    let created = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let record = KeptState { version: KeptState::VERSION, created, folders };
    folder.write_new(RECORD, &to_text(&record)?, 0o600)
}
