//! Install and uninstall through the real program, below a root of their own: what is refused is refused in one line with the right code
//! and changes nothing; what is done is taken back whole.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod full;
mod refused;
mod state;
mod verify;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use common::host::{Host, Image, assert_same};
use serde_json::{Value, json};

/// A host whose store is there, so that only what a verb does is a difference.
fn host() -> Host {
    let host = Host::new();
    host.does(&["pull", &host.image("warm", &Image::new())]);
    host
}

fn manifest(key: &str, value: Value) -> Image {
    Image::new().manifest(json!({"version": "2.0", key: value}))
}

fn port() -> Image {
    let values = json!({
        "port": {"type": "integer", "description": "where it listens"},
        "mode": {"type": "enum", "enum": ["fast", "safe"], "default": "safe"}});
    let container = json!({"args": ["/bin/app", "--port={{values.port}}", "{{values.mode}}"]});
    Image::new().manifest(json!({"version": "2.0", "values": values, "container": container}))
}

#[test]
fn an_install_is_enabled_listed_done_once_and_taken_back_whole() {
    let host = host();
    let image = Image::new()
        .manifest(json!({"version": "2.0", "description": "An app", "state": {"folders": [{"path": "/var/lib/app", "mode": "0750"}]}}))
        .config("Labels", json!({"org.opencontainers.image.version": "1.5"}))
        .export("socket.hbs", "[Socket]\nListenStream=127.0.0.1:7\n[Install]\nWantedBy=sockets.target\n")
        .export("tmpfiles.hbs", "d /run/{{name}} 0755 root root -\n")
        .export("sysusers.hbs", "u {{name}} - \"{{name}}\"\n");
    let image = host.image("app", &image);
    let before = host.tree();
    let planned = host.does(&["install", "--dry-run", &image]);
    assert!(planned.contains("--- app.service") && planned.contains("Description=An app"), "{planned}");
    assert_same(&before, &host.tree(), "a dry run ran");
    host.does(&["install", &image]);

    let unit = host.read("etc/systemd/system.attached/app.service");
    assert!(unit.contains("/var/lib/sysctr/containers/app/deployments/1"), "{unit}");
    for (link, unit) in
        [("multi-user.target.wants/app.service", "app.service"), ("sockets.target.wants/app.socket", "app.socket")]
    {
        let target = fs::read_link(host.at("etc/systemd/system").join(link)).unwrap();
        assert_eq!(target.to_str().unwrap(), format!("/etc/systemd/system.attached/{unit}"));
    }
    assert_eq!(host.read("etc/systemd/system-preset/50-sysctr.preset"), "enable app.service\nenable app.socket\n");
    assert_eq!(host.read("etc/sysctr/containers/app/active"), "1\n");
    let state = host.at("var/lib/app").metadata().unwrap();
    assert_eq!(state.mode() & 0o7777, 0o750);
    let row = &host.json(&["list"])[0];
    for (key, value) in [
        ("name", json!("app")),
        ("state", json!("offline")),
        ("enabled", json!(true)),
        ("deployment", json!(1)),
        ("version", json!("1.5")),
        ("pending", json!(false)),
        ("previous", Value::Null),
    ] {
        assert_eq!(row[key], value, "{key}");
    }
    let shown = host.json(&["show", "app"]);
    assert_eq!(shown["units"], json!(["app.service", "app.socket"]));
    assert_eq!(shown["hostFiles"].as_array().unwrap().len(), 2, "{shown}");
    assert_eq!(host.json(&["images"])[0]["usedBy"], json!(["app"]));
    assert_eq!(host.json(&["verify"])["ok"], true);

    let installed = host.tree();
    assert!(host.does(&["install", &image]).contains("nothing to do"));
    assert_eq!(host.json(&["install", &image])["changed"], false);
    assert_same(&installed, &host.tree(), "it was installed twice");
    let other = host.image("newer", &Image::new().file("new", "new"));
    let said = host.refuses(1, &["app is installed already"], &["install", "--name", "app", &other]);
    assert!(said.contains("hint: "), "{said}");
    let outcome = host.sysctr(&["remove", &image]);
    assert_eq!(outcome.code, 1, "an image in use went: {}", outcome.err);

    assert_eq!(
        host.json(&["uninstall", "--dry-run", "--purge", "app"]),
        json!({"wouldRemove": ["app"], "wouldDelete": ["/var/lib/app"]})
    );
    assert_same(&installed, &host.tree(), "a dry run ran");
    host.does(&["uninstall", "--purge", "app"]);
    assert_same(&before, &host.tree(), "it was uninstalled");
    assert_eq!(host.json(&["list"]), json!([]));
}

