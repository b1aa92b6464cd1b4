//! What `diff` says of two deployments.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use common::host::{Host, Image, assert_same};
use serde_json::{Value, json};
use sysctr::model::diff::packages::Packages;

const STATUS: &str = "var/lib/dpkg/status";

fn package(name: &str, version: &str) -> String {
    format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n")
}

fn first() -> Image {
    let values = json!({"port": {"type": "integer", "default": 80}});
    let status = [package("libc6", "2.36-9"), package("libssl3", "3.0.11"), package("tzdata", "2024a")].concat();
    Image::new()
        .manifest(json!({"version": "2.0", "description": "first", "values": values}))
        .file(STATUS, &status)
        .file("etc/app.conf", "a\n")
        .file("usr/share/old", "gone soon")
}

fn second() -> Image {
    let container = json!({
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["KILL"]},
        "mounts": [{"source": "/srv/data", "target": "/data", "options": ["ro"]}],
        "env": {"MODE": "fast"}, "network": "private",
    });
    let values = json!({"port": {"type": "integer", "default": 81}, "mode": {"type": "string", "default": "x"}});
    let status = [package("libc6", "2.41-12"), package("libssl3", "3.0.11"), package("curl", "8.14")].concat();
    Image::new()
        .manifest(json!({"version": "2.0", "description": "second", "values": values, "container": container}))
        .file(STATUS, &status)
        .file("etc/app.conf", "b is longer\n")
        .file("usr/share/new/deep", "12345")
        .config("Labels", json!({"org.opencontainers.image.version": "2.1"}))
}

/// A container with two deployments.
fn updated() -> Host {
    let host = Host::new();
    let image = host.image("app", &first());
    host.does(&["install", &image]);
    host.image("app", &second());
    host.does(&["update", "app", "--yes", "--set", "port=8080"]);
    host
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn what_an_update_changed_is_told_by_its_meaning() {
    let host = updated();
    let found = host.json(&["diff", "app", "--files"]);
    assert_eq!((&found["name"], &found["from"]["deployment"]), (&json!("app"), &json!(1)));
    assert_eq!((&found["to"]["deployment"], &found["to"]["version"]), (&json!(2), &json!("2.1")));
    let read = "read /srv/data of the host (as /data)";
    assert_eq!(words(&found["requests"]["gained"]), ["capability CAP_NET_ADMIN", read]);
    assert_eq!(words(&found["requests"]["lost"]), [""; 0]);
    assert_eq!(words(&found["config"]["gained"]), ["capability CAP_NET_ADMIN", read]);
    let lost = words(&found["config"]["lost"]);
    assert!(lost.contains(&"capability CAP_KILL") && lost.contains(&"share the host's network"), "{lost:?}");
    let changed: Vec<_> = found["config"]["changed"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
    assert_eq!(changed, ["process.env.MODE"]);
    assert_eq!(
        found["values"],
        json!([
            {"name": "mode", "from": null, "to": {"value": "x", "source": "default", "type": "string"}},
            {"name": "port", "from": {"value": 80, "source": "default", "type": "integer"},
                "to": {"value": 8080, "source": "admin", "type": "integer"}},
        ])
    );
    let unit = &found["units"][0];
    assert_eq!((&unit["file"], &unit["change"]), (&json!("app.service"), &json!("changed")));
    let diff = unit["diff"].as_str().unwrap();
    assert!(diff.contains("-Description=first\n+Description=second\n"), "{diff}");
    assert!(
        !diff.contains("-ExecStart") && !diff.contains("SYSCTR_DIGEST=sha256"),
        "its own number and digest: {diff}"
    );
    assert_eq!(
        found["packages"],
        json!({"databases": ["dpkg"], "added": [{"name": "curl", "version": "8.14"}],
            "removed": [{"name": "tzdata", "version": "2024a"}],
            "changed": [{"name": "libc6", "from": "2.36-9", "to": "2.41-12"}], "problems": []})
    );
    let list: Vec<_> = found["files"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["path"].as_str().unwrap(), file["change"].as_str().unwrap(), file["to"]["size"].as_u64()))
        .collect();
    for wanted in [
        ("/etc/app.conf", "changed", Some(12)),
        ("/usr/share/new", "added", Some(0)),
        ("/usr/share/new/deep", "added", Some(5)),
        ("/usr/share/old", "removed", None),
    ] {
        assert!(list.contains(&wanted), "{wanted:?} is not in {list:?}");
    }
    assert!(!list.iter().any(|(path, ..)| *path == "/bin/app"), "what is the same is listed");
    assert_eq!((&found["files"]["added"], &found["files"]["removed"]), (&json!(2), &json!(1)));

    let text = host.does(&["diff", "app"]);
    let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("no {words:?} in {text}"));
    assert!(at("+ capability CAP_NET_ADMIN") < at("+Description=second"), "the powers come first: {text}");
    assert!(at("port: 80 -> 8080 (given)") < at("libc6 2.36-9 -> 2.41-12"), "{text}");
    assert!(text.contains("Files: 2 files added") && !text.contains("/usr/share/old"), "{text}");
    assert!(host.does(&["diff", "app", "--files"]).contains("- /usr/share/old"));
}

