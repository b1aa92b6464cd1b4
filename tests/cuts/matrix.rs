//! One operation, cut before each call that changes the disk: what is left is recovered, and is the old or the new.

use std::{
    collections::BTreeSet,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::{
    common::host::{Host, Tree, assert_same, difference},
    copy,
    operation::Operation,
    program::Program,
    tracer::{self, Cut, Run},
};

/// How many trees are worked on at once.
const WORKERS: usize = 2;

/// What may be left of an operation.
pub struct Whole {
    /// The tree before it; for a recovery there is only one right end.
    pub before: Option<Tree>,
    pub after: Tree,
    /// The stores that `prune` may leave.
    stores: Vec<BTreeSet<String>>,
}

/// The state before an operation.
pub struct Origin {
    pub host: Host,
    pub verb: Vec<String>,
}

impl Origin {
    /// Made in memory.
    pub fn new(operation: &Operation) -> Origin {
        let (host, verb) = operation.host(&memory());
        Origin { host, verb }
    }

    /// The ends that are right.
    pub fn whole(&self, operation: &Operation) -> Whole {
        Case::new(self).whole(operation)
    }
}

/// A tree of its own, to be reset and cut again and again.
struct Case<'a> {
    host: Host,
    origin: &'a Origin,
}

/// What came of cutting everywhere.
#[derive(Debug, Default)]
pub struct Count {
    /// The calls that change the disk.
    pub boundaries: usize,
    /// How many of them were cut before.
    pub cuts: usize,
    /// How many cuts left something that was neither old nor new until it was recovered.
    pub between: usize,
    /// How many cuts left something that recovery did not mend.
    pub failed: usize,
}

impl<'a> Case<'a> {
    /// In memory: a kill loses nothing that was written, so no disk is needed.
    fn new(origin: &'a Origin) -> Case<'a> {
        Case { host: Host::below(&memory()), origin }
    }

    fn verb(&self) -> Vec<&'a str> {
        self.origin.verb.iter().map(String::as_str).collect()
    }

    fn reset(&self) {
        fs::remove_dir_all(self.host.root()).unwrap();
        copy(&self.origin.host.root(), &self.host.root());
    }

    fn run(&self, cut: Cut) -> Run {
        tracer::run(Program::shipped().command(&self.host.root(), &self.origin.verb), cut)
    }

    /// The ends that are right.
    fn whole(&self, operation: &Operation) -> Whole {
        let mut stores = Vec::new();
        let mut pruned = |first: &[&str]| {
            if !first.is_empty() {
                self.host.does(first);
            }
            let tree = self.host.tree();
            self.host.does(&["prune"]);
            stores.push(store(&self.host));
            tree
        };
        self.reset();
        let before = (!operation.is_recovery()).then(|| pruned(&[]));
        self.reset();
        let after = pruned(&self.verb());
        if ["install", "update"].contains(&self.verb()[0]) {
            // a cut may leave an image and nothing else
            let images =
                ["app", "other"].map(|name| format!("oci:{}:1", self.origin.host.work.path().join(name).display()));
            for chosen in [&images[..1], &images[1..], &images[..]] {
                self.reset();
                chosen.iter().for_each(|image| drop(self.host.does(&["pull", image])));
                pruned(&[]);
            }
        }
        Whole { before, after, stores }
    }

    /// Whoever only looks is not disturbed by what is under way, and changes nothing.
    fn readers_do_not_fail(&self, place: &str) {
        let tree = self.host.tree();
        self.host.json(&["list"]);
        let verified = self.host.json(&["verify"]);
        assert_eq!(verified["ok"], true, "{place}: {verified}");
        let show = self.host.sysctr(&["show", "app"]);
        assert!([0, 5].contains(&show.code), "{place}: {}", show.err);
        assert_same(&tree, &self.host.tree(), &format!("{place}: readers ran"));
    }

    /// Cuts before one call; false where there is none with this number.
    fn cut(&self, number: usize, whole: &Whole, between: &AtomicUsize) -> bool {
        self.reset();
        let run = self.run(Cut::Before(number));
        if let Some(code) = run.code {
            assert_eq!(code, 0, "{:?} failed by itself", self.verb());
            return false;
        }
        let place = format!("{} cut before call {number}, {}", self.verb().join(" "), run.places[number]);
        if whole.is(&self.host.tree()).is_err() {
            between.fetch_add(1, Ordering::Relaxed);
        }
        self.readers_do_not_fail(&place);
        self.host.does(&["recover"]);
        whole.assert(&self.host, &place);
        self.host.does(&["prune"]);
        whole.assert(&self.host, &format!("{place}, pruned"));
        let left = store(&self.host);
        let unlike = |whole: &BTreeSet<String>| left.symmetric_difference(whole).cloned().collect::<Vec<_>>();
        let nearest = whole.stores.iter().map(unlike).min_by_key(Vec::len).unwrap();
        assert!(nearest.is_empty(), "{place}: prune left a store that no whole operation leaves: {nearest:#?}");
        self.host.does(&verb_again(&self.verb(), &self.host));
        assert_same(&whole.after, &self.host.tree(), &format!("{place}, and it was done again"));
        true
    }
}