#[test]
fn what_an_image_says_of_itself_does_not_steer_the_terminal() {
    let host = host();
    let version = "1\u{1b}[2J\u{9b}8m\r\nfake  enabled";
    let image = Image::new().config("Labels", json!({"org.opencontainers.image.version": version}));
    host.does(&["install", &host.image("app", &image)]);
    for verb in [&["list"][..], &["show", "app"], &["images"], &["verify"], &["uninstall", "--dry-run", "app"]] {
        let out = host.does(verb);
        assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{verb:?}: {out:?}");
    }
    assert_eq!(host.does(&["list"]).lines().count(), 2);
    assert_eq!(host.json(&["list"])[0]["version"], version);
}

#[test]
fn many_at_once_wait_for_each_other() {
    let host = host();
    let image = host.image("app", &Image::new());
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d", "a"] {
            let (host, image) = (&host, &image);
            scope.spawn(move || host.does(&["install", "--wait", "--name", name, image]));
        }
    });
    assert_eq!(host.json(&["list"]).as_array().unwrap().len(), 4);
    assert_eq!(host.json(&["verify"])["ok"], true);
    let preset = host.read("etc/systemd/system-preset/50-sysctr.preset");
    assert_eq!(preset.lines().count(), 4, "{preset}");
}

#[test]
fn other_values_are_refused_and_the_same_ones_are_nothing_to_do() {
    let host = host();
    let image = host.image("app", &port());
    host.does(&["install", &image, "--set", "port=1"]);
    host.refuses(1, &["other values"], &["install", &image, "--set", "port=2"]);
    host.refuses(1, &["port"], &["install", &image]);
    assert_eq!(host.json(&["install", &image, "--set", "port=1"])["changed"], false);
    // given or by default: it is the same
    assert_eq!(host.json(&["install", &image, "--set", "port=1", "--set", "mode=safe"])["changed"], false);
}

#[test]
fn what_is_not_enabled_has_no_link_and_a_preset_that_keeps_it_so() {
    let host = host();
    let (one, two) = (host.image("one", &Image::new()), host.image("two", &Image::new().file("x", "x")));
    host.does(&["install", "--no-enable", &one]);
    host.does(&["install", &two]);
    assert!(!host.at("etc/systemd/system/multi-user.target.wants/one.service").exists());
    assert_eq!(host.read("etc/systemd/system-preset/50-sysctr.preset"), "disable one.service\nenable two.service\n");
    assert_eq!(host.json(&["show", "one"])["enabled"], false);
    // an admin's own link and drop-in
    let link = host.at("etc/systemd/system/multi-user.target.wants/one.service");
    symlink("/etc/systemd/system.attached/one.service", &link).unwrap();
    host.write("etc/systemd/system/one.service.d/limits.conf", "[Service]\nMemoryMax=1G\n");
    assert_eq!(host.json(&["show", "one"])["enabled"], true);
    host.does(&["uninstall", "one"]);
    assert!(link.symlink_metadata().is_err(), "a link to a unit that is gone stays");
    assert!(host.at("etc/systemd/system/one.service.d/limits.conf").exists());
    assert_eq!(host.read("etc/systemd/system-preset/50-sysctr.preset"), "enable two.service\n");
    assert_eq!(host.json(&["verify"])["ok"], true);
}

