//! An operating system that goes back takes /etc back with it, and /var stays as it is: what each /etc names is kept.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;

use common::host::{Host, Image};
use serde_json::json;

const OTHER: &str = "ostree/deploy/debian/deploy/0123abcd.0/etc";

fn version(number: u32) -> Image {
    Image::new().manifest(json!({"version": "2.0", "description": format!("version {number}")}))
}

/// Version 1 is in the /etc of the system before; three more came after it.
fn updated(keep_etc: bool) -> Host {
    let host = Host::new();
    let image = host.image("app", &version(1));
    host.does(&["install", &image]);
    if keep_etc {
        fs::create_dir_all(host.at(OTHER).parent().unwrap()).unwrap();
        common::run("cp", &["-a", host.at("etc").to_str().unwrap(), host.at(OTHER).to_str().unwrap()]).unwrap();
        // as libostree has it
        host.write("ostree/deploy/debian/deploy/0123abcd.0.origin", "");
    }
    for number in 2..=4 {
        host.image("app", &version(number));
        host.does(&["update", "app"]);
    }
    host
}

/// Boots the other version of the system.
fn swap(host: &Host) {
    fs::rename(host.at("etc"), host.at("etc.now")).unwrap();
    fs::rename(host.at(OTHER), host.at("etc")).unwrap();
    fs::rename(host.at("etc.now"), host.at(OTHER)).unwrap();
}

fn deployments(host: &Host) -> Vec<String> {
    let folder = fs::read_dir(host.at("var/lib/sysctr/containers/app/deployments")).unwrap();
    let mut names: Vec<String> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_the_etc_of_another_system_names_is_kept() {
    let host = updated(true);
    host.does(&["prune"]);
    assert_eq!(deployments(&host), ["1", "3", "4"]);
    // the control: it stayed for that reason alone
    let host = updated(false);
    assert_eq!(deployments(&host), ["3", "4"]);
}

#[test]
fn after_a_rollback_of_the_system_etc_wins_and_the_way_forward_stays() {
    let host = updated(true);
    swap(&host);
    for _ in 0..2 {
        assert_eq!(host.json(&["show", "app"])["deployment"], 1);
        assert_eq!(host.json(&["verify"])["ok"], true);
        host.does(&["prune"]);
        assert_eq!(deployments(&host), ["1", "3", "4"]);
    }
    let current = fs::read_link(host.at("var/lib/sysctr/containers/app/current")).unwrap();
    assert_eq!(current.to_str(), Some("deployments/1"));
    // numbers go on behind the newest
    host.does(&["update", "app"]);
    assert_eq!(host.json(&["show", "app"])["deployment"], 5);
    swap(&host);
    assert_eq!(host.json(&["show", "app"])["deployment"], 4);
    assert_eq!(host.json(&["verify"])["ok"], true);
    host.does(&["rollback", "app"]);
    assert_eq!(host.json(&["show", "app"])["deployment"], 3);
}

#[test]
fn a_container_of_another_system_stays_in_var() {
    let host = Host::new();
    fs::create_dir_all(host.at(OTHER).parent().unwrap()).unwrap();
    common::run("cp", &["-a", host.at("etc").to_str().unwrap(), host.at(OTHER).to_str().unwrap()]).unwrap();
    let image = host.image("app", &version(1));
    host.does(&["install", &image]);
    // The system before it has no such container.
    swap(&host);
    host.does(&["prune"]);
    assert_eq!(host.sysctr(&["show", "app"]).code, 5);
    assert!(host.sysctr(&["remove", &image]).code == 1, "an image was removed that the other system runs");
    // There it may be installed and go again, too.
    host.does(&["install", &image]);
    host.does(&["uninstall", "app"]);
    swap(&host);
    assert_eq!(host.json(&["show", "app"])["deployment"], 1);
    assert_eq!(host.json(&["verify"])["ok"], true);
    // In force in no system it goes.
    host.does(&["uninstall", "app"]);
    host.does(&["prune"]);
    assert!(!host.at("var/lib/sysctr/containers/app").exists());
}

#[test]
fn the_booted_system_is_no_other_one() {
    let host = updated(false);
    // as libostree has it: /etc is that of the version that is booted
    fs::create_dir_all(host.at(OTHER).parent().unwrap()).unwrap();
    fs::rename(host.at("etc"), host.at(OTHER)).unwrap();
    fs::create_dir(host.at("etc")).unwrap();
    let (from, to) = (host.at(OTHER), host.at("etc"));
    common::run("mount", &["--bind", from.to_str().unwrap(), to.to_str().unwrap()]).unwrap();
    host.image("app", &version(5));
    let updated = host.sysctr(&["update", "app"]);
    let left = deployments(&host);
    common::run("umount", &[to.to_str().unwrap()]).unwrap();
    assert_eq!((updated.code, left), (0, vec!["4".to_owned(), "5".to_owned()]), "{}", updated.err);
}

#[test]
fn a_deployment_in_force_that_var_lacks_is_told() {
    let host = updated(false);
    host.write("etc/sysctr/containers/app/active", "1\n");
    let verified = host.sysctr(&["--json", "verify"]);
    assert!(verified.code == 1 && verified.out.contains("in force"), "{verified:?}");
    let said = host.sysctr(&["prune"]).err;
    assert!(said.contains("deployment 1 of app has no record"), "{said}");
    assert_eq!(deployments(&host), ["3", "4"], "a system that went back lost the way forward");
}
