//! Old or new, never between, wherever it is cut. The program under test knows nothing of the cuts, but for the controls.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod controls;
mod disk;
mod full;
mod matrix;
mod operation;
mod program;
mod random;
mod tracer;

use std::path::Path;

use disk::Timer;
use operation::OPERATIONS;
use program::Program;

/// What a tree is worth in `make test`, in cuts.
const SOME: usize = 6;

/// Says it past the harness, which would swallow it.
macro_rules! tell {
    ($($words:tt)*) => {{
        use std::io::Write;
        let mut out = std::io::stderr();
        writeln!(out, $($words)*).unwrap();
    }};
}

fn copy(from: &Path, to: &Path) {
    common::run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]).unwrap();
}

/// `SYSCTR_TEST_SEED`, or one of its own, which is printed.
fn seed() -> usize {
    let given = std::env::var("SYSCTR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos() as usize;
    let seed = given.unwrap_or_else(now);
    tell!("SYSCTR_TEST_SEED={seed}");
    seed
}

/// `SYSCTR_TEST_OPERATION` chooses those whose name has that in it.
fn cut_all(most: Option<usize>) {
    let (seed, only) = (seed(), std::env::var("SYSCTR_TEST_OPERATION").unwrap_or_default());
    let [mut boundaries, mut cuts, mut between, mut failed] = [0; 4];
    for operation in OPERATIONS.iter().filter(|operation| operation.name.contains(&only)) {
        let begun = std::time::Instant::now();
        let count = matrix::cut_everywhere(operation, most, seed);
        tell!(
            "{:45} {:4} calls change the disk, cut before {:4}, {:4} left something between; {:.1?}",
            operation.name,
            count.boundaries,
            count.cuts,
            count.between,
            begun.elapsed()
        );
        boundaries += count.boundaries;
        cuts += count.cuts;
        between += count.between;
        failed += count.failed;
    }
    tell!("{cuts} cuts at {boundaries} places that change the disk; {between} left something between old and new");
    assert_eq!(failed, 0, "cuts that were not recovered from");
    // the control: were recovery not needed, this test would show nothing
    assert!(cuts > 5 && between * 4 > cuts);
}

#[test]
fn operations_that_are_killed_anywhere_are_done_or_undone() {
    cut_all(Some(SOME));
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn operations_that_are_killed_everywhere_are_done_or_undone() {
    cut_all(None);
}

fn kill(kills: usize) {
    let begun = std::time::Instant::now();
    let count = random::kill(kills, seed());
    tell!("{count:?} in {:.1?}", begun.elapsed());
    // the control: were recovery not needed, this test would show nothing
    assert!(count.between * 20 > count.killed && count.new > 0);
}

#[test]
fn a_hundred_kills_at_random_times_leave_the_old_or_the_new() {
    kill(100);
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn a_thousand_kills_at_random_times_leave_the_old_or_the_new() {
    kill(1000);
}

/// Replays operations to `most` of the flushes on one of these file systems each, or to all of them on every one.
fn cut_power(most: Option<usize>, kinds: &[disk::Kind], timer: Timer) {
    let (seed, only) = (seed(), std::env::var("SYSCTR_TEST_OPERATION").unwrap_or_default());
    let (mut cuts, mut wrong) = (0, Vec::new());
    let chosen = OPERATIONS.iter().filter(|operation| operation.name.contains(&only));
    for (number, operation) in chosen.enumerate() {
        let origin = matrix::Origin::new(operation);
        let whole = origin.whole(operation);
        let one = most.map(|_| (number + seed) % kinds.len());
        for (_, kind) in kinds.iter().enumerate().filter(|(number, _)| one.is_none_or(|one| one == *number)) {
            let begun = std::time::Instant::now();
            let program = Program::shipped();
            let count = disk::Recording::make(kind, operation, &origin, &whole, &program, timer).cut(most, seed);
            tell!(
                "{:45} on {:5} {:4} flushes, cut at {:4}, {} wrong; {:.1?}",
                operation.name,
                kind.name,
                count.flushes,
                count.cuts,
                count.wrong.len(),
                begun.elapsed()
            );
            cuts += count.cuts;
            wrong.extend(count.wrong);
        }
    }
    tell!("{cuts} power cuts");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn operations_whose_power_is_cut_are_done_or_undone() {
    cut_power(Some(2), &disk::KINDS, Timer::Never);
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn operations_whose_power_is_cut_at_every_flush_are_done_or_undone() {
    cut_power(None, &disk::KINDS, Timer::Never);
}

#[test]
fn operations_whose_names_are_written_before_their_data_are_done_or_undone() {
    cut_power(Some(2), disk::with_a_timer(), Timer::Always);
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn operations_whose_names_are_written_before_their_data_at_fifty_calls_are_done_or_undone() {
    cut_power(Some(50), disk::with_a_timer(), Timer::Always);
}

/// Fills the disk before each call, or before `most` of them.
fn fill(most: Option<usize>) {
    let (seed, only) = (seed(), std::env::var("SYSCTR_TEST_OPERATION").unwrap_or_default());
    let (mut failed, mut wrong) = (0, Vec::new());
    for operation in OPERATIONS.iter().filter(|operation| operation.name.contains(&only)) {
        let count = full::fill_everywhere(operation, most, seed);
        tell!(
            "{:45} filled before {:4} of {:4} calls, {:4} failed and were undone, {} wrong",
            operation.name,
            count.filled,
            count.boundaries,
            count.failed,
            count.wrong.len()
        );
        failed += count.failed;
        wrong.extend(count.wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // the control: were there always room, this test would show nothing
    assert!(failed > 5);
}

#[test]
fn operations_on_a_disk_that_becomes_full_are_done_or_undone() {
    fill(Some(2));
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn operations_on_a_disk_that_becomes_full_anywhere_are_done_or_undone() {
    fill(None);
}

#[test]
fn a_commit_in_two_steps_would_be_noticed() {
    for name in ["install", "update", "rollback"] {
        let wrong = controls::split_commit(name);
        assert!(wrong.is_some(), "{name}: it may as well be two steps");
    }
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn each_sync_that_is_left_out_would_be_noticed() {
    let syncs = controls::syncs(seed());
    let (red, green): (Vec<_>, Vec<_>) = syncs.iter().partition(|sync| sync.noticed.is_some());
    for sync in &red {
        tell!("{:45} noticed: {}", sync.name, sync.noticed.as_deref().unwrap_or_default());
    }
    for sync in &green {
        tell!("{:45} NOT NOTICED, in {}", sync.name, sync.operations.join(", "));
    }
    tell!("{} of {} syncs are noticed when they are left out", red.len(), syncs.len());
    let needed = |sync: &&controls::Sync| !controls::UNNOTICED.iter().any(|(name, _)| sync.name.starts_with(name));
    assert_eq!(green.into_iter().filter(needed).count(), 0);
}