#[test]
fn another_runtime_is_looked_for_in_the_tree_and_kept_in_the_record() {
    let host = host();
    let image = host.image("app", &Image::new());
    let with = |runtime: &'static str| ["install", "--runtime", runtime, image.as_str()];
    host.refuses(2, &["\"crun\"", "absolute"], &with("crun"));
    // This machine's own does not count.
    host.refuses(1, &["/usr/bin/env", "is not there"], &with("/usr/bin/env"));
    host.write("usr/libexec/crun", "#!/bin/false\n");
    fs::create_dir_all(host.at("usr/bin")).unwrap();
    symlink("/usr/libexec/crun", host.at("usr/bin/crun")).unwrap();
    host.refuses(1, &["/usr/bin/crun", "not executable"], &with("/usr/bin/crun"));
    let mode = |path: &str, mode| fs::set_permissions(host.at(path), fs::Permissions::from_mode(mode)).unwrap();
    mode("usr/libexec/crun", 0o757);
    host.refuses(1, &["others than root can write to"], &with("/usr/bin/crun"));
    mode("usr/libexec/crun", 0o755);
    mode("usr/libexec", 0o777);
    host.refuses(1, &["libexec", "others than root can write to"], &with("/usr/bin/crun"));
    mode("usr/libexec", 0o755);

    host.does(&with("/usr/bin/crun"));
    assert_eq!(host.json(&["show", "app"])["runtime"], "/usr/bin/crun");
    let unit = host.read("etc/systemd/system.attached/app.service");
    assert!(unit.contains("sysctr-runtime run-with /usr/bin/crun /var/lib/sysctr/containers/app/"), "{unit}");
    assert_eq!(host.json(&with("/usr/bin/crun"))["changed"], false);
    host.refuses(1, &["another runtime"], &["install", &image]);
}

#[test]
fn a_health_test_is_resolved_into_the_record_or_refused_by_its_key() {
    let host = host();
    let of = |health: Value| {
        let values = json!({"port": {"type": "integer", "default": 80}});
        Image::new().manifest(json!({"version": "2.0", "values": values, "health": health}))
    };
    let docker = json!({"Test": ["CMD-SHELL", "curl -f http://localhost/"], "Retries": 5});
    for (number, (health, words)) in [
        (json!({"http": "http://example.org/"}), "health.http: \"example.org\""),
        (json!({"http": "{{values.prot}}/"}), "health.http"),
        (json!({"tcp": "22", "interval": "sometimes"}), "health.interval"),
        (json!({"exec": ["true"], "tcp": "22"}), "one of exec, http and tcp"),
    ]
    .into_iter()
    .enumerate()
    {
        let image = host.image(&format!("bad{number}"), &of(health));
        host.refuses(1, &["/exports/manifest.json", words], &["install", &image]);
    }
    let image = host.image("docker", &Image::new().config("Healthcheck", json!({"Test": ["SOMETIMES"]})));
    host.refuses(1, &["config.Healthcheck.Test", "SOMETIMES"], &["install", &image]);
    let image = host.image("port", &of(json!({"http": "{{values.port}}/"})));
    host.refuses(1, &["health.http", "\"70000\" is no port"], &["install", &image, "--set", "port=70000"]);

    // The manifest's own wins.
    let image = host.image("app", &of(json!({"http": "{{values.port}}/"})).config("Healthcheck", docker.clone()));
    host.does(&["install", &image, "--set", "port=8080"]);
    let record = |id: u32| -> Value {
        let text = host.read(&format!("var/lib/sysctr/containers/app/deployments/{id}/deployment.json"));
        serde_json::from_str::<Value>(&text).unwrap()["health"].take()
    };
    assert_eq!(record(1)["http"], json!({"address": "127.0.0.1:8080", "path": "/", "status": [200, 399]}));
    host.image("app", &Image::new().config("Healthcheck", docker));
    host.does(&["update", "app"]);
    assert_eq!(
        (&record(2)["exec"], &record(2)["retries"]),
        (&json!(["/bin/sh", "-c", "curl -f http://localhost/"]), &json!(5))
    );
    host.image("app", &Image::new().config("Healthcheck", json!({"Test": ["NONE"]})));
    host.does(&["update", "app"]);
    assert_eq!(record(3), Value::Null);
    let shown = host.json(&["show", "app"]);
    assert_eq!((&shown["health"], &shown["judged"]), (&Value::Null, &Value::Null));
}
