//! Whatever stands in a value, a rendered file is read as it was meant, or it is refused. Read back by rules written down here after
//! systemd's own, and a sample by systemd itself.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, os::unix::process::CommandExt, path::Path, process::Command};

use serde_json::{Value, json};
use sysctr::model::template::{Kind, render};

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.roll(of.len())]
    }

    fn value(&mut self) -> String {
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
struct Line {
    section: &'static str,
    key: &'static str,
    text: String,
    meant: Vec<String>,
    /// Half an escape or the like stands before a value: it cannot be rendered.
    hopeless: bool,
}

#[derive(Default)]
struct Generated {
    values: BTreeMap<String, Value>,
    lines: Vec<Line>,
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

    fn of(dice: &mut Dice) -> Generated {
        let mut made = Generated::default();
        made.text(dice, "Unit", "Description");
        for _ in 0..1 + dice.roll(2) {
            match dice.roll(8) {
                0..3 => made.words(dice, "Service", "ExecStartPre", "/bin/echo", ""),
                3 => made.words(dice, "Service", "Environment", "", "KN="),
                4 => made.text(dice, "Service", "SyslogIdentifier"),
                5 => made.text(dice, "Service", "WorkingDirectory"),
                6 => {
                    let (name, value) = made.value(dice);
                    made.lines.push(Line {
                        section: "Unit",
                        key: "After",
                        text: name,
                        meant: vec![value],
                        hopeless: false,
                    });
                }
                _ => {
                    let (name, value) = made.value(dice);
                    made.lines.push(Line {
                        section: "Service",
                        key: "Slice",
                        text: name,
                        meant: vec![value],
                        hopeless: false,
                    });
                }
            }
        }
        made.words(dice, "Service", "ExecStart", "/bin/echo", "");
        made
    }

    fn template(&self) -> String {
        let of = |section: &str| -> String {
            let lines = self.lines.iter().filter(|line| line.section == section);
            lines.map(|line| format!("{}={}\n", line.key, line.text)).collect()
        };
        format!("[Unit]\nDefaultDependencies=no\n{}\n[Service]\nType=oneshot\n{}", of("Unit"), of("Service"))
    }

    fn render(&self) -> Result<String, String> {
        render(Kind::Unit, "t", &self.template(), &json!(self.values), &[]).map_err(|error| format!("{error:#}"))
    }

    fn is_tame(&self) -> bool {
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

/// The directives of a unit as systemd's config_parse() splits them: lines, continued ones, sections, blanks at the ends.
fn directives(text: &str) -> Vec<(String, String, String)> {
    let (mut section, mut found, mut joined) = (String::new(), Vec::new(), String::new());
    for line in text.split(['\n', '\r', '\0']) {
        let line = line.trim_matches([' ', '\t']);
        if line.starts_with(['#', ';']) || (line.is_empty() && joined.is_empty()) {
            continue;
        }
        joined += line;
        if let Some(before) = joined.strip_suffix('\\') {
            joined = format!("{before} ");
            continue;
        }
        let line = std::mem::take(&mut joined);
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => section = name.to_owned(),
            None => {
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no directive"));
                let ends = [' ', '\t'];
                found.push((section.clone(), key.trim_matches(ends).to_owned(), value.trim_matches(ends).to_owned()));
            }
        }
    }
    found
}

/// extract_first_word() with EXTRACT_UNQUOTE and EXTRACT_CUNESCAPE, again and again.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                let take = |rest: &mut std::str::Chars, digits: usize, base| -> char {
                    let digits: String = rest.by_ref().take(digits).collect();
                    char::from_u32(u32::from_str_radix(&digits, base).unwrap_or_else(|_| panic!("{text:?}: an escape")))
                        .unwrap()
                };
                let read = match rest.next().unwrap_or_else(|| panic!("{text:?} ends in a backslash")) {
                    'x' => take(&mut rest, 2, 16),
                    'u' => take(&mut rest, 4, 16),
                    'n' => '\n',
                    't' => '\t',
                    same @ ('\\' | '"' | '\'') => same,
                    's' => ' ',
                    other => panic!("{text:?}: \\{other}"),
                };
                word.get_or_insert_default().push(read);
            }
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ' ' | '\t' if quote.is_none() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "{text:?}: a quote that does not end");
    words.extend(word);
    words
}

/// unit_full_printf(): of specifiers only the one that stands for itself.
fn specifiers(text: &str) -> String {
    let plain = text.replace("%%", "");
    assert!(!plain.contains('%'), "{text:?} has a specifier");
    text.replace("%%", "%")
}

/// replace_env_argv(): of variables only the one that stands for a dollar.
fn variables(text: &str) -> String {
    assert!(!text.replace("$$", "").contains('$'), "{text:?} has a variable");
    text.replace("$$", "$")
}

