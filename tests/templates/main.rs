//! Whatever stands in a value, a rendered file is read as it was meant, or it is refused. Read back by rules written down here after
//! systemd's own, and a sample by systemd itself.
#![allow(missing_docs, clippy::unwrap_used)]

mod generated;
mod reading;

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command};

use generated::{Dice, Generated};
use reading::{directives, read, variables};
use serde_json::{Value, json};
use sysctr::model::template::{Kind, render};

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
