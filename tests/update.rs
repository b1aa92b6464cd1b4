//! Updates and rollbacks of a tree that systemd does not run: what is decided, kept and refused.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;

use common::host::{Host, Image};
use serde_json::json;

fn version(description: &str, values: serde_json::Value) -> Image {
    Image::new().manifest(json!({"version": "2.0", "description": description, "values": values}))
}

fn port() -> serde_json::Value {
    json!({"port": {"type": "integer", "default": 80}, "mode": {"type": "string", "default": "a"}})
}

#[test]
fn an_update_takes_the_newest_of_the_same_reference_and_keeps_what_the_admin_set() {
    let host = Host::new();
    let image = host.image("app", &version("first", port()));
    host.does(&["install", &image, "--set", "port=8080"]);
    assert!(host.does(&["update", "app"]).contains("up to date"));

    let newer = json!({"port": {"type": "integer", "default": 81}, "mode": {"type": "string", "default": "b"}});
    host.image("app", &version("second", newer));
    assert_eq!(host.json(&["update", "--check", "app"])[0]["result"], "available");
    assert_eq!(host.read("etc/sysctr/containers/app/active").trim(), "1", "--check changed something");
    assert_eq!(host.json(&["update", "--all"])[0]["result"], "updated");
    let shown = host.json(&["show", "app"]);
    assert_eq!((&shown["deployment"], &shown["previous"]), (&json!(2), &json!(1)));
    assert_eq!(shown["values"]["port"], json!({"value": 8080, "source": "admin", "type": "integer"}));
    assert_eq!(shown["values"]["mode"], json!({"value": "b", "source": "default", "type": "string"}));
    assert!(host.read("etc/systemd/system.attached/app.service").contains("Description=second"));
    assert_eq!(host.json(&["verify"])["ok"], true);

    // other values of the same image are an update too
    host.does(&["update", "app", "--set", "port=1"]);
    assert_eq!(host.json(&["show", "app"])["values"]["port"]["value"], 1);
}

#[test]
fn a_value_that_no_longer_fits_is_refused_and_one_that_is_gone_is_told() {
    let host = Host::new();
    let image = host.image("app", &version("first", port()));
    host.does(&["install", &image, "--set", "mode=x"]);
    let other = json!({"mode": {"type": "integer", "default": 5}});
    host.image("app", &version("second", other));
    host.refuses(1, &["mode=x", "no longer fits", "whole number"], &["update", "app"]);
    host.image("app", &version("third", json!({})));
    let told = host.sysctr(&["update", "app"]);
    assert!(told.code == 0 && told.err.contains("does not ask for the value mode any more"), "{}", told.err);
}

#[test]
fn a_rollback_goes_to_the_one_before_or_says_what_there_is() {
    let host = Host::new();
    let image = host.image("app", &version("1", json!({})));
    host.does(&["install", &image]);
    host.refuses(1, &["no earlier deployment"], &["rollback", "app"]);
    for number in 2..=4 {
        host.image("app", &version(&number.to_string(), json!({})));
        host.does(&["update", "app"]);
    }
    // two are kept
    host.refuses(1, &["no deployment 1"], &["rollback", "app", "--to", "1"]);
    host.does(&["rollback", "app"]);
    assert!(host.read("etc/systemd/system.attached/app.service").contains("Description=3"));
    assert_eq!(host.json(&["verify"])["ok"], true);
    host.does(&["rollback", "app", "--to", "4"]);
    assert!(host.read("etc/systemd/system.attached/app.service").contains("Description=4"));
    host.refuses(5, &["no container"], &["rollback", "nobody"]);
}

#[test]
fn what_systemd_made_for_a_container_is_its_own() {
    let host = Host::new();
    let service = "[Service]\nExecStart={{exec_start}}\nRuntimeDirectory={{name}}\nCacheDirectory={{name}}\n";
    let socket = "[Socket]\nListenStream=/run/{{name}}/socket\n";
    let with = |text| version(text, json!({})).export("service.hbs", service).export("socket.hbs", socket);
    let image = host.image("app", &with("first"));
    host.does(&["install", &image]);
    host.write("run/app/socket", "");
    host.write("var/cache/app/kept", "");
    host.image("app", &with("second"));
    host.does(&["update", "app"]);
    // but is not another one's
    fs::rename(host.at("var/cache/app"), host.at("var/cache/other")).unwrap();
    host.refuses(4, &["take over /var/cache/other"], &["install", "--name", "other", &image]);
}

#[test]
fn only_what_is_new_is_asked() {
    let asking = |capabilities: &[&str]| {
        let manifest = json!({"version": "2.0", "container": {"capabilities": {"add": capabilities}}});
        Image::new().manifest(manifest)
    };
    let host = Host::new();
    let image = host.image("app", &asking(&["NET_ADMIN"]));
    host.does(&["install", "--yes", &image]);
    host.image("app", &asking(&["NET_ADMIN", "SYS_TIME"]));
    let said = host.refuses(4, &["CAP_SYS_TIME"], &["update", "app"]);
    assert!(!said.contains("NET_ADMIN"), "{said}");
    host.does(&["update", "--yes", "app"]);
}
