//! Old or new, never between: the program is killed before each of its changes to the disk, one after the other, and what is left is
//! recovered. Kills are placed with strace's fault injection, so nothing in the program knows of them.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use common::host::{Host, Image, Tree, assert_same, difference};
use serde_json::json;

/// The calls that change a disk, and how many of each are let through between two cuts: every rename, some of what there is much of.
const CALLS: [(&str, usize); 9] = [
    ("renameat", 1),
    ("symlinkat", 1),
    ("fsetxattr", 1),
    ("mkdirat", 4),
    ("fchmodat", 3),
    ("fsync", 6),
    ("unlinkat", 4),
    ("linkat", 3),
    ("write", 4),
];

/// A tree before an operation, and the same after it.
struct Case {
    host: Host,
    verb: Vec<String>,
    before: Tree,
    after: Tree,
}

/// Something of everything: units, a socket, host files, declared state and a volume.
fn image() -> Image {
    let manifest = json!({"version": "2.0", "state": {"folders": [{"path": "/var/lib/app/kept", "mode": "0750"}]}});
    Image::new()
        .manifest(manifest)
        .config("Volumes", json!({"/data": {}}))
        .export("socket.hbs", "[Socket]\nListenStream=/run/{{name}}/socket\n[Install]\nWantedBy=sockets.target\n")
        .export("sysusers.hbs", "u {{name}} - \"The app\"\n")
        .export("tmpfiles.hbs", "d /run/{{name}} 0755 root root -\n")
}

impl Case {
    /// `prepare` makes the state before; `verb` is what is cut.
    fn new(verb: &[&str], prepare: impl Fn(&Host, &str)) -> Case {
        let host = Host::new();
        let image = host.image("app", &image());
        // a neighbour, whose lines stand in the same preset file
        host.does(&["install", &host.image("other", &Image::new())]);
        host.does(&["pull", &image]);
        prepare(&host, &image);
        let before = host.tree();
        copy(&host.root(), &host.work.path().join("template"));
        let verb: Vec<String> = verb.iter().map(|word| word.replace("IMAGE", &image)).collect();
        host.does(&verb.iter().map(String::as_str).collect::<Vec<_>>());
        let after = host.tree();
        assert!(!difference(&before, &after).is_empty());
        Case { host, verb, before, after }
    }

    fn reset(&self) {
        fs::remove_dir_all(self.host.root()).unwrap();
        copy(&self.host.work.path().join("template"), &self.host.root());
    }

    /// Runs a verb that is killed before its `number`th such call; whether it was.
    fn cut(&self, verb: &[&str], call: &str, number: usize) -> bool {
        let status = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:signal=KILL:when={number}")])
            .arg(env!("CARGO_BIN_EXE_sysctr"))
            .arg("--root")
            .arg(self.host.root())
            .args(verb)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("strace(1), see tests/deps.sh");
        // strace ends as its program did
        !status.success()
    }

    fn is_whole(&self, tree: &Tree) -> bool {
        *tree == self.before || *tree == self.after
    }

    /// Whoever only looks is not disturbed by what is under way, and changes nothing.
    fn readers_do_not_fail(&self, place: &str) {
        let tree = self.host.tree();
        self.host.json(&["list"]);
        let verified = self.host.json(&["verify"]);
        assert_eq!(verified["ok"], true, "{place}: {verified}");
        let show = self.host.sysctr(&["show", "app"]);
        assert!([0, 5].contains(&show.code), "{place}: {}", show.err);
        assert_same(&tree, &self.host.tree(), &format!("{place}: readers ran"));
    }

    fn assert_whole(&self, place: &str) {
        let tree = self.host.tree();
        let (old, new) = (difference(&self.before, &tree), difference(&self.after, &tree));
        assert!(
            old.is_empty() || new.is_empty(),
            "{place}: between old and new.\nAgainst the old:\n{}\nAgainst the new:\n{}",
            old.join("\n"),
            new.join("\n")
        );
        assert_eq!(self.host.json(&["verify"])["ok"], true, "{place}");
    }

    /// Cuts at every chosen place; gives the number of places, and of those that left a tree that was neither old nor new.
    fn cut_everywhere(&self) -> (usize, usize) {
        let verb: Vec<&str> = self.verb.iter().map(String::as_str).collect();
        let (mut places, mut between) = (0, 0);
        for (call, step) in CALLS {
            for number in (1..).step_by(step) {
                self.reset();
                if !self.cut(&verb, call, number) {
                    break;
                }
                let place = format!("{verb:?} cut before {call} {number}");
                places += 1;
                between += usize::from(!self.is_whole(&self.host.tree()));
                self.readers_do_not_fail(&place);
                // any changing command recovers first
                self.host.does(&[["recover", "prune"][places % 2]]);
                self.assert_whole(&place);
                self.host.does(&verb_again(&verb, &self.host));
                assert_same(&self.after, &self.host.tree(), &format!("{place}, and it was done again"));
            }
        }
        (places, between)
    }
}