fn read(key: &str, value: &str) -> Vec<String> {
    match key {
        "ExecStart" | "ExecStartPre" => {
            assert!(!value.split([' ', '\t']).any(|word| word == ";"), "{value:?} is two commands");
            words(value).iter().map(|word| variables(&specifiers(word))).collect()
        }
        "Environment" => words(value).iter().map(|word| specifiers(word)).collect(),
        "After" | "Slice" => value.split([' ', '\t']).map(specifiers).collect(),
        _ => vec![specifiers(value)],
    }
}

#[test]
fn ten_thousand_units_are_read_as_they_were_meant_or_refused() {
    let mut dice = Dice(7);
    let (mut rendered, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let made = Generated::of(&mut dice);
        let unit = match made.render() {
            Ok(unit) => unit,
            Err(error) => {
                assert!(!made.is_tame(), "{error}\n{}\n{:?}", made.template(), made.values);
                let placed =
                    error.contains("line ") && error.contains("column ") || error.contains("control characters");
                assert!(placed, "{error} names no place");
                refused += 1;
                continue;
            }
        };
        assert!(!made.lines.iter().any(|line| line.hopeless), "{}\n{unit}", made.template());
        let found = directives(&unit);
        let own = |(_, key, _): &&(String, String, String)| key != "DefaultDependencies" && key != "Type";
        let found: Vec<_> = found.iter().filter(own).collect();
        assert_eq!(found.len(), made.lines.len(), "{unit}");
        let in_order = ["Unit", "Service"]
            .iter()
            .flat_map(|section| made.lines.iter().filter(move |line| line.section == *section));
        for (line, (section, key, value)) in in_order.zip(found) {
            assert_eq!((line.section, line.key), (section.as_str(), key.as_str()));
            assert_eq!(read(key, value), line.meant, "{key}={value}\nof {key}={}\n{:?}", line.text, made.values);
        }
        rendered += 1;
    }
    assert!(rendered > 2_000 && refused > 2_000, "{rendered} rendered, {refused} refused");
}

#[test]
fn values_stay_values_in_json() {
    let mut dice = Dice(11);
    let mut rendered = 0;
    for _ in 0..2_000 {
        let (one, other, number) = (dice.value(), dice.value(), dice.roll(100));
        let text = r#"{"a": "x\"{{one}}-{{other}}", "b": {{json other}}, "c": {{number}}, "{{one}}": true}"#;
        let data = json!({"one": one, "other": other, "number": number});
        let Ok(text) = render(Kind::Json, "c", text, &data, &[]) else {
            assert!(one.contains('\n') || other.contains('\n'), "{data}");
            continue;
        };
        let mut meant = json!({"a": format!("x\"{one}-{other}"), "b": other, "c": number});
        meant[&one] = true.into();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), meant, "{text}");
        rendered += 1;
    }
    assert!(rendered > 1_000);
    for text in [r#"{"a": {{one}}}"#, r#"{"a": "{{json one}}"}"#, r#"{"a": "\u00{{one}}"}"#, r#"{"a": "\{{one}}"}"#] {
        let data = json!({"one": "null"});
        let read = render(Kind::Json, "c", text, &data, &[]).map(|text| serde_json::from_str::<Value>(&text));
        assert!(!matches!(read, Ok(Ok(ref it)) if it["a"] != "{{one}}"), "{text}: {read:?}");
    }
}

