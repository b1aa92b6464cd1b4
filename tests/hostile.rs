//! Images made to harm: each is refused in one line that says what is wrong, and nothing of it stays.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use common::{Entry, Layout, Packing, dir, file, hardlink, link, sha256, store::Bench, tar_of};
use serde_json::{Value, json};
use sysctr::host::source::this_architecture;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What `sysctr pull` says to the image in this layout, which has to be refused with nothing written.
fn refused(bench: &Bench, layout: &Layout) -> String {
    let before = state(bench);
    let (code, out, err) = bench.sysctr(&["pull", &format!("oci:{}", layout.folder.display())]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.starts_with("error: pulling oci:") && err.lines().count() == 1, "{err}");
    assert!(err.len() < 2000, "{} bytes", err.len());
    assert_eq!(state(bench), before, "{err}");
    err
}

/// All that is below the state folder, but for the lock.
fn state(bench: &Bench) -> Vec<String> {
    fn walk(folder: &Path, into: &mut Vec<String>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            into.push(path.display().to_string());
            if path.is_dir() && !path.is_symlink() {
                walk(&path, into);
            }
        }
    }
    let mut found = Vec::new();
    walk(&bench.root().join("var/lib/sysctr"), &mut found);
    // an empty folder of records tells nothing
    found.retain(|path| !path.ends_with("/layers"));
    found.sort();
    found
}

fn bench() -> Bench {
    let bench = Bench::new();
    let sound = bench.image("sound");
    bench.does(&["pull", &sound]);
    bench
}

