//! What shows that these tests can fail: syncs that are left out, and a commit that is two steps instead of one.

use std::{collections::BTreeMap, fs};

use crate::{
    common::host::Host,
    copy,
    disk::{self, Timer},
    matrix,
    operation::{OPERATIONS, Operation},
    program::Program,
    tracer::{self, Cut},
};

/// Syncs of which some are not noticed on these file systems, by how their names begin, and why they are there.
pub const UNNOTICED: &[(&str, &str)] = &[
    (
        "references before objects",
        "a reference has to go before its objects: ext4, xfs and btrfs keep that order anyway, rename(2) and unlink(2) promise none",
    ),
    (
        "folder ",
        "ext4 and xfs write every new and every removed name with the next sync of anything, btrfs those of a file that was synced, \
         too: where such a sync follows, only rename(2) and unlink(2) ask for one of the folder",
    ),
];

/// A sync of the program.
pub struct Sync {
    /// What is synced, and where in the source.
    pub name: String,
    pub operations: Vec<&'static str>,
    /// The first wrong thing that was found without it.
    pub noticed: Option<String>,
}

fn operation(name: &str) -> &'static Operation {
    OPERATIONS.iter().find(|operation| operation.name == name).unwrap()
}

/// Kills an operation between the two steps; what is wrong then.
pub fn split_commit(name: &str) -> Option<String> {
    let operation = operation(name);
    let origin = matrix::Origin::new(operation);
    let whole = origin.whole(operation);
    let program = Program::with("SYSCTR_SPLIT_COMMIT", "1");
    let host = Host::below(&matrix::memory());
    let run = |cut| {
        fs::remove_dir_all(host.root()).unwrap();
        copy(&origin.host.root(), &host.root());
        tracer::run(program.command(&host.root(), &origin.verb), cut)
    };
    let places = run(Cut::Never).places;
    let fills = |place: &String| place.starts_with("write ") && place.ends_with("/app/active");
    let step = places.iter().position(fills).unwrap_or_else(|| panic!("no second step in {places:#?}"));
    run(Cut::Before(step));
    whole.found(&host, false).err()
}

/// Leaves out each sync in turn; `SYSCTR_TEST_SYNC` chooses those whose name has that in it.
pub fn syncs(seed: usize) -> Vec<Sync> {
    let origins: BTreeMap<&str, (matrix::Origin, matrix::Whole)> = OPERATIONS
        .iter()
        .map(|operation| {
            let origin = matrix::Origin::new(operation);
            let whole = origin.whole(operation);
            (operation.name, (origin, whole))
        })
        .collect();
    let mut done: BTreeMap<String, Vec<(&'static str, Vec<f64>)>> = BTreeMap::new();
    for operation in OPERATIONS {
        for (name, parts) in names(&origins[operation.name].0) {
            done.entry(name).or_default().push((operation.name, parts));
        }
    }
    let only = std::env::var("SYSCTR_TEST_SYNC").unwrap_or_default();
    let noticed = |name: &str, operations: &[(&'static str, Vec<f64>)]| {
        let program = Program::with("SYSCTR_WITHOUT_SYNC", name);
        for (operation, parts) in operations {
            let (origin, whole) = &origins[operation];
            for kind in &disk::KINDS {
                let make =
                    |timer| disk::Recording::make(kind, self::operation(operation), origin, whole, &program, timer);
                let found = || make(Timer::Never).first_wrong(seed, parts);
                // one that the next makes good: only names without data in between show it
                let wrong = if name.starts_with("libostree's") { make(Timer::Always).any_wrong(seed) } else { found() };
                if let Some(why) = wrong {
                    return Some(why.lines().take(3).collect::<Vec<_>>().join(" "));
                }
            }
        }
        None
    };
    done.into_iter()
        .filter(|(name, _)| name.contains(&only))
        .map(|(name, operations)| {
            let noticed = noticed(&name, &operations);
            eprintln!("{name}: {}", noticed.as_deref().unwrap_or("NOT NOTICED"));
            Sync { name, operations: operations.into_iter().map(|(name, _)| name).collect(), noticed }
        })
        .collect()
}

/// The syncs of an operation, each with the places where it comes, as parts of the way through all of them.
fn names(origin: &matrix::Origin) -> BTreeMap<String, Vec<f64>> {
    let host = Host::below(&matrix::memory());
    fs::remove_dir_all(host.root()).unwrap();
    copy(&origin.host.root(), &host.root());
    let file = host.work.path().join("syncs");
    let program = Program::with("SYSCTR_SYNCS", file.to_str().unwrap());
    let status = program.command(&host.root(), &origin.verb).output().unwrap().status;
    assert!(status.success());
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut names: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let all = text.lines().count() as f64;
    for (at, name) in text.lines().enumerate() {
        names.entry(name.to_owned()).or_default().push(at as f64 / all);
    }
    names
}
