//! `probation.json`: the update that is taken back by itself if its service fails in the time after it.
//!
//! The time runs on the clock that no one sets, and on the wall clock from one boot to the next. It begins with the update, or with the
//! first boot where systemd does not run the system that is updated.

use serde::{Deserialize, Serialize};

use super::record::Record;

/// A deployment on probation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probation {
    /// Format of the record.
    pub version: u32,
    /// The deployment that is on probation, while it is in force.
    pub deployment: u32,
    /// The one to go back to.
    pub replaces: u32,
    /// How many seconds it lasts.
    pub seconds: u32,
    /// Failures, or boots, after which it goes back.
    pub limit: u32,
    /// When it was begun and when it ends, in seconds since 1970.
    pub since: i64,
    #[allow(missing_docs)]
    pub until: i64,
    /// The boot that `ends` belongs to; none where it has not begun yet.
    pub boot: Option<String>,
    /// When it ends, in seconds of that boot's CLOCK_MONOTONIC.
    pub ends: u64,
    /// Boots since the update.
    pub boots: u32,
    /// Failures since the update.
    pub crashes: u32,
    /// The run of the service that failed last.
    pub failed_run: Option<String>,
}

/// What a moment is called by both clocks.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Moment {
    pub boot: String,
    /// Seconds since 1970.
    pub wall: i64,
    /// Seconds of CLOCK_MONOTONIC.
    pub monotonic: u64,
}

/// What a boot means for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtBoot {
    /// It goes on.
    GoesOn,
    /// Its time is over.
    Over,
    /// It is one boot too many: what brings the machine down is taken back before it is started again.
    TooMany,
}

impl Probation {
    /// One that is written and not begun.
    pub fn new(deployment: u32, replaces: u32, seconds: u32, limit: u32) -> Probation {
        let version = Probation::VERSION;
        let (since, until, ends) = (0, 0, 0);
        Probation {
            version,
            deployment,
            replaces,
            seconds,
            limit,
            since,
            until,
            boot: None,
            ends,
            boots: 0,
            crashes: 0,
            failed_run: None,
        }
    }

    /// Lets its time begin.
    pub fn begin(&mut self, now: &Moment) {
        self.since = now.wall;
        self.set_end(now, self.seconds);
    }

    fn set_end(&mut self, now: &Moment, seconds: u32) {
        self.until = now.wall.saturating_add(seconds.into());
        self.ends = now.monotonic + u64::from(seconds);
        self.boot = Some(now.boot.clone());
    }

    /// Whether its time is over, as far as this boot knows.
    pub fn is_over(&self, now: &Moment) -> bool {
        match self.boot.as_ref() {
            Some(boot) if *boot == now.boot => now.monotonic >= self.ends,
            Some(_) => now.wall >= self.until,
            None => false,
        }
    }

    /// Seconds that are left in this boot.
    pub fn left(&self, now: &Moment) -> u64 {
        self.ends.saturating_sub(now.monotonic)
    }

    /// Whether this boot is not counted yet.
    pub fn is_new_boot(&self, now: &Moment) -> bool {
        self.boot.as_ref() != Some(&now.boot)
    }

    /// Counts a boot.
    pub fn boot(&mut self, now: &Moment) -> AtBoot {
        if self.boot.is_none() {
            self.begin(now);
            return AtBoot::GoesOn;
        }
        if self.is_over(now) {
            return AtBoot::Over;
        }
        self.boots += 1;
        // A wall clock that starts in the past knows nothing: the whole time begins anew, as often as there may be boots.
        let left = if now.wall < self.since { self.seconds } else { (self.until - now.wall).try_into().unwrap_or(0) };
        self.set_end(now, left.min(self.seconds));
        if self.boots >= self.limit { AtBoot::TooMany } else { AtBoot::GoesOn }
    }
}

impl Record for Probation {
    const VERSION: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: &str, wall: i64, monotonic: u64) -> Moment {
        Moment { boot: boot.to_owned(), wall, monotonic }
    }

    fn begun() -> Probation {
        let mut probation = Probation::new(2, 1, 600, 3);
        probation.begin(&at("one", 10_000, 50));
        probation
    }

    #[test]
    fn in_one_boot_a_changed_wall_clock_neither_ends_nor_prolongs_it() {
        let probation = begun();
        for (now, over) in [
            (at("one", 10_599, 649), false),
            (at("one", 10_600, 650), true),
            (at("one", 99_999, 649), false),
            (at("one", 0, 650), true),
        ] {
            assert_eq!(probation.is_over(&now), over, "{now:?}");
        }
    }

    #[test]
    fn a_boot_within_it_goes_on_with_what_is_left_and_one_behind_it_ends_it() {
        let mut probation = begun();
        assert_eq!(probation.boot(&at("two", 10_100, 5)), AtBoot::GoesOn);
        assert_eq!((probation.boots, probation.left(&at("two", 10_100, 5))), (1, 500));
        assert!(!probation.is_new_boot(&at("two", 10_100, 5)));
        assert_eq!(probation.boot(&at("three", 10_600, 5)), AtBoot::Over);
    }

    #[test]
    fn a_clock_that_starts_in_1970_gives_the_whole_time_again_but_not_for_ever() {
        let mut probation = begun();
        assert_eq!(probation.boot(&at("two", 3, 5)), AtBoot::GoesOn);
        assert_eq!(probation.left(&at("two", 3, 5)), 600);
        assert_eq!(probation.boot(&at("three", 3, 5)), AtBoot::GoesOn);
        assert_eq!(probation.boot(&at("four", 3, 5)), AtBoot::TooMany);
    }

    #[test]
    fn below_another_root_it_begins_with_the_first_boot() {
        let mut probation = Probation::new(2, 1, 600, 3);
        assert!(!probation.is_over(&at("any", i64::MAX, u64::MAX)));
        assert_eq!(probation.boot(&at("one", 10_000, 5)), AtBoot::GoesOn);
        assert_eq!((probation.boots, probation.until, probation.left(&at("one", 0, 5))), (0, 10_600, 600));
    }
}
