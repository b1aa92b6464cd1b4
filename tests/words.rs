//! What the program says about itself: help, manual pages, completions.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{fs, process::Command};

use common::host::Outcome;
use serde_json::Value;

fn sysctr(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sysctr"));
    Outcome::of(&command.args(arguments).env("COLUMNS", "80").output().unwrap())
}

/// The verbs that `sysctr --help` lists.
fn verbs() -> Vec<String> {
    let help = sysctr(&["--help"]).out;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn help_names_every_verb_and_fits_a_terminal() {
    let verbs = verbs();
    for verb in [
        "install",
        "uninstall",
        "list",
        "show",
        "diff",
        "exec",
        "run",
        "pull",
        "images",
        "remove",
        "inspect",
        "lint",
        "verify",
        "prune",
        "completions",
        "man",
    ] {
        assert!(verbs.iter().any(|known| known == verb), "{verb} is not in {verbs:?}");
    }
    let every = verbs.iter().map(|verb| vec![verb.as_str(), "--help"]).chain([vec!["--help"], vec!["-h"]]);
    for arguments in every {
        let Outcome { code, out, err } = sysctr(&arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
        let wide: Vec<&str> = out.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{arguments:?}: {wide:#?}");
        // each argument and option says what it is: behind it, or in the next line
        let lines: Vec<&str> = out.lines().collect();
        for (line, next) in lines.iter().zip(lines[1..].iter().chain([&""])) {
            let is_item = line.starts_with("  ") && line.trim_start().starts_with(['-', '<', '[']);
            let says = line.trim().contains("  ") || next.starts_with("          ");
            assert!(!is_item || says, "{arguments:?}: {line:?} says nothing");
        }
    }
}

#[test]
fn there_is_a_manual_page_for_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(sysctr(&["man", folder.path().to_str().unwrap()]).code, 0);
    for verb in verbs() {
        let page = fs::read_to_string(folder.path().join(format!("sysctr-{verb}.1")))
            .unwrap_or_else(|_| panic!("no page of {verb}"));
        assert!(page.contains(".SH NAME") && page.contains(&verb) && page.contains(".SH SYNOPSIS"), "{verb}: {page}");
    }
    let page = sysctr(&["man"]).out;
    assert_eq!(page, fs::read_to_string(folder.path().join("sysctr.1")).unwrap());
    let outcome = sysctr(&["man", "/nowhere/at/all"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.starts_with("error: ") && outcome.err.contains("/nowhere/at/all"), "{}", outcome.err);
}

#[test]
fn completions_know_every_verb_and_the_shell_reads_them() {
    for shell in ["bash", "zsh", "fish"] {
        let script = sysctr(&["completions", shell]).out;
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell}: {verb}");
        }
        assert!(script.contains("no-enable"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("sysctr.bash");
    fs::write(&script, sysctr(&["completions", "bash"]).out).unwrap();
    let ask = format!(
        "source {}; COMP_WORDS=(sysctr inst); COMP_CWORD=1; _sysctr sysctr inst sysctr; echo ${{COMPREPLY[@]}}",
        script.display()
    );
    assert_eq!(common::run("bash", &["-c", &ask]).unwrap().trim(), "install");
}

#[test]
fn a_wrong_command_line_ends_with_2_and_as_json_in_one_document() {
    for arguments in [&["--bogus"][..], &["install"], &["frobnicate"], &["install", "x", "--set", "a"], &["show", "A"]]
    {
        let outcome = sysctr(arguments);
        assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{arguments:?}");
        let lines: Vec<&str> = outcome.err.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: "),
            "{}",
            outcome.err
        );
        let outcome = sysctr(&[&["--json"], arguments].concat());
        let said: Value = serde_json::from_str(&outcome.err).unwrap_or_else(|error| panic!("{error}: {}", outcome.err));
        assert_eq!((outcome.code, &said["code"]), (2, &Value::from(2)), "{arguments:?}");
        assert!(!said["error"].as_str().unwrap().is_empty());
    }
    let root = tempfile::tempdir().unwrap();
    let said = sysctr(&["--root", root.path().to_str().unwrap(), "install", "team/app"]);
    assert!(said.code == 2 && said.err.starts_with("error: \"team/app\" does not name its registry"), "{}", said.err);
    assert!(sysctr(&["instal"]).err.contains("'install'"));
    let nothing = sysctr(&[]);
    assert!(nothing.code == 2 && nothing.err.contains("Usage: "), "{}", nothing.err);
    assert_eq!(sysctr(&["--version"]).code, 0);
}

#[test]
fn a_usage_never_shows_what_is_refused() {
    for (wrong, usage) in [
        (&["inspect", "--schema", "oci:x"][..], "inspect [OPTIONS] <IMAGE | --schema>"),
        (&["install", "--quadlet", "a.container", "oci:x"], "install [OPTIONS] <IMAGE | --quadlet FILE.container>"),
        (&["update", "--all", "web"], "update [OPTIONS] <NAME... | --all | --auto>"),
        (&["diff", "--available", "web", "1"], "diff [OPTIONS] <NAME> [A [B] | --available | --to IMAGE]"),
    ] {
        let outcome = sysctr(wrong);
        let hint = format!("hint: usage: sysctr {usage}");
        assert!(outcome.code == 2 && outcome.err.lines().nth(1) == Some(&hint), "{wrong:?}: {}", outcome.err);
        let help = sysctr(&[wrong[0], "--help"]).out;
        assert!(help.contains(&format!("\nUsage: sysctr {usage}\n")), "{help}");
    }
}