/// What systemd itself reads of units: a user manager that only loads them.
fn loaded(folder: &Path) -> String {
    let systemd =
        ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(systemd.expect("systemd, which `make deps` installs"));
    command.args(["--user", "--test"]).current_dir("/");
    command.env_clear().env("SYSTEMD_UNIT_PATH", folder).env("XDG_RUNTIME_DIR", folder).env("HOME", folder);
    command.env("SYSTEMD_LOG_LEVEL", "warning").env("LANG", "C.UTF-8");
    // It refuses to be root.
    command.uid(65_534).gid(65_534);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Reads back how systemd writes a command line in its dump: words in double quotes where they need them.
fn dumped_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut inside) = (Vec::new(), None::<String>, false);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' if inside => word.get_or_insert_default().extend(rest.next()),
            '"' => {
                inside = !inside;
                word.get_or_insert_default();
            }
            ' ' if !inside => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn systemd_reads_a_sample_the_same_way() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut dice = Dice(23);
    let mut sample = Vec::new();
    while sample.len() < 150 {
        let made = Generated::of(&mut dice);
        if let Ok(unit) = made.render() {
            fs::write(folder.path().join(format!("s{}.service", sample.len())), unit).unwrap();
            sample.push(made);
        }
    }
    let wants: String = (0..sample.len()).map(|number| format!("Wants=s{number}.service\n")).collect();
    fs::write(folder.path().join("default.target"), format!("[Unit]\nDescription=all\n{wants}")).unwrap();
    for target in ["basic", "sysinit", "shutdown"] {
        fs::write(folder.path().join(format!("{target}.target")), "[Unit]\nDescription=x\n").unwrap();
    }
    Command::new("chown").args(["-R", "65534:65534"]).arg(folder.path()).status().unwrap();
    let dump = loaded(folder.path());
    for (number, made) in sample.iter().enumerate() {
        let start = format!("-> Unit s{number}.service:");
        let unit = dump.split(&start).nth(1).unwrap_or_else(|| panic!("{start} is not in\n{dump}"));
        let unit = unit.split("\n\t-> Unit ").next().unwrap();
        let all = |label: &str| -> Vec<&str> {
            let start = format!("{label}: ");
            unit.lines().filter_map(|line| line.trim_start_matches('\t').strip_prefix(&start)).collect()
        };
        let meant =
            |key: &'static str| made.lines.iter().filter(move |line| line.key == key).map(|line| line.meant.clone());
        assert_eq!(
            all("Description"),
            meant("Description").map(|all| all[0].clone()).collect::<Vec<_>>(),
            "{}",
            made.template()
        );
        let mut commands: Vec<Vec<String>> = all("Command Line").iter().map(|line| dumped_words(line)).collect();
        commands.iter_mut().flatten().for_each(|word| *word = variables(word));
        let expected: Vec<Vec<String>> = meant("ExecStartPre").chain(meant("ExecStart")).collect();
        assert_eq!(commands, expected, "{}\n{unit}", made.template());
        let environment: Vec<String> = meant("Environment").flatten().collect();
        let mut known = all("Environment");
        known.retain(|line| line.starts_with('K'));
        // The last of two with one name counts.
        for line in &known {
            assert!(environment.iter().any(|meant| meant == line), "{line:?} is none of {environment:?}");
        }
        assert!(
            known.len() <= environment.len() && known.is_empty() == environment.is_empty(),
            "{known:?} {environment:?}"
        );
        if let Some(folder) = meant("WorkingDirectory").map(|all| all[0].clone()).rfind(|path| path.starts_with('/')) {
            let plain = !folder.contains("//") && !folder.ends_with('/') && !folder.contains("/.");
            assert!(!plain || all("WorkingDirectory") == [folder.as_str()], "{folder} {:?}", all("WorkingDirectory"));
        }
    }
}

#[test]
fn systemd_tmpfiles_writes_what_was_meant() {
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut dice = Dice(31);
    let (mut lines, mut meant) = (String::new(), Vec::new());
    while meant.len() < 100 {
        let value = dice.value();
        let line = format!("f /file{} 0644 - - - {{{{x}}}}end\n", meant.len());
        if let Ok(line) = render(Kind::Tmpfiles, "t", &line, &json!({"x": value}), &[]) {
            lines += &line;
            meant.push(format!("{value}end"));
        } else {
            assert!(value.contains('\n'), "{value:?} was refused");
        }
    }
    let conf = root.path().join("conf");
    fs::write(&conf, lines).unwrap();
    let output = Command::new("systemd-tmpfiles")
        .arg("--create")
        .arg(format!("--root={}", root.path().display()))
        .arg(&conf)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (number, meant) in meant.iter().enumerate() {
        assert_eq!(fs::read_to_string(root.path().join(format!("file{number}"))).unwrap(), *meant);
    }
    assert_eq!(meant.len(), 100);
    for (kind, line) in [
        (Kind::Tmpfiles, "d /var/lib/{{x}}"),
        (Kind::Tmpfiles, "d /a {{x}}"),
        (Kind::Sysusers, "u {{x}}"),
        (Kind::Sysusers, "u a {{x}}"),
    ] {
        for value in ["a b", "%n", "\"", "", "a\\x2f"] {
            assert!(render(kind, "t", line, &json!({"x": value}), &[]).is_err(), "{line} took {value:?}");
        }
    }
}

#[test]
fn systemd_sysusers_writes_what_was_meant() {
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let mut dice = Dice(37);
    let (mut lines, mut meant) = (String::new(), Vec::new());
    while meant.len() < 100 {
        let (value, quote) = (dice.value(), dice.pick(&["", "\"", "'"]));
        let line = format!("u user{} - {quote}{{{{x}}}}end{quote}\n", meant.len());
        if let Ok(line) = render(Kind::Sysusers, "u", &line, &json!({"x": value}), &[]) {
            lines += &line;
            meant.push(format!("{value}end"));
        } else {
            assert!(value.is_empty() || value.contains(['\n', ':', '%']), "{value:?} was refused");
        }
    }
    let conf = root.path().join("conf");
    fs::write(&conf, lines).unwrap();
    let output = Command::new("systemd-sysusers")
        .arg(format!("--root={}", root.path().display()))
        .arg(&conf)
        .env("LANG", "C.UTF-8")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let passwd = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    for (number, meant) in meant.iter().enumerate() {
        let start = format!("user{number}:");
        let user = passwd.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {start}"));
        assert_eq!(user.split(':').nth(4), Some(meant.as_str()));
    }
}
