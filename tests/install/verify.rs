//! What is not as installed is named, and holds up nothing else.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use serde_json::{Value, json};

use super::{common::host::Image, host};

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
fn what_cannot_be_put_right_is_told_and_holds_nothing_up() {
    let host = host();
    let image = host.image("app", &Image::new());
    host.does(&["install", &image]);
    host.does(&["install", "--name", "other", &image]);
    let unit = |name: &str| host.at(&format!("etc/systemd/system.attached/{name}.service"));
    // somebody's folder in the place of the first one's unit
    fs::remove_file(unit("app")).unwrap();
    fs::create_dir_all(unit("app").join("theirs")).unwrap();
    fs::remove_file(unit("other")).unwrap();
    let outcome = host.sysctr(&["verify", "--repair"]);
    assert_eq!(outcome.code, 1, "{}{}", outcome.out, outcome.err);
    assert!(
        outcome.err.contains("warning: app: ") && outcome.err.contains("verify found 1 problem"),
        "{}",
        outcome.err
    );
    assert!(unit("other").is_file() && unit("app").join("theirs").is_dir());
}
