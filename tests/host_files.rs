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
        .export("hostfs/usr/local/bin/ctl", "#!/bin/sh\n")
        .link("exports/hostfs/etc/old/link", "plain")
        .folder("exports/hostfs/etc/old/more", 0o755)
        .folder("exports/hostfs/var/lib", 0o755);
    let outcome = host.sysctr(&["install", "--yes", &host.image("relay", &image)]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.err.contains("/etc/relay/there is there already"), "{outcome:?}");
    assert_eq!(
        (host.read("etc/relay/conf"), host.read("etc/relay/plain")),
        ("port=5 $\n".into(), "port=$PORT\n".into())
    );
    assert_eq!((host.read("etc/relay/there"), host.read(TOOL)), ("the host's\n".into(), "#!/bin/sh\n".into()));
    assert!(host.at("etc/relay/more").is_dir());
    assert_eq!(target(&host, "etc/relay/link"), "plain");
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

/// A folder, and a link in it to the tool.
fn linked(link: &str) -> Image {
    let files = json!([{"path": "/usr/local/bin/relayctl", "source": "relayctl"}, {"path": "/etc/relay/{{name}}.d/ctl", "source": "link"},
        {"path": "/etc/relay/{{name}}.d", "source": "empty"}]);
    Image::new()
        .manifest(json!({"version": "2.0", "hostFiles": files}))
        .export("hostfs/relayctl", "#!/bin/sh\n")
        .link("exports/hostfs/link", link)
        .folder("exports/hostfs/empty", 0o2750)
}

