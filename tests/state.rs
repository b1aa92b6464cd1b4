//! State whose format an update changes: it is kept before, and put back by whatever goes back.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use common::{
    host::{Host, Image, Tree, assert_same},
    run,
};
use serde_json::{Value, json};

fn of(epoch: u32, folders: &[&str]) -> Image {
    let folders: Vec<Value> = folders.iter().map(|path| json!({"path": path})).collect();
    Image::new().manifest(json!({"version": "2.0", "state": {"epoch": epoch, "folders": folders}}))
}

const DATA: &str = "var/lib/app/data";
const FILE: &str = "var/lib/app/data/file";

/// Deployment 1 with something in its state, and an image of another format.
fn installed(host: &Host) {
    let image = host.image("app", &of(1, &["/var/lib/app/data"]));
    host.does(&["install", &image]);
    host.write(FILE, "old");
    fs::hard_link(host.at(FILE), host.at("var/lib/app/data/again")).unwrap();
    run("chown", &["1234:5", host.at(FILE).to_str().unwrap()]).unwrap();
    // known to the store, so that what is compared is what an update does behind it
    host.does(&["pull", &host.image("app", &of(2, &["/var/lib/app/data"]))]);
}

/// What the new program makes of it.
fn migrate(host: &Host) {
    host.write(FILE, "new");
    host.write("var/lib/app/data/more", "new");
}

fn kept(host: &Host, id: usize) -> Value {
    host.json(&["show", "app"])["deployments"][id - 1]["state"].clone()
}

#[test]
fn a_rollback_over_a_format_puts_the_state_back_and_forth() {
    let host = Host::new();
    installed(&host);
    let old = host.tree();
    let said = host.does(&["update", "app"]);
    assert!(said.contains("a rollback puts its state of before back"), "{said}");
    assert_eq!(
        (kept(&host, 1)["folders"][0]["path"].as_str(), kept(&host, 2)),
        (Some("/var/lib/app/data"), Value::Null)
    );
    assert!(host.does(&["show", "app"]).contains("with its state of 20"));
    assert_eq!(host.json(&["verify"])["ok"], true);
    migrate(&host);

    let said = host.does(&["rollback", "app"]);
    assert!(said.contains("its state is that of 20") && said.contains("kept with deployment 2"), "{said}");
    let state = |mut tree: Tree| -> Tree {
        tree.retain(|path, _| path.starts_with(DATA));
        tree
    };
    assert_same(&state(old), &state(host.tree()), "rolled back");
    assert_eq!(host.at(FILE).metadata().unwrap().nlink(), 2, "two names of one file became two files");
    host.write(FILE, "old again");

    host.does(&["rollback", "app", "--to", "2"]);
    assert_eq!((host.read(FILE).as_str(), host.read("var/lib/app/data/more").as_str()), ("new", "new"));
    host.does(&["rollback", "app"]);
    assert_eq!(host.read(FILE), "old again");
    assert_eq!(host.json(&["verify"])["ok"], true);
    host.does(&["uninstall", "--purge", "app"]);
    assert!(!host.at("var/lib/app").exists() && !host.at("var/lib/sysctr/containers").exists());
}

#[test]
fn what_is_kept_goes_with_its_deployment() {
    let host = Host::new();
    installed(&host);
    host.does(&["update", "app"]);
    host.image("app", &of(2, &["/var/lib/app/data"]).file("etc/x", "x"));
    host.does(&["update", "app"]);
    assert!(!host.at("var/lib/sysctr/containers/app/deployments/1").exists());
    // 3 and 2 have it in the same format: nothing is touched
    migrate(&host);
    host.does(&["rollback", "app"]);
    assert_eq!(host.read(FILE), "new");
    // an older format than that of the state, and nothing kept
    host.image("app", &of(1, &["/var/lib/app/data"]));
    host.refuses(1, &["format 1", "format 2"], &["update", "app"]);
}