/// Uninstalling what is gone and going back from the first is refused, which is right and not what is asked here.
fn verb_again<'a>(verb: &[&'a str], host: &Host) -> Vec<&'a str> {
    let gone = verb[0] == "uninstall" && host.sysctr(&["show", "app"]).code == 5;
    let back = verb[0] == "rollback" && host.read("etc/sysctr/containers/app/active").trim() == "1";
    if gone || back { vec!["list"] } else { verb.to_vec() }
}

fn copy(from: &Path, to: &Path) {
    common::run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]).unwrap();
}

fn check(case: &Case) {
    let (places, between) = case.cut_everywhere();
    eprintln!("{:?}: {places} cuts, {between} of them left something between", case.verb);
    // the control: were recovery not needed, this test would show nothing
    assert!(places > 20 && between > 10, "{places} cuts, {between} of them between");
}

#[test]
fn an_install_cut_anywhere_is_done_or_undone() {
    check(&Case::new(&["install", "IMAGE"], |_, _| {}));
}

#[test]
fn an_uninstall_cut_anywhere_is_done_or_undone() {
    check(&Case::new(&["uninstall", "app"], |host, image| drop(host.does(&["install", image]))));
}

#[test]
fn a_purge_cut_anywhere_is_done_or_undone() {
    let case = Case::new(&["uninstall", "--purge", "app"], |host, image| {
        host.does(&["install", image]);
        host.write("var/lib/app/kept/some/file", "data");
    });
    assert!(!case.after.keys().any(|path| path.starts_with("var/lib/app")), "{:?}", case.after.keys());
    check(&case);
}

/// The second version: another unit text, a unit more and one less, other host files.
fn second() -> Image {
    let manifest = json!({"version": "2.0", "description": "second", "state": {"folders": [
        {"path": "/var/lib/app/kept", "mode": "0750"}, {"path": "/var/lib/app/more"}]}});
    Image::new()
        .manifest(manifest)
        .config("Volumes", json!({"/data": {}}))
        .export("timer.hbs", "[Timer]\nOnBootSec=1h\n[Install]\nWantedBy=timers.target\n")
        .export("tmpfiles.hbs", "d /run/{{name}} 0750 root root -\n")
}

fn updated(verb: &[&str], then: impl Fn(&Host)) -> Case {
    Case::new(verb, |host, image_name| {
        host.does(&["install", image_name]);
        host.image("app", &second());
        host.does(&["pull", image_name]);
        then(host);
    })
}

#[test]
fn an_update_cut_anywhere_is_taken_back_or_done() {
    check(&updated(&["update", "app"], |_| {}));
}

/// Both are there in a first version; the second one of each is in the store.
fn of_two(verb: &[&str]) -> Case {
    Case::new(verb, |host, image_name| {
        host.does(&["install", image_name]);
        host.image("app", &second());
        let other = Image::new().export("socket.hbs", "[Socket]\nListenStream=/run/{{name}}/socket\n");
        let other = host.image("other", &other.manifest(json!({"version": "2.0", "after": ["app"]})));
        host.does(&["pull", image_name]);
        host.does(&["pull", &other]);
    })
}

#[test]
fn an_update_of_two_as_one_cut_anywhere_leaves_both_old_or_both_new() {
    check(&of_two(&["update", "app", "other", "--together"]));
}

#[test]
fn a_rollback_cut_anywhere_is_done_or_not_begun() {
    check(&updated(&["rollback", "app"], |host| drop(host.does(&["update", "app"]))));
}

#[test]
fn a_recovery_that_is_cut_too_is_recovered() {
    for (verb, call, step) in
        [(&["install", "IMAGE"][..], "renameat", 7), (&["uninstall", "--purge", "app"][..], "unlinkat", 10)]
    {
        let case = Case::new(verb, |host, image| {
            if verb[0] == "uninstall" {
                host.does(&["install", image]);
            }
        });
        let verb: Vec<&str> = case.verb.iter().map(String::as_str).collect();
        let mut cuts = 0;
        for number in (1..40).step_by(step) {
            for (second, step) in [("renameat", 3), ("unlinkat", 5), ("mkdirat", 2), ("fsync", 9)] {
                for again in (1..).step_by(step) {
                    case.reset();
                    if !case.cut(&verb, call, number) || !case.cut(&["recover"], second, again) {
                        break;
                    }
                    cuts += 1;
                    let place = format!("{verb:?} cut before {call} {number}, its recovery before {second} {again}");
                    case.host.does(&["recover"]);
                    case.assert_whole(&place);
                }
            }
        }
        eprintln!("{verb:?}: {cuts} cut recoveries");
        assert!(cuts > 5, "{verb:?}: {cuts}");
    }
}
