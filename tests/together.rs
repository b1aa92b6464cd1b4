//! Updates of several containers as one, of a tree that systemd does not run.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::host::{Host, Image};
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