#[test]
fn either_way_round_and_with_itself() {
    let host = updated();
    let back = host.json(&["diff", "app", "2", "1"]);
    assert!(words(&back["config"]["lost"]).contains(&"capability CAP_NET_ADMIN"), "{back}");
    assert!(host.does(&["diff", "app", "2"]).contains("nothing differs"));
    host.does(&["rollback", "app"]);
    assert_eq!(host.json(&["diff", "app", "2"])["to"]["deployment"], 1);
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let host = Host::new();
    let image = host.image("app", &first());
    host.refuses(5, &["no container", "app"], &["diff", "app"]);
    host.does(&["install", &image]);
    host.refuses(1, &["only deployment 1"], &["diff", "app"]);
    let said = host.refuses(1, &["app has no deployment 7"], &["diff", "app", "1", "7"]);
    assert!(said.contains("there is: 1"), "{said}");
    host.refuses(2, &["'x'", "[A]"], &["diff", "app", "x"]);
}

#[test]
fn what_an_update_would_bring_is_told_and_nothing_is_changed() {
    let host = Host::new();
    let image = host.image("app", &first());
    host.does(&["install", &image, "--set", "port=8080"]);
    assert!(host.does(&["diff", "app", "--available"]).contains("nothing differs"));
    host.image("app", &second());
    let before = host.tree();
    let found = host.json(&["diff", "app", "--available"]);
    assert_same(&before, &host.tree(), "only a comparison was asked for");
    assert_eq!((&found["from"]["deployment"], &found["to"]["deployment"]), (&json!(1), &Value::Null));
    assert_eq!(found["requests"]["gained"][0], "capability CAP_NET_ADMIN");
    assert_eq!(found["values"][0]["name"], "mode", "what the admin gave stays");
    let diff = found["units"][0]["diff"].as_str().unwrap();
    assert!(diff.contains("+Description=second") && !diff.contains("-ExecStart"), "{diff}");

    let other = host.image("other", &Image::new().file("etc/other", "x"));
    let found = host.json(&["diff", "app", "--to", &other, "--files"]);
    assert!(found["files"]["list"].to_string().contains("/etc/other"));
    assert_same(&before, &host.tree(), "only a comparison was asked for");
}

