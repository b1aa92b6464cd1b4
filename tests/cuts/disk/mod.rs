//! Power cuts on ext4, xfs and btrfs: one operation is recorded on a device of our own, and the disk is put together again as it was at
//! each of its flushes. There it is mounted, recovered and looked at; nothing boots.

mod device;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use device::{Device, Entry};

use crate::{
    common::{
        host::{Host, Outcome},
        run,
    },
    copy,
    matrix::{Origin, Whole, memory},
    operation::Operation,
    program::Program,
    random::Random,
    tracer,
};

/// A file system, and how it is made and mounted. None of them may give blocks back: that would be no write.
pub struct Kind {
    pub name: &'static str,
    make: &'static [&'static str],
    options: &'static str,
}

/// Those that people have.
pub static KINDS: [Kind; 3] = [
    Kind { name: "ext4", make: &["mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0"], options: "nodiscard" },
    // A mount namespace that somebody makes meanwhile holds the one before for a moment.
    Kind { name: "xfs", make: &["mkfs.xfs", "-q", "-K"], options: "nodiscard,nouuid" },
    Kind { name: "btrfs", make: &["mkfs.btrfs", "-q", "-K"], options: "nodiscard" },
];

/// Those of them whose timer one can do the work of: btrfs writes the names of a file that is synced, and no others.
pub fn with_a_timer() -> &'static [Kind] {
    &KINDS[..2]
}

/// xfs takes no less.
const SIZE: u64 = 320 << 20;

/// A folder that something is mounted on.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &Kind, device: &Path, folder: &Path) -> Result<Mounted, String> {
        let words = ["-t", kind.name, "-o", kind.options, device.to_str().unwrap(), folder.to_str().unwrap()];
        run("mount", &words).map_err(|error| format!("{error:#}"))?;
        Ok(Mounted(folder.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let umount = || run("umount", &[self.0.to_str().unwrap()]);
        // A program that another test is just starting has our files open until its execve(2).
        for _ in 0..50 {
            if umount().is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        umount().unwrap();
    }
}

/// A disk as a file, on a loop device while it is looked at.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path) -> Loop {
        Loop(run("losetup", &["--find", "--show", file.to_str().unwrap()]).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.0.to_str().unwrap()]).unwrap();
        // A btrfs would be taken for the other one of the same name, and an older one than that refused.
        Command::new("btrfs").args(["device", "scan", "--forget"]).output().ok();
    }
}

/// What one operation wrote on one file system.
pub struct Recording<'a> {
    kind: &'a Kind,
    operation: &'a Operation,
    whole: &'a Whole,
    folder: tempfile::TempDir,
    log: Vec<Entry>,
    /// Where in the log the operation had ended.
    end: usize,
}

/// What came of replaying.
#[derive(Default, Debug)]
pub struct Count {
    pub flushes: usize,
    pub cuts: usize,
    /// What was neither the old nor the new, each with the place and the reason.
    pub wrong: Vec<String>,
}

/// When the file system writes names that it was not asked to write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// It has no time to.
    Never,
    /// Before each call: names, without the data of files that nobody synced. ext4 and xfs do that for whoever syncs another file.
    Always,
}

