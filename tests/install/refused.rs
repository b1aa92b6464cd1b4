//! What cannot be installed is refused in one line that names the cause, and changes nothing.

use std::{fs, os::unix::fs::symlink};

use serde_json::{Value, json};

use super::{
    common::{
        self, Registry,
        host::{Image, assert_same},
    },
    host, manifest, port,
};

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
        (unit("[Service]\nExecStart={{exec_start}}\nTimeoutStopSec=soon\n"), &["systemd", "app.service:3", "soon"]),
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
