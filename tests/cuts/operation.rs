//! The operations that are cut: a table, so that a new one joins by a row.

use std::path::Path;

use serde_json::json;

use crate::{
    common::host::{Host, Image},
    program::Program,
    tracer::{self, Cut},
};

/// One operation on a tree.
pub struct Operation {
    pub name: &'static str,
    /// Makes the state before it.
    prepare: fn(&Host),
    /// The verb; `IMAGE` stands for the reference of the image.
    verb: &'static [&'static str],
    /// For a recovery: the operation that was cut before it, and where.
    cut: Option<(&'static [&'static str], At)>,
}

/// Where an operation is cut whose recovery is looked at.
#[derive(Clone, Copy)]
enum At {
    /// Before the first call on a path that ends so.
    Before(&'static str),
    /// After it.
    After(&'static str),
}

const fn operation(name: &'static str, prepare: fn(&Host), verb: &'static [&'static str]) -> Operation {
    Operation { name, prepare, verb, cut: None }
}

const fn recovery(name: &'static str, prepare: fn(&Host), verb: &'static [&'static str], cut: At) -> Operation {
    Operation { name, prepare, verb: &["recover"], cut: Some((verb, cut)) }
}

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    operation("install", nothing, &["install", "IMAGE"]),
    operation("update", second_is_out, &["update", "app"]),
    operation("update within the probation of another", third_is_out, &["update", "app"]),
    operation("update of values", with_a_value, &["update", "app", "--set", "word=other"]),
    operation("update of two as one", two_are_out, &["update", "app", "other", "--together"]),
    operation("update to another format of the state", another_format_is_out, &["update", "app"]),
    operation("rollback over a format of the state", in_another_format, &["rollback", "app"]),
    operation("install with host files", host_files_are_out, &["install", "--yes", "IMAGE"]),
    operation("update of host files", other_host_files_are_out, &["update", "--yes", "app"]),
    operation("rollback of host files", host_files_updated, &["rollback", "app"]),
    operation("uninstall of host files", host_files_updated, &["uninstall", "app"]),
    operation("rollback", updated, &["rollback", "app"]),
    operation("uninstall", updated, &["uninstall", "app"]),
    operation("uninstall --purge", with_state, &["uninstall", "--purge", "app"]),
    operation("pull", nothing, &["pull", "IMAGE"]),
    operation("prune", with_surplus, &["prune"]),
    operation("remove", with_an_image, &["remove", "IMAGE"]),
    recovery("recover of an install that was staged", nothing, &["install", "IMAGE"], At::Before("journal.json")),
    recovery("recover of an install", nothing, &["install", "IMAGE"], At::After("active")),
    recovery("recover of an update", second_is_out, &["update", "app"], At::After("active")),
    recovery("recover of an update that was placed", second_is_out, &["update", "app"], At::After("staged")),
    recovery(
        "recover of an update of two as one",
        two_are_out,
        &["update", "app", "other", "--together"],
        At::After("active"),
    ),
    recovery(
        "recover of an update to another format of the state",
        another_format_is_out,
        &["update", "app"],
        At::After("active"),
    ),
    recovery(
        "recover of a rollback over a format of the state",
        in_another_format,
        &["rollback", "app"],
        At::After("active"),
    ),
    recovery("recover of a rollback", updated, &["rollback", "app"], At::After("active")),
    recovery("recover of an uninstall --purge", with_state, &["uninstall", "--purge", "app"], At::After("active")),
];

impl Operation {
    /// A tree with the state before it, and the whole verb.
    pub fn host(&self, place: &Path) -> (Host, Vec<String>) {
        let host = Host::below(place);
        let image = host.image("app", &first());
        // a neighbour, whose lines stand in the same preset file
        host.does(&["install", &host.image("other", &Image::new())]);
        (self.prepare)(&host);
        let whole = |verb: &[&str]| verb.iter().map(|word| word.replace("IMAGE", &image)).collect::<Vec<_>>();
        if let Some((verb, cut)) = self.cut {
            stop(&host, &whole(verb), cut);
        }
        let verb = whole(self.verb);
        (host, verb)
    }

    /// Whether it brings back what ran before: for that there is room, whatever else there is none for.
    pub fn goes_back(&self) -> bool {
        self.cut.is_some_and(|(verb, _)| verb[0] == "update")
    }

    /// Whether it mends what another one left.
    pub fn is_recovery(&self) -> bool {
        self.cut.is_some()
    }
}

/// Leaves an operation half done.
fn stop(host: &Host, verb: &[String], cut: At) {
    let template = host.work.path().join("uncut");
    crate::copy(&host.root(), &template);
    let run = |cut: Cut| tracer::run(Program::shipped().command(&host.root(), verb), cut);
    let places = run(Cut::Never).places;
    let (end, more) = match cut {
        At::Before(end) => (end, 0),
        At::After(end) => (end, 1),
    };
    // what makes it, not what removes a leftover of its name; unless nothing else does
    let is = |place: &String| place.ends_with(&format!("/{end}")) || place.ends_with(&format!(" {end}"));
    let made = places.iter().position(|place| is(place) && !place.starts_with("unlink"));
    let removed = places.iter().rposition(is);
    let verb_removes = verb[0] == "uninstall" || end == "staged";
    let at = if verb_removes { removed } else { made };
    let at = at.unwrap_or_else(|| panic!("{verb:?} does nothing with {end}: {places:#?}"));
    std::fs::remove_dir_all(host.root()).unwrap();
    std::fs::rename(template, host.root()).unwrap();
    assert_eq!(run(Cut::Before(at + more)).code, None, "{verb:?} was to be cut");
}

/// Something of everything: units, a socket, host files, declared state, a volume and some files.
pub fn first() -> Image {
    let manifest = json!({"version": "2.0", "values": {"word": {"type": "string", "default": "one"}},
        "state": {"folders": [{"path": "/var/lib/app/kept", "mode": "0750"}]},
        "container": {"env": {"WORD": "{{values.word}}"}}});
    files("first")
        .manifest(manifest)
        .config("Volumes", json!({"/data": {}}))
        .export("socket.hbs", "[Socket]\nListenStream=/run/{{name}}/socket\n[Install]\nWantedBy=sockets.target\n")
        .export("sysusers.hbs", "u {{name}} - \"The app\"\n")
        .export("tmpfiles.hbs", "d /run/{{name}} 0755 root root -\n")
}

/// Another unit text, a unit more and one less, other host files.
pub fn second() -> Image {
    let manifest = json!({"version": "2.0", "description": "second", "state": {"folders": [
        {"path": "/var/lib/app/kept", "mode": "0750"}, {"path": "/var/lib/app/more", "mode": "0750"}]}});
    files("second")
        .manifest(manifest)
        .config("Volumes", json!({"/data": {}}))
        .export("timer.hbs", "[Timer]\nOnBootSec=1h\n[Install]\nWantedBy=timers.target\n")
        .export("tmpfiles.hbs", "d /run/{{name}} 0750 root root -\n")
}

/// Files of their own, and some that all versions have.
pub fn files(version: &str) -> Image {
    let own = (0..12).map(|number| (format!("usr/share/{version}/{number}"), format!("{version} {number}")));
    let shared = (0..10).map(|number| (format!("usr/lib/shared/{number}"), format!("shared {number}")));
    own.chain(shared)
        .fold(Image::new(), |image, (path, text)| image.file(&path, &text))
        .link("usr/lib/link", "shared/1")
}

fn reference(host: &Host) -> String {
    format!("oci:{}:1", host.work.path().join("app").display())
}

fn nothing(_: &Host) {}

fn with_an_image(host: &Host) {
    host.does(&["pull", &reference(host)]);
}

fn installed(host: &Host) {
    host.does(&["install", &reference(host)]);
}

fn with_a_value(host: &Host) {
    host.does(&["install", "--set", "word=this", &reference(host)]);
}

fn with_state(host: &Host) {
    installed(host);
    host.write("var/lib/app/kept/some/file", "data");
}

/// The first is installed, the second can be had.
fn second_is_out(host: &Host) {
    installed(host);
    host.image("app", &second());
}

/// The second is in force and on probation; the first is not too many, as only `prune` is cut on its way through such.
fn third_is_out(host: &Host) {
    host.write("etc/sysctr/sysctr.toml", "[update]\nkeep = 3\n");
    updated(host);
    host.image("app", &files("third"));
}

fn two_are_out(host: &Host) {
    second_is_out(host);
    let other = Image::new().export("socket.hbs", "[Socket]\nListenStream=/run/{{name}}/socket\n");
    host.image("other", &other.manifest(json!({"version": "2.0", "after": ["app"]})));
}

/// A file in a folder of the host's, and one in a folder that has to be made; a link that leads elsewhere in each version, and an empty
/// folder that only one of them has.
fn with_host_files(version: &str, places: &[&str]) -> Image {
    let mut listed: Vec<_> = places.iter().map(|path| json!({"path": path, "source": "file"})).collect();
    listed.push(json!({"path": "/etc/app.link", "source": "link"}));
    listed.push(json!({"path": format!("/etc/app.d/{version}"), "source": "folder"}));
    files(version)
        .manifest(json!({"version": "2.0", "hostFiles": listed}))
        .export("hostfs/file", version)
        .link("exports/hostfs/link", version)
        .folder("exports/hostfs/folder", 0o755)
}

fn host_files_are_out(host: &Host) {
    host.image("app", &with_host_files("first", &["/etc/app.conf", "/opt/app/bin/tool"]));
}

fn other_host_files_are_out(host: &Host) {
    host_files_are_out(host);
    host.does(&["install", "--yes", &reference(host)]);
    host.image("app", &with_host_files("second", &["/etc/app.conf", "/usr/local/bin/tool"]));
}

fn host_files_updated(host: &Host) {
    other_host_files_are_out(host);
    host.does(&["update", "--yes", "app"]);
}

fn updated(host: &Host) {
    second_is_out(host);
    host.does(&["update", "app"]);
}

/// The same with state, which the second has in another format.
fn another_format_is_out(host: &Host) {
    let of = |epoch: u32| {
        let folders = json!([{"path": "/var/lib/app/kept", "mode": "0750"}, {"path": "/var/lib/app/more"}]);
        files("first").manifest(json!({"version": "2.0", "state": {"epoch": epoch, "folders": folders}}))
    };
    host.image("app", &of(1));
    installed(host);
    for number in 0..3 {
        host.write(&format!("var/lib/app/kept/some/{number}"), "old data");
    }
    host.write("var/lib/app/more/file", "more of it");
    host.image("app", &of(2));
}

fn in_another_format(host: &Host) {
    another_format_is_out(host);
    host.does(&["update", "app"]);
    host.write("var/lib/app/kept/some/1", "new data");
}

/// Deployments and an image that a setting makes surplus.
fn with_surplus(host: &Host) {
    host.write("etc/sysctr/sysctr.toml", "[update]\nkeep = 4\n");
    installed(host);
    for version in ["two", "three"] {
        host.image("app", &files(version));
        host.does(&["update", "app"]);
    }
    host.write("etc/sysctr/sysctr.toml", "[update]\nkeep = 2\n");
}
