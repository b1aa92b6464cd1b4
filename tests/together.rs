//! Updates of several containers as one, of a tree that systemd does not run.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::process::{Command, Stdio};

use common::host::{Host, Image, assert_same};
use serde_json::{Value, json};

fn of(description: &str, more: Value) -> Image {
    let mut manifest = json!({"version": "2.0", "description": description});
    manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Image::new().manifest(manifest)
}

/// Three containers of a first version.
fn three() -> Host {
    let host = Host::new();
    for name in ["a", "b", "c"] {
        let image = host.image(name, &of("first", json!({})));
        host.does(&["install", &image]);
    }
    host
}

fn active(host: &Host) -> Vec<String> {
    let read = |name: &str| host.read(&format!("etc/sysctr/containers/{name}/active")).trim().to_owned();
    ["a", "b", "c"].iter().map(|name| read(name)).collect()
}

#[test]
fn all_are_updated_in_the_order_of_their_units() {
    let host = three();
    host.image("a", &of("second", json!({"after": ["b"]})));
    host.image("b", &of("second", json!({"requires": ["c"]})));
    host.image("c", &of("second", json!({})));
    let said = host.does(&["update", "a", "b", "c", "--together", "--yes"]);
    let order: Vec<&str> = said.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(order, ["c", "b", "a"], "{said}");
    assert_eq!(active(&host), ["2", "2", "2"]);
    assert_eq!(host.json(&["verify"])["ok"], true);
    assert!(!host.at("etc/sysctr/group.json").exists());
    assert!(host.does(&["update", "--all", "--together"]).contains("a is up to date"));

    // who is up to date is in nobody's way
    host.image("b", &of("third", json!({})));
    let outcomes = host.json(&["update", "--all", "--together"]);
    let results: Vec<&Value> = outcomes.as_array().unwrap().iter().map(|one| &one["result"]).collect();
    assert_eq!(results, ["unchanged", "updated", "unchanged"]);
}

#[test]
fn one_that_is_refused_keeps_all() {
    let host = three();
    let epoch = |epoch: u32| json!({"state": {"epoch": epoch, "folders": [{"path": "/var/lib/c/data"}]}});
    host.image("c", &of("first", epoch(1)));
    host.does(&["update", "c"]);
    for name in ["a", "b"] {
        host.image(name, &of("second", json!({})));
    }
    host.image("c", &of("second", json!({"container": {"capabilities": {"add": ["SYS_TIME"]}}})));
    host.refuses(4, &["nothing is updated", "updating c", "CAP_SYS_TIME"], &["update", "a", "b", "c", "--together"]);
    host.image("c", &of("second", json!({"values": {"x": {"type": "integer", "required": true}}})));
    host.refuses(1, &["nothing is updated", "x"], &["update", "a", "b", "c", "--together"]);
    host.image("c", &of("second", epoch(2)));
    host.refuses(1, &["c", "format 2"], &["update", "a", "b", "c", "--together"]);
    assert_eq!(active(&host), ["1", "1", "2"]);
    host.refuses(2, &["--together"], &["update", "a", "b", "--together", "--no-rollback"]);
    host.refuses(5, &["nobody"], &["update", "a", "nobody", "--together"]);
}

#[test]
fn those_that_wait_for_each_other_are_refused_and_named() {
    let host = three();
    host.image("a", &of("second", json!({"after": ["b"]})));
    host.image("b", &of("second", json!({})));
    host.image("c", &of("second", json!({})));
    // a drop-in of the admin counts as well
    host.write("etc/systemd/system/b.service.d/order.conf", "[Unit]\nAfter=c.service\nRequires=c.service\n");
    host.write("etc/systemd/system/c.service.d/order.conf", "[Unit]\nAfter=a.service\n");
    host.refuses(1, &["a after b after c after a"], &["update", "a", "b", "c", "--together"]);
    assert_eq!(active(&host), ["1", "1", "1"]);
    std::fs::remove_file(host.at("etc/systemd/system/c.service.d/order.conf")).unwrap();
    let said = host.does(&["update", "a", "b", "c", "--together"]);
    assert!(said.starts_with("updated c"), "{said}");
}

/// Updates all of them, killed before the `number`th file that it removes; whether it was.
fn cut(host: &Host, number: usize) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=unlinkat"]);
    strace.args(["-e", &format!("inject=unlinkat:signal=KILL:when={number}")]);
    strace.arg(env!("CARGO_BIN_EXE_sysctr")).arg("--root").arg(host.root()).args(["update", "--all", "--together"]);
    !strace.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("strace(1), see tests/deps.sh").success()
}

