//! A real Debian image with three layers comes out of the store as `umoci unpack` makes it, file by file.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
    time::Duration,
};

use common::{Entry, Packing, dir, file, hardlink, link, run, tar_of};
use sysctr::{
    host::{
        lock::StoreLock,
        ostree::Store,
        pull::{self, Silent},
    },
    model::settings::Settings,
};

/// `cap_net_bind_service+ep`, as the kernel keeps it.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn second_layer() -> Vec<u8> {
    let big = vec![b'B'; 9 * 1024 * 1024 + 17];
    tar_of(&[
        dir("opt/", 0o755),
        Entry { owner: (1000, 1001), ..dir("opt/owned", 0o2770) },
        dir("opt/empty", 0o711),
        dir("opt/closed", 0),
        file("opt/nothing", 0, b"no one may read it"),
        file("opt/empty-file", 0o644, b""),
        file("opt/big", 0o600, &big),
        Entry { owner: (33, 33), ..file("opt/setuid", 0o6755, b"s") },
        Entry { xattrs: &[("security.capability", CAPABILITY)], ..file("opt/capable", 0o755, b"c") },
        Entry { xattrs: &[("user.note", b"line\nfeed\0=nul"), ("user.a", b"")], ..file("opt/noted", 0o644, b"n") },
        Entry { xattrs: &[("user.folder", b"yes")], ..dir("opt/noted-folder", 0o1777) },
        hardlink("opt/one", "opt/setuid"),
        hardlink("opt/below", "./usr/bin/env"),
        hardlink("opt/capable-too", "opt/capable"),
        link("opt/relative", "owned/../empty"),
        link("opt/absolute", "/usr/share"),
        link("opt/dangling", "nowhere"),
        // /bin and /lib are links of the layer below
        file("bin/through-a-link", 0o755, b"#!/bin/sh\n"),
        file("lib/deep/folder/file", 0o644, b"x"),
        file("opt/absolute/through-an-absolute-link", 0o644, b"x"),
        file("opt/was-a-file", 0o644, b"x"),
        dir("opt/was-a-folder", 0o755),
        file("opt/was-a-folder/file", 0o644, b"x"),
        link("opt/was-a-link", "empty"),
        dir("opt/replaced", 0o755),
        file("opt/replaced/old", 0o644, b"x"),
        dir("opt/deep", 0o755),
        dir("opt/deep/er", 0o755),
        file("opt/deep/er/old", 0o644, b"x"),
        file("opt/named \u{e4}\u{f6}\u{20ac} with spaces", 0o644, b"x"),
        // gone from the base
        file("etc/.wh.issue", 0o644, b""),
        file("usr/share/.wh.doc", 0o644, b""),
    ])
}

fn third_layer() -> Vec<u8> {
    tar_of(&[
        file("opt/.wh.one", 0o644, b""),
        dir("opt/replaced", 0o750),
        file("opt/replaced/.wh..wh..opq", 0o644, b""),
        file("opt/replaced/new", 0o644, b"y"),
        file("opt/deep/er/.wh.old", 0o644, b""),
        file("opt/deep/er/new", 0o644, b"y"),
        dir("opt/was-a-file", 0o755),
        file("opt/was-a-file/inside", 0o644, b"y"),
        file("opt/was-a-folder", 0o644, b"y"),
        file("opt/was-a-link", 0o600, b"y"),
        // only its attributes change
        dir("opt/owned", 0o700),
        file("opt/empty/.wh.not-there", 0o644, b""),
        hardlink("opt/again", "opt/below"),
    ])
}

/// A file of whose numbers a writer left out those that are 0.
fn layer_with_blanks() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o640);
    header.set_size(6);
    header.set_mtime(1);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, "opt/blank", &b"blanks"[..]).unwrap();
    builder.into_inner().unwrap()
}

