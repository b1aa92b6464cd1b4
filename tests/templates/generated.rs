//! Templates of units with values full of what means something to somebody, and what has to be read where they stand.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sysctr::model::template::{Kind, render};

/// Numbers that are the same in each run.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.roll(of.len())]
    }

    pub fn value(&mut self) -> String {
        const ODD: [&str; 30] = [
            " ",
            " ",
            "\"",
            "'",
            "\\",
            "%",
            "$",
            ";",
            "#",
            "{",
            "}",
            "${HOME}",
            "%n",
            "\\x41",
            "a",
            "n",
            "x2",
            "0",
            "é",
            "😀",
            "\u{a0}",
            "/",
            "-",
            "~",
            ":",
            "=",
            ",",
            "\u{2028}",
            "[Service]",
            "\n",
        ];
        let tame = self.roll(4) == 0;
        let length = self.roll(6);
        (0..length).map(|_| if tame { self.pick(&["a", "b7", "Z", "_"]) } else { self.pick(&ODD) }).collect()
    }
}

/// A directive of a generated template, and what its reader has to find.
pub struct Line {
    pub section: &'static str,
    pub key: &'static str,
    pub text: String,
    pub meant: Vec<String>,
    /// Half an escape or the like stands before a value: it cannot be rendered.
    pub hopeless: bool,
}

#[derive(Default)]
pub struct Generated {
    pub values: BTreeMap<String, Value>,
    pub lines: Vec<Line>,
}

impl Generated {
    /// A new value: how a template names it, and what it is.
    fn value(&mut self, dice: &mut Dice) -> (String, String) {
        let (name, value) = (format!("v{}", self.values.len()), dice.value());
        self.values.insert(name.clone(), value.clone().into());
        (format!("{{{{{name}}}}}"), value)
    }

    /// One word of literals and values in one of the ways of quoting; the start is bare.
    fn word(&mut self, dice: &mut Dice, start: &str) -> (String, String, bool) {
        const LITERALS: [(&str, &str); 8] = [
            ("a", "a"),
            ("--x=", "--x="),
            ("%%", "%"),
            ("\\x41", "A"),
            ("é", "é"),
            ("\\\\n", "\\n"),
            ("q\\x20", "q "),
            ("=", "="),
        ];
        let quote = dice.pick(&["", "", "\"", "'"]);
        let (mut text, mut meant, mut hopeless) = (format!("{quote}{start}"), start.to_owned(), false);
        for _ in 0..1 + dice.roll(3) {
            match dice.roll(20) {
                0..10 => {
                    let (name, value) = self.value(dice);
                    text += &name;
                    meant += &value;
                }
                10 => {
                    text += dice.pick(&["%", "\\x4", "\\1", "\\u00e"]);
                    text += &self.value(dice).0;
                    hopeless = true;
                }
                11 if !quote.is_empty() => {
                    text += " ";
                    meant += " ";
                }
                _ => {
                    let (literal, read) = LITERALS[dice.roll(LITERALS.len())];
                    text += literal;
                    meant += read;
                }
            }
        }
        (text + quote, meant, hopeless)
    }

    fn words(&mut self, dice: &mut Dice, section: &'static str, key: &'static str, first: &str, start: &str) {
        let (mut text, mut meant) = (vec![first.to_owned()], vec![first.to_owned()]);
        if first.is_empty() {
            (text, meant) = (vec![], vec![]);
        }
        let mut hopeless = false;
        for number in 0..1 + dice.roll(3) {
            let start = start.replace('N', &number.to_string());
            let (word, read, bad) = self.word(dice, &start);
            text.push(word);
            meant.push(read);
            hopeless |= bad;
        }
        if key == "ExecStart" && dice.roll(3) == 0 {
            let list: Vec<String> = (0..dice.roll(4)).map(|_| dice.value()).collect();
            let name = format!("v{}", self.values.len());
            text.push(format!("{{{{args {name}}}}}"));
            self.values.insert(name, json!(list));
            meant.extend(list);
        }
        self.lines.push(Line { section, key, text: text.join(" "), meant, hopeless });
    }

    fn text(&mut self, dice: &mut Dice, section: &'static str, key: &'static str) {
        // Of another path systemd takes nothing.
        let start = if key == "WorkingDirectory" { "/w" } else { "" };
        let (mut text, mut meant) = (start.to_owned(), start.to_owned());
        for _ in 0..1 + dice.roll(3) {
            let (written, read) = match dice.roll(3) {
                0 => dice.pick(&[&("a b ", "a b "), &("%%", "%"), &("\"", "\""), &("/x", "/x")]).to_owned(),
                _ => ("", ""),
            };
            text += written;
            meant += read;
            let (name, value) = self.value(dice);
            text += &name;
            meant += &value;
        }
        self.lines.push(Line { section, key, text, meant: vec![meant], hopeless: false });
    }

    pub fn of(dice: &mut Dice) -> Generated {
        let mut made = Generated::default();
        made.text(dice, "Unit", "Description");
        for _ in 0..1 + dice.roll(2) {
            match dice.roll(8) {
                0..3 => made.words(dice, "Service", "ExecStartPre", "/bin/echo", ""),
                3 => made.words(dice, "Service", "Environment", "", "KN="),
                4 => made.text(dice, "Service", "SyslogIdentifier"),
                5 => made.text(dice, "Service", "WorkingDirectory"),
                number => {
                    let (section, key) = if number == 6 { ("Unit", "After") } else { ("Service", "Slice") };
                    let (text, value) = made.value(dice);
                    made.lines.push(Line { section, key, text, meant: vec![value], hopeless: false });
                }
            }
        }
        made.words(dice, "Service", "ExecStart", "/bin/echo", "");
        made
    }

    pub fn template(&self) -> String {
        let of = |section: &str| -> String {
            let lines = self.lines.iter().filter(|line| line.section == section);
            lines.map(|line| format!("{}={}\n", line.key, line.text)).collect()
        };
        format!("[Unit]\nDefaultDependencies=no\n{}\n[Service]\nType=oneshot\n{}", of("Unit"), of("Service"))
    }

    pub fn render(&self) -> Result<String, String> {
        render(Kind::Unit, "t", &self.template(), &json!(self.values), &[]).map_err(|error| format!("{error:#}"))
    }

    pub fn is_tame(&self) -> bool {
        let tame = |value: &Value| match value {
            Value::String(text) => !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric()),
            Value::Array(items) => items
                .iter()
                .all(|item| item.as_str().is_some_and(|text| text.bytes().all(|b| b.is_ascii_alphanumeric()))),
            _ => false,
        };
        self.values.values().all(tame) && !self.lines.iter().any(|line| line.hopeless)
    }
}
