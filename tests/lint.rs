//! `sysctr lint`: folders, images and installed containers.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{fs, path::Path, process::Command};

use common::host::{Host, Image};
use serde_json::{Value, json};

/// What `lint --json` says, and its exit code.
fn lint(host: &Host, subject: &str) -> (i32, Value) {
    let outcome = host.sysctr(&["--json", "lint", subject]);
    let said = serde_json::from_str(&outcome.out).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    (outcome.code, said)
}

#[test]
fn our_own_images_are_clean() {
    let host = Host::new();
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
    let mut seen = 0;
    for entry in fs::read_dir(images).unwrap() {
        let folder = entry.unwrap().path();
        let (code, said) = lint(&host, folder.to_str().unwrap());
        let problems = said["problems"].as_array().unwrap();
        // kubelet has the host, and is told so.
        let is_wide = folder.ends_with("kubelet");
        let good = |problem: &Value| {
            let about = problem["detail"].as_str().unwrap().starts_with("container.");
            problem["level"] == "note" || (is_wide && about && problem["level"] == "warning")
        };
        let clean = code == 0 && said["ok"] == true && problems.iter().all(good);
        assert!(clean, "{}: {said:#}", folder.display());
        seen += 1;
    }
    assert!(seen >= 2);
}

#[test]
fn a_folder_is_judged_without_an_image_and_without_a_change() {
    let host = Host::new();
    let folder = host.work.path().join("App");
    fs::create_dir_all(folder.join("exports")).unwrap();
    let write = |file: &str, text: &str| fs::write(folder.join("exports").join(file), text).unwrap();
    write(
        "manifest.json",
        r#"{"version": "2.0", "container": {"user": "app:www", "network": "private"}, "values": {"x": {"type": "enum", "enum": ["a"]}}}"#,
    );
    write("service.hbs", "[Service]\nExecStart={{exec_start}}\nSyslogIdentifier={{values.x}}\n");
    for place in [folder.clone(), folder.join("exports")] {
        assert_eq!(lint(&host, place.to_str().unwrap()), (0, json!({"ok": true, "problems": []})));
    }
    assert_eq!(host.does(&["lint", folder.to_str().unwrap()]), "no problem found\n");

    write("service.hbs", "[Service]\nExecStart={{exec_start}}\nPrivateTmp=yes\nUser=app\n");
    write("sysusers.hbs", "u root 0\n");
    let before = host.tree();
    let (code, said) = lint(&host, folder.to_str().unwrap());
    assert_eq!(before, host.tree());
    assert_eq!((code, &said["ok"]), (1, &Value::Bool(false)));
    let found: Vec<(&str, &str)> = said["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["level"].as_str().unwrap(), one["file"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("error", "/exports/sysusers.hbs"),
            ("error", "/exports/service.hbs, line 3"),
            ("error", "/exports/service.hbs, line 4"),
        ]
    );
    let outcome = host.sysctr(&["lint", folder.to_str().unwrap()]);
    let lines: Vec<&str> = outcome.out.lines().collect();
    assert!(lines.len() == 3 && lines[2].starts_with("error: /exports/service.hbs, line 4: User= "), "{outcome:?}");
    assert_eq!((outcome.code, outcome.err.as_str()), (1, "error: lint found 3 errors\n"));
}

#[test]
fn systemd_reads_the_units_where_it_is_there_and_the_rest_is_judged_where_it_is_not() {
    let host = Host::new();
    let folder = host.work.path().join("app");
    fs::create_dir_all(folder.join("exports")).unwrap();
    let write = |file: &str, text: &str| fs::write(folder.join("exports").join(file), text).unwrap();
    let service = "[Service]\nExecStart={{exec_start}}\nExecStartPre=/no/such/program\n";
    let without = |text: &str| {
        write("service.hbs", text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_sysctr"));
        let output = command.args(["--json", "lint"]).arg(&folder).env("PATH", "/nowhere").output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), said["problems"].as_array().unwrap().clone())
    };
    // Nobody but systemd knows of this one.
    let wrong = format!("{service}Nice=99\n");
    write("service.hbs", &wrong);
    let (code, said) = lint(&host, folder.to_str().unwrap());
    let detail = said["problems"].as_array().unwrap().iter().find(|one| one["level"] == "error").unwrap();
    assert_eq!((code, &detail["file"]), (1, &json!("/exports/service.hbs")));
    assert!(detail["detail"].as_str().unwrap().starts_with("systemd says: line "), "{said:#}");
    let said = host.does(&["lint", {
        write("service.hbs", service);
        folder.to_str().unwrap()
    }]);
    assert!(
        said.contains("warning: /exports/service.hbs: systemd says: Command /no/such/program is not executable"),
        "{said}"
    );

    let (code, problems) = without(&wrong);
    assert_eq!(code, Some(0));
    let notes: Vec<&str> = problems.iter().map(|one| one["detail"].as_str().unwrap()).collect();
    assert!(notes.iter().any(|note| note.contains("there is no systemd-analyze")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("run on the host: ExecStartPre=/no/such/program")), "{notes:?}");
    let (code, problems) = without("[Service]\nExecStart={{exec_start}}\nUser=app\n");
    assert!(code == Some(1) && problems.iter().any(|one| one["level"] == "error"), "{problems:?}");
}

