//! `probation.json`: the update that is taken back by itself if its service fails in the time after it.
//!
//! The time runs on the clock that no one sets, and on the wall clock from one boot to the next. It begins with the update, or with the
//! first boot where systemd does not run the system that is updated.

use serde::{Deserialize, Serialize};

use super::record::Record;

/// Boots after which it goes back: what brings the machine down has no time to fail itself.
const BOOTS: u32 = 3;

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
    /// Failures after which it goes back.
    pub limit: u32,
    /// When it was begun and when it ends, in seconds since 1970.
    pub since: i64,
    #[allow(missing_docs)]
    pub until: i64,
    /// The boot that `ends` belongs to; none where it has not begun yet.
    pub boot: Option<String>,
    /// When it ends, in seconds since that boot.
    pub ends: u64,
    /// Boots since the update.
    pub boots: u32,
    /// Failures since the update.
    pub crashes: u32,
    /// Failures that are counted since the service was last started by other means than its own restart.
    pub counted: u32,
    /// What was started before this moment of the boot, in microseconds, was another deployment's.
    #[serde(default)]
    pub own: u64,
}

/// What a moment is called by both clocks.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Moment {
    pub boot: String,
    /// Seconds since 1970.
    pub wall: i64,
    /// Seconds since that boot (proc_uptime(5)).
    pub uptime: u64,
    /// Microseconds on the clock of systemd's time stamps, which stands still while the machine sleeps.
    pub monotonic: u64,
}

/// The service as systemd has it.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// ActiveState
    pub state: String,
    /// SubState
    pub sub: String,
    /// Result
    pub result: String,
    /// NRestarts: how often it was restarted by itself since it was started.
    pub restarts: u32,
    /// When it began to start, when it was no longer active, and when its program ended.
    pub started: u64,
    #[allow(missing_docs)]
    pub left_active: u64,
    #[allow(missing_docs)]
    pub program_ended: u64,
}

impl Service {
    /// Whether somebody stopped it: then its program ends behind the state, whatever it ends with, and otherwise before.
    fn was_stopped(&self) -> bool {
        let by_program = ["exit-code", "signal", "core-dump", "timeout"].contains(&self.result.as_str());
        by_program && self.started < self.left_active && self.left_active < self.program_ended
    }

    /// When it last failed, if it ever did.
    fn failed_at(&self) -> u64 {
        self.left_active.max(self.program_ended)
    }
}

/// What a failure, or what was taken for one, means for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtFailure {
    /// Nothing of its own: a unit that it requires failed, or it was stopped.
    Nothing,
    /// It is counted.
    Counted,
    /// It goes back, for this reason.
    GoBack(String),
    /// Its time was over before anything failed.
    Over,
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
            counted: 0,
            own: 0,
        }
    }

    /// Lets its time begin. `other` is what the service was before, where the update did not restart it: neither that failure nor the
    /// next one of what still runs is its own.
    pub fn begin(&mut self, now: &Moment, other: Option<&Service>) {
        self.since = now.wall;
        self.set_end(now, self.seconds);
        if let Some(service) = other {
            (self.own, self.counted) = (now.monotonic, service.restarts);
        }
    }

    fn set_end(&mut self, now: &Moment, seconds: u32) {
        self.until = now.wall.saturating_add(seconds.into());
        self.ends = now.uptime + u64::from(seconds);
        self.boot = Some(now.boot.clone());
    }

    /// Whether its time is over, as far as this boot knows.
    pub fn is_over(&self, now: &Moment) -> bool {
        match self.boot.as_ref() {
            Some(boot) if *boot == now.boot => now.uptime >= self.ends,
            Some(_) => now.wall >= self.until,
            None => false,
        }
    }

    /// Seconds that are left in this boot.
    pub fn left(&self, now: &Moment) -> u64 {
        self.ends.saturating_sub(now.uptime)
    }

    /// Whether this boot is not counted yet.
    pub fn is_new_boot(&self, now: &Moment) -> bool {
        self.boot.as_ref() != Some(&now.boot)
    }

    /// Counts the failures of the service that are not counted yet. How often it was told of them does not matter, nor when: what failed
    /// within the time counts, however long somebody else was at work.
    pub fn look(&mut self, service: &Service, now: &Moment) -> AtFailure {
        let verdict = self.count(service);
        if !self.is_over(now) {
            return verdict;
        }
        let is_same_boot = self.boot.as_ref() == Some(&now.boot);
        let end = now.monotonic.saturating_sub(now.uptime.saturating_sub(self.ends).saturating_mul(1_000_000));
        let in_time = is_same_boot && (1..=end).contains(&service.failed_at());
        if in_time && matches!(verdict, AtFailure::GoBack(_)) { verdict } else { AtFailure::Over }
    }

    fn count(&mut self, service: &Service) -> AtFailure {
        let down = service.state == "failed" || service.sub.starts_with("auto-restart");
        if service.started < self.own {
            self.counted = service.restarts + u32::from(down);
            return AtFailure::Nothing;
        }
        if service.state == "inactive" || (service.state == "failed" && service.was_stopped()) {
            return AtFailure::Nothing;
        }
        let now = service.restarts + u32::from(down);
        // Started by other means it begins to count anew.
        let more = now.checked_sub(self.counted).unwrap_or(now);
        self.counted = now;
        self.crashes += more;
        let failed = format!("it failed {} within its probation", times(self.crashes));
        match service.state.as_str() {
            "failed" => AtFailure::GoBack(format!("{failed} ({}) and is not restarted", service.result)),
            _ if self.crashes >= self.limit => AtFailure::GoBack(failed),
            _ if more == 0 => AtFailure::Nothing,
            _ => AtFailure::Counted,
        }
    }

    /// Counts a boot.
    pub fn boot(&mut self, now: &Moment) -> AtBoot {
        if self.boot.is_none() {
            self.begin(now, None);
            return AtBoot::GoesOn;
        }
        if self.is_over(now) {
            return AtBoot::Over;
        }
        self.boots += 1;
        (self.counted, self.own) = (0, 0);
        // A wall clock that starts in the past knows nothing: the whole time begins anew, as often as there may be boots.
        let left = if now.wall < self.since { self.seconds } else { (self.until - now.wall).try_into().unwrap_or(0) };
        self.set_end(now, left.min(self.seconds));
        if self.boots >= BOOTS { AtBoot::TooMany } else { AtBoot::GoesOn }
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

impl Record for Probation {
    const VERSION: u32 = 1;
}

#[cfg(test)]
mod tests;
