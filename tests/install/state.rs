//! Folders of the host that a container owns.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;

use super::{
    common::{
        host::{Image, difference},
        run,
    },
    host, manifest,
};

#[test]
fn state_is_kept_and_taken_up_again_and_a_foreign_folder_is_asked_for() {
    let host = host();
    let image = host.image("app", &Image::new().config("Volumes", json!({"/data": {}})));
    host.does(&["install", &image]);
    host.write("var/lib/app/data/precious", "data");
    assert!(host.does(&["uninstall", "app"]).contains("/var/lib/app/data"));
    assert_eq!(host.read("var/lib/app/data/precious"), "data");
    host.does(&["install", &image]);
    assert_eq!(host.read("var/lib/app/data/precious"), "data");
    // another container does not get it
    let thief = manifest("state", json!({"folders": [{"path": "/var/lib/app/data"}]}));
    host.refuses(4, &["/var/lib/app/data"], &["install", &host.image("thief", &thief)]);
    host.does(&["uninstall", "--purge", "app"]);
    assert!(!host.at("var/lib/app").exists());

    // a folder of the container's name that is somebody's, though the volume in it is not there yet
    for foreign in ["var/lib/app/theirs", "var/lib/app/data/theirs"] {
        host.write(foreign, "theirs");
        host.refuses(4, &["take over /var/lib/app"], &["install", &image]);
        fs::remove_dir_all(host.at("var/lib/app")).unwrap();
    }
    let runtime = "[Service]\nExecStart={{exec_start}}\nRuntimeDirectory={{name}}\n";
    let runtime = host.image("user", &Image::new().export("service.hbs", runtime));
    host.write("run/user/1000/bus", "theirs");
    host.refuses(4, &["take over /run/user"], &["install", &runtime]);

    // An update does not ask for what the container has already, though systemd made it; for another one it does.
    fs::remove_dir_all(host.at("run/user")).unwrap();
    host.does(&["install", &runtime]);
    host.write("run/user/socket", "the container's");
    let with = |more: &str| {
        let service = format!("[Service]\nExecStart={{{{exec_start}}}}\nRuntimeDirectory={{{{name}}}}\n{more}");
        host.image("user", &Image::new().export("service.hbs", &service))
    };
    with("Restart=always\n");
    host.does(&["update", "user"]);
    host.write("var/cache/user/theirs", "theirs");
    with("CacheDirectory={{name}}\n");
    host.refuses(4, &["take over /var/cache/user"], &["update", "user"]);
    host.does(&["uninstall", "user"]);

    // accepted, it is the container's; purge still takes only what it declared
    host.write("var/lib/app/theirs", "theirs");
    let before = host.tree();
    host.does(&["install", "--yes", &image]);
    host.does(&["uninstall", "--purge", "app"]);
    assert_eq!(host.read("var/lib/app/theirs"), "theirs");
    let lines = difference(&before, &host.tree());
    assert!(lines.iter().all(|line| line.starts_with("var/lib/app:")), "{lines:?}");
    // a link that an earlier container left in its place
    fs::remove_dir_all(host.at("var/lib/app")).unwrap();
    host.does(&["install", &image]);
    host.does(&["uninstall", "app"]);
    fs::remove_dir(host.at("var/lib/app/data")).unwrap();
    symlink("/etc", host.at("var/lib/app/data")).unwrap();
    host.refuses(1, &["/var/lib/app/data", "symbolic link"], &["install", "--yes", &image]);
    // a file where a folder has to be
    fs::remove_dir_all(host.at("var/lib/app")).unwrap();
    host.write("var/lib/app", "a file");
    host.refuses(1, &["/var/lib/app"], &["install", "--yes", &image]);
}

#[test]
fn state_that_cannot_be_deleted_is_told_and_holds_nothing_up() {
    let host = host();
    let image = Image::new().manifest(json!({"version": "2.0", "state": {"folders": [{"path": "/var/lib/app/data"}]}}));
    let image = host.image("app", &image);
    host.does(&["install", &image]);
    // The admin has moved the data since.
    fs::remove_dir(host.at("var/lib/app/data")).unwrap();
    fs::create_dir(host.at("big")).unwrap();
    std::os::unix::fs::symlink("/big", host.at("var/lib/app/data")).unwrap();
    let outcome = host.sysctr(&["uninstall", "--purge", "app"]);
    assert_eq!(outcome.code, 6, "{}", outcome.err);
    assert!(outcome.err.contains("/var/lib/app/data") && outcome.err.contains("symbolic link"), "{}", outcome.err);
    assert!(host.at("big").is_dir() && !host.at("etc/sysctr").exists());
    assert_eq!(host.json(&["list"]), json!([]));
    let other = host.image("other", &Image::new());
    host.does(&["install", &other]);
    host.does(&["verify"]);
}

#[test]
fn a_purge_does_not_reach_into_what_is_mounted_below_state() {
    let host = host();
    let image = host.image("app", &Image::new().config("Volumes", json!({"/data": {}})));
    host.does(&["install", &image]);
    host.write("var/lib/app/data/pods/one/file", "state");
    let volume = host.at("var/lib/app/data/pods/volume");
    fs::create_dir(&volume).unwrap();
    let volume = volume.to_str().unwrap();
    run("mount", &["-t", "tmpfs", "volume", volume]).unwrap();
    host.write("var/lib/app/data/pods/volume/precious", "somebody's");
    let said = host.sysctr(&["uninstall", "--purge", "app"]);
    let left = host.at("var/lib/app/data/pods/volume/precious").exists();
    run("umount", &[volume]).unwrap();
    assert!(left, "it was deleted");
    assert!(said.code == 6 && said.err.contains("/var/lib/app/data/pods/volume is mounted on"), "{said:?}");
    assert_eq!(host.sysctr(&["show", "app"]).code, 5);
}