#[test]
fn an_image_is_judged_with_its_own_users() {
    let host = Host::new();
    let image = Image::new().file("etc/passwd", "app:x:5:5::/:/bin/false\n").manifest(json!({
        "version": "2.0", "container": {"user": "app", "mounts": [{"source": "/srv", "target": "/srv", "options": ["ro"]}]}
    }));
    let image = host.image("app", &image);
    let note = json!({"level": "note", "file": "/exports/manifest.json",
        "detail": "asks: read /srv of the host (as /srv); an admin has to accept it"});
    // The second time it is in the store.
    for _ in 0..2 {
        assert_eq!(lint(&host, &image), (0, json!({"ok": true, "problems": [note]})));
    }
    assert_eq!(host.does(&["--quiet", "lint", &image]), "");
    let other = Image::new().manifest(json!({"version": "2.0", "container": {"user": "app"}}));
    let (code, said) = lint(&host, &host.image("other", &other));
    assert_eq!(code, 1);
    assert!(said["problems"][0]["detail"].as_str().unwrap().contains("\"app\""), "{said:#}");
}

#[test]
fn a_drop_in_of_an_installed_container_is_judged() {
    let host = Host::new();
    let image = host.image("app", &Image::new());
    host.does(&["install", &image]);
    assert_eq!(lint(&host, "app"), (0, json!({"ok": true, "problems": []})));

    let drop_in = "etc/systemd/system/app.service.d/override.conf";
    host.write(drop_in, "[Service]\nMemoryMax=1G\nUser=daemon\nSystemCallFilter=~@swap\n");
    let (code, said) = lint(&host, "app");
    let problems = said["problems"].as_array().unwrap();
    assert_eq!((code, problems.len()), (1, 2), "{said:#}");
    for (problem, level, key) in [(&problems[0], "error", "User="), (&problems[1], "warning", "SystemCallFilter=")] {
        assert_eq!((&problem["level"], &problem["file"]), (&json!(level), &json!(format!("/{drop_in}"))));
        assert!(problem["detail"].as_str().unwrap().starts_with(key), "{problem}");
    }
    host.write(drop_in, "[Service]\nUser=daemon\nUser=\n");
    assert_eq!(lint(&host, "app").0, 0);
}

#[test]
fn an_install_refuses_what_lint_finds() {
    let host = Host::new();
    for line in
        ["User=app", "DynamicUser=yes", "PrivateTmp=yes", "RootDirectory=/srv", "CapabilityBoundingSet=CAP_KILL"]
    {
        let service = format!("[Service]\nExecStart={{{{exec_start}}}}\n{line}\n");
        let image = host.image("app", &Image::new().export("service.hbs", &service));
        let key = line.split('=').next().unwrap();
        host.refuses(
            1,
            &["/exports/service.hbs, line 3", key],
            &["install", "--yes", "--name", &key.to_lowercase(), &image],
        );
        host.does(&["remove", &image]);
    }
}

#[test]
fn what_is_not_there_is_no_container_folder_or_image() {
    let host = Host::new();
    for (code, subject) in [(5, "app"), (5, "./app"), (5, "no:such:thing"), (1, "oci:/nowhere:1")] {
        let outcome = host.sysctr(&["lint", subject]);
        assert!(outcome.code == code && outcome.err.starts_with("error: "), "{subject}: {outcome:?}");
    }
    let empty = host.work.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(host.sysctr(&["lint", empty.to_str().unwrap()]).code, 5);
}
