//! What a value of an image may be: its type, pattern and range, and how a text becomes one.

use std::{fmt, time::Duration};

use anyhow::{Context, Result, ensure};
use regex::{Regex, RegexBuilder};
use serde_json::Value as Json;

use super::manifest::{ValueKind, ValueSpec, absolute};

/// Between which numbers or times a value lies.
struct Range<'a> {
    minimum: Option<&'a Json>,
    maximum: Option<&'a Json>,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueKind::String => "string",
            ValueKind::Integer => "integer",
            ValueKind::Boolean => "boolean",
            ValueKind::Enum => "enum",
            ValueKind::Url => "url",
            ValueKind::Path => "path",
            ValueKind::Duration => "duration",
        })
    }
}

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bound: Option<&Json>| bound.map(plain).unwrap_or_default();
        match (self.minimum, self.maximum) {
            (None, None) => Ok(()),
            (Some(_), None) => write!(f, ", {} or more", text(self.minimum)),
            (None, Some(_)) => write!(f, ", {} or less", text(self.maximum)),
            _ => write!(f, " from {} to {}", text(self.minimum), text(self.maximum)),
        }
    }
}

impl Range<'_> {
    fn has(&self, kind: ValueKind, value: &Json) -> bool {
        let Some(value) = measure(kind, value) else { return true };
        let bound = |bound: Option<&Json>| bound.and_then(|bound| measure(kind, bound));
        bound(self.minimum).is_none_or(|minimum| minimum <= value)
            && bound(self.maximum).is_none_or(|maximum| value <= maximum)
    }
}

/// What is compared: the number, or the milliseconds.
fn measure(kind: ValueKind, value: &Json) -> Option<i128> {
    match kind {
        ValueKind::Integer => value.as_i64().map(i128::from),
        ValueKind::Duration => i128::try_from(duration(&plain(value))?.as_millis()).ok(),
        _ => None,
    }
}

/// A value as it would be typed.
pub fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl ValueSpec {
    fn range(&self) -> Range<'_> {
        Range { minimum: self.minimum.as_ref(), maximum: self.maximum.as_ref() }
    }

    /// Whether it makes sense, and its default is one.
    pub fn check(&self) -> Result<()> {
        self.pattern()?;
        ensure!(
            (self.kind == ValueKind::Enum) != self.choices.is_empty(),
            "\"enum\" lists the choices of type enum, and of no other"
        );
        for (key, bound) in [("minimum", &self.minimum), ("maximum", &self.maximum)] {
            let Some(bound) = bound else { continue };
            ensure!(
                measure(self.kind, bound).is_some(),
                "{key} {bound}: a whole number for type integer, a time for type duration, and for no other"
            );
        }
        let bound = |bound: &Option<Json>| bound.as_ref().and_then(|bound| measure(self.kind, bound));
        if let (Some(minimum), Some(maximum)) = (bound(&self.minimum), bound(&self.maximum)) {
            ensure!(minimum <= maximum, "the minimum is more than the maximum");
        }
        if self.secret {
            ensure!(self.kind == ValueKind::String, "a secret is of type string");
            ensure!(self.default.is_none(), "a secret that is in the image is none: it has no default");
        }
        if let Some(default) = &self.default {
            let read = self.read(&plain(default));
            read.map_err(|expected| anyhow::anyhow!("the default {default}: expected {expected}"))?;
        }
        Ok(())
    }

    /// The pattern, tied to the whole text. Matching takes linear time whatever the image wrote.
    pub fn pattern(&self) -> Result<Option<Regex>> {
        let compile = |text: &str| {
            // Its errors draw the place below the pattern; what is wrong is said last.
            RegexBuilder::new(text).size_limit(1 << 20).build().map_err(|error| {
                let drawn = error.to_string();
                let said = drawn.lines().last().unwrap_or_default();
                anyhow::anyhow!("{}", said.trim_start_matches("error: "))
            })
        };
        let Some(pattern) = &self.pattern else { return Ok(None) };
        // By itself as well: brackets that are only balanced within ours would untie it.
        let tied = compile(pattern).and_then(|_| compile(&format!("^(?:{pattern})$")));
        tied.map(Some).with_context(|| format!("the pattern {pattern:?}"))
    }

    /// The typed value of a text, or what was expected instead.
    pub fn read(&self, text: &str) -> Result<Json, String> {
        let string = || Json::String(text.to_owned());
        // A secret is in no file that somebody parses.
        if !self.secret && text.chars().any(char::is_control) {
            return Err("text without control characters".to_owned());
        }
        if let (Ok(Some(pattern)), Some(text_of)) = (self.pattern(), self.pattern.as_ref())
            && !pattern.is_match(text)
        {
            return Err(format!("text like {text_of}"));
        }
        let parsed = match self.kind {
            ValueKind::String => Some(string()),
            ValueKind::Integer => text.parse::<i64>().ok().map(Json::from),
            ValueKind::Boolean => match text {
                "true" | "yes" | "on" | "1" => Some(true.into()),
                "false" | "no" | "off" | "0" => Some(false.into()),
                _ => None,
            },
            ValueKind::Enum => self.choices.iter().any(|choice| choice == text).then(string),
            ValueKind::Url => is_url(text).then(string),
            ValueKind::Path => absolute(text).is_ok().then(string),
            ValueKind::Duration => duration(text).map(|_| string()),
        };
        let range = self.range();
        let outside = parsed.as_ref().is_some_and(|value| !range.has(self.kind, value));
        parsed.filter(|_| !outside).ok_or_else(|| match self.kind {
            ValueKind::Integer => format!("a whole number{range}"),
            ValueKind::Boolean => "true or false".to_owned(),
            ValueKind::Enum => format!("one of {}", self.choices.join(", ")),
            ValueKind::Url => "a URL such as https://host:port".to_owned(),
            ValueKind::Path => "an absolute path without '.', '..', quotes and backslashes".to_owned(),
            ValueKind::Duration => format!("a time such as 90s or 5min{range}"),
            ValueKind::String => "text".to_owned(),
        })
    }
}

