//! Sizes in settings: bytes, or with K, M, G or T as systemd.unit(5) has them (powers of 1024).

use std::{fmt, str::FromStr};

use serde::{Deserialize, de};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// What it is not.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no size: a number of bytes, or one with K, M, G or T")]
pub struct BadSize(String);

impl FromStr for Bytes {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Bytes, BadSize> {
        let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
        let power = match &text[digits.len()..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(BadSize(text.to_owned())),
        };
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse::<u64>().ok().filter(|_| plain).and_then(|number| number.checked_mul(1 << power));
        number.map(Bytes).ok_or_else(|| BadSize(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"1G\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bytes, E> {
                u64::try_from(number).map(Bytes).map_err(|_| E::custom(BadSize(number.to_string())))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// For people: in the unit that fits, of powers of 1000.
pub fn shown(size: u64) -> String {
    let mut value = size as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" { format!("{size} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_systemd_reads_them() {
        for (text, bytes) in [("0", 0), ("17", 17), ("1K", 1024), ("512M", 512 << 20), ("2G", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(text.parse::<Bytes>().expect(text), Bytes(bytes));
        }
        for text in ["", "G", "-1", "1.5G", "1KK", "1 G", "+1", "99999999999T", "1k"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