impl Whole {
    /// Why a tree is neither the old nor the new one.
    fn is(&self, tree: &Tree) -> Result<(), String> {
        let new = difference(&self.after, tree);
        let old = self.before.as_ref().map(|before| difference(before, tree));
        if new.is_empty() || old.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let old = old.unwrap_or_default().join("\n");
        Err(format!("between old and new.\nAgainst the old:\n{old}\nAgainst the new:\n{}", new.join("\n")))
    }

    /// What is wrong after a recovery; `done` where the operation had said that it is.
    pub fn found(&self, host: &Host, done: bool) -> Result<(), String> {
        let must = |arguments: &[&str]| match host.sysctr(arguments) {
            outcome if outcome.code == 0 => Ok(()),
            outcome => Err(format!("{arguments:?}: {}{}", outcome.err, outcome.out)),
        };
        must(&["verify"])?;
        must(&["recover"])?;
        let tree = host.tree();
        if done && tree != self.after {
            return Err(format!("it is not as new:\n{}", difference(&self.after, &tree).join("\n")));
        }
        self.is(&tree)?;
        must(&["verify"])?;
        must(&["prune"])?;
        self.is(&host.tree())?;
        must(&["verify"])
    }

    /// The tree is the old or the new one, and `verify` finds nothing.
    fn assert(&self, host: &Host, place: &str) {
        if let Err(why) = self.is(&host.tree()) {
            panic!("{place}: {why}");
        }
        let verified = host.json(&["verify"]);
        assert_eq!(verified["ok"], true, "{place}: {verified}");
    }
}

/// Cuts an operation before each of its calls, or before `most` of them, evenly chosen from `seed` on.
pub fn cut_everywhere(operation: &Operation, most: Option<usize>, seed: usize) -> Count {
    let origin = Origin::new(operation);
    let case = Case::new(&origin);
    let whole = case.whole(operation);
    case.reset();
    let run = case.run(Cut::Never);
    assert_eq!(run.code, Some(0), "{:?}", case.verb());
    let boundaries = run.places.len();
    let step = most.map_or(1, |most| boundaries.div_ceil(most).max(1));
    let next = AtomicUsize::new(seed % step);
    let [cuts, between, failed] = [0; 3].map(AtomicUsize::new);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let case = Case::new(&origin);
                loop {
                    let number = next.fetch_add(step, Ordering::Relaxed);
                    // all that is wrong is told, not the first alone; the panic has said it already
                    let cut = || case.cut(number, &whole, &between);
                    match panic::catch_unwind(AssertUnwindSafe(cut)) {
                        Ok(false) => break,
                        Ok(true) => cuts.fetch_add(1, Ordering::Relaxed),
                        Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    let [cuts, between, failed] = [cuts, between, failed].map(AtomicUsize::into_inner);
    Count { boundaries, cuts, between, failed }
}

/// Uninstalling what is gone, removing what is not there and going back from the first are refused, which is right and not asked here.
fn verb_again<'a>(verb: &[&'a str], host: &Host) -> Vec<&'a str> {
    let gone = verb[0] == "uninstall" && host.sysctr(&["show", "app"]).code == 5;
    let back = verb[0] == "rollback" && host.read("etc/sysctr/containers/app/active").trim() == "1";
    let removed = verb[0] == "remove" && host.json(&["images"]).as_array().unwrap().len() == 1;
    if gone || back || removed { vec!["list"] } else { verb.to_vec() }
}

/// Where no disk is behind.
pub fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { "/var/tmp".into() }
}

/// Every path of the repository; references with what they name.
pub fn store(host: &Host) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let repository = host.at("var/lib/sysctr/repo");
    let mut todo = vec![repository.clone()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(&repository).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !path.is_symlink() {
                todo.push(path);
            } else if below.starts_with("refs/") {
                paths.insert(format!("{below} {}", fs::read_to_string(&path).unwrap()));
            } else {
                paths.insert(below);
            }
        }
    }
    paths
}
