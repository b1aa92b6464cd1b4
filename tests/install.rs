//! Install and uninstall through the real program, below a root of their own: what is refused is refused in one line with the right code
//! and changes nothing; what is done is taken back whole.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use common::{
    Registry,
    host::{Host, Image, assert_same, difference},
};
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
fn a_source_that_gives_no_image_is_named() {
    let host = host();
    host.refuses(1, &["/nowhere", "No such file"], &["install", "oci:/nowhere:1"]);
    let image = host.image("app", &Image::new());
    let missing = image.replace(":1", ":7");
    host.refuses(1, &["no image \"7\""], &["install", &missing]);
    let down = format!("127.0.0.1:{}/team/app:1", common::free_port());
    host.refuses(1, &[&down, "cannot be reached"], &["install", &down]);

    let place = host.work.path().join("registry");
    fs::create_dir(&place).unwrap();
    let registry = Registry::start(&place);
    let (layout, descriptor) = Image::new().file("data", &"x".repeat(5000)).layout(&host.work.path().join("pushed"));
    layout.push("1", &registry, "team/app:1");
    let name = format!("{}/team/app", registry.host());
    host.refuses(5, &["team/app:2"], &["install", &format!("{name}:2")]);
    let manifest = fs::read(registry.blob_file(descriptor["digest"].as_str().unwrap())).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layer = registry.blob_file(manifest["layers"][0]["digest"].as_str().unwrap());
    let whole = fs::read(&layer).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    fs::write(&layer, flipped).unwrap();
    host.refuses(1, &["team/app:1", "corrupted"], &["install", &format!("{name}:1")]);
    fs::write(&layer, &whole).unwrap();
    assert_eq!(host.json(&["install", &format!("{name}:1")])["name"], "app");

    let archive = host.work.path().join("cut.tar");
    layout.tar(&archive);
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    let archive = format!("oci-archive:{}", archive.display());
    host.refuses(1, &["cut.tar"], &["install", "--name", "cut", &archive]);
    let foreign = host.image("foreign", &Image::new().architecture("s390x"));
    host.refuses(1, &["no image for", "s390x"], &["install", &foreign]);
}

#[test]
fn an_image_that_contradicts_itself_is_refused_by_file_and_key() {
    let host = host();
    let unit = |text: &str| Image::new().export("service.hbs", text);
    let cases: Vec<(Image, &[&str])> = vec![
        (Image::new().config("User", json!("nobody-here")), &["nobody-here", "/etc/passwd"]),
        (Image::new().config("User", json!("4294967295")), &["4294967295"]),
        (Image::new().config("User", json!("0:no-group")), &["no-group", "/etc/group"]),
        (Image::new().config("Entrypoint", json!([])), &["names no program"]),
        (Image::new().config("StopSignal", json!("TERM; rm")), &["StopSignal"]),
        (Image::new().config("Volumes", json!({"/a/../b": {}})), &["volumes", "/a/../b"]),
        (Image::new().config("Volumes", json!({"/a/b": {}, "/a-b": {}})), &["volumes", "two"]),
        (manifest("contaner", json!({})), &["manifest.json", "contaner"]),
        (Image::new().export("manifest.json", "{\n\"version\": \"2.0\",\n\"after\": 7}"), &["manifest.json", "line 3"]),
        (Image::new().export("manifest.json", "{"), &["manifest.json", "line 1"]),
        (manifest("version", json!("9.0")), &["9.0"]),
        (manifest("after", json!(["a b"])), &["a b"]),
        (manifest("container", json!({"capabilities": {"add": ["CAP_NONE"]}})), &["CAP_NONE"]),
        (unit("[Service]\nExecStart={{exec_start}}\nNice={{values.nice}}\n"), &["service.hbs", "line 3", "nice"]),
        (unit("[Service]\nExecStart={{exec_start"), &["service.hbs"]),
        (unit(&"{{#if name}}".repeat(20_000)), &["service.hbs"]),
        (unit(&format!("{}{}", "{{#if name}}".repeat(5_000), "{{/if}}".repeat(5_000))), &["service.hbs"]),
        (
            unit(&format!("{{{{#if name}}}}x{}{{{{/if}}}}", "{{else if name}}y".repeat(5_000))),
            &["service.hbs", "blocks"],
        ),
        (
            unit(&format!("{{{{text {}name{}}}}}", "(text ".repeat(5_000), ")".repeat(5_000))),
            &["service.hbs", "brackets"],
        ),
        (unit(&format!("{}{}", "{{#if name}}".repeat(200), "{{/if}}".repeat(200))), &["app.service", "ExecStart"]),
        (Image::new().export("manifest.json", &"[".repeat(100_000)), &["manifest.json"]),
        (unit("[Service]\nExecStart={{{name}}}\n"), &["service.hbs", "line 2"]),
        (unit("[Service]\nnonsense\n"), &["line 2", "nonsense"]),
        (unit("[Service]\nType=notify\rExecStartPre=/bin/evil\n"), &["control characters"]),
        (
            unit("[Service]\nExecStart={{exec_start}}\n[Install]\nWantedBy=../../../../tmp/x.target\n"),
            &["names no unit"],
        ),
        (Image::new().export("tmpfiles.hbs", "f /etc/systemd/system/x.service\n"), &["tmpfiles.hbs", "/etc/systemd"]),
        (Image::new().export("tmpfiles.hbs", "R /etc\n"), &["tmpfiles.hbs"]),
        (Image::new().export("tmpfiles.hbs", "d %S/sysctr\n"), &["tmpfiles.hbs", "%"]),
        (Image::new().export("sysusers.hbs", "m {{name}} docker\n"), &["sysusers.hbs", "group"]),
        (Image::new().export("sysusers.hbs", "u {{name}} /etc/passwd\n"), &["sysusers.hbs", "path"]),
        (manifest("state", json!({"folders": [{"path": "/etc/systemd/system"}]})), &["/etc/systemd"]),
        (manifest("state", json!({"folders": [{"path": "/var/lib/sysctr/repo"}]})), &["/var/lib/sysctr"]),
    ];
    for (number, (image, words)) in cases.iter().enumerate() {
        let reference = host.image(&format!("app-{number}"), image);
        // accepted or not: these are not requests
        let with_all = ["install", "--yes", "--name", "app", &reference];
        host.refuses(1, words, &with_all);
    }
}

