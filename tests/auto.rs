//! What happens to containers that nobody named: policy and window, in a tree that systemd does not run.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::host::{Host, Image};
use serde_json::{Value, json};

fn image(description: &str, capabilities: &[&str]) -> Image {
    let container = json!({"capabilities": {"add": capabilities}});
    Image::new().manifest(json!({"version": "2.0", "description": description, "container": container}))
}

/// Three containers with a newer image each.
fn host() -> Host {
    let host = Host::new();
    for name in ["good", "kept", "look"] {
        let reference = host.image(name, &image("old", &[]));
        host.does(&["install", &reference]);
        host.image(name, &image("new", &[]));
    }
    host
}

fn settings(host: &Host, window: &str) {
    let policies = "[container.good]\nupdate = \"auto\"\n[container.kept]\nupdate = \"hold\"\n";
    host.write("etc/sysctr/sysctr.toml", &format!("[update]\nwindow = \"{window}\"\n{policies}"));
}

/// A window that begins and ends so many hours from now.
fn around_now(from: i64, to: i64) -> String {
    let at = |hours| (chrono::Local::now() + chrono::Duration::hours(hours)).format("%H:%M").to_string();
    format!("{}-{}", at(from), at(to))
}

fn results(outcomes: &Value) -> Vec<(&str, &str)> {
    let all = outcomes.as_array().unwrap().iter();
    all.map(|one| (one["name"].as_str().unwrap(), one["result"].as_str().unwrap())).collect()
}

#[test]
fn each_is_treated_as_its_policy_says_within_the_window() {
    let host = host();
    settings(&host, &around_now(2, 3));
    let before = host.tree();
    let told = [("good", "available"), ("kept", "onHold"), ("look", "available")];
    assert_eq!(results(&host.json(&["update", "--auto"])), told);
    common::host::assert_same(&before, &host.tree(), "it was outside the window");
    assert!(host.does(&["update", "--auto"]).contains("only"), "nothing says why it was not taken");

    settings(&host, &around_now(-1, 2));
    let told = [("good", "updated"), ("kept", "onHold"), ("look", "available")];
    assert_eq!(results(&host.json(&["update", "--auto"])), told);
    assert_eq!(host.json(&["show", "kept"])["update"], "hold");
    // by hand, check is no hindrance, and hold is one until it is named
    let told = [("good", "unchanged"), ("kept", "onHold"), ("look", "updated")];
    assert_eq!(results(&host.json(&["update", "--all"])), told);
    let named = host.sysctr(&["update", "kept"]);
    assert!(named.code == 0 && named.err.contains("on hold") && named.out.contains("updated kept"), "{named:?}");
}

#[test]
fn without_settings_nothing_is_updated_unasked() {
    let host = host();
    let before = host.tree();
    let told = [("good", "available"), ("kept", "available"), ("look", "available")];
    assert_eq!(results(&host.json(&["update", "--auto"])), told);
    common::host::assert_same(&before, &host.tree(), "nobody asked for it");
}

#[test]
fn what_is_new_is_not_accepted_and_the_others_are_updated() {
    let host = host();
    host.write("etc/sysctr/sysctr.toml", "[update]\npolicy = \"auto\"\n[container.gone]\nupdate = \"hold\"\n");
    host.image("kept", &image("greedy", &["NET_ADMIN"]));
    std::fs::remove_dir_all(host.work.path().join("look")).unwrap();
    let ran = host.sysctr(&["update", "--auto"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    for words in ["1 refused", "1 failed", "CAP_NET_ADMIN", "[container.gone]"] {
        assert!(ran.err.contains(words), "no {words:?} in {}", ran.err);
    }
    let active = |name: &str| host.read(&format!("etc/sysctr/containers/{name}/active")).trim().to_owned();
    assert_eq!([active("good"), active("kept"), active("look")], ["2", "1", "1"]);
    assert_eq!(host.json(&["verify"])["ok"], true);
}

#[test]
fn bad_settings_and_words_are_refused() {
    let host = host();
    settings(&host, "2 to 5");
    host.refuses(1, &["sysctr.toml", "2 to 5", "02:00-05:00"], &["update", "--auto"]);
    host.write("etc/sysctr/sysctr.toml", "[container.good]\nupdate = \"never\"\n");
    host.refuses(1, &["sysctr.toml", "line 2", "never"], &["update", "--auto"]);
    for with in ["--yes", "--all", "--check", "good"] {
        host.refuses(2, &["--auto"], &["update", "--auto", with]);
    }
}