/// Type, mode, owner, link target, content and attributes of all below a folder. Devices are not installed, so they do not count.
fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, folder: &Path, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let kind = meta.file_type();
            if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket() {
                assert!(path.strip_prefix(root).unwrap().starts_with("dev"), "{}", path.display());
                continue;
            }
            into.insert(path.strip_prefix(root).unwrap().display().to_string(), describe(&path, &meta));
            if kind.is_dir() {
                walk(root, &path, into);
            }
        }
    }
    let mut into = BTreeMap::from([(".".to_owned(), describe(root, &root.metadata().unwrap()))]);
    walk(root, root, &mut into);
    into
}

fn describe(path: &Path, meta: &fs::Metadata) -> String {
    let what = if meta.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap().display())
    } else if meta.is_file() {
        format!("{} {}", meta.len(), common::sha256(&fs::read(path).unwrap()))
    } else {
        "folder".to_owned()
    };
    let mut xattrs = Vec::new();
    if !meta.is_symlink() {
        let mut names = vec![0; 65536];
        let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = std::str::from_utf8(name).unwrap();
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            xattrs.push(format!("{name}={:?}", &value[..length]));
        }
        xattrs.sort();
    }
    format!("{:o} {}:{} {what} {xattrs:?}", meta.mode(), meta.uid(), meta.gid())
}

#[test]
fn a_debian_image_comes_out_as_umoci_unpacks_it() {
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    let layout = common::Layout::new(&work.path().join("layout"));
    let layers = [
        (fs::read(common::debian()).unwrap(), Packing::Gzip),
        (second_layer(), Packing::Gzip),
        (third_layer(), Packing::Gzip),
        (layer_with_blanks(), Packing::Gzip),
    ];
    let image = layout.image(sysctr::host::source::this_architecture(), &layers);
    layout.index(&[(Some("1"), &image)]);
    run("umoci", &["unpack", "--image", &format!("{}:1", at("layout")), &at("bundle")]).unwrap();

    let root = work.path().join("root");
    fs::create_dir(&root).unwrap();
    let lock = StoreLock::acquire(&root, "pull", Duration::ZERO).unwrap();
    let store = Store::open_or_create(&lock).unwrap();
    let source = format!("oci:{}:1", at("layout")).parse().unwrap();
    let stored = pull::pull(&lock, &store, &source, &Settings::default(), &mut Silent).unwrap();
    assert_eq!(stored.digest.to_string(), image["digest"]);
    let folder = fs::File::open(&root).unwrap();
    store.checkout(&lock, &stored, folder.as_fd(), "rootfs").unwrap();

    let (theirs, ours) = (tree(&work.path().join("bundle/rootfs")), tree(&root.join("rootfs")));
    assert!(theirs.len() > 5000, "{} entries are no Debian", theirs.len());
    let names: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .map(|name| format!("{name}:\n  umoci  {:?}\n  sysctr {:?}", theirs.get(name), ours.get(name)))
        .collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));

    // the cases of this test are really in what was compared
    for (path, part) in [
        ("opt/nothing", "100000 0:0 18 "),
        ("opt/closed", "40000 0:0 folder"),
        ("opt/setuid", "106755 33:33"),
        ("opt/capable-too", "security.capability=["),
        ("opt/noted", "user.note=["),
        ("usr/bin/through-a-link", "100755"),
        ("usr/lib/deep/folder/file", "100644"),
        ("usr/share/through-an-absolute-link", "100644"),
        ("opt/was-a-file/inside", "100644"),
        ("opt/replaced/new", "100644"),
    ] {
        assert!(ours.get(path).is_some_and(|found| found.contains(part)), "{path}: {:?}", ours.get(path));
    }
    for path in
        ["opt/one", "opt/replaced/old", "opt/deep/er/old", "etc/issue", "usr/share/doc", "opt/replaced/.wh..wh..opq"]
    {
        assert!(!ours.contains_key(path), "{path} is still there");
    }
    run("ostree", &["fsck", &format!("--repo={}", store.path().display())]).unwrap();
    let object = fs::metadata(root.join("rootfs/usr/bin/env")).unwrap();
    assert!(object.nlink() > 1, "the checkout was copied, not linked");
}
