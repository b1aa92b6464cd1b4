//! `$NAME`, `${NAME}` and `$$`, as Python's
//! [string.Template](https://docs.python.org/3/library/string.html#template-strings-strings) reads them. What is filled in is not
//! escaped: the finished text is what is judged.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::model::fault::{Code, Fault};

/// A text between names, or a name with its line.
enum Part<'a> {
    Text(&'a str),
    Name(&'a str, usize),
}

/// Fills a template in; `file` is its name in errors. Every value that is missing is named.
pub fn fill(file: &str, text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String> {
    let mut filled = String::with_capacity(text.len());
    let mut missing: Vec<(&str, usize)> = Vec::new();
    for part in parts(file, text)? {
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::Name(name, line) => match value(name) {
                Some(value) => filled.push_str(&value),
                None if missing.iter().any(|(known, _)| *known == name) => {}
                None => missing.push((name, line)),
            },
        }
    }
    if let [(_, line), ..] = missing[..] {
        let names = missing.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let message = match missing.len() {
            1 => format!(
                "{file}, line {line}: the value {names} is missing: the template asks for it and nothing gives it"
            ),
            _ => format!(
                "{file}, line {line}: the values {names} are missing: the template asks for them and nothing gives them"
            ),
        };
        let sets = missing.iter().map(|(name, _)| format!("--set {name}=...")).collect::<Vec<_>>().join(" ");
        bail!(Fault::new(Code::Failed, message).hint(format!("give what is missing with {sets}")));
    }
    Ok(filled)
}

/// The names that a template asks for.
pub fn names(file: &str, text: &str) -> Result<BTreeSet<String>> {
    let name = |part| match part {
        Part::Name(name, _) => Some(name.to_owned()),
        Part::Text(_) => None,
    };
    Ok(parts(file, text)?.into_iter().filter_map(name).collect())
}

fn parts<'a>(file: &str, text: &'a str) -> Result<Vec<Part<'a>>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('$') {
        parts.push(Part::Text(&rest[..at]));
        let behind = &rest[at + 1..];
        let before = &text[..text.len() - behind.len() - 1];
        let line = before.matches('\n').count() + 1;
        if let Some(after) = behind.strip_prefix('$') {
            parts.push(Part::Text(&behind[..1]));
            rest = after;
            continue;
        }
        let (name, after) = match behind.strip_prefix('{') {
            Some(inside) => {
                (identifier(inside), identifier(inside).and_then(|name| inside[name.len()..].strip_prefix('}')))
            }
            None => (identifier(behind), identifier(behind).map(|name| &behind[name.len()..])),
        };
        let (Some(name), Some(after)) = (name, after) else {
            let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
            bail!(
                "{file}, line {line}, column {column}: a '$' that begins no $NAME and no ${{NAME}}; a plain one is written $$"
            );
        };
        parts.push(Part::Name(name, line));
        rest = after;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// The name that a text begins with.
fn identifier(text: &str) -> Option<&str> {
    let is_first = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
    let length = text.bytes().take_while(|b| is_first(b) || b.is_ascii_digit()).count();
    text.as_bytes().first().filter(|b| is_first(b)).map(|_| &text[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String> {
        fill("f", text, |name| match name {
            "A" => Some("1".to_owned()),
            "_b2" => Some("$A \"x\"\n".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn names_are_filled_in_once_and_nothing_is_escaped() {
        for (text, expected) in [
            ("", ""),
            ("a$A.b", "a1.b"),
            ("${A}A$A", "1A1"),
            ("$_b2", "$A \"x\"\n"),
            ("$$A $$$A $$", "$A $1 $"),
            ("$A-$A", "1-1"),
            ("é$Aé", "é1é"),
        ] {
            assert_eq!(filled(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_and_what_is_missing_is_told_with_its_place() {
        for (text, expected) in [
            ("a\n b$", "f, line 2, column 3"),
            ("$1", "f, line 1, column 1"),
            ("${A", "line 1, column 1"),
            ("${A b}", "line 1, column 1"),
            ("$ä", "line 1, column 1"),
            ("\n$X\n$Y $X", "f, line 2: the values X, Y are missing"),
            ("$a", "f, line 1: the value a is missing"),
        ] {
            let message = filled(text).expect_err(text).to_string();
            assert!(message.contains(expected), "{text:?}: {message:?} does not say {expected:?}");
        }
    }

    #[test]
    fn every_name_is_found() {
        let found = names("f", "$A ${b} $$c $A").expect("names");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["A", "b"]);
    }
}