#[test]
fn a_name_is_a_units_name_and_nobody_elses() {
    let host = host();
    let upper = host.image("App", &Image::new());
    let said = host.refuses(1, &["App", "container name"], &["install", &upper]);
    assert!(said.contains("hint: ") && said.contains("--name"), "{said}");
    let image = host.image("app", &Image::new().export("socket.hbs", "[Socket]\nListenStream=127.0.0.1:1\n"));
    let outcome = host.sysctr(&["install", "--name", "../x", &image]);
    assert_eq!((outcome.code, outcome.err.matches("error: ").count()), (2, 1), "{}", outcome.err);
    for unit in [
        "etc/systemd/system/app.service",
        "usr/lib/systemd/system/app.service",
        "run/systemd/system/app.service",
        "etc/systemd/system.attached/app.service",
        // not only the service
        "usr/lib/systemd/system/app.socket",
        "etc/systemd/system.attached/app.socket",
    ] {
        host.write(unit, "[Unit]\n");
        let said = host.refuses(1, &["app", &format!("/{unit}")], &["install", &image]);
        assert!(said.contains("--name"), "{said}");
        fs::remove_file(host.at(unit)).unwrap();
    }
    // its own folders would be systemd's, or sysctr's
    for name in ["systemd", "sysctr"] {
        host.refuses(1, &[name], &["install", "--yes", "--name", name, &image]);
    }
    // an alias that is somebody's
    let text = "[Service]\nExecStart={{exec_start}}\n[Install]\nAlias=ssh.service\n";
    let alias = host.image("alias", &Image::new().export("service.hbs", text));
    symlink("/usr/lib/systemd/system/sshd.service", host.at("etc/systemd/system/ssh.service")).unwrap();
    host.refuses(1, &["/etc/systemd/system/ssh.service"], &["install", "--yes", &alias]);
    fs::remove_dir(host.at("etc/systemd/system.attached")).unwrap();
    let before = host.tree();
    host.does(&["install", "--name", "other", &image]);
    host.does(&["uninstall", "other"]);
    assert_same(&before, &host.tree(), "under another name it came and went");
}