impl<'a> Recording<'a> {
    /// Runs the operation on a device that records.
    pub fn make(
        kind: &'a Kind,
        operation: &'a Operation,
        origin: &Origin,
        whole: &'a Whole,
        program: &Program,
        timer: Timer,
    ) -> Recording<'a> {
        let folder = tempfile::tempdir_in(memory()).unwrap();
        let (before, live) = (folder.path().join("before"), folder.path().join("live"));
        File::create(&before).unwrap().set_len(SIZE).unwrap();
        run(kind.make[0], &[&kind.make[1..], &[before.to_str().unwrap()]].concat()).unwrap();
        let place = folder.path().join("root");
        fs::create_dir(&place).unwrap();
        {
            let device = Loop::new(&before);
            let _mounted = Mounted::new(kind, &device.0, &place).unwrap();
            copy(&origin.host.root(), &place.join("root"));
        }
        sparse(&before, &live);
        let device = Device::of(&live);
        let end = {
            let _mounted = Mounted::new(kind, device.path(), &place).unwrap();
            let begun = device.length();
            let mut command = program.command(&place.join("root"), &origin.verb);
            if timer == Timer::Always {
                let mut another = File::create(place.join("another")).unwrap();
                let done = tracer::run_with(command, &mut |_| {
                    another.write_all(b"x").and_then(|()| another.sync_all()).unwrap();
                });
                assert_eq!(done.code, Some(0), "{} on {}", operation.name, kind.name);
            } else {
                let outcome = Outcome::of(&command.output().unwrap());
                assert_eq!(outcome.code, 0, "{} on {}: {}", operation.name, kind.name, outcome.err);
            }
            let end = device.length();
            // Without its only sync an operation ends before anything is written.
            assert!(end > begun || program.lacks_something(), "nothing was written");
            end
        };
        let mut log = device.log();
        fs::remove_file(live).unwrap();
        log.truncate(end);
        Recording { kind, operation, whole, folder, log, end }
    }

    /// Puts the disk together as it was when each flush, or `most` of them, had ended, when it had begun and some of what was written
    /// since the one before was lost, and when the operation had just ended.
    pub fn cut(&self, most: Option<usize>, seed: usize) -> Count {
        let step = most.map_or(1, |most| self.flushes().len().div_ceil(most).max(1));
        let mut count = Count::default();
        self.cut_at(&mut count, seed, false, |number| number % step == seed % step);
        self.cut_behind(&mut count, seed);
        count
    }

    /// The first thing that is wrong around one of these parts of the way through all flushes, or at the end.
    pub fn first_wrong(&self, seed: usize, parts: &[f64]) -> Option<String> {
        let mut count = Count::default();
        let all = self.flushes().len() as f64;
        // No file system makes one flush of each sync; what is not synced by itself is by one of the next.
        let is_near = |number: f64, part: f64| (all * (part - 0.05)..=all * (part + 0.1) + 3.0).contains(&number);
        self.cut_at(&mut count, seed, true, |number| parts.iter().any(|part| is_near(number as f64, *part)));
        if count.wrong.is_empty() {
            self.cut_behind(&mut count, seed);
        }
        count.wrong.pop()
    }

    /// The first thing that is wrong anywhere.
    pub fn any_wrong(&self, seed: usize) -> Option<String> {
        let mut count = Count::default();
        self.cut_at(&mut count, seed, true, |_| true);
        count.wrong.pop()
    }

    /// Where in the log they are.
    fn flushes(&self) -> Vec<usize> {
        self.log.iter().enumerate().filter(|(_, one)| matches!(one, Entry::Flush)).map(|(at, _)| at).collect()
    }

    /// Cuts at the flushes whose number is chosen, or until the `first` one at which something is wrong.
    fn cut_at(&self, count: &mut Count, seed: usize, first: bool, chosen: impl Fn(usize) -> bool) {
        let mut random = Random::new(seed);
        let flushes = self.flushes();
        count.flushes = flushes.len();
        let disk = Disk::new(self);
        let mut applied = 0;
        for (number, flush) in flushes.iter().enumerate() {
            if first && !count.wrong.is_empty() {
                return;
            }
            // of what was not flushed, some is there
            let some: BTreeSet<usize> = (applied..*flush).filter(|_| random.below(2) == 0).collect();
            if chosen(number) {
                let [all, there] = [flush - applied, some.len()];
                let place = format!("flush {number} of {} begun, {there} of {all} writes there", flushes.len());
                count.look(self.look(&disk, |at| some.contains(&at), &place, false));
            }
            disk.apply(applied..*flush);
            applied = *flush;
            if chosen(number) {
                count.look(self.look(&disk, |_| false, &format!("flush {number} of {} ended", flushes.len()), false));
            }
        }
    }

    /// Cuts when the operation had ended. Whoever was told that it is done loses nothing: only what was flushed is there.
    fn cut_behind(&self, count: &mut Count, seed: usize) {
        let mut random = Random::new(seed);
        let flushed = self.flushes().last().map_or(0, |last| *last);
        let disk = Disk::new(self);
        disk.apply(0..flushed);
        count.look(self.look(&disk, |_| false, "it had ended", true));
        let some: BTreeSet<usize> = (flushed..self.end).filter(|_| random.below(2) == 0).collect();
        count.look(self.look(&disk, |at| some.contains(&at), "it had ended, with some more writes", true));
    }

    fn apply(&self, file: &File, at: usize) {
        if let Entry::Write { offset, data } = &self.log[at] {
            file.write_all_at(data, *offset).unwrap();
        }
    }

    /// Mounts a copy of the disk with more writes, recovers and looks; what is wrong.
    fn look(&self, disk: &Disk<'_>, more: impl Fn(usize) -> bool, place: &str, done: bool) -> Result<(), String> {
        let cut = self.folder.path().join("cut");
        sparse(&disk.path, &cut);
        let file = File::options().write(true).open(&cut).unwrap();
        (0..self.end).filter(|at| more(*at)).for_each(|at| self.apply(&file, at));
        drop(file);
        let found = self.look_at(&cut, done);
        fs::remove_file(&cut).unwrap();
        found.map_err(|why| format!("{} on {}, {place}: {why}", self.operation.name, self.kind.name))
    }

    fn look_at(&self, disk: &Path, done: bool) -> Result<(), String> {
        let host = Host::below(self.folder.path());
        let device = Loop::new(disk);
        let place = host.work.path().join("mounted");
        fs::create_dir(&place).unwrap();
        let mounted = Mounted::new(self.kind, &device.0, &place)?;
        fs::remove_dir_all(host.root()).unwrap();
        std::os::unix::fs::symlink(place.join("root"), host.root()).unwrap();
        let found = self.whole.found(&host, done);
        drop(mounted);
        found
    }
}

/// A disk that is put together, at first as it was before the operation.
struct Disk<'a> {
    recording: &'a Recording<'a>,
    path: PathBuf,
    file: File,
}

impl<'a> Disk<'a> {
    fn new(recording: &'a Recording<'a>) -> Disk<'a> {
        let path = recording.folder.path().join("disk");
        sparse(&recording.folder.path().join("before"), &path);
        let file = File::options().write(true).open(&path).unwrap();
        Disk { recording, path, file }
    }

    /// These parts of the log reached it.
    fn apply(&self, log: Range<usize>) {
        log.for_each(|at| self.recording.apply(&self.file, at));
    }
}

impl Count {
    fn look(&mut self, found: Result<(), String>) {
        self.cuts += 1;
        self.wrong.extend(found.err());
    }
}

fn sparse(from: &Path, to: &Path) {
    run("cp", &["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()]).unwrap();
}