#[test]
fn what_cannot_be_kept_is_refused_or_accepted() {
    let host = Host::new();
    installed(&host);
    host.write("var/lib/app/data/large", &"x".repeat(3 << 20));
    host.write("etc/sysctr/sysctr.toml", "[update]\nsnapshot = \"2M\"\n");
    host.refuses(4, &["format 2", "3.1 MB", "2.1 MB", "no way back"], &["update", "app"]);
    let said = host.sysctr(&["update", "--yes", "app"]);
    assert!(said.code == 0 && said.err.contains("warning: ") && said.err.contains("no way back"), "{}", said.err);
    host.refuses(1, &["format 1", "format 2"], &["rollback", "app"]);

    // holes take no space
    let host = Host::new();
    installed(&host);
    host.write("etc/sysctr/sysctr.toml", "[update]\nsnapshot = \"2M\"\n");
    let sparse = fs::File::create(host.at("var/lib/app/data/sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    host.does(&["update", "app"]);
    let copy = host.at("var/lib/sysctr/containers/app/deployments/1/state/0/sparse").metadata().unwrap();
    assert!(copy.len() == 1 << 30 && copy.blocks() < 100);
}

/// Cut at the worst moment: the new program ran, and nobody knows whether it is well.
#[test]
fn an_update_that_was_cut_brings_the_state_back() {
    let host = Host::new();
    installed(&host);
    let before = host.tree();
    host.does(&["update", "app"]);
    migrate(&host);
    let journal =
        json!({"version": 1, "operation": "update", "from": 1, "to": 2, "enable": true, "purge": false, "state": true});
    fs::create_dir(host.at("var/lib/sysctr/containers/app/deployments/2/.state.new")).unwrap();
    host.write("etc/sysctr/containers/app/journal.json", &journal.to_string());
    host.does(&["recover"]);
    assert_same(&before, &host.tree(), "recovered");

    // before the commit the old program may have written: that stays, and what was kept goes
    host.does(&["update", "app"]);
    host.write("etc/sysctr/containers/app/journal.json", &journal.to_string());
    host.write("etc/sysctr/containers/app/active", "1\n");
    host.write(FILE, "still the old one");
    host.does(&["recover"]);
    assert_eq!((host.read(FILE).as_str(), kept(&host, 1)), ("still the old one", Value::Null));
    assert_eq!(host.json(&["verify"])["ok"], true);
}

/// A file system that is mounted, and gone with the test.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(words: &[&str], on: &Path) -> Mounted {
        fs::create_dir_all(on).unwrap();
        run("mount", &[words, &[on.to_str().unwrap()]].concat()).unwrap();
        Mounted(on.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.to_str().unwrap()]).unwrap();
    }
}

#[test]
fn state_on_a_disk_of_its_own_is_copied_back_and_forth() {
    let host = Host::new();
    let disk = Mounted::new(&["-t", "tmpfs", "-o", "size=4M,mode=700", "disk"], &host.at(DATA));
    let image = host.image("app", &of(1, &["/var/lib/app/data", "/var/lib/app/other"]));
    host.does(&["install", "--yes", &image]);
    host.write(FILE, "old");
    host.write("var/lib/app/other/file", "old");
    host.image("app", &of(2, &["/var/lib/app/data", "/var/lib/app/other"]));
    host.does(&["update", "app"]);
    assert_eq!(kept(&host, 1)["folders"].as_array().unwrap().len(), 2);
    migrate(&host);
    host.write("var/lib/app/other/file", "new");
    for (to, content) in [("1", "old"), ("2", "new"), ("1", "old")] {
        host.does(&["rollback", "app", "--to", to]);
        assert_eq!((host.read(FILE).as_str(), host.read("var/lib/app/other/file").as_str()), (content, content));
        assert_eq!(host.at("var/lib/app/data/more").exists(), to == "2");
    }
    // what is not mounted is not taken for the state
    drop(disk);
    let said = host.sysctr(&["rollback", "app", "--to", "2"]);
    assert!(said.code == 1 && said.err.contains("is its disk mounted?"), "{}", said.err);
    assert_eq!(host.read("etc/sysctr/containers/app/active"), "1\n");
    assert_eq!(host.json(&["show", "app"])["pending"], false);
}

#[test]
fn where_files_can_share_their_blocks_any_size_is_kept() {
    let host = Host::new();
    let disk = host.work.path().join("disk");
    fs::File::create(&disk).unwrap().set_len(320 << 20).unwrap();
    run("mkfs.btrfs", &["-q", disk.to_str().unwrap()]).unwrap();
    let _mounted = Mounted::new(&["-o", "loop", disk.to_str().unwrap()], &host.at("var"));
    fs::create_dir(host.at("var/lib")).unwrap();
    installed(&host);
    host.write("etc/sysctr/sysctr.toml", "[update]\nsnapshot = 0\n");
    host.write("var/lib/app/data/large", &"0123456789".repeat(15 << 20));
    run("sync", &[]).unwrap();
    // more than the half that is left
    host.does(&["update", "app"]);
    migrate(&host);
    host.does(&["rollback", "app"]);
    assert_eq!((host.read(FILE).as_str(), host.read("var/lib/app/data/large").len()), ("old", 150 << 20));
}