#[test]
fn what_an_image_wrote_steers_neither_terminal_nor_reader() {
    let host = Host::new();
    let image = host.image("app", &Image::new().file(STATUS, &package("a", "1")));
    host.does(&["install", &image]);
    // A link to the host's own database, a name that would turn the terminal red, and an entry that never ends.
    let colour = package("evil\u{1b}[31m\u{7}", "\u{202e}1\u{1b}]0;x\u{7}");
    let hostile = Image::new()
        .link("var/lib/dpkg/status", "/etc/shadow-of-the-host")
        .file("var/lib/dpkg/status.d/colour", &colour)
        .file("var/lib/dpkg/status.d/endless", &format!("Package: {}", "x".repeat(300_000)))
        .link("var/lib/dpkg/status.d/loop", "loop");
    host.image("app", &hostile);
    host.does(&["update", "app"]);
    let text = host.does(&["diff", "app", "--files"]);
    assert!(text.contains("evil") && !text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
    let packages = host.json(&["diff", "app"])["packages"].clone();
    assert_eq!(packages["added"].as_array().unwrap().len(), 1, "{packages}");
    assert_eq!(packages["removed"][0]["name"], "a");
    let problems = packages["problems"].to_string();
    assert!(problems.contains("endless") && problems.contains("loop"), "{problems}");
    // a link within the image leads where it would inside
    host.image("app", &Image::new().link("var/lib/dpkg", "/opt/dpkg").file("opt/dpkg/status", &package("inside", "1")));
    host.does(&["update", "app"]);
    assert_eq!(host.json(&["diff", "app"])["packages"]["added"][0]["name"], "inside");
}

/// A database that rpm itself wrote: so many packages of this version, and what rpm says of them.
fn rpm_database(work: &Path, count: u32, version: &str) -> (Vec<u8>, BTreeSet<String>) {
    // A long description goes to overflow pages, many packages make inner pages.
    let long = "a word and another one ".repeat(400);
    let of = |number: u32| {
        format!(
            "%package -n pkg{number}\nSummary: x\n{}%description -n pkg{number}\n{}\n%files -n pkg{number}\n",
            if number.is_multiple_of(2) { "Epoch: 3\n" } else { "" },
            if number.is_multiple_of(10) { long.as_str() } else { "x" }
        )
    };
    let start = format!(
        "Name: none\nVersion: {version}\nRelease: 4.fc\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%description\nx\n"
    );
    fs::write(work.join("all.spec"), start + &(0..count).map(of).collect::<String>()).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(work).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let place = work.display();
    let (top, packages) = (format!("_topdir {place}/top"), format!("_rpmdir {place}/{version}"));
    run("rpmbuild", &["-bb", "--quiet", "--define", &top, "--define", &packages, "all.spec"]);
    let built = fs::read_dir(work.join(version).join("noarch")).unwrap();
    let built: Vec<String> = built.map(|entry| entry.unwrap().path().display().to_string()).collect();
    let database = work.join(format!("db-{version}"));
    let at = ["--dbpath", database.to_str().unwrap()];
    let built: Vec<&str> = built.iter().map(String::as_str).collect();
    run("rpm", &[&at[..], &["--justdb", "--nodeps", "--nosignature", "-i"], &built].concat());
    let query = "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\n";
    let said = run("rpm", &[&at[..], &["-qa", "--qf", query]].concat());
    (fs::read(database.join("rpmdb.sqlite")).unwrap(), said.lines().map(str::to_owned).collect())
}

#[test]
fn the_packages_of_an_rpm_database_are_those_that_rpm_lists() {
    let host = Host::new();
    let (old, listed) = rpm_database(host.work.path(), 120, "1");
    assert_eq!(listed.len(), 120);
    let mut packages = Packages::default();
    packages.add_rpm(&old).unwrap();
    let lines =
        packages.versions.iter().flat_map(|(name, of)| of.iter().map(move |version| format!("{name} {version}")));
    assert_eq!(lines.collect::<BTreeSet<_>>(), listed);

    let (new, _) = rpm_database(host.work.path(), 121, "2");
    let with = |database: Vec<u8>| {
        Image::new()
            .bytes("usr/lib/sysimage/rpm/rpmdb.sqlite", database)
            .link("var/lib/rpm", "../../usr/lib/sysimage/rpm")
    };
    let image = host.image("app", &with(old.clone()));
    host.does(&["install", &image]);
    host.image("app", &with(new));
    host.does(&["update", "app"]);
    let found = host.json(&["diff", "app"])["packages"].clone();
    assert_eq!(found["changed"][0], json!({"name": "pkg0", "from": "3:1-4.fc", "to": "3:2-4.fc"}));
    assert_eq!(
        (&found["added"], &found["problems"]),
        (&json!([{"name": "pkg120", "version": "3:2-4.fc"}]), &json!([]))
    );

    // whatever an image makes of it
    let started = std::time::Instant::now();
    let (mut seed, mut refused) = (7_u64, 0);
    for round in 0..3000 {
        let mut broken = old.clone();
        for _ in 0..1 + round % 8 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // half of them where the pages begin, and in the first ones
            let at = (seed >> 33) as usize % if round % 2 == 0 { old.len() } else { 8192.min(old.len()) };
            let at = if round % 3 == 0 { at / 4096 * 4096 + at % 16 } else { at };
            broken[at] = (seed >> 25) as u8;
        }
        broken.truncate(if round % 5 == 0 { (seed >> 20) as usize % broken.len() } else { broken.len() });
        refused += usize::from(Packages::default().add_rpm(&broken).is_err());
    }
    assert!(refused > 500, "only {refused} of 3000 broken ones were seen");
    assert!(started.elapsed().as_secs() < 60, "it took {:?}", started.elapsed());
}
