//! A loop of operations that are killed at random times, each on what the one before left.

use std::time::Duration;

use crate::{
    common::host::{Host, Image, Tree, difference},
    copy, matrix, operation,
    program::Program,
    tracer::{self, Cut},
};

/// Numbers that a seed decides (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: usize) -> Random {
        // a seed of nothing would give nothing but nothing
        Random(seed as u64 ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// What there is to do, and how many chances of each.
const VERBS: [(usize, &[&str]); 7] = [
    (2, &["install", "IMAGE"]),
    (6, &["update", "app"]),
    (3, &["rollback", "app"]),
    (1, &["uninstall", "app"]),
    (1, &["uninstall", "--purge", "app"]),
    (1, &["prune"]),
    (1, &["recover"]),
];

/// What came of it.
#[derive(Debug, Default)]
pub struct Count {
    pub killed: usize,
    /// Those that were done before the time had come.
    pub done: usize,
    /// How many kills left something that was neither old nor new until it was recovered.
    pub between: usize,
    /// How many kills ended with the new state; the others with the old one.
    pub new: usize,
}

/// Kills so many operations.
pub fn kill(kills: usize, seed: usize) -> Count {
    let mut random = Random::new(seed);
    let (host, uncut) = (Host::below(&matrix::memory()), Host::below(&matrix::memory()));
    let image = host.image("app", &operation::first());
    // A store is made once; one that is half made goes when it is made.
    host.does(&["pull", &image]);
    let versions: [fn() -> Image; 3] = [operation::first, operation::second, || operation::files("third")];
    let (mut count, mut version) = (Count::default(), 0);
    while count.killed < kills {
        // always another one than last: there is something to do
        version = (version + 1 + random.below(versions.len() - 1)) % versions.len();
        host.image("app", &versions[version]());
        let verb = choose(&mut random);
        let words: Vec<String> = verb.iter().map(|word| word.replace("IMAGE", &image)).collect();

        // what it comes to where it is let be
        let before = state_apart(host.tree());
        std::fs::remove_dir_all(uncut.root()).unwrap();
        copy(&host.root(), &uncut.root());
        let run = |host: &Host, cut| tracer::run(Program::shipped().command(&host.root(), &words), cut);
        let whole = run(&uncut, Cut::Never);
        let after = state_apart(uncut.tree());
        // nothing to go back to, nothing there, nothing to do
        if [Some(1), Some(5)].contains(&whole.code) || whole.places.is_empty() {
            assert_eq!(before, after, "{verb:?} does nothing");
            continue;
        }
        assert_eq!(whole.code, Some(0), "{verb:?}");

        // Most of its time goes into what changes nothing: hence a time after one of its changes.
        let (number, time) = (random.below(whole.places.len()), Duration::from_micros(random.below(1000) as u64));
        let killed = run(&host, Cut::After(number, time)).code.is_none();
        let place = format!("kill {} (SYSCTR_TEST_SEED={seed}), {verb:?} {time:?} after change {number}", count.killed);
        let is_old_or_new = |tree: &Tree| *tree == before || *tree == after;
        count.between += usize::from(!is_old_or_new(&state_apart(host.tree())));
        assert_eq!(host.json(&["verify"])["ok"], true, "{place}: while it is pending");
        host.does(&["recover"]);
        let mut tree = state_apart(host.tree());
        if !is_old_or_new(&tree) {
            // an update that was done, and had not dropped the deployment that is too many
            host.does(&["prune"]);
            tree = state_apart(host.tree());
        }
        assert!(
            is_old_or_new(&tree),
            "{place}: between old and new.\nAgainst the old:\n{}\nAgainst the new:\n{}",
            difference(&before, &tree).join("\n"),
            difference(&after, &tree).join("\n")
        );
        assert_eq!(host.json(&["verify"])["ok"], true, "{place}");
        if killed {
            count.killed += 1;
            count.new += usize::from(tree == after && before != after);
        } else {
            count.done += 1;
            assert_eq!(tree, after, "{verb:?} was not killed");
        }
    }
    // nothing of all that is left over; what an uninstall kept goes with the purge of an image that declares it
    if host.sysctr(&["show", "app"]).code == 0 {
        host.does(&["uninstall", "app"]);
    }
    for version in versions {
        host.image("app", &version());
        // an install takes what the store has already
        host.does(&["pull", &image]);
        host.does(&["install", &image]);
        host.does(&["uninstall", "--purge", "app"]);
    }
    while let Some(image) = host.json(&["images"]).as_array().unwrap().first() {
        host.does(&["remove", image["reference"].as_str().unwrap()]);
    }
    host.does(&["prune"]);
    let objects: Vec<_> = matrix::store(&host).into_iter().filter(|path| path.starts_with("objects/")).collect();
    assert!(objects.is_empty(), "left over: {objects:#?}");
    let tree = host.tree();
    let fresh = Host::below(&matrix::memory());
    assert!(difference(&fresh.tree(), &tree).is_empty(), "left over: {:#?}", difference(&fresh.tree(), &tree));
    count
}

/// Without what an earlier deployment left empty: it may go when an update is taken back that declares it too.
fn state_apart(mut tree: Tree) -> Tree {
    for folder in ["kept", "data", "more"] {
        tree.remove(&format!("var/lib/app/{folder}"));
    }
    if !tree.keys().any(|path| path.starts_with("var/lib/app/")) {
        tree.remove("var/lib/app");
    }
    tree
}

fn choose(random: &mut Random) -> &'static [&'static str] {
    let mut chance = random.below(VERBS.iter().map(|(chances, _)| chances).sum());
    for (chances, verb) in VERBS {
        match chance.checked_sub(chances) {
            Some(rest) => chance = rest,
            None => return verb,
        }
    }
    unreachable!("there are no more chances")
}
