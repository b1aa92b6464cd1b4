//! A systemd unit file as text with sections (systemd.syntax(7)): enough to read what an image ships and to add what it left out.

use anyhow::{Result, bail};

/// The sections in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct UnitFile {
    sections: Vec<Section>,
}

#[derive(Clone, Debug)]
struct Section {
    name: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
enum Line {
    /// A comment or an empty line, as it was.
    Other(String),
    Entry {
        key: String,
        value: String,
    },
}

/// One `Key=value` with its section.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Entry<'a> {
    pub section: &'a str,
    pub key: &'a str,
    pub value: &'a str,
}

impl UnitFile {
    /// Reads a unit's text; `file` is its name in errors. Continued lines are joined, as systemd does.
    pub fn parse(file: &str, text: &str) -> Result<UnitFile> {
        let mut unit = UnitFile::default();
        for (place, joined) in joined_lines(file, text)? {
            if is_comment(&joined) {
                if let Some(section) = unit.sections.last_mut() {
                    section.lines.push(Line::Other(joined));
                }
                continue;
            }
            if let Some(name) = joined.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                unit.sections.push(Section { name: name.to_owned(), lines: Vec::new() });
                continue;
            }
            let Some((key, value)) = joined.split_once('=') else {
                bail!("{file}, line {place}: neither [Section] nor Key=value: {joined:?}");
            };
            let Some(section) = unit.sections.last_mut() else {
                bail!("{file}, line {place}: {key}= stands before the first section");
            };
            let (key, value) = (trimmed(key), trimmed(value));
            if value.ends_with('\\') {
                bail!("{file}, line {place}: {key}= ends in a backslash, which would swallow the line behind it");
            }
            section.lines.push(Line::Entry { key: key.to_owned(), value: value.to_owned() });
        }
        Ok(unit)
    }

    /// Every entry in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.sections.iter().flat_map(|section| {
            section.lines.iter().filter_map(|line| match line {
                Line::Entry { key, value } => Some(Entry { section: &section.name, key, value }),
                Line::Other(_) => None,
            })
        })
    }

    /// The values of a key, in order.
    pub fn values<'a>(&'a self, section: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.entries().filter(move |entry| entry.section == section && entry.key == key).map(|entry| entry.value)
    }

    /// Whether it is a socket that wants an instance of a service for each connection (`Accept=`, systemd.socket(5)).
    pub fn accepts(&self) -> bool {
        let last = self.values("Socket", "Accept").last();
        last.is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "yes" | "y" | "true" | "t" | "on" | "1"))
    }

    /// Lets each text of the file become another one; the names of sections and directives stay, if they may.
    pub fn rewrite(
        &mut self,
        name: impl Fn(&str) -> Result<()>,
        value: impl Fn(&str, &str) -> Result<String>,
        comment: impl Fn(&str) -> String,
    ) -> Result<()> {
        for section in &mut self.sections {
            name(&section.name)?;
            for line in &mut section.lines {
                match line {
                    Line::Other(text) => *text = comment(text),
                    Line::Entry { key, value: text } => {
                        name(key)?;
                        *text = value(key, text)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a line at the end of its section, which is made where it is missing.
    pub fn add(&mut self, section: &str, key: &str, value: &str) {
        let index = self.sections.iter().rposition(|known| known.name == section).unwrap_or_else(|| {
            self.sections.push(Section { name: section.to_owned(), lines: Vec::new() });
            self.sections.len() - 1
        });
        let lines = &mut self.sections[index].lines;
        let end =
            lines.iter().rposition(|line| matches!(line, Line::Entry { .. })).map_or(lines.len(), |last| last + 1);
        lines.insert(end, Line::Entry { key: key.to_owned(), value: value.to_owned() });
    }

    /// Adds a line where the key is not set at all.
    pub fn add_missing(&mut self, section: &str, key: &str, value: &str) {
        if self.values(section, key).next().is_none() {
            self.add(section, key, value);
        }
    }

    /// Gives each entry another value, or drops it.
    pub fn edit(&mut self, mut change: impl FnMut(Entry<'_>) -> Option<String>) {
        for section in &mut self.sections {
            let name = &section.name;
            section.lines.retain_mut(|line| {
                let Line::Entry { key, value } = line else { return true };
                let changed = change(Entry { section: name, key, value });
                changed.map(|new| *value = new).is_some()
            });
        }
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let sections = self.sections.iter().map(|section| {
            let lines = section.lines.iter().map(|line| match line {
                Line::Other(text) => format!("{text}\n"),
                Line::Entry { key, value } => format!("{key}={value}\n"),
            });
            let body: String = lines.collect();
            format!("[{}]\n{}\n", section.name, body.trim_end_matches(['\n', ' ', '\t']))
        });
        sections.collect::<Vec<_>>().join("\n")
    }
}

/// Without the blanks at its ends, which are systemd's and not Unicode's.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Whether a line says nothing.
pub fn is_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with(['#', ';'])
}

/// The lines of a text, each with the number of its first one: continued ones are joined, and the comments between them dropped.
pub fn joined_lines(file: &str, text: &str) -> Result<Vec<(usize, String)>> {
    one_line_each(file, text)?;
    let (mut joined, mut lines) = (Vec::new(), (1..).zip(text.lines().map(trimmed)));
    while let Some((place, line)) = lines.next() {
        let mut line = line.to_owned();
        while !is_comment(&line) && line.ends_with('\\') {
            line.pop();
            let Some((_, next)) = lines.by_ref().find(|(_, next)| !next.starts_with(['#', ';'])) else {
                bail!("{file}, line {place}: continued, but nothing follows");
            };
            line = format!("{} {next}", trimmed(&line));
        }
        joined.push((place, line));
    }
    Ok(joined)
}

/// systemd ends a line at a carriage return and at a NUL too (its read_line()): what looks like one line here must be one there.
pub fn one_line_each(file: &str, text: &str) -> Result<()> {
    let number = text.lines().position(|line| line.chars().any(|c| c.is_control() && c != '\t'));
    number.map_or(Ok(()), |number| bail!("{file}, line {}: it holds control characters", number + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_stands_in_its_section_and_the_rest_is_kept() {
        let text = "[Unit]\nDescription=a \\\n  b\n# why\n\n[Service]\nExecStart=/x\n";
        let mut unit = UnitFile::parse("a.service", text).expect("a unit");
        unit.add("Unit", "After", "b.service");
        unit.add_missing("Service", "Type", "notify");
        unit.add_missing("Service", "ExecStart", "/y");
        unit.add("Install", "WantedBy", "multi-user.target");
        let expected = "[Unit]\nDescription=a b\nAfter=b.service\n# why\n\n[Service]\nExecStart=/x\nType=notify\n\n[Install]\nWantedBy=multi-user.target\n";
        assert_eq!(unit.to_text(), expected);
    }

    #[test]
    fn lines_that_are_none_are_named() {
        for (text, expected) in [
            ("A=b", "line 1"),
            ("[Unit]\nnonsense", "line 2"),
            ("[Unit]\nA=b \\", "line 2"),
            ("[Unit]\nA=b \\\\\n\nB=c", "line 2"),
            ("[Unit]\nA=b\rExecStart=/x", "line 2"),
            ("[Unit]\nA=b\0c", "line 2"),
        ] {
            assert!(UnitFile::parse("a.service", text).expect_err(text).to_string().contains(expected));
        }
    }
}