fn target(host: &Host, path: &str) -> String {
    fs::read_link(host.at(path)).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn links_and_empty_folders_come_and_go_as_files_do() {
    let host = host();
    let before = host.tree();
    let relay = host.image("relay", &linked("/usr/local/bin/relayctl"));
    let asked = [
        "make the folder /etc/relay/relay.d on the host",
        "put the link /etc/relay/relay.d/ctl on the host, which leads to /usr/local/bin/relayctl",
    ];
    host.refuses(4, &asked, &["install", &relay]);
    assert_same(&before, &host.tree(), "refused");
    let text = host.does(&["install", "--dry-run", &relay]);
    assert!(text.contains("--- /etc/relay/relay.d/ (0750)\n"), "{text}");
    assert!(text.contains("--- /etc/relay/relay.d/ctl -> /usr/local/bin/relayctl\n"), "{text}");
    host.does(&["install", "--yes", &relay]);
    let (folder, link) = ("etc/relay/relay.d", "etc/relay/relay.d/ctl");
    assert_eq!(fs::metadata(host.at(folder)).unwrap().permissions().mode() & 0o7777, 0o750);
    assert_eq!(target(&host, link), "/usr/local/bin/relayctl");
    let shown = host.json(&["show", "relay"]);
    let of =
        |path: &str| shown["hostFiles"].as_array().unwrap().iter().find(|one| one["path"] == path).unwrap().clone();
    assert_eq!(
        of("/etc/relay/relay.d/ctl"),
        json!({"path": "/etc/relay/relay.d/ctl", "target": "/usr/local/bin/relayctl"})
    );
    assert_eq!(of("/etc/relay/relay.d"), json!({"path": "/etc/relay/relay.d", "mode": "0750"}));
    assert_eq!(problems(&host), Vec::<String>::new());

    // What is missing is a problem, and comes back.
    fs::remove_file(host.at(link)).unwrap();
    fs::remove_dir(host.at(folder)).unwrap();
    assert_eq!(problems(&host).len(), 2);
    host.does(&["verify", "--repair"]);
    assert_eq!(target(&host, link), "/usr/local/bin/relayctl");
    // An update leads it elsewhere, unless the admin did.
    host.image("relay", &linked("/usr/bin/true"));
    host.does(&["update", "--yes", "relay"]);
    assert_eq!(target(&host, link), "/usr/bin/true");
    let text = host.does(&["diff", "relay"]);
    assert!(text.contains("/etc/relay/relay.d/ctl, link to /usr/local/bin/relayctl -> /usr/bin/true\n"), "{text}");
    host.does(&["rollback", "relay"]);
    assert_eq!(target(&host, link), "/usr/local/bin/relayctl");
    host.does(&["uninstall", "relay"]);
    assert_same(&before, &host.tree(), "uninstalled");

    host.does(&["install", "--yes", &relay]);
    fs::remove_file(host.at(link)).unwrap();
    std::os::unix::fs::symlink("/usr/bin/false", host.at(link)).unwrap();
    host.image("relay", &linked("/usr/bin/env"));
    host.does(&["update", "--yes", "relay"]);
    assert_eq!(
        (target(&host, link), target(&host, &format!("{link}.sysctr-new"))),
        ("/usr/bin/false".into(), "/usr/bin/env".into())
    );
    // And one that fails to be staged takes no folder with it that another deployment has.
    host.does(&["uninstall", "relay"]);
    assert_eq!(target(&host, link), "/usr/bin/false");
}

#[test]
fn an_empty_folder_goes_with_the_deployment_that_has_it() {
    let host = host();
    let before = host.tree();
    let files = json!([{"path": "/etc/relay.d", "source": "empty"}]);
    let with =
        Image::new().manifest(json!({"version": "2.0", "hostFiles": files})).folder("exports/hostfs/empty", 0o755);
    let relay = host.image("relay", &with);
    host.does(&["install", "--yes", &relay]);
    // An update that cannot be staged takes with it no folder of what is in force.
    let more = json!([{"path": "/etc/relay.d", "source": "empty"}, {"path": "/etc/x", "source": "x"}]);
    let more = Image::new().manifest(json!({"version": "2.0", "hostFiles": more})).export("hostfs/x", "x");
    host.image("relay", &more.folder("exports/hostfs/empty", 0o755));
    host.write("etc/.sysctr-x.2/theirs", "in the way of a temporary name");
    let outcome = host.sysctr(&["update", "--yes", "relay"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    fs::remove_dir_all(host.at("etc/.sysctr-x.2")).unwrap();
    host.does(&["prune"]);
    assert!(host.at("etc/relay.d").is_dir() && !host.at("etc/x").exists());
    host.image("relay", &Image::new().manifest(json!({"version": "2.0"})));
    host.does(&["update", "relay"]);
    assert!(!host.at("etc/relay.d").exists());
    host.does(&["rollback", "relay"]);
    assert!(host.at("etc/relay.d").is_dir());
    // What somebody put there keeps it.
    host.write("etc/relay.d/theirs", "theirs");
    host.does(&["uninstall", "relay"]);
    assert_eq!(host.read("etc/relay.d/theirs"), "theirs");
    fs::remove_dir_all(host.at("etc/relay.d")).unwrap();
    assert_same(&before, &host.tree(), "removed by hand");
}

#[test]
fn links_lead_nowhere_forbidden_and_nothing_goes_through_them() {
    let host = host();
    let before = host.tree();
    for (number, to) in ["/etc/systemd", "../../systemd/system", "/var/lib/relay/x", "/etc"].into_iter().enumerate() {
        let image = host.image(&format!("bad{number}"), &linked(to));
        host.refuses(1, &["/etc/relay/bad", ".d/ctl", "no link of an image leads to"], &["install", "--yes", &image]);
        assert_same(&before, &host.tree(), to);
    }
    let files = json!([{"path": "/etc/way", "source": "link"}]);
    let way =
        Image::new().manifest(json!({"version": "2.0", "hostFiles": files})).link("exports/hostfs/link", "/usr/share");
    host.does(&["install", "--yes", &host.image("way", &way)]);
    let files = json!([{"path": "/etc/way/x", "source": "x"}]);
    let through = Image::new().manifest(json!({"version": "2.0", "hostFiles": files})).export("hostfs/x", "x");
    host.refuses(
        1,
        &["/etc/way is a link that way put there"],
        &["install", "--yes", &host.image("through", &through)],
    );
    // A folder that holds something is listed by its files.
    let files = json!([{"path": "/etc/full", "source": "full"}]);
    let full = Image::new().manifest(json!({"version": "2.0", "hostFiles": files})).export("hostfs/full/x", "x");
    host.refuses(
        1,
        &["/exports/hostfs/full is a folder that holds something"],
        &["install", "--yes", &host.image("full", &full)],
    );
}

#[test]
fn an_update_replaces_what_stands_in_its_way_only_if_the_admin_says_so() {
    let host = host();
    host.write(CONF, "the admin's\n");
    let before = host.tree();
    let relay = host.image("relay", &Image::new().manifest(json!({"version": "2.0"})));
    host.does(&["install", &relay]);
    let installed = host.tree();
    host.image("relay", &image("#!/bin/sh\n", "new\n"));
    host.refuses(1, &["/etc/relay/relay.conf", "not sysctr's"], &["update", "--yes", "relay"]);
    assert_eq!(host.read(CONF), "the admin's\n");
    // Where it would be kept there is something of the admin's as well.
    let kept = format!("{CONF}.sysctr-old");
    host.write(&kept, "older\n");
    host.refuses(1, &["/etc/relay/relay.conf.sysctr-old"], &["update", "--yes", "--replace", "relay"]);
    assert_eq!((host.read(CONF), host.read(&kept)), ("the admin's\n".into(), "older\n".into()));
    fs::remove_file(host.at(&kept)).unwrap();
    let placed = |tree: &common::host::Tree| {
        tree.keys().filter(|path| path.starts_with("etc/relay")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(placed(&installed), placed(&host.tree()));

    host.does(&["update", "--yes", "--replace", "relay"]);
    assert_eq!((host.read(CONF), host.read(&kept)), ("new\n".into(), "the admin's\n".into()));
    host.does(&["rollback", "relay"]);
    assert_eq!(host.read(CONF), "the admin's\n");
    assert!(!host.at(&kept).exists());
    host.does(&["rollback", "relay", "--to", "2"]);
    assert_eq!((host.read(CONF), host.read(&kept)), ("new\n".into(), "the admin's\n".into()));
    // What the admin makes of the new one is theirs again, though it came by --replace and the copy is gone.
    host.write(CONF, "edited\n");
    fs::remove_file(host.at(&kept)).unwrap();
    host.image("relay", &image("#!/bin/sh\n", "newer\n"));
    host.does(&["update", "relay"]);
    assert_eq!((host.read(CONF), host.read(&format!("{CONF}.sysctr-new"))), ("edited\n".into(), "newer\n".into()));
    assert!(!host.at(&kept).exists());
    host.write(CONF, "the admin's\n");
    host.does(&["uninstall", "relay"]);
    assert_same(&before, &host.tree(), "uninstalled");
}

#[test]
fn a_link_of_the_hosts_is_kept_and_a_folder_gives_way_to_nothing() {
    let host = host();
    fs::create_dir_all(host.at("etc/relay")).unwrap();
    std::os::unix::fs::symlink("elsewhere", host.at(CONF)).unwrap();
    let before = host.tree();
    let relay = host.image("relay", &image("#!/bin/sh\n", "new\n"));
    host.refuses(1, &["/etc/relay/relay.conf", "not sysctr's"], &["install", "--yes", &relay]);
    host.does(&["install", "--yes", "--replace", &relay]);
    assert_eq!((host.read(CONF), target(&host, &format!("{CONF}.sysctr-old"))), ("new\n".into(), "elsewhere".into()));
    host.does(&["uninstall", "relay"]);
    assert_same(&before, &host.tree(), "uninstalled");
    fs::remove_file(host.at(CONF)).unwrap();
    fs::create_dir(host.at(CONF)).unwrap();
    host.refuses(1, &["/etc/relay/relay.conf is a folder"], &["install", "--yes", "--replace", &relay]);
}