#[test]
fn each_wrong_value_is_named_with_what_was_expected() {
    let host = host();
    let image = host.image("app", &port());
    let install = |settings: &[&'static str]| {
        let sets = settings.iter().flat_map(|setting| ["--set", setting]);
        ["install", image.as_str()].into_iter().chain(sets).map(str::to_owned).collect::<Vec<_>>()
    };
    let refuses = |settings: &[&'static str], words: &[&str]| {
        let arguments = install(settings);
        host.refuses(1, words, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let said = refuses(&[], &["value port is missing", "where it listens"]);
    assert!(said.contains("--set port="), "{said}");
    refuses(&["prot=1"], &["prot"]);
    refuses(&["port=many"], &["port=many", "whole number"]);
    refuses(&["port="], &["port="]);
    refuses(&["port=1", "mode=odd"], &["mode=odd", "fast, safe"]);
    refuses(&["port=1", "port=2"], &["port", "twice"]);
    refuses(&["port=1\nX=2"], &["control characters"]);
    for usage in ["port", "=1"] {
        let outcome = host.sysctr(&["install", &image, "--set", usage]);
        assert_eq!((outcome.code, outcome.err.matches("error: ").count()), (2, 1), "{}", outcome.err);
    }
    let arguments = install(&["port=8080"]);
    host.does(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let shown = host.json(&["show", "app"]);
    assert_eq!(shown["values"]["port"], json!({"value": 8080, "source": "admin", "type": "integer"}));
    assert_eq!(shown["values"]["mode"], json!({"value": "safe", "source": "default", "type": "enum"}));
    let config = host.read("var/lib/sysctr/containers/app/deployments/1/config.json");
    assert!(config.contains("--port=8080"), "{config}");
}

#[test]
fn what_an_image_requests_is_refused_unless_accepted() {
    let host = host();
    let text = "[Service]\nExecStart={{exec_start}}\nExecStartPre=/bin/touch /evil\n";
    let manifest = json!({"version": "2.0", "container": {"capabilities": {"add": ["SYS_ADMIN"]}, "devices": ["/dev/kvm"],
        "mounts": [{"source": "/srv/www", "target": "/srv/www"}]}, "state": {"folders": [{"path": "/srv/data"}]}});
    let image = Image::new()
        .manifest(manifest)
        .export("service.hbs", text)
        .export("tmpfiles.hbs", "f /etc/motd - - - - hello\n")
        .export("sysusers.hbs", "u somebody -\n")
        .export("socket.hbs", "[Socket]\nListenStream=%t/dbus/socket\n");
    let image = host.image("app", &image);
    let all = [
        "CAP_SYS_ADMIN",
        "/dev/kvm",
        "/srv/www of the host",
        "/srv/data",
        "touch /evil",
        "/etc/motd",
        "somebody",
        "%t/dbus",
    ];
    let said = host.refuses(4, &all, &["install", &image]);
    assert!(said.contains("--yes"), "{said}");
    // each of them in the settings' words is as good as --yes, all but one is not
    let planned = host.json(&["install", "--dry-run", &image]);
    let mut words: Vec<&str> = planned["requests"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(words.len() >= all.len(), "{words:?}");
    let accept = |words: &[&str]| {
        host.write("etc/sysctr/sysctr.toml", &format!("[requests]\naccept = {}\n", json!(words)));
    };
    let last = words.pop().unwrap();
    accept(&words);
    host.refuses(4, &[last], &["install", &image]);
    words.push(last);
    accept(&words);
    host.does(&["install", &image]);
    assert_eq!(host.json(&["show", "app"])["accepted"], json!(words));
    host.does(&["uninstall", "--purge", "app"]);
    // the admin's settings stay
    assert!(host.at("etc/sysctr/sysctr.toml").exists());
    fs::remove_file(host.at("etc/sysctr/sysctr.toml")).unwrap();
    host.does(&["install", "--yes", &image]);
}

#[test]
fn policy_refuses_what_it_rejects_and_what_nobody_can_check() {
    let host = host();
    let image = host.image("app", &Image::new());
    for (rule, word) in [(r#"{"type": "reject"}"#, "rejected"), (r#"{"type": "signedBy"}"#, "signedBy")] {
        host.write("etc/containers/policy.json", &format!(r#"{{"default": [{rule}]}}"#));
        host.refuses(4, &["policy", word], &["install", &image]);
        // in the store already, from a time when it was allowed
        let pulled = format!("oci:{}:1", host.work.path().join("warm").display());
        host.refuses(4, &["policy", word], &["install", &pulled]);
    }
    host.write("etc/containers/policy.json", "{");
    host.refuses(4, &["policy.json"], &["install", &image]);
}

#[test]
fn a_damaged_or_newer_record_is_refused_and_a_mistyped_root_not_made() {
    let host = host();
    let image = host.image("app", &Image::new());
    host.does(&["install", &image]);
    let record = "var/lib/sysctr/containers/app/deployments/1/deployment.json";
    let whole = host.read(record);
    host.write(record, &whole.replacen("\"version\": 1", "\"version\": 99", 1));
    host.refuses(1, &["newer sysctr", "deployment.json"], &["uninstall", "app"]);
    host.refuses(1, &["newer sysctr"], &["show", "app"]);
    host.write(record, &whole);
    host.refuses(5, &["none"], &["show", "none"]);
    host.refuses(5, &["none"], &["uninstall", "app", "none"]);
    host.does(&["uninstall", "app"]);
    let typo = host.work.path().join("typo");
    let outcome = host.sysctr(&["--root", typo.to_str().unwrap(), "list"]);
    assert_eq!(outcome.code, 2, "twice is once too much: {}", outcome.err);
    let program = env!("CARGO_BIN_EXE_sysctr");
    let output =
        std::process::Command::new(program).arg("--root").arg(&typo).args(["install", &image]).output().unwrap();
    let outcome = common::host::Outcome::of(&output);
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    assert!(outcome.err.contains("typo") && !typo.exists(), "{}", outcome.err);
}

/// A small file system of its own, unmounted with the test.
struct Disk<'a>(&'a Host);

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        common::run("umount", &["-R", self.0.root().to_str().unwrap()]).ok();
    }
}

#[test]
fn a_full_disk_is_one_line_and_the_tree_as_before() {
    let host = Host::new();
    // a fresh file system is empty, and so is the tree
    let disk = host.work.path().join("disk");
    common::run("truncate", &["-s", "24M", disk.to_str().unwrap()]).unwrap();
    common::run("mkfs.ext4", &["-q", "-m", "0", "-d", host.root().to_str().unwrap(), disk.to_str().unwrap()]).unwrap();
    common::run("mount", &["-o", "loop", disk.to_str().unwrap(), host.root().to_str().unwrap()]).unwrap();
    let _disk = Disk(&host);
    let image = host.image("app", &manifest("state", json!({"folders": [{"path": "/var/lib/app"}]})));
    host.does(&["pull", &image]);
    let before = host.tree();
    host.does(&["install", &image]);
    let after = host.tree();
    host.does(&["uninstall", "--purge", "app"]);
    assert_same(&before, &host.tree(), "it was installed and uninstalled");
    // fills the disk but for so many blocks: every step finds it full once
    let filler = host.at("var/filler");
    let (mut refused, mut done) = (0, false);
    for blocks in 0..60 {
        fill(&filler);
        let length = filler.metadata().unwrap().len();
        fs::OpenOptions::new().write(true).open(&filler).unwrap().set_len(length - blocks * 4096).unwrap();
        let outcome = host.sysctr(&["install", &image]);
        let full = host.tree();
        fs::remove_file(&filler).unwrap();
        let mut tree = host.tree();
        if outcome.code == 0 {
            done = true;
            assert_same(&after, &tree, &format!("installed with {blocks} blocks left"));
            break;
        }
        refused += 1;
        tree.remove("var/filler");
        assert_eq!(outcome.code, 1, "{blocks} blocks left: {}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
        assert!(outcome.err.starts_with("error: ") && outcome.err.contains("space"), "{blocks}: {}", outcome.err);
        assert_same(&before, &tree, &format!("refused with {blocks} blocks left: {}", outcome.err));
        assert!(!full.keys().any(|path| path.contains(".sysctr-")), "{:?}", full.keys());
    }
    assert!(done && refused > 2, "{refused} refused, then {done}");
}

/// Writes until nothing fits.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    let block = [1u8; 4096];
    while file.write_all(&block).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length / 4096 * 4096).unwrap();
    file.sync_all().unwrap();
    while file.write_all(&block).is_ok() {}
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
    assert_eq!(host.read("etc/systemd/system-preset/50-sysctr.preset"), "enable app.service\n");
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
fn verify_names_each_placed_file_that_is_not_as_installed() {
    let host = host();
    let image = Image::new().export("tmpfiles.hbs", "d /run/{{name}}\n").export("sysusers.hbs", "u {{name}} -\n");
    let image = host.image("app", &image);
    host.does(&["install", &image]);
    // what admins do with units is no fault
    host.write("etc/systemd/system/app.service.d/override.conf", "[Service]\nMemoryMax=1G\n");
    symlink("/dev/null", host.at("etc/systemd/system/other.service")).unwrap();
    let checked = host.json(&["verify", "app"]);
    assert_eq!(checked["ok"], true, "{checked}");
    let problems = || -> Vec<(String, String)> {
        let outcome = host.sysctr(&["--json", "verify"]);
        let report: Value =
            serde_json::from_str(&outcome.out).unwrap_or_else(|error| panic!("{error}: {}", outcome.out));
        assert_eq!((outcome.code, &report["ok"]), (1, &json!(false)), "{}", outcome.err);
        let text = |problem: &Value, key: &str| problem[key].as_str().unwrap().to_owned();
        assert!(report["problems"].as_array().unwrap().iter().all(|problem| problem["kind"] == "placed"), "{report}");
        report["problems"].as_array().unwrap().iter().map(|it| (text(it, "subject"), text(it, "detail"))).collect()
    };
    for file in
        ["etc/systemd/system.attached/app.service", "etc/tmpfiles.d/sysctr-app.conf", "etc/sysusers.d/sysctr-app.conf"]
    {
        let path = host.at(file);
        let whole = fs::read(&path).unwrap();
        let subject = path.display().to_string();
        fs::write(&path, [&whole[..], b"# more\n"].concat()).unwrap();
        assert_eq!(problems(), [(subject.clone(), "its content is not what was installed".to_owned())]);
        fs::write(&path, [&whole[..], b"\xff\n"].concat()).unwrap();
        assert_eq!(problems().len(), 1);
        fs::remove_file(&path).unwrap();
        assert_eq!(problems(), [(subject.clone(), "it is missing".to_owned())]);
        let copy = host.work.path().join("copy");
        fs::write(&copy, &whole).unwrap();
        symlink(&copy, &path).unwrap();
        assert_eq!(problems(), [(subject, "it is no regular file".to_owned())]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(host.json(&["verify"])["ok"], true);
    }
    let said = {
        fs::remove_file(host.at("etc/tmpfiles.d/sysctr-app.conf")).unwrap();
        host.sysctr(&["verify"])
    };
    assert!(said.code == 1 && said.out.contains("sysctr-app.conf: it is missing"), "{}{}", said.out, said.err);
    assert_eq!(said.err, "error: verify found 1 problem\n");
    // an operation under way: what is not in place yet will be
    let journal = json!({"version": 1, "operation": "install", "from": null, "to": 1, "enable": true, "purge": false});
    host.write("etc/sysctr/containers/app/journal.json", &journal.to_string());
    assert_eq!(host.json(&["verify"])["ok"], true);
    assert_eq!(host.json(&["list"])[0]["pending"], true);
    host.does(&["recover"]);
    assert!(host.at("etc/tmpfiles.d/sysctr-app.conf").exists());
    assert_eq!(host.json(&["list"])[0]["pending"], false);
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
fn a_container_that_cannot_be_recovered_holds_up_no_other() {
    let host = host();
    let image = host.image("app", &Image::new());
    host.does(&["install", &image]);
    host.does(&["install", "--name", "cut", &image]);
    host.write("etc/sysctr/containers/cut/journal.json", r#"{"version": 99}"#);
    let outcome = host.sysctr(&["install", "--name", "third", &image]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert!(
        outcome.err.contains("warning: recovering cut: ") && outcome.err.contains("newer sysctr"),
        "{}",
        outcome.err
    );
    host.does(&["uninstall", "third"]);
    let outcome = host.sysctr(&["recover"]);
    assert_eq!(outcome.code, 6, "{}", outcome.err);
    assert_eq!(host.sysctr(&["uninstall", "cut"]).code, 1);
}

#[test]
fn a_policy_behind_a_link_is_the_trees_own_and_one_that_went_away_refuses() {
    let host = host();
    let image = host.image("app", &Image::new());
    host.write("usr/etc/policy.json", r#"{"default": [{"type": "reject"}]}"#);
    fs::create_dir_all(host.at("etc/containers")).unwrap();
    std::os::unix::fs::symlink("/usr/etc/policy.json", host.at("etc/containers/policy.json")).unwrap();
    host.refuses(4, &["policy"], &["install", &image]);
    fs::remove_file(host.at("usr/etc/policy.json")).unwrap();
    host.refuses(4, &["policy.json"], &["install", &image]);
}

#[test]
fn a_link_of_the_image_makes_way_for_a_file_to_mount_upon_and_verify_knows() {
    let host = host();
    let image = Image::new().link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    let image = image.link("lib", "usr/lib").file("usr/lib/x", "x").manifest(json!({"version": "2.0",
        "container": {"mounts": [{"source": "/lib/modules", "target": "/lib/modules", "options": ["ro"]}]}}));
    let image = host.image("app", &image);
    host.does(&["install", "--yes", &image]);
    assert_eq!(host.json(&["verify"])["problems"], json!([]));
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
