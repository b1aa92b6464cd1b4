//! Files of an image on the host, through the real program below a root of its own.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt};

use common::host::{Host, Image, assert_same};
use serde_json::{Value, json};

const TOOL: &str = "usr/local/bin/relayctl";
const CONF: &str = "etc/relay/relay.conf";

/// A tool and a configuration.
fn image(tool: &str, conf: &str) -> Image {
    let files = json!([{"path": "/usr/local/bin/relayctl", "source": "relayctl", "mode": "0755"},
        {"path": "/etc/relay/{{name}}.conf", "source": "conf", "template": true}]);
    let values = json!({"port": {"type": "integer", "default": 80}});
    Image::new()
        .manifest(json!({"version": "2.0", "hostFiles": files, "values": values}))
        .export("hostfs/relayctl", tool)
        .export("hostfs/conf", conf)
}

fn host() -> Host {
    let host = Host::new();
    host.does(&["pull", &host.image("warm", &Image::new())]);
    host
}

fn installed(host: &Host) -> String {
    let relay = host.image("relay", &image("#!/bin/sh\n", "port={{values.port}}\n"));
    host.does(&["install", "--yes", &relay]);
    relay
}

fn problems(host: &Host) -> Vec<String> {
    let found: Value = serde_json::from_str(&host.sysctr(&["verify", "--json"]).out).unwrap();
    found["problems"].as_array().unwrap().iter().map(|one| one["subject"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn they_are_asked_for_placed_recorded_and_taken_back_whole() {
    let host = host();
    let before = host.tree();
    let relay = host.image("relay", &image("#!/bin/sh\n", "port={{values.port}}\n"));
    host.refuses(
        4,
        &["put the program /usr/local/bin/relayctl on the host", "put the file /etc/relay/relay.conf on the host"],
        &["install", &relay],
    );
    assert_same(&before, &host.tree(), "refused");
    host.does(&["install", "--yes", "--set", "port=81", &relay]);
    assert_eq!((host.read(TOOL), host.read(CONF)), ("#!/bin/sh\n".into(), "port=81\n".into()));
    assert_eq!(fs::metadata(host.at(TOOL)).unwrap().permissions().mode() & 0o7777, 0o755);
    let shown = host.json(&["show", "relay"]);
    let files: Vec<&str> =
        shown["hostFiles"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert!(files.contains(&"/usr/local/bin/relayctl") && files.contains(&"/etc/relay/relay.conf"), "{files:?}");
    assert_eq!(problems(&host), Vec::<String>::new());
    host.does(&["uninstall", "relay"]);
    assert_same(&before, &host.tree(), "uninstalled");
}

#[test]
fn what_is_not_ours_stays_unless_the_admin_lets_it_be_replaced() {
    let host = host();
    host.write(CONF, "the admin's\n");
    let before = host.tree();
    let relay = host.image("relay", &image("#!/bin/sh\n", "new\n"));
    host.refuses(1, &["/etc/relay/relay.conf", "not sysctr's"], &["install", "--yes", &relay]);
    assert_same(&before, &host.tree(), "refused");
    host.does(&["install", "--yes", "--replace", &relay]);
    assert_eq!((host.read(CONF), host.read(&format!("{CONF}.sysctr-old"))), ("new\n".into(), "the admin's\n".into()));
    host.image("relay", &image("#!/bin/sh\n", "newer\n"));
    host.does(&["update", "relay"]);
    assert_eq!((host.read(CONF), host.read(&format!("{CONF}.sysctr-old"))), ("newer\n".into(), "the admin's\n".into()));
    host.does(&["uninstall", "relay"]);
    assert_same(&before, &host.tree(), "uninstalled");
}

#[test]
fn what_was_edited_is_kept_and_the_newer_text_lies_beside_it() {
    let host = host();
    let before = host.tree();
    installed(&host);
    host.write(CONF, "edited\n");
    assert_eq!(problems(&host), Vec::<String>::new());
    // The same text again is none to put beside it.
    host.image("relay", &image("#!/bin/sh\n# 2\n", "port={{values.port}}\n"));
    host.does(&["update", "relay"]);
    assert_eq!((host.read(TOOL), host.read(CONF)), ("#!/bin/sh\n# 2\n".into(), "edited\n".into()));
    assert!(!host.at(&format!("{CONF}.sysctr-new")).exists());
    host.image("relay", &image("#!/bin/sh\n# 2\n", "port: {{values.port}}\n"));
    host.does(&["update", "relay"]);
    assert_eq!((host.read(CONF), host.read(&format!("{CONF}.sysctr-new"))), ("edited\n".into(), "port: 80\n".into()));
    host.does(&["rollback", "relay"]);
    assert_eq!(host.read(CONF), "edited\n");
    assert!(!host.at(&format!("{CONF}.sysctr-new")).exists());
    host.write(TOOL, "edited too\n");
    assert_eq!(problems(&host), [host.at(TOOL).display().to_string()]);
    host.does(&["uninstall", "relay"]);
    assert_eq!((host.read(TOOL), host.read(CONF)), ("edited too\n".into(), "edited\n".into()));
    fs::remove_file(host.at(TOOL)).unwrap();
    fs::remove_file(host.at(CONF)).unwrap();
    for folder in ["etc/relay", "usr/local/bin", "usr/local", "usr"] {
        fs::remove_dir(host.at(folder)).unwrap();
    }
    assert_same(&before, &host.tree(), "removed by hand");
}

#[test]
fn repair_puts_back_what_is_missing_and_leaves_what_was_edited() {
    let host = host();
    installed(&host);
    fs::remove_file(host.at(TOOL)).unwrap();
    host.write(CONF, "port=9\n");
    assert_eq!(problems(&host).len(), 1);
    host.does(&["verify", "--repair"]);
    assert_eq!((host.read(TOOL), host.read(CONF)), ("#!/bin/sh\n".into(), "port=9\n".into()));
    assert_eq!(problems(&host), Vec::<String>::new());
}

#[test]
fn an_update_takes_away_what_the_image_has_no_more_and_a_rollback_brings_it_back() {
    let host = host();
    installed(&host);
    host.image("relay", &Image::new().manifest(json!({"version": "2.0"})));
    host.does(&["update", "relay"]);
    assert!(!host.at(TOOL).exists() && !host.at(CONF).exists());
    host.does(&["rollback", "relay"]);
    assert_eq!((host.read(TOOL), host.read(CONF)), ("#!/bin/sh\n".into(), "port=80\n".into()));
    fs::remove_file(host.at(TOOL)).unwrap();
    assert_eq!(problems(&host), [host.at(TOOL).display().to_string()]);
}

#[test]
fn places_that_are_not_for_images_are_refused() {
    let host = host();
    let at = |path: &str| {
        let files = json!([{"path": path, "source": "x"}]);
        // A reference that is in the store is not pulled again.
        let name = format!("x{}", host.work.path().read_dir().unwrap().count());
        host.image(&name, &Image::new().manifest(json!({"version": "2.0", "hostFiles": files})).export("hostfs/x", "x"))
    };
    let before = host.tree();
    for path in
        ["/usr/bin/x", "/root/x", "/etc/cron.d/x", "/etc/systemd/system/x.service", "/etc/ld.so.conf.d/x", "/etc/../x"]
    {
        let image = at(path);
        let outcome = host.sysctr(&["install", "--yes", "--replace", &image]);
        assert!(outcome.code == 1 || outcome.code == 4, "{path}: {outcome:?}");
        assert!(outcome.err.contains(path), "{path}: {outcome:?}");
        assert_same(&before, &host.tree(), path);
    }
    // A folder of the host's that is a link does not lead there either.
    std::os::unix::fs::symlink("/etc/systemd", host.at("etc/relay")).unwrap();
    host.refuses(1, &["/etc/relay/system/x", "/etc/systemd"], &["install", "--yes", &at("/etc/relay/system/x")]);
    host.write("etc/sysctr/sysctr.toml", "[host]\nfiles = [\"/srv\"]\n");
    host.refuses(4, &["/etc/x", "/srv"], &["install", "--yes", &at("/etc/x")]);
    host.does(&["install", "--yes", &at("/srv/x")]);
    assert_eq!(host.read("srv/x"), "x");
}

#[test]
fn old_images_put_their_files_as_they_did() {
    let host = host();
    host.write("etc/relay/there", "the host's\n");
    let before = host.tree();
    let manifest = json!({"version": "1.0", "defaultValues": {"PORT": "5"}, "noContainerService": true, "useLinks": false,
        "renameFiles": {"/etc/old": "$CONF_DIRECTORY/${NAME}", "/usr/local/bin/ctl": "/usr/local/bin/${NAME}ctl"},
        "installedFilesTemplate": ["/etc/relay/conf"]});
    let image = Image::new()
        .manifest(manifest)
        .export("hostfs/etc/old/conf", "port=$PORT $$\n")
        .export("hostfs/etc/old/plain", "port=$PORT\n")
        .export("hostfs/etc/old/there", "the image's\n")
        .export("hostfs/usr/local/bin/ctl", "#!/bin/sh\n");
    let outcome = host.sysctr(&["install", "--yes", &host.image("relay", &image)]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.err.contains("/etc/relay/there is there already"), "{outcome:?}");
    assert_eq!(
        (host.read("etc/relay/conf"), host.read("etc/relay/plain")),
        ("port=5 $\n".into(), "port=$PORT\n".into())
    );
    assert_eq!((host.read("etc/relay/there"), host.read(TOOL)), ("the host's\n".into(), "#!/bin/sh\n".into()));
    let shown = host.json(&["show", "relay"]);
    assert_eq!(shown["units"], json!([]));
    assert_eq!(problems(&host), Vec::<String>::new());
    host.does(&["uninstall", "relay"]);
    assert_same(&before, &host.tree(), "uninstalled");
}

#[test]
fn what_would_lie_on_the_host_is_shown_before_and_between_deployments() {
    let host = host();
    let relay = host.image("relay", &image("#!/bin/sh\n", "port={{values.port}}\n"));
    let text = host.does(&["install", "--dry-run", &relay]);
    assert!(text.contains("--- /etc/relay/relay.conf (0644)\nport=80\n"), "{text}");
    assert!(text.contains("--- /usr/local/bin/relayctl (0755)\n#!/bin/sh\n"), "{text}");
    let shown = host.json(&["install", "--dry-run", &relay]);
    assert_eq!(
        (&shown["hostFiles"][1]["path"], &shown["hostFiles"][1]["mode"]),
        (&json!("/etc/relay/relay.conf"), &json!("0644"))
    );
    host.does(&["install", "--yes", &relay]);
    let files = json!([{"path": "/usr/local/bin/relayctl", "source": "relayctl", "mode": "0700"}, {"path": "/etc/relay/new", "source": "relayctl"}]);
    let next =
        Image::new().manifest(json!({"version": "2.0", "hostFiles": files})).export("hostfs/relayctl", "#!/bin/sh\n");
    host.image("relay", &next);
    let section = "\nFiles on the host:\n  + /etc/relay/new\n  - /etc/relay/relay.conf\n    /usr/local/bin/relayctl, mode 0755 -> 0700\n";
    let text = host.does(&["diff", "relay", "--available"]);
    assert!(text.contains(section), "{text}");
    host.does(&["update", "--yes", "relay"]);
    assert!(host.does(&["diff", "relay"]).contains(section));
    assert_eq!(host.json(&["diff", "relay", "2", "1"])["hostFiles"][0]["change"], "removed");
}
