//! Looks at the runtime that an admin chose in the bundled one's place: systemd will run it as root.

use std::{os::fd::AsFd, path::Path};

use anyhow::Result;
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlink, stat},
    io::Errno,
};

use super::dir::Folder;
use crate::model::{
    fault::{Code, Fault},
    other_runtime::RuntimePath,
};

/// Refuses what is no program that only root can change, below this root.
pub fn check(root: &Folder, runtime: &RuntimePath) -> Result<()> {
    let refused = |why: String| Fault::new(Code::Failed, format!("the runtime {runtime} {why}"));
    let below = runtime.as_str().trim_start_matches('/');
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = match openat2(root.as_fd(), below, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => {
            let hint = "install its package first, or leave --runtime out for the bundled one";
            return Err(refused("is not there".to_owned()).hint(hint).into());
        }
        Err(error) => return Err(refused(format!("cannot be opened: {error}")).into()),
    };
    let found = fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(refused("is no regular file".to_owned()).into());
    }
    if found.st_mode & 0o111 == 0 {
        return Err(refused("is not executable".to_owned()).into());
    }
    if let Some(why) = changeable(&found) {
        return Err(refused(format!("{why}: whoever can change it would be root")).into());
    }
    // Where links end, not where they begin: whoever can write there can put another file in its place.
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    let real = readlink(format!("/proc/self/fd/{number}"), Vec::new())?;
    let real = real.to_string_lossy().into_owned();
    let top = root.path().canonicalize()?;
    for folder in Path::new(&real).ancestors().skip(1).take_while(|folder| folder.starts_with(&top)) {
        if let Some(why) = changeable(&stat(folder)?) {
            let message = format!("lies in {}, which {why}: whoever can change it would be root", folder.display());
            return Err(refused(message).into());
        }
    }
    Ok(())
}

fn changeable(found: &Stat) -> Option<&'static str> {
    let sticky = FileType::from_raw_mode(found.st_mode) == FileType::Directory && found.st_mode & 0o1000 != 0;
    match (found.st_uid, found.st_mode & 0o022) {
        (0, 0) => None,
        (0, _) if sticky => None,
        (0, _) => Some("others than root can write to"),
        _ => Some("does not belong to root"),
    }
}
