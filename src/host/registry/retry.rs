//! How often something is tried, and how long to wait between: twice as long each time, and never just as long as the others wait
//! whose connections broke at the same moment.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use chrono::{DateTime, Utc};

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
/// What a registry may ask for by `Retry-After`; more is told instead.
const OBEYED: Duration = Duration::from_secs(300);

/// Failures in a row.
#[derive(Debug)]
pub struct Tries {
    limit: u32,
    failed: u32,
}

impl Tries {
    /// None so far, and so many again after the first.
    pub fn new(limit: u32) -> Tries {
        Tries { limit, failed: 0 }
    }

    /// Something came: what failed before does not count any more.
    pub fn progress(&mut self) {
        self.failed = 0;
    }

    /// The pause before the next try, at least as long as the other side asked for; none where it is given up.
    pub fn pause(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.failed >= self.limit || asked.is_some_and(|asked| asked > OBEYED) {
            return None;
        }
        let step = FIRST.saturating_mul(1 << self.failed.min(16)).min(LONGEST);
        self.failed += 1;
        Some(asked.unwrap_or_default() + step.mul_f64(0.5 + random() / 2.0))
    }
}

/// From 0 to 1.
fn random() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
}

/// `Retry-After`, seconds or a date ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).
pub fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value.trim()).ok()?;
    Some((date.with_timezone(&Utc) - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_differ_and_end() {
        let pauses = || {
            let mut tries = Tries::new(4);
            std::iter::from_fn(|| tries.pause(None)).collect::<Vec<_>>()
        };
        let (one, other) = (pauses(), pauses());
        assert_eq!((one.len(), other.len()), (4, 4));
        assert_ne!(one, other);
        for (number, pause) in one.iter().enumerate() {
            let step = FIRST * (1 << number);
            assert!(*pause >= step / 2 && *pause <= step, "{number}: {pause:?}");
        }
        let mut tries = Tries::new(1);
        for _ in 0..5 {
            assert!(tries.pause(None).is_some());
            tries.progress();
        }
        let mut tries = Tries::new(40);
        assert!(std::iter::from_fn(|| tries.pause(None)).all(|pause| pause <= LONGEST));
    }

    #[test]
    fn what_the_registry_asks_for_is_waited_unless_it_is_too_long() {
        let mut tries = Tries::new(5);
        let asked = Duration::from_secs(7);
        assert!(tries.pause(Some(asked)).is_some_and(|pause| pause >= asked));
        assert_eq!(tries.pause(Some(Duration::from_secs(301))), None);
        let now = DateTime::parse_from_rfc2822("Wed, 21 Oct 2026 07:28:00 GMT").expect("a date").to_utc();
        for (value, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2026 07:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
