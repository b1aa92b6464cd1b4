//! What time it is, by the clock that people set and by the one that nobody sets, and which boot this is.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::model::probation::Moment;

/// The kernel's name for this boot (random(4)).
pub fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Now.
pub fn now() -> Moment {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    let monotonic = clock_gettime(ClockId::Monotonic);
    let monotonic = monotonic.tv_sec as u64 * 1_000_000 + monotonic.tv_nsec as u64 / 1000;
    Moment { boot: boot().unwrap_or_default(), wall, uptime, monotonic }
}
