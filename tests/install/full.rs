//! On a full disk an operation is done, or nothing is changed.

use std::fs;

use serde_json::json;

use super::{
    common::{
        self,
        host::{Host, Image, assert_same},
    },
    manifest,
};

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
fn an_uninstall_and_a_rollback_that_find_it_full_change_nothing() {
    let host = Host::new();
    let (root, kept) = (host.root(), host.work.path().join("kept"));
    let [root, kept] = [&root, &kept].map(|path| path.to_str().unwrap());
    common::run("cp", &["-a", root, kept]).unwrap();
    common::run("mount", &["-t", "tmpfs", "-o", "size=8m,mode=755", "small", root]).unwrap();
    let _disk = Disk(&host);
    common::run("cp", &["-a", &format!("{kept}/."), root]).unwrap();
    host.does(&["install", &host.image("app", &Image::new())]);
    host.image("app", &Image::new().file("more", "more"));
    host.does(&["update", "app"]);
    let filler = host.at("filler");
    fill(&filler);
    for verb in ["uninstall", "rollback"] {
        host.refuses(1, &["app", "No space left"], &[verb, "app"]);
    }
    fs::remove_file(filler).unwrap();
    host.does(&["rollback", "app"]);
    host.does(&["uninstall", "app"]);
}
