//! When updates may be made by themselves: `02:00-05:00`, `Sat,Sun 22:00-04:00`, `Mon..Fri 01:30-03:00`, in local time. Days are
//! written as in systemd.time(7), and are those on which the window begins.

use std::{fmt, str::FromStr};

use chrono::{Datelike as _, NaiveDateTime, NaiveTime, Weekday};
use serde::Deserialize;

/// A time of the day, on some days of the week or on all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Window {
    text: String,
    days: [bool; 7],
    from: NaiveTime,
    to: NaiveTime,
}

/// Text that is no window.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no time of the day: write 02:00-05:00, or Sat,Sun 02:00-05:00, or Mon..Fri 22:00-04:00")]
pub struct BadWindow(String);

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl Window {
    /// Whether it is open at this local time. It begins at its first minute and is over at its last.
    pub fn is_open(&self, now: NaiveDateTime) -> bool {
        let begins_on = |day: Weekday| self.days[day.num_days_from_monday() as usize];
        let (today, time) = (now.weekday(), now.time());
        if self.from < self.to {
            return begins_on(today) && self.from <= time && time < self.to;
        }
        // over midnight
        (begins_on(today) && self.from <= time) || (begins_on(today.pred()) && time < self.to)
    }

    fn parse(text: &str) -> Option<Window> {
        let (days, hours) = match text.trim().rsplit_once(char::is_whitespace) {
            Some((days, hours)) => (self::days(days.trim())?, hours),
            None => ([true; 7], text.trim()),
        };
        let (from, to) = hours.split_once('-')?;
        let time = |text: &str| NaiveTime::parse_from_str(text, "%H:%M").ok();
        let (from, to) = (time(from)?, time(to)?);
        (from != to).then(|| Window { text: text.to_owned(), days, from, to })
    }
}

/// `Mon`, `Mon,Wed`, `Mon..Fri`, or several of them with commas.
fn days(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        loop {
            days[at] = true;
            if at == last {
                break;
            }
            at = (at + 1) % 7;
        }
    }
    Some(days)
}

/// In full or by its first three letters, as systemd reads it.
fn day(text: &str) -> Option<usize> {
    let text = text.to_ascii_lowercase();
    DAYS.iter().position(|day| *day == text || day[..3] == text)
}

impl FromStr for Window {
    type Err = BadWindow;

    fn from_str(text: &str) -> Result<Window, BadWindow> {
        Window::parse(text).ok_or_else(|| BadWindow(text.to_owned()))
    }
}

impl TryFrom<String> for Window {
    type Error = BadWindow;

    fn try_from(text: String) -> Result<Window, BadWindow> {
        text.parse()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 is a Monday.
    fn at(day: u32, time: &str) -> NaiveDateTime {
        let date = chrono::NaiveDate::from_ymd_opt(2026, 11, day).expect("a day");
        date.and_time(NaiveTime::parse_from_str(time, "%H:%M").expect("a time"))
    }

    #[test]
    fn it_is_open_from_its_first_minute_and_shut_at_its_last() {
        for (window, day, time, open) in [
            ("02:00-05:00", 23, "01:59", false),
            ("02:00-05:00", 23, "02:00", true),
            ("02:00-05:00", 23, "04:59", true),
            ("02:00-05:00", 23, "05:00", false),
            ("22:00-04:00", 23, "23:00", true),
            ("22:00-04:00", 23, "03:59", true),
            ("22:00-04:00", 23, "12:00", false),
            // from Saturday into Sunday, and not from Friday into Saturday
            ("Sat 22:00-04:00", 28, "23:00", true),
            ("Sat 22:00-04:00", 29, "03:00", true),
            ("Sat 22:00-04:00", 28, "03:00", false),
            ("Sat 22:00-04:00", 29, "23:00", false),
            ("Mon..Fri 01:00-02:00", 27, "01:30", true),
            ("Mon..Fri 01:00-02:00", 28, "01:30", false),
            ("sat..monday,Wed 1:00-02:00", 23, "01:30", true),
            ("sat..monday,Wed 1:00-02:00", 24, "01:30", false),
            ("sat..monday,Wed 1:00-02:00", 25, "01:30", true),
        ] {
            let parsed: Window = window.parse().expect(window);
            assert_eq!(parsed.is_open(at(day, time)), open, "{window} on November {day} at {time}");
        }
    }

    #[test]
    fn what_is_no_window_is_refused_with_one_that_is() {
        for text in ["", "02:00", "2-5", "02:00-25:00", "05:00-05:00", "Mo 02:00-03:00", "Mon.. 02:00-03:00", "Mon"] {
            let message = text.parse::<Window>().expect_err(text).to_string();
            assert!(message.contains("write 02:00-05:00"), "{message}");
        }
    }
}
