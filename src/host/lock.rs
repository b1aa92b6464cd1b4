//! The one lock that every changing command takes, so that two never work on a machine at once.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Local};
use rustix::fs::{FlockOperation, flock};

use super::dir::Folder;
use crate::model::{
    fault::{Code, Fault},
    layout,
};

const POLL: Duration = Duration::from_millis(100);

/// `ROOT/var/lib/sysctr`, root's alone: where it really is, with links of that tree followed inside it.
pub fn state_dir(root: &Path) -> PathBuf {
    let folder = Folder::root(root).and_then(|root| root.open(layout::STATE)).ok().flatten();
    folder.and_then(|folder| folder.real_path().ok()).unwrap_or_else(|| root.join(layout::STATE))
}

/// Proof that this process alone changes what lies below its root. The kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct StoreLock {
    root: PathBuf,
    file: File,
}

impl StoreLock {
    /// Takes the lock, waiting up to `patience` for whoever holds it; says on standard error whom it waits for.
    pub fn acquire(root: &Path, verb: &str, patience: Duration) -> Result<StoreLock> {
        match StoreLock::wait(root, verb, patience)? {
            Ok(lock) => Ok(lock),
            Err(holder) => {
                let message = format!("{} is locked by {holder}", state_dir(root).display());
                bail!(Fault::new(Code::Failed, message).hint(match patience.as_secs() {
                    0 => "nothing was changed; --wait waits until it is done".to_owned(),
                    seconds => format!("nothing was changed; it was not done within {seconds} s"),
                }))
            }
        }
    }

    /// Takes the lock if nobody holds it.
    pub fn try_acquire(root: &Path, verb: &str) -> Result<Option<StoreLock>> {
        Ok(StoreLock::wait(root, verb, Duration::ZERO)?.ok())
    }

    /// The lock, or who still held it at the end.
    fn wait(root: &Path, verb: &str, patience: Duration) -> Result<Result<StoreLock, String>> {
        let folder = Folder::root(root)?.create(layout::STATE, 0o700)?.real_path()?;
        let path = folder.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        // none: as long as it takes
        let deadline = Instant::now().checked_add(patience);
        let mut told = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
            }
            let holder = holder(&mut file);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Err(holder));
            }
            if !told {
                eprintln!("waiting for {holder}");
                told = true;
            }
            std::thread::sleep(POLL);
        }
        let note = || -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(&file, "{} {verb} {}", std::process::id(), Local::now().timestamp())
        };
        // it only serves another's message: a full disk is no reason to refuse `remove` or `prune`
        let mut note = note;
        let _ = note();
        Ok(Ok(StoreLock { root: root.to_owned(), file }))
    }

    /// The root that it holds.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        // Only a killed one leaves its name behind.
        let _ = self.file.set_len(0);
    }
}

/// Who holds it, and since when, as far as it was noted.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(256).read_to_string(&mut text));
    let words: Vec<&str> = text.split_whitespace().collect();
    let since = words.get(2).and_then(|word| DateTime::from_timestamp(word.parse().ok()?, 0));
    let since = since.map(|since| format!(", since {}", since.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S")));
    match (read, &words[..]) {
        (Ok(_), [pid, verb, ..]) => {
            let (pid, verb) = (pid.escape_debug(), verb.escape_debug());
            format!("`sysctr {verb}` (process {pid}{})", since.unwrap_or_default())
        }
        _ => "another sysctr".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_holds_it_and_gets_it_afterwards() {
        let root = tempfile::tempdir().expect("a folder");
        let first = StoreLock::acquire(root.path(), "pull", Duration::ZERO).expect("free");
        let error = StoreLock::acquire(root.path(), "prune", Duration::ZERO).expect_err("held").to_string();
        assert!(error.contains(&format!("`sysctr pull` (process {}, since 2", std::process::id())), "{error}");
        let waiting = std::thread::spawn({
            let root = root.path().to_owned();
            move || StoreLock::acquire(&root, "prune", Duration::from_secs(20)).map(drop)
        });
        std::thread::sleep(Duration::from_millis(250));
        drop(first);
        waiting.join().expect("no panic").expect("freed");
    }

    #[test]
    fn a_dead_holder_does_not_block() {
        let root = tempfile::tempdir().expect("a folder");
        drop(StoreLock::acquire(root.path(), "pull", Duration::ZERO).expect("free"));
        let path = state_dir(root.path()).join("lock");
        std::fs::write(&path, "1 install\n").expect("written");
        let mut child = std::process::Command::new("flock").arg(&path).args(["sleep", "60"]).spawn().expect("flock(1)");
        std::thread::sleep(Duration::from_millis(300));
        let error = StoreLock::acquire(root.path(), "prune", Duration::ZERO).expect_err("held").to_string();
        assert!(error.contains("`sysctr install` (process 1)"), "{error}");
        // flock(1) runs the command as its child, which holds the lock too
        let group = std::process::Command::new("pkill").args(["-KILL", "-P", &child.id().to_string()]).status();
        assert!(group.expect("pkill(1)").success());
        child.kill().ok();
        child.wait().expect("reaped");
        StoreLock::acquire(root.path(), "prune", Duration::from_secs(5)).expect("the dead hold nothing");
    }
}
