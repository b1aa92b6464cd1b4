//! The arrows of the house: `commands` imports `host`, `model` and `output`; `host` and `output` import `model`; `model` imports only
//! itself; `runtime` and `generator` import only themselves and what `model` says, and link neither OSTree nor D-Bus.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The parts of the house and whom each may import.
const ARROWS: [(&str, &[&str]); 7] = [
    ("model", &["model"]),
    ("host", &["host", "model"]),
    ("output", &["output", "model"]),
    ("cli", &["cli", "model"]),
    ("commands", &["commands", "cli", "host", "model", "output"]),
    ("runtime", &["runtime", "model"]),
    ("generator", &["generator", "model"]),
];

/// A file of Rust as far as this matters: a stream of words and single signs, without comments and texts.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let chars: Vec<char> = source.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let rest = |word: &str| chars[at..].iter().take(word.len()).collect::<String>() == word;
        if rest("//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if rest("/*") {
            while at < chars.len() && !(chars[at] == '*' && chars.get(at + 1) == Some(&'/')) {
                at += 1;
            }
            at += 2;
        } else if c == '"' || rest("r\"") || rest("r#") {
            let hashes = if c == 'r' { chars[at + 1..].iter().take_while(|c| **c == '#').count() } else { 0 };
            let raw = c == 'r';
            if raw && chars.get(at + 1 + hashes) != Some(&'"') {
                at += 2; // a raw name
                continue;
            }
            at += if raw { hashes + 2 } else { 1 };
            loop {
                let closes = chars[at] == '"' && chars[at + 1..].iter().take(hashes).all(|c| *c == '#');
                if closes {
                    at += 1 + hashes;
                    break;
                }
                at += if chars[at] == '\\' && !raw { 2 } else { 1 };
            }
        } else if c == '\'' {
            // a character or a lifetime
            let length = if chars.get(at + 1) == Some(&'\\') {
                2 + chars[at + 2..].iter().skip(1).position(|c| *c == '\'').unwrap() + 2
            } else if chars.get(at + 2) == Some(&'\'') {
                3
            } else {
                1
            };
            at += length;
        } else if c.is_alphanumeric() || c == '_' {
            let word: String = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
            at += word.chars().count();
            tokens.push(word);
        } else if rest("::") {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            at += 1;
        }
    }
    tokens
}

/// Every path of our own crate in a file, spelt from the crate's root: `crate::a::b`, `sysctr::a::b`, `super::b`, also in groups.
fn paths(source: &str, module: &[String]) -> BTreeSet<Vec<String>> {
    let tokens = tokens(source);
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins = at == 0 || tokens[at - 1] != "::";
        let follows = tokens.get(at + 1).is_some_and(|next| next == "::");
        if !begins || !follows {
            continue;
        }
        let base = match token.as_str() {
            "crate" | "sysctr" => Vec::new(),
            "super" => module[..module.len() - 1].to_vec(),
            "self" => module.to_vec(),
            _ => continue,
        };
        walk(&tokens, at + 2, base, &mut found);
    }
    found
}

/// Follows a path, branching at a group; gives where it ends.
fn walk(tokens: &[String], mut at: usize, mut base: Vec<String>, found: &mut BTreeSet<Vec<String>>) -> usize {
    loop {
        match tokens[at].as_str() {
            "{" => {
                at += 1;
                while tokens[at] != "}" {
                    at = if tokens[at] == "," { at + 1 } else { walk(tokens, at, base.clone(), found) };
                }
                return at + 1;
            }
            "super" => drop(base.pop()),
            "self" => {}
            word => base.push(word.to_owned()),
        }
        at += 1;
        if tokens.get(at).is_none_or(|next| next != "::") {
            found.insert(base);
            // `as other`
            return if tokens.get(at).is_some_and(|next| next == "as") { at + 2 } else { at };
        }
        at += 1;
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// What each part imports, with the file that does.
fn imports() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut imports = Vec::new();
    for file in sources(&root) {
        let below = file.strip_prefix(&root).unwrap().with_extension("");
        let mut module: Vec<String> = below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
            module.pop();
        }
        if module.is_empty() || module[0] == "bin" {
            continue;
        }
        // what a test module inside a file calls super is the file itself: one level less can only hide the file's own names
        for path in paths(&fs::read_to_string(&file).unwrap(), &module) {
            let part = path.first().cloned().unwrap_or_default();
            if part.chars().next().is_some_and(char::is_lowercase) {
                imports.push((below.clone(), module[0].clone(), part));
            }
        }
    }
    imports
}

#[test]
fn each_part_imports_only_what_it_may() {
    let imports = imports();
    let known: Vec<&str> = ARROWS.iter().map(|(part, _)| *part).collect();
    let wrong: BTreeSet<String> = imports
        .iter()
        .filter(|(_, _, to)| known.contains(&to.as_str()))
        .filter(|(_, from, to)| {
            let (_, may) =
                ARROWS.iter().find(|(part, _)| part == from).unwrap_or_else(|| panic!("no arrow for {from}"));
            !may.contains(&to.as_str())
        })
        .map(|(file, _, to)| format!("{} imports {to}", file.display()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // the test itself must see something
    for arrow in
        [("commands", "host"), ("commands", "model"), ("commands", "output"), ("host", "model"), ("output", "model")]
    {
        let seen = imports.iter().any(|(_, from, to)| (from.as_str(), to.as_str()) == arrow);
        assert!(seen, "no import {arrow:?} was found");
    }
}

#[test]
fn every_way_to_write_an_import_is_seen() {
    let module = ["model".to_owned(), "name".to_owned()];
    for (source, part) in [
        ("use crate::host;", "host"),
        ("use crate::{model::name::X, host::dir::Folder};", "host"),
        ("use sysctr::{model::{a, b::{C, D}}, host::{self, lock as l}};", "host"),
        ("use super::super::host::dir;", "host"),
        ("use super::{super::host, other};", "host"),
        ("fn f() -> crate::host::dir::Folder {}", "host"),
        ("// \" \nlet c = '\"'; let s = r#\"\"\"#; crate::host::x()", "host"),
        ("pub(crate) use /* a */ crate :: host::*;", "host"),
    ] {
        assert!(paths(source, &module).iter().any(|path| path[0] == part), "{source}: {:?}", paths(source, &module));
    }
    for source in
        ["// use crate::host;", "\"crate::host\"", "use super::host;", "use std::host;", "use crate::model::host;"]
    {
        assert!(paths(source, &module).iter().all(|path| path[0] != "host"), "{source}");
    }
}

#[test]
fn the_runtime_and_the_generator_link_no_ostree_and_no_bus() {
    let needed = |program: &str| common::run("readelf", &["-d", program]).unwrap();
    // zbus is Rust and would be linked statically, so the names of its code tell
    let holds = |program: &str, words: [&[u8]; 2]| {
        let code = fs::read(program).unwrap();
        words.iter().any(|word| code.windows(word.len()).any(|window| window == *word))
    };
    let bus = [&b"org.freedesktop.systemd1"[..], b"4zbus"];
    for program in [env!("CARGO_BIN_EXE_sysctr-runtime"), env!("CARGO_BIN_EXE_sysctr-generator")] {
        let libraries = needed(program);
        assert!(libraries.contains("NEEDED") && libraries.contains("libc.so"), "{libraries}");
        for library in ["ostree", "dbus", "glib", "gio", "systemd", "ssl"] {
            assert!(!libraries.contains(&format!("[lib{library}")), "{program}: {libraries}");
        }
        assert!(!holds(program, bus), "{program} speaks D-Bus");
    }
    // the control: the other program does
    let program = env!("CARGO_BIN_EXE_sysctr");
    assert!(needed(program).contains("[libostree"));
    assert!(holds(program, bus));
}
