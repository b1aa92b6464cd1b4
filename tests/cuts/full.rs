//! The disk becomes full at some moment of an operation: it is done all the same, or it fails, and everything is as before. A rollback
//! may be left half-way (6), and so may an uninstall and the recovery of what is no update: with room they are finished or undone.

use std::{
    fs::{self, File},
    io::Write,
};

use crate::{
    common::{
        host::{Host, Tree, difference},
        run,
    },
    copy,
    matrix::{Origin, Whole, memory},
    operation::Operation,
    program::Program,
    tracer,
};

const OPTIONS: &str = "size=16m,nr_inodes=3000,mode=755";
const FILLER: &str = "filler";

/// What came of it.
#[derive(Default)]
pub struct Count {
    pub boundaries: usize,
    pub filled: usize,
    pub failed: usize,
    pub wrong: Vec<String>,
}

/// A tree on a small file system of its own.
struct Small(Host);

impl Small {
    fn new() -> Small {
        let host = Host::below(&memory());
        run("mount", &["-t", "tmpfs", "-o", OPTIONS, "small", host.root().to_str().unwrap()]).unwrap();
        Small(host)
    }

    fn reset(&self, origin: &Origin) {
        for entry in fs::read_dir(self.0.root()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        copy(&origin.host.root().join("."), &self.0.root());
    }

    /// Not a block and not an inode is free.
    fn fill(&self) {
        let folder = self.0.at(FILLER);
        fs::create_dir(&folder).unwrap();
        let mut file = File::create(folder.join("blocks")).unwrap();
        for size in [1 << 20, 4096] {
            let zeros = vec![0; size];
            while file.write_all(&zeros).is_ok() {}
        }
        let _ = (0..).take_while(|number: &u32| File::create(folder.join(number.to_string())).is_ok()).count();
    }

    fn make_room(&self) {
        fs::remove_dir_all(self.0.at(FILLER)).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &[self.0.root().to_str().unwrap()]).unwrap();
    }
}

/// Fills it before each call of the operation, or before `most` of them. A recovery begins with a full disk: where it goes back to what ran, it has to go through.
pub fn fill_everywhere(operation: &Operation, most: Option<usize>, seed: usize) -> Count {
    let origin = Origin::new(operation);
    let whole = origin.whole(operation);
    let small = Small::new();
    let run_with = |before: &mut dyn FnMut(usize)| {
        small.reset(&origin);
        tracer::run_with(Program::shipped().command(&small.0.root(), &origin.verb), before)
    };
    let boundaries = run_with(&mut |_| ()).places.len();
    let most = if operation.is_recovery() { Some(1) } else { most };
    let step = most.map_or(1, |most| boundaries.div_ceil(most).max(1));
    let first = if operation.is_recovery() { 0 } else { seed % step };
    let mut count = Count { boundaries, ..Count::default() };
    for at in (first..boundaries).step_by(step) {
        let done = run_with(&mut |number| {
            if number == at {
                small.fill()
            }
        });
        let place = format!("{} on a disk that is full from call {at} on, {}", operation.name, done.places[at]);
        count.filled += 1;
        count.failed += usize::from(done.code != Some(0));
        if let Err(why) = small.found(operation, &whole, done.code) {
            count.wrong.push(format!("{place}: {why}"));
        }
    }
    count
}

impl Small {
    /// With room again, and nothing recovered.
    fn found(&self, operation: &Operation, whole: &Whole, code: Option<i32>) -> Result<(), String> {
        // nothing changed after the moment that was chosen
        if self.0.at(FILLER).exists() {
            self.make_room();
        }
        let ends: Vec<&Tree> = match (code, &whole.before) {
            (Some(0), _) => vec![&whole.after],
            // 4: there is no room to keep the state
            (Some(1 | 4), Some(before)) => vec![before],
            // left half-way: the next command that has room goes on or back
            (Some(6), Some(before)) => {
                self.0.does(&["recover"]);
                vec![before, &whole.after]
            }
            (Some(6), None) if !operation.goes_back() => {
                self.0.does(&["recover"]);
                vec![&whole.after]
            }
            _ => return Err(format!("it ended with {code:?}")),
        };
        let tree = self.0.tree();
        let unlike: Vec<String> = ends.iter().map(|end| difference(end, &tree).join("\n")).collect();
        if !unlike.iter().any(String::is_empty) {
            return Err(format!("it ended with {code:?}, and\n{}", unlike.join("\nor\n")));
        }
        let verified = self.0.sysctr(&["verify"]);
        if verified.code == 0 { Ok(()) } else { Err(format!("{}{}", verified.err, verified.out)) }
    }
}
