//! What an admin gives: values from files, secrets, and what a container gets beyond its image.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::MetadataExt};

use common::host::{Host, Image};
use serde_json::{Value, json};

fn app(manifest: Value) -> Image {
    Image::new().manifest(manifest)
}

fn with_secret(description: &str) -> Image {
    app(json!({"version": "2.0", "description": description,
        "values": {"port": {"type": "integer", "minimum": 1, "maximum": 65535, "description": "where it listens"},
            "key": {"type": "string", "secret": true, "description": "of the API"}},
        "container": {"args": ["/bin/app", "--port={{values.port}}", "--key-file={{values.key}}"]}}))
}

#[test]
fn values_come_from_tables_and_files_and_the_command_line_wins() {
    let host = Host::new();
    let image = host.image("app", &app(json!({"version": "2.0", "values": {
        "port": {"type": "integer", "maximum": 9000, "description": "where it listens"}, "name": {"type": "string"}, "on": {"type": "boolean"}},
        "container": {"args": ["/bin/app", "{{values.port}}", "{{values.name}}", "{{values.on}}"]}})));
    let file = |name: &str, text: &str| {
        let path = host.work.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let toml = file("a.toml", "port = 80\non = true\nname = \"of the table\"\n");
    let json = file("b.json", r#"{"port": 81}"#);
    let line = format!("name={}", file("name", "of the file\n"));
    let odd = file("odd.toml", "port = 80\nport = \n");
    host.refuses(1, &["odd.toml", "line 2"], &["install", &image, "--values", &odd]);
    let list = file("list.toml", "port = [1]\n");
    host.refuses(1, &["list.toml", "port"], &["install", &image, "--values", &list]);
    let far = file("far.toml", "port = 9001\non = true\nname = \"x\"\n");
    host.refuses(1, &["port=9001", "9000 or less", "where it listens"], &["install", &image, "--values", &far]);
    host.refuses(1, &["/nowhere"], &["install", &image, "--set-file", "name=/nowhere"]);
    host.refuses(1, &["name", "twice"], &["install", &image, "--set", "name=a", "--set-file", &line]);

    host.does(&["install", &image, "--values", &toml, "--values", &json, "--set-file", &line]);
    let config = host.read("var/lib/sysctr/containers/app/deployments/1/config.json");
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["process"]["args"], json!(["/bin/app", "81", "of the file", "true"]));
    // Given back, the image's default would be used, and there is none.
    host.refuses(1, &["port is missing"], &["update", "app", "--unset", "port"]);
    host.refuses(1, &["--unset x"], &["update", "app", "--unset", "x"]);
}

#[test]
fn a_secret_is_only_where_root_and_the_program_read_it() {
    let host = Host::new();
    let image = host.image("app", &with_secret("one"));
    let file = host.work.path().join("key");
    fs::write(&file, "hunter2\nand more\n").unwrap();
    let key = format!("key={}", file.display());
    let said = host.refuses(1, &["the value key is missing (of the API)"], &["install", &image, "--set", "port=1"]);
    assert!(said.contains("--set-file key="), "{said}");
    let install = ["install", &image, "--set", "port=1", "--set-file", &key];
    host.does(&install);

    let secret = |id: u32| format!("var/lib/sysctr/containers/app/deployments/{id}/secrets/key");
    let meta = |path: &str| fs::metadata(host.at(path)).unwrap();
    assert_eq!(host.read(&secret(1)), "hunter2\nand more\n");
    assert_eq!((meta(&secret(1)).mode() & 0o777, meta(&secret(1)).uid()), (0o600, 0));
    assert_eq!(meta("var/lib/sysctr/containers/app/deployments/1/secrets").mode() & 0o777, 0o700);
    let unit = host.read("etc/systemd/system.attached/app.service");
    assert!(unit.contains("\nLoadCredential=key:/var/lib/sysctr/containers/app/deployments/1/secrets/key\n"), "{unit}");
    let config = host.read("var/lib/sysctr/containers/app/deployments/1/config.json");
    assert!(config.contains("--key-file=/run/credentials/app.service/key"), "{config}");
    for (path, content) in host.tree() {
        assert!(!content.contains("hunter2") || path.ends_with("secrets/key"), "{path} tells the secret");
    }
    let shown = host.does(&["show", "app"]) + &host.json(&["show", "app"]).to_string();
    assert!(shown.contains("key is secret") && !shown.contains("hunter2"), "{shown}");

    // The same again is nothing to do; another secret is another deployment.
    assert!(host.does(&install).contains("nothing to do"));
    fs::write(&file, "other").unwrap();
    host.refuses(1, &["installed already"], &install);
    assert!(host.does(&["update", "app"]).contains("up to date"));
    host.image("app", &with_secret("two"));
    host.does(&["update", "app"]);
    assert_eq!(host.read(&secret(2)), "hunter2\nand more\n");
    host.does(&["update", "app", "--set-file", &key]);
    assert_eq!(host.read(&secret(3)), "other");
    host.does(&["rollback", "app"]);
    let unit = host.read("etc/systemd/system.attached/app.service");
    assert!(unit.contains("deployments/2/secrets/key"), "{unit}");
    host.does(&["uninstall", "app"]);
    assert!(host.tree().values().all(|content| !content.contains("hunter2")));
}

#[test]
fn what_an_admin_gives_a_container_stays_over_updates() {
    let host = Host::new();
    // An image without a word of its own.
    let image = host.image("app", &Image::new());
    for (option, value) in [
        ("--mount", "type=bind,src=/a"),
        ("--volume", "/a"),
        ("--env", "X"),
        ("--cap-add", "fly"),
        ("--device", "/etc/passwd"),
        ("--memory", "much"),
    ] {
        let outcome = host.sysctr(&["install", &image, option, value]);
        assert_eq!((outcome.code, outcome.err.matches("error: ").count()), (2, 1), "{option}: {}", outcome.err);
    }
    // What an admin gives needs nobody's yes.
    host.does(&[
        "install",
        &image,
        "--volume",
        "/srv/data:/data:ro",
        "--env",
        "MODE={{x}}",
        "--cap-add",
        "net_admin",
        "--cap-drop",
        "KILL",
        "--device",
        "/dev/fuse",
        "--memory",
        "512m",
    ]);
    let spec = |id: u32| -> Value {
        serde_json::from_str(&host.read(&format!("var/lib/sysctr/containers/app/deployments/{id}/config.json")))
            .unwrap()
    };
    let check = |id: u32| {
        let spec = spec(id);
        let mounts = spec["mounts"].as_array().unwrap();
        let of = |place: &str| {
            mounts.iter().find(|mount| mount["destination"] == place).map(|mount| mount["source"].clone())
        };
        assert_eq!((of("/data"), of("/dev/fuse")), (Some("/srv/data".into()), Some("/dev/fuse".into())));
        assert!(spec["process"]["env"].as_array().unwrap().contains(&"MODE={{x}}".into()));
        let held = spec["process"]["capabilities"]["bounding"].as_array().unwrap();
        assert!(held.contains(&"CAP_NET_ADMIN".into()) && !held.contains(&"CAP_KILL".into()), "{held:?}");
        let unit = host.read("etc/systemd/system.attached/app.service");
        assert!(unit.contains("\nMemoryMax=512M\n"), "{unit}");
    };
    check(1);
    let shown = host.does(&["show", "app"]);
    for words in [
        "Mount: /srv/data at /data",
        "Variable: MODE={{x}}",
        "CAP_NET_ADMIN added",
        "CAP_KILL dropped",
        "Device: /dev/fuse",
        "Memory: 512M",
    ] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
    assert_eq!(host.json(&["show", "app"])["accepted"], json!([]));
    // The default filter goes by what the program can hold.
    assert!(spec(1)["linux"]["seccomp"].to_string().contains("setns"), "setns is not open with CAP_NET_ADMIN");

    host.image("app", &app(json!({"version": "2.0", "description": "newer"})));
    host.does(&["update", "app"]);
    check(2);
    assert!(host.does(&["update", "app"]).contains("up to date"));
    host.does(&["update", "app", "--memory", "1G", "--cap-drop", "NET_ADMIN"]);
    let unit = host.read("etc/systemd/system.attached/app.service");
    assert!(unit.contains("\nMemoryMax=1G\n") && !unit.contains("512M"), "{unit}");
    assert!(!spec(3)["process"]["capabilities"].to_string().contains("NET_ADMIN"));
    // What the image asks for is asked still, though the admin has given something else.
    host.image("app", &app(json!({"version": "2.0", "container": {"capabilities": {"add": ["SYS_TIME"]}}})));
    host.refuses(4, &["capability CAP_SYS_TIME"], &["update", "app"]);
    host.does(&["update", "app", "--cap-drop", "SYS_TIME"]);
    host.does(&["update", "app", "--revert", "--yes"]);
    let given = &host.json(&["show", "app"])["given"];
    assert_eq!(given, &json!({}));
    assert!(!host.read("etc/systemd/system.attached/app.service").contains("MemoryMax"));
}

#[test]
fn init_starts_what_lint_has_nothing_to_say_of() {
    let host = Host::new();
    let image = host.image(
        "app",
        &Image::new().config("ExposedPorts", json!({"80/tcp": {}})).config("Volumes", json!({"/data": {}})),
    );
    let folder = host.work.path().join("new");
    let folder = folder.to_str().unwrap();
    let before = host.tree();
    host.does(&["init", folder, &image]);
    assert_eq!(before, host.tree());
    assert_eq!(host.does(&["lint", folder]), "no problem found\n");
    let outcome = host.sysctr(&["init", folder]);
    assert!(outcome.code == 1 && outcome.err.contains("there already"), "{outcome:?}");

    // It installs, and is what the image was without.
    let mut ours = Image::new();
    for file in ["manifest.json", "service.hbs", "README.md"] {
        ours = ours.export(file, &fs::read_to_string(format!("{folder}/exports/{file}")).unwrap());
    }
    host.does(&["install", "--name", "ours", &host.image("ours", &ours)]);
    assert!(host.read("etc/systemd/system.attached/ours.service").contains("ExecStart="));
    let schema = host.json(&["inspect", "--schema"]);
    assert_eq!(schema["properties"]["version"]["const"], "2.0");
}