/// Updates all of them, and gives the numbers of the removals of records and of those behind them.
fn removals(host: &Host) -> Vec<usize> {
    let log = host.work.path().join("log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=unlinkat", "-o"]).arg(&log).arg(env!("CARGO_BIN_EXE_sysctr"));
    strace.arg("--root").arg(host.root()).args(["update", "--all", "--together"]);
    assert!(strace.stdout(Stdio::null()).status().expect("strace(1), see tests/deps.sh").success());
    let log = std::fs::read_to_string(log).unwrap();
    // strace counts for each thread
    let calls = || log.lines().filter(|line| line.contains("unlinkat("));
    let thread = |line: &'_ str| line.split_whitespace().next().map(str::to_owned);
    let main = calls().find(|line| line.contains("\"group.json\"")).and_then(thread);
    let lines: Vec<&str> = calls().filter(|line| thread(line) == main).collect();
    let record =
        |line: &str| ["\"group.json\"", "\"journal.json\"", "journal.json.new"].iter().any(|it| line.contains(it));
    (1..=lines.len()).filter(|at| record(lines[at - 1]) || *at > 1 && record(lines[at - 2])).collect()
}

#[test]
fn what_several_come_to_is_decided_by_one_record() {
    let host = three();
    for name in ["a", "b", "c"] {
        host.does(&["pull", &host.image(name, &of("second", json!({})))]);
    }
    let template = host.work.path().join("template");
    let reset = |to: &std::path::Path, from: &std::path::Path| {
        std::fs::remove_dir_all(to).ok();
        common::run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]).unwrap();
    };
    reset(&template, &host.root());
    let old = host.tree();
    let numbers = removals(&host);
    let new = host.tree();
    let [mut undecided, mut decided] = [0, 0];
    for number in numbers {
        reset(&host.root(), &template);
        if !cut(&host, number) {
            continue;
        }
        let there = |file: &str| host.at("etc/sysctr").join(file).exists();
        let journals = ["a", "b", "c"].map(|name| there(&format!("containers/{name}/journal.json")));
        let expected = match (journals, there("group.json")) {
            ([true, true, true], true) => {
                undecided += 1;
                &old
            }
            ([false, true, true], false) => {
                decided += 1;
                // the control: were the record still there, this would be neither old nor new
                let cut = host.work.path().join("cut");
                reset(&cut, &host.root());
                host.write("etc/sysctr/group.json", r#"{"version": 1, "members": ["a", "b", "c"]}"#);
                host.does(&["recover"]);
                assert_eq!(active(&host), ["2", "1", "1"]);
                reset(&host.root(), &cut);
                &new
            }
            (_, there) => match there {
                true => &old,
                false => continue,
            },
        };
        host.does(&["recover"]);
        assert_same(expected, &host.tree(), &format!("cut before unlinkat {number}, journals {journals:?}"));
    }
    assert!(undecided > 0 && decided > 0, "{undecided} were undecided and {decided} decided: the test shows nothing");
}

#[test]
fn a_record_that_cannot_be_read_changes_nothing() {
    let host = three();
    for name in ["a", "b", "c"] {
        host.does(&["pull", &host.image(name, &of("second", json!({})))]);
    }
    let template = host.work.path().join("template");
    common::run("cp", &["-a", host.root().to_str().unwrap(), template.to_str().unwrap()]).unwrap();
    let numbers = removals(&host);
    let cut_there = numbers.into_iter().any(|number| {
        std::fs::remove_dir_all(host.root()).unwrap();
        common::run("cp", &["-a", template.to_str().unwrap(), host.root().to_str().unwrap()]).unwrap();
        cut(&host, number) && host.at("etc/sysctr/containers/c/journal.json").exists()
    });
    assert!(cut_there);
    host.write("etc/sysctr/group.json", r#"{"version": 2, "members": []}"#);
    let before = host.tree();
    let said = host.sysctr(&["recover"]);
    assert!(said.code == 6 && said.err.contains("group.json") && said.err.contains("newer sysctr"), "{}", said.err);
    assert_same(&before, &host.tree(), "a newer sysctr's record");
    host.write("etc/sysctr/group.json", r#"{"version": 1, "members": []}"#);
    host.does(&["recover"]);
    assert_eq!(active(&host), ["1", "1", "1"]);
}