/// A header that no builder would write, and its content.
fn raw(kind: u8, path: &str, size: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[124..124 + size.len()].copy_from_slice(size.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A file behind extended records.
fn pax(records: &[(&str, &str)], path: &str, content: &[u8]) -> Vec<u8> {
    pax_of(b'0', records, path, content)
}

/// Any entry behind them.
fn pax_of(kind: u8, records: &[(&str, &str)], path: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions(records.iter().map(|(key, value)| (*key, value.as_bytes()))).unwrap();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(raw(kind, path, &format!("{:011o}", content.len()), content));
    bytes
}

#[test]
fn layers_that_harm_are_refused_by_the_entrys_name() {
    let bench = bench();
    let deep: Vec<String> =
        (1..7).map(|at| if at == 1 { "d/".repeat(45) } else { format!("l{}/{}", at - 1, "d/".repeat(45)) }).collect();
    let names: Vec<String> = (1..7).map(|at| format!("l{at}")).collect();
    let mut far_below: Vec<Entry<'_>> = names.iter().zip(&deep).map(|(name, target)| link(name, target)).collect();
    far_below.push(file("l6/x", 0o644, b"x"));
    let long = "n".repeat(300);
    let path = "d/".repeat(2500);
    let large = "x".repeat(70_000);
    let table: Vec<(Vec<u8>, &[&str])> = vec![
        (tar_of(&[file("/etc/passwd", 0o644, b"x")]), &["layer entry \"/etc/passwd\"", "absolute"]),
        (tar_of(&[file("a/../../x", 0o644, b"x")]), &["layer entry \"a/../../x\"", "'..'"]),
        (tar_of(&[link("out", "../../etc"), file("out/passwd", 0o644, b"x")]), &["\"out/passwd\"", "leads out"]),
        (tar_of(&[link("loop", "loop"), file("loop/x", 0o644, b"x")]), &["\"loop/x\"", "too many links"]),
        (tar_of(&[file("f", 0o644, b"x"), file("f/x", 0o644, b"x")]), &["\"f/x\"", "not a folder"]),
        (tar_of(&[hardlink("h", "nowhere")]), &["\"h\"", "\"nowhere\", which is not there"]),
        (tar_of(&[hardlink("h", "/etc/shadow")]), &["\"h\"", "absolute"]),
        (tar_of(&[hardlink("h", "../../etc/shadow")]), &["\"h\"", "'..'"]),
        (tar_of(&[link("e", "/etc"), hardlink("h", "e/shadow")]), &["\"h\"", "not there"]),
        (tar_of(&[dir("d/", 0o755), hardlink("h", "d")]), &["\"h\"", "folder"]),
        (tar_of(&[file("new\nline", 0o644, b"x")]), &["\"new\\nline\"", "control"]),
        (tar_of(&[file("\x1b[2Jclear", 0o644, b"x")]), &["clear\"", "control"]),
        (tar_of(&[link("l", "a\x07")]), &["\"l\"", "control"]),
        (tar_of(&[file("a", 0o644, b"1"), file("a", 0o644, b"2")]), &["\"a\"", "twice"]),
        (tar_of(&[dir("a", 0o755), link("a", "/etc")]), &["\"a\"", "twice"]),
        (tar_of(&[file(".wh.", 0o644, b"")]), &["\".wh.\"", "whiteout of nothing"]),
        (tar_of(&[file(".wh..", 0o644, b"")]), &["\".wh..\"", "whiteout of nothing"]),
        (tar_of(&[file(".wh...", 0o644, b"")]), &["\".wh...\"", "whiteout of nothing"]),
        (tar_of(&[file(".wh.a/b", 0o644, b"x")]), &["\".wh.a/b\"", "whiteout is not a folder"]),
        (tar_of(&[link(".", "/etc")]), &["\".\"", "root"]),
        (tar_of(&far_below), &["\"l6/x\"", "folders deep"]),
        (pax(&[("path", &long)], "x", b""), &["layer entry \"nnn", "longer than 255"]),
        (pax(&[("path", &path)], "x", b""), &["layer entry \"d/d/", "longer than 4096"]),
        (
            pax(&[("SCHILY.xattr.user.large", &large)], "x", b""),
            &["layer entry \"x\"", "attribute \"user.large\"", "65536"],
        ),
        (pax(&[("size", "99999999999999999999")], "x", b""), &["tar entry \"x\"", "size is no number"]),
        (pax(&[("size", "-1")], "x", b""), &["tar entry \"x\"", "size is no number"]),
        (pax(&[("size", "9223372036854775807")], "x", b""), &["\"x\"", "free space"]),
        (pax(&[("size", "18446744073709551615")], "x", b""), &["size is too large"]),
        (pax(&[("size", "4000")], "x", b"short"), &["\"x\"", "ends within a file"]),
        (pax(&[("uid", "4294967295")], "x", b""), &["tar entry \"x\"", "uid 4294967295 is too large"]),
        (pax(&[("GNU.sparse.major", "1")], "x", b""), &["tar entry \"x\"", "sparse"]),
        (raw(b'S', "x", "00000000000", b""), &["tar entry \"x\"", "sparse"]),
        (raw(b'V', "x", "00000000000", b""), &["tar entry \"x\"", "unknown type"]),
        (raw(b'L', "x", "77777777777", b""), &["too large"]),
        (raw(b'0', "x", "00000010000", b"short"), &["\"x\"", "ends within a file"]),
        (b"this is no archive at all".repeat(100), &["not a tar archive"]),
    ];
    for (number, (tar, says)) in table.into_iter().enumerate() {
        for packing in [Packing::Gzip, Packing::Zstd] {
            let layout = Layout::new(&bench.work.path().join(format!("hostile-{number}-{packing:?}")));
            let sound = tar_of(&[file("sound", 0o644, b"sound")]);
            let image = layout.image(this_architecture(), &[(sound, Packing::Gzip), (tar.clone(), packing)]);
            layout.index(&[(None, &image)]);
            let err = refused(&bench, &layout);
            assert!(says.iter().all(|part| err.contains(part)), "{says:?}: {err}");
        }
    }
    assert_eq!(bench.json(&["verify"])["ok"], true);
}

#[test]
fn attributes_that_the_kernel_would_keep_otherwise_are_refused() {
    const ACL: &str = "SCHILY.xattr.system.posix_acl_access";
    let bench = bench();
    // owner, group and others: what the mode says already is not kept
    let minimal = "\x02\0\0\0\x01\0\x06\0\0\0\0\0\x04\0\x04\0\0\0\0\0\x20\0\x04\0\0\0\0\0";
    // with a user of its own, and a mask that the mode says otherwise
    let masked = "\x02\0\0\0\x01\0\x06\0\0\0\0\0\x02\0\x06\0\x07\0\0\0\x04\0\x04\0\0\0\0\0\x10\0\x06\0\0\0\0\0\
                  \x20\0\x04\0\0\0\0\0";
    // of the third form, for root of this machine: read back, they are of the second
    let capabilities = "\x01\0\0\x03\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let table = [
        (pax(&[(ACL, minimal)], "x", b"x"), "posix_acl_access"),
        (pax(&[(ACL, minimal)], "x", &[b'x'; 2 << 20]), "posix_acl_access"),
        (pax(&[(ACL, masked)], "x", b"x"), "posix_acl_access"),
        (pax_of(b'5', &[(ACL, minimal)], "x", b""), "posix_acl_access"),
        (pax(&[("SCHILY.xattr.security.capability", capabilities)], "x", b"x"), "security.capability"),
        (pax(&[("SCHILY.xattr.user.a\0b", "c")], "x", b"x"), "NUL"),
        (pax_of(b'5', &[("SCHILY.xattr.user.a\0b", "c")], "x", b""), "NUL"),
    ];
    for (number, (tar, says)) in table.into_iter().enumerate() {
        let layout = Layout::new(&bench.work.path().join(format!("attributes-{number}")));
        layout.index(&[(None, &layout.image(this_architecture(), &[(tar, Packing::Gzip)]))]);
        let err = refused(&bench, &layout);
        assert!(err.contains("layer entry \"x\"") && err.contains(says), "{number}, {says}: {err}");
    }
    // what it keeps is taken, of folders too
    let records = [("SCHILY.xattr.user.a", "b")];
    let tar = [pax_of(b'5', &records, "d", b""), pax(&records, "d/x", b"x")].concat();
    let layout = Layout::new(&bench.work.path().join("kept"));
    layout.index(&[(None, &layout.image(this_architecture(), &[(tar, Packing::Gzip)]))]);
    bench.does(&["pull", &format!("oci:{}", layout.folder.display())]);
    assert_eq!(bench.json(&["verify"])["ok"], true);
}

#[test]
fn devices_are_left_out_and_said() {
    let bench = bench();
    let mut layer = raw(b'3', "opt/disk", "00000000000", b"");
    layer.extend(raw(b'6', "run/pipe", "00000000000", b""));
    layer.extend(raw(b'4', "dev/sda", "00000000000", b""));
    let layout = Layout::new(&bench.work.path().join("devices"));
    layout.index(&[(None, &layout.image(this_architecture(), &[(layer, Packing::Plain)]))]);
    let (code, _, err) = bench.sysctr(&["pull", &format!("oci:{}", layout.folder.display())]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("left out \"opt/disk\", \"run/pipe\"") && !err.contains("sda"), "{err}");
}

#[test]
fn manifests_and_configs_that_lie_are_refused() {
    let bench = bench();
    let tar = tar_of(&[file("a", 0o644, b"a")]);
    let other = sha256(b"other");
    let config = |diff_ids: &[&str]| json!({"architecture": this_architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let diff_id = sha256(&tar);
    let manifest = |config: &Value, layers: &[Value]| json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    type Lie<'a> = Box<dyn Fn(&Layout) -> Value + 'a>;
    let with = |value: &Value, key: &str, lie: Value| {
        let mut value = value.clone();
        value[key] = lie;
        value
    };
    let (with, config, manifest) = (&with, &config, &manifest);
    let put = |layout: &Layout, manifest: &Value| layout.blob(MANIFEST, manifest.to_string().as_bytes());
    let good = |layout: &Layout| {
        let config = layout.blob(CONFIG, config(&[&diff_id]).to_string().as_bytes());
        (config, layout.layer(&tar, Packing::Gzip))
    };
    let nested = |layout: &Layout, times: usize| {
        let (config, layer) = good(layout);
        let mut inner = put(layout, &manifest(&config, &[layer]));
        for _ in 0..times {
            let index = json!({"schemaVersion": 2, "manifests": [inner]});
            inner = layout.blob("application/vnd.oci.image.index.v1+json", index.to_string().as_bytes());
        }
        inner
    };
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let table: Vec<(Lie<'_>, &str)> = vec![
        (
            Box::new(|layout| {
                let (config, layer) = good(layout);
                let size = layer["size"].as_u64().unwrap();
                put(layout, &manifest(&config, &[with(&layer, "size", json!(size - 1))]))
            }),
            "is longer than",
        ),
        (
            Box::new(|layout| {
                let (config, layer) = good(layout);
                put(layout, &manifest(&config, &[with(&layer, "size", json!(1_000_000))]))
            }),
            "is cut short",
        ),
        (
            Box::new(|layout| {
                let (config, layer) = good(layout);
                put(layout, &manifest(&config, &[with(&layer, "size", json!(u64::MAX / 2))]))
            }),
            "of space are free in",
        ),
        (
            Box::new(|layout| {
                let (config, layer) = good(layout);
                let path = layout.folder.join("blobs/sha256").join(&layer["digest"].as_str().unwrap()[7..]);
                let mut bytes = fs::read(&path).unwrap();
                bytes[20] ^= 1;
                fs::write(path, bytes).unwrap();
                put(layout, &manifest(&config, &[layer]))
            }),
            "is corrupted",
        ),
        (
            Box::new(|layout| {
                let (_, layer) = good(layout);
                let lies = layout.blob(CONFIG, config(&[&other]).to_string().as_bytes());
                put(layout, &manifest(&lies, &[layer]))
            }),
            "the image's config promises",
        ),
        (
            Box::new(|layout| {
                let (config, layer) = good(layout);
                put(layout, &manifest(&config, &[layer.clone(), layer]))
            }),
            "the manifest has 2 layers and the config 1",
        ),
        (
            Box::new(|layout| {
                let (config, layer) = good(layout);
                put(layout, &manifest(&with(&config, "size", json!(5_000_000_000u64)), &[layer]))
            }),
            "config is larger than",
        ),
        (
            Box::new(|layout| {
                let (config, layer) = good(layout);
                put(layout, &manifest(&with(&config, "digest", json!(other)), &[layer]))
            }),
            "fetching the image's config",
        ),
        (
            Box::new(|layout| {
                let (_, layer) = good(layout);
                put(layout, &manifest(&layout.blob(CONFIG, deep.as_bytes()), &[layer]))
            }),
            "reading the image's config",
        ),
        (
            Box::new(|layout| layout.blob(MANIFEST, format!(r#"{{"schemaVersion":2,"layers":{deep}}}"#).as_bytes())),
            "recursion limit",
        ),
        (Box::new(|layout| layout.blob(MANIFEST, b"\x1f\x8b\x08\x00no json")), "not JSON"),
        (Box::new(|layout| layout.blob(MANIFEST, br#"{"schemaVersion": 1, "fsLayers": []}"#)), "first schema"),
        (Box::new(|layout| nested(layout, 5)), "nested too deep"),
    ];
    for (number, (lie, says)) in table.iter().enumerate() {
        let layout = Layout::new(&bench.work.path().join(format!("lie-{number}")));
        let image = lie(&layout);
        layout.index(&[(None, &image)]);
        let err = refused(&bench, &layout);
        assert!(err.contains(says), "{says}: {err}");
    }
    // the sound image of the same helpers is taken
    let layout = Layout::new(&bench.work.path().join("true"));
    layout.index(&[(None, &nested(&layout, 1))]);
    bench.does(&["pull", &format!("oci:{}", layout.folder.display())]);
}