/// `scheme://something`, without blanks.
fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let letters = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b));
    letters && !scheme.is_empty() && !rest.is_empty() && !text.contains(char::is_whitespace)
}

/// A number with a unit of systemd.time(7); without one it is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "min" | "m" => seconds(60),
        "h" => seconds(60 * 60),
        "d" => seconds(24 * 60 * 60),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::model::manifest::Manifest;

    fn complaint(value: &str) -> String {
        let text = format!(r#"{{"version": "2.0", "values": {{"x": {value}}}}}"#);
        format!("{:#}", Manifest::parse(&text).expect_err(value))
    }

    #[test]
    fn a_range_is_said_where_a_value_is_outside_of_it() {
        let text = r#"{"version": "2.0", "values": {
            "port": {"type": "integer", "minimum": 1, "maximum": 65535}, "wait": {"type": "duration", "minimum": "1s"},
            "level": {"type": "integer", "maximum": 7}}}"#;
        let manifest = Manifest::parse(text).expect("a manifest");
        let read = |name: &str, text: &str| manifest.values[name].read(text);
        assert_eq!(read("port", "0").expect_err("too small"), "a whole number from 1 to 65535");
        assert_eq!(read("port", "65536").expect_err("too large"), "a whole number from 1 to 65535");
        assert_eq!(read("wait", "999ms").expect_err("too short"), "a time such as 90s or 5min, 1s or more");
        assert_eq!(read("level", "8").expect_err("too large"), "a whole number, 7 or less");
        for (name, text) in [("port", "1"), ("port", "65535"), ("wait", "1min"), ("level", "-9")] {
            assert!(read(name, text).is_ok(), "{name}={text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said_of_the_manifest() {
        for (value, expected) in [
            (r#"{"type": "integer", "minimum": 2, "maximum": 1}"#, "more than the maximum"),
            (r#"{"type": "integer", "minimum": "a"}"#, "values.x: minimum"),
            (r#"{"type": "string", "maximum": 3}"#, "for no other"),
            (r#"{"type": "integer", "default": "many"}"#, "the default \"many\": expected a whole number"),
            (r#"{"type": "integer", "default": 0, "minimum": 1}"#, "1 or more"),
            (r#"{"type": "enum", "enum": ["a"], "default": "b"}"#, "one of a"),
            (r#"{"type": "string", "secret": true, "default": "x"}"#, "has no default"),
            (r#"{"type": "integer", "secret": true}"#, "of type string"),
            (r#"{"type": "string", "pattern": "("}"#, "the pattern \"(\": unclosed group"),
            (r#"{"type": "string", "pattern": "a)|(b"}"#, "unopened group"),
        ] {
            let message = complaint(value);
            assert!(message.contains(expected), "{value}: {message}");
        }
    }
}
