//! Layers that images share, objects that broke, images that are looked into: through the real program.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use common::{Layout, Packing, dir, file, store::Bench, tar_of};
use serde_json::Value;
use sysctr::host::source::this_architecture;

type Layers<'a> = &'a [&'a [common::Entry<'a>]];

/// An image of these layers, whose digest is the same wherever it lies.
fn image(bench: &Bench, name: &str, layers: Layers<'_>) -> (String, Layout, Vec<Value>) {
    let layout = Layout::new(&bench.work.path().join(name));
    let tars: Vec<(Vec<u8>, Packing)> = layers.iter().map(|entries| (tar_of(entries), Packing::Gzip)).collect();
    let descriptors = tars.iter().map(|(tar, packing)| layout.layer(tar, *packing)).collect();
    layout.index(&[(None, &layout.image(this_architecture(), &tars))]);
    (format!("oci:{}", layout.folder.display()), layout, descriptors)
}

fn blob(layout: &Layout, descriptor: &Value) -> PathBuf {
    layout.folder.join("blobs/sha256").join(&descriptor["digest"].as_str().unwrap()[7..])
}

fn records(bench: &Bench) -> BTreeSet<String> {
    let entries = fs::read_dir(bench.root().join("var/lib/sysctr/layers")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_layer_that_the_store_has_is_not_fetched_and_makes_the_same_commit() {
    let base = [dir("d/", 0o755), file("d/shared", 0o644, &[b's'; 5000]), file("d/hidden", 0o600, b"hidden")];
    let hides = [file("d/.wh.hidden", 0o644, b""), file("top", 0o644, b"one")];
    let other = [file("top", 0o644, b"two"), common::hardlink("again", "d/hidden")];
    let bench = Bench::new();
    let (one, ..) = image(&bench, "one", &[&base, &hides]);
    bench.does(&["pull", &one]);
    assert_eq!(records(&bench).len(), 2);

    let (two, layout, layers) = image(&bench, "two", &[&base, &other]);
    let (base_blob, away) = (blob(&layout, &layers[0]), bench.work.path().join("away"));
    fs::rename(&base_blob, &away).unwrap();
    bench.does(&["pull", &two]);
    assert_eq!(bench.json(&["verify"])["ok"], true);
    bench.does(&["remove", &two]);

    // what the first image hides went with that; only now is the layer wanted again
    let (code, _, err) = bench.sysctr(&["pull", &two]);
    assert!(code == 1 && err.contains("No such file"), "{err}");
    assert_eq!(records(&bench).len(), 2, "a pull that failed leaves no record");
    fs::rename(&away, &base_blob).unwrap();
    bench.does(&["pull", &two]);
    assert_eq!(bench.json(&["verify"])["ok"], true);

    let fresh = Bench::new();
    fresh.does(&["pull", &two]);
    assert!(
        fresh
            .objects()
            .iter()
            .map(|path| path.file_name())
            .all(|name| bench.objects().iter().any(|path| path.file_name() == name))
    );

    // a damaged record is as good as none
    for record in records(&bench) {
        let path = bench.root().join("var/lib/sysctr/layers").join(record);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let (three, ..) = image(&bench, "three", &[&base, &other, &hides]);
    bench.does(&["pull", &three]);
    assert_eq!(bench.json(&["verify"])["ok"], true);
    for name in [&one, &two, &three] {
        bench.does(&["remove", name]);
    }
    assert!(records(&bench).is_empty() && bench.objects().is_empty());
}

#[test]
fn what_broke_is_fetched_again_alone_while_it_is_in_use() {
    let bench = Bench::new();
    let base = [dir("d/", 0o755), file("d/large", 0o644, &[b'l'; 90_000]), file("d/exec", 0o755, b"#!/bin/sh\n")];
    let top = [dir("top/", 0o750), file("top/own", 0o644, &[b'o'; 5000]), common::link("link", "d/exec")];
    let (name, layout, layers) = image(&bench, "image", &[&base, &top]);
    bench.does(&["install", &name, "--name", "app"]);
    let rootfs = bench.root().join("var/lib/sysctr/containers/app/deployments/1/rootfs");
    assert_eq!(bench.json(&["verify"])["ok"], true);
    let object = |suffix: &str, size: u64| {
        let all = bench.objects().into_iter().filter(|path| path.extension().is_some_and(|it| it == suffix));
        let found: Vec<PathBuf> =
            all.filter(|path| size == 0 || path.metadata().is_ok_and(|it| it.len() == size)).collect();
        found[0].clone()
    };

    // in place, as a disk or root would do it: the checkout has the same file. The other layer's blob is not asked for.
    let held = fs::File::open(rootfs.join("d/large")).unwrap();
    fs::write(object("file", 90_000), [b'x'; 90_000]).unwrap();
    let top_blob = blob(&layout, &layers[1]);
    fs::rename(&top_blob, bench.work.path().join("away")).unwrap();
    let (code, out, err) = bench.sysctr(&["verify"]);
    assert!(code == 1 && out.contains("object: ") && err.contains("problem"), "{out}{err}");
    bench.does(&["verify", "--repair"]);
    assert_eq!(fs::read(rootfs.join("d/large")).unwrap(), [b'l'; 90_000]);
    assert_eq!(fs::metadata(rootfs.join("d/large")).unwrap().ino(), object("file", 90_000).metadata().unwrap().ino());
    // who had it open still has the old one
    assert_ne!(held.metadata().unwrap().ino(), object("file", 90_000).metadata().unwrap().ino());
    fs::rename(bench.work.path().join("away"), &top_blob).unwrap();

    for (suffix, remove) in
        [("dirtree", false), ("dirmeta", true), ("dirtree", true), ("commit", false), ("commit", true)]
    {
        let path = object(suffix, 0);
        if remove {
            fs::remove_file(&path).unwrap();
        } else {
            let mut bytes = fs::read(&path).unwrap();
            bytes[10] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
        assert_eq!(bench.sysctr(&["verify"]).0, 1, "{suffix}, removed {remove}");
        let repaired = bench.json(&["verify", "--repair"]);
        assert!(repaired["ok"] == true && repaired["repaired"].as_u64().unwrap() > 0, "{suffix}: {repaired}");
    }

    // the checkout, and what was placed
    fs::remove_file(rootfs.join("d/exec")).unwrap();
    fs::remove_dir_all(rootfs.join("top")).unwrap();
    fs::write(rootfs.join("new"), "x").unwrap();
    fs::set_permissions(rootfs.join("d"), fs::Permissions::from_mode(0o777)).unwrap();
    rustix::fs::setxattr(rootfs.join("d"), "user.new", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    fs::write(bench.root().join("etc/systemd/system.attached/app.service"), "[Unit]\n").unwrap();
    assert_eq!(bench.sysctr(&["verify", "app"]).0, 1);
    let repaired = bench.json(&["verify", "--repair", "app"]);
    assert_eq!((&repaired["ok"], &repaired["repaired"]), (&Value::Bool(true), &Value::from(5)), "{repaired}");
    assert_eq!(rootfs.join("top").metadata().unwrap().mode() & 0o7777, 0o750);

    // without a source it says why, and another place can be named
    let elsewhere = bench.work.path().join("elsewhere");
    fs::rename(&layout.folder, &elsewhere).unwrap();
    fs::write(object("file", 90_000), [b'y'; 90_000]).unwrap();
    let (code, out, err) = bench.sysctr(&["verify", "--repair"]);
    assert!(code == 1 && out.contains("object: ") && err.contains("warning: fetching oci:"), "{out}{err}");
    bench.does(&["verify", "--repair", "--from", &format!("oci:{}", elsewhere.display())]);
    assert_eq!(bench.json(&["verify"])["ok"], true);
}

#[test]
fn an_image_is_looked_into_read_only() {
    let bench = Bench::new();
    let (name, ..) = image(&bench, "image", &[&[file("file", 0o666, b"text")]]);
    let at = bench.work.path().join("a folder");
    fs::create_dir(&at).unwrap();
    let place = at.to_str().unwrap();
    assert_eq!(bench.sysctr(&["mount", &name, place]).0, 5);
    bench.does(&["pull", &name]);
    let before = bench.json(&["verify"]);
    assert_eq!(bench.does(&["mount", &name, place]).trim(), place);
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "text");
    let refused = fs::write(at.join("file"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // what is looked into stays whole
    bench.does(&["remove", &name]);
    bench.does(&["prune"]);
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "text");
    let held = fs::File::open(at.join("file")).unwrap();
    let (code, _, err) = bench.sysctr(&["unmount", place]);
    assert!(code == 1 && err.contains("hint: ") && err.contains("fuser -vm"), "{err}");
    drop(held);
    bench.does(&["unmount", place]);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    assert!(!bench.root().join("var/lib/sysctr/mounts").exists());
    let (code, _, err) = bench.sysctr(&["unmount", place]);
    assert!(code == 1 && err.contains("no image is mounted there"), "{err}");
    assert_eq!(before["ok"], true);

    // umount(8), or a reboot, leaves a checkout that nobody sees
    bench.does(&["pull", &name]);
    bench.does(&["mount", &name, place]);
    common::run("umount", &[place]).unwrap();
    bench.does(&["prune"]);
    assert!(!bench.root().join("var/lib/sysctr/mounts").exists());
}

#[test]
fn pulls_installs_and_prunes_at_once_all_succeed() {
    let bench = Bench::new();
    let names: Vec<String> = (0..10)
        .map(|number| {
            let own = format!("own {number}");
            let layers: [&[common::Entry<'_>]; 2] =
                [&[file("shared", 0o644, &[b's'; 70_000])], &[file("own", 0o644, own.as_bytes())]];
            image(&bench, &format!("image-{number}"), &layers).0
        })
        .collect();
    let (bench, names) = (&bench, &names);
    std::thread::scope(|scope| {
        let run = |arguments: Vec<String>| {
            scope.spawn(move || {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let (code, out, err) = bench.sysctr(&arguments);
                assert_eq!(code, 0, "{arguments:?}: {out}{err}");
            });
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for at in 0..20 {
            run(words(&["--wait", "pull", &names[at % 10]]));
            run(words(&["--wait", "install", &names[at % 7], "--name", &format!("app-{at}")]));
            if at % 2 == 0 {
                run(words(&["--wait", "prune"]));
            }
        }
    });
    assert_eq!(bench.json(&["list"]).as_array().unwrap().len(), 20);
    assert_eq!(bench.json(&["images"]).as_array().unwrap().len(), 10);
    assert_eq!(bench.json(&["verify"])["ok"], true);
    let rootfs = |at: usize| bench.root().join(format!("var/lib/sysctr/containers/app-{at}/deployments/1/rootfs"));
    for at in 0..20 {
        assert_eq!(fs::read_to_string(rootfs(at).join("own")).unwrap(), format!("own {}", at % 7));
    }
    let one = |path: PathBuf| Path::new(&path).metadata().unwrap().ino();
    assert_eq!(one(rootfs(0).join("shared")), one(rootfs(13).join("shared")));
}
