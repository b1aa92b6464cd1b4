//! The lines of a Quadlet file: systemd.syntax(7), each with its number.

use anyhow::{Result, bail, ensure};

use crate::model::unit::{is_comment, joined_lines};

/// One `Key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// Without its brackets.
    pub section: String,
    /// As it stands there.
    pub key: String,
    /// Continued lines are joined.
    pub value: String,
}

/// Reads a file's text; `file` is its name in errors.
pub fn lines(file: &str, text: &str) -> Result<Vec<Line>> {
    let (mut found, mut section) = (Vec::new(), None::<String>);
    for (number, joined) in joined_lines(file, text)? {
        if is_comment(&joined) {
            continue;
        }
        if let Some(name) = joined.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(name.to_owned());
            continue;
        }
        let (Some((key, value)), Some(section)) = (joined.split_once('='), section.clone()) else {
            bail!("{file}, line {number}: neither [Section] nor Key=value in one: {joined:?}");
        };
        found.push(Line { number, section, key: key.trim().to_owned(), value: value.trim().to_owned() });
    }
    Ok(found)
}

/// The words of a value, split as systemd splits a command line: blanks, quotes and C-style escapes.
pub fn words(value: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, '\\') => {
                let meant = match chars.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('s') => ' ',
                    Some(plain @ ('\\' | '"' | '\'')) => plain,
                    Some('x') => {
                        let digits: String = chars.by_ref().take(2).collect();
                        let number = u8::from_str_radix(&digits, 16).ok().filter(|byte| byte.is_ascii());
                        match number {
                            Some(byte) => byte.into(),
                            None => bail!("the escape \\x{digits} is no character"),
                        }
                    }
                    other => bail!("the escape \\{} is not supported", other.map_or(String::new(), String::from)),
                };
                word.get_or_insert_default().push(meant);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    ensure!(quote.is_none(), "a quote is not closed");
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers() {
        let text = "# why\n[Container]\nImage=a\nExec=b \\\n  # between\n  c\n\n[Install]\nWantedBy=d\n";
        let found = lines("f", text).expect("lines");
        let short: Vec<String> =
            found.iter().map(|line| format!("{} {} {}={}", line.number, line.section, line.key, line.value)).collect();
        assert_eq!(short, ["3 Container Image=a", "4 Container Exec=b c", "9 Install WantedBy=d"]);
        for (text, expected) in [("A=b", "line 1"), ("[C]\nA", "line 2"), ("[C]\nA=b \\", "line 2")] {
            assert!(lines("f", text).expect_err(text).to_string().contains(expected), "{text}");
        }
    }

    #[test]
    fn words_are_split_as_systemd_splits_them() {
        for (value, expected) in [
            ("a  b", &["a", "b"][..]),
            (r#""a b" 'c "d"' e"f g""#, &["a b", "c \"d\"", "ef g"]),
            (r#"a\x20b "" \"c"#, &["a b", "", "\"c"]),
            ("", &[]),
        ] {
            assert_eq!(words(value).expect(value), expected, "{value}");
        }
        assert!(words("\"a").is_err() && words("\\q").is_err());
    }
}
