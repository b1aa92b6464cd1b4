//! The store's own promises, through the real program: what is removed is gone, what is altered is found, what two images share stays.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    fs,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{Layout, Packing, dir, file, link, store::Bench, tar_of};
use serde_json::Value;
use sysctr::host::{
    fsck::Report,
    lock::StoreLock,
    ostree::{Store, StoredImage},
    source::this_architecture,
};

#[test]
fn an_image_comes_is_listed_and_goes_and_what_another_shares_stays() {
    let bench = Bench::new();
    assert_eq!(bench.json(&["images"]), Value::Array(vec![]));
    let (one, two) = (bench.image("one"), bench.image("two"));
    bench.does(&["pull", &one]);
    let objects_of_one = bench.objects();
    bench.does(&["pull", &two]);
    let list = bench.json(&["images"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["reference"], one.as_str());
    assert_eq!(list[0]["size"], 400_020);
    assert_eq!(list[0]["layers"], 1);
    assert_eq!(list[0]["created"], "2026-01-02T03:04:05Z");
    assert_eq!(list[0]["usedBy"], Value::Array(vec![]));
    let unique = list[0]["unique"].as_u64().unwrap();
    assert!((100_000..110_000).contains(&unique), "{unique}");

    let inspected = bench.json(&["inspect", &one]);
    assert_eq!(inspected["exports"]["manifest.json"]["version"], "2.0");
    assert_eq!(inspected["exports"]["hostfs/tool"]["bytes"], 2);
    assert_eq!(inspected["labels"]["a"], "b");
    assert_eq!(inspected["digest"], list[0]["digest"]);

    // a name that it was never pulled by
    let digest = list[0]["digest"].as_str().unwrap();
    let (code, _, err) = bench.sysctr(&["remove", &format!("localhost/one@{digest}")]);
    assert!(code == 1 && err.contains("another name") && err.contains(&one), "{err}");

    bench.does(&["remove", &two]);
    assert_eq!(bench.objects(), objects_of_one);
    let (code, _, err) = bench.sysctr(&["remove", &two]);
    assert_eq!(code, 5, "{err}");
    assert!(err.starts_with("error: ") && err.contains("is not in the store"), "{err}");
    assert_eq!(bench.json(&["verify"])["ok"], true);
    bench.does(&["remove", &one]);
    assert!(bench.objects().is_empty());
}

#[test]
fn an_image_whose_tag_moved_goes_with_prune() {
    let bench = Bench::new();
    let name = bench.image("first");
    bench.does(&["pull", &name]);
    // another image under the same name
    fs::remove_dir_all(bench.work.path().join("first")).unwrap();
    let other = bench.image("other");
    fs::rename(other.strip_prefix("oci:").unwrap(), bench.work.path().join("first")).unwrap();
    bench.does(&["pull", &name]);
    let list = bench.json(&["images"]);
    assert_eq!((list[0]["reference"].as_str(), list[1]["reference"].as_str()), (Some(name.as_str()), None));
    let said = bench.json(&["prune", "--dry-run"]);
    assert_eq!(bench.json(&["images"]), list);
    let done = bench.json(&["prune"]);
    assert_eq!(
        (said["images"].as_u64(), &said["bytes"], &said["objects"]),
        (Some(1), &done["bytes"], &done["objects"])
    );
    assert!(done["bytes"].as_u64().unwrap() >= 100_000, "{done}");
    assert_eq!(bench.json(&["images"]).as_array().unwrap().len(), 1);
    assert_eq!(bench.json(&["verify"])["ok"], true);
}

#[test]
fn verify_finds_each_altered_and_each_missing_object() {
    let bench = Bench::new();
    bench.does(&["pull", &bench.image("image")]);
    for object in bench.objects() {
        let meta = object.symlink_metadata().unwrap();
        if meta.is_symlink() {
            continue;
        }
        let whole = fs::read(&object).unwrap();
        let stem = object.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut altered = whole.clone();
        altered[0] ^= 1;
        fs::write(&object, &altered).unwrap();
        let (code, out, _) = bench.sysctr(&["--json", "verify"]);
        assert!(code == 1 && out.contains(&stem), "{} altered: {out}", object.display());
        fs::remove_file(&object).unwrap();
        let (code, out, err) = bench.sysctr(&["--json", "verify"]);
        assert!(code != 0, "{} missing: {out}{err}", object.display());
        fs::write(&object, &whole).unwrap();
        fs::set_permissions(&object, meta.permissions()).unwrap();
    }
    assert_eq!(bench.json(&["verify"])["ok"], true);
}

#[test]
fn labels_that_the_kernel_gives_each_file_are_no_damage() {
    let bench = Bench::new();
    let name = bench.image("image");
    bench.does(&["pull", &name]);
    let label = |path: &Path| {
        for name in ["security.selinux", "security.ima", "security.SMACK64"] {
            rustix::fs::lsetxattr(path, name, b"system_u:object_r:var_lib_t:s0\0", rustix::fs::XattrFlags::empty())?;
        }
        rustix::io::Result::Ok(())
    };
    for object in bench.objects() {
        if let Err(error) = label(&object) {
            return eprintln!("this kernel keeps its labels to itself ({error}): nothing to test");
        }
    }
    assert_eq!(bench.json(&["verify"])["ok"], true);
    // nor are those of a copy
    let lock = StoreLock::acquire(&bench.root(), "test", Duration::ZERO).unwrap();
    let store = Store::open(&bench.root()).unwrap().unwrap();
    let image = store.find(&name.parse().unwrap()).unwrap().unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let rootfs = elsewhere.path().join("rootfs");
    store.checkout(&lock, &image, fs::File::open(elsewhere.path()).unwrap().as_fd(), "rootfs").unwrap();
    ["", "data", "data/own", "data/link"].into_iter().for_each(|path| label(&rootfs.join(path)).unwrap());
    let mut report = Report::default();
    store.verify_checkout(&image.commit, fs::File::open(&rootfs).unwrap().as_fd(), &[], &rootfs, &mut report).unwrap();
    assert!(report.problems.is_empty() && report.checked > 0, "{report:?}");
    drop(lock);
    // while other attributes are
    let object = bench.objects().into_iter().find(|path| path.extension().unwrap() == "file" && path.is_file());
    let object = object.unwrap();
    rustix::fs::setxattr(&object, "user.new", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let (code, out, _) = bench.sysctr(&["--json", "verify"]);
    assert!(code == 1 && out.contains(object.file_stem().unwrap().to_str().unwrap()), "{out}");
}

/// An image in the store, and the store to work with.
fn pulled(bench: &Bench) -> (StoreLock, Store, StoredImage) {
    let name = bench.image("image");
    bench.does(&["pull", &name]);
    let lock = StoreLock::acquire(&bench.root(), "test", Duration::ZERO).unwrap();
    let store = Store::open(&bench.root()).unwrap().unwrap();
    let image = store.find(&name.parse().unwrap()).unwrap().unwrap();
    (lock, store, image)
}

#[test]
fn a_checkout_is_compared_with_its_image() {
    let bench = Bench::new();
    let (lock, store, image) = pulled(&bench);
    let parent = fs::File::open(bench.work.path()).unwrap();
    let problems = |change: &dyn Fn(&Path)| -> Vec<(String, String)> {
        let rootfs = bench.work.path().join("rootfs");
        let _ = fs::remove_dir_all(&rootfs);
        store.checkout(&lock, &image, parent.as_fd(), "rootfs").unwrap();
        fs::create_dir(rootfs.join("mnt")).unwrap();
        change(&rootfs);
        let folder = fs::File::open(&rootfs).unwrap();
        let mut report = Report::default();
        store.verify_checkout(&image.commit, folder.as_fd(), &["/mnt".into()], &rootfs, &mut report).unwrap();
        let strip = |path: &str| Path::new(path).strip_prefix(&rootfs).unwrap().display().to_string();
        report.problems.iter().map(|it| (strip(&it.subject), it.detail.clone())).collect()
    };
    assert_eq!(problems(&|_| {}), []);
    // where nothing can be linked it is copied
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let folder = fs::File::open(elsewhere.path()).unwrap();
    assert_ne!(folder.metadata().unwrap().dev(), parent.metadata().unwrap().dev());
    store.checkout(&lock, &image, folder.as_fd(), "rootfs").unwrap();
    let rootfs = elsewhere.path().join("rootfs");
    let mut report = Report::default();
    store.verify_checkout(&image.commit, fs::File::open(&rootfs).unwrap().as_fd(), &[], &rootfs, &mut report).unwrap();
    assert!(report.problems.is_empty() && report.checked > 0, "{report:?}");
    // a copy is as good as a link
    let copied = |rootfs: &Path| {
        let path = rootfs.join("data/own");
        fs::copy(&path, rootfs.join("copy")).unwrap();
        fs::rename(rootfs.join("copy"), path).unwrap();
    };
    assert_eq!(problems(&copied), []);
    type Change<'a> = (&'a dyn Fn(&Path), &'a str, &'a str);
    let changes: [Change<'_>; 6] = [
        (&|rootfs| fs::write(rootfs.join("data/new"), "x").unwrap(), "data/new", "does not have it"),
        (&|rootfs| fs::remove_file(rootfs.join("data/own")).unwrap(), "data/own", "missing"),
        (&|rootfs| fs::remove_dir_all(rootfs.join("exports/hostfs")).unwrap(), "exports/hostfs", "missing"),
        (
            &|rootfs| fs::set_permissions(rootfs.join("data"), fs::Permissions::from_mode(0o700)).unwrap(),
            "data",
            "mode",
        ),
        (
            &|rootfs| {
                fs::remove_file(rootfs.join("data/own")).unwrap();
                fs::write(rootfs.join("data/own"), "x").unwrap();
            },
            "data/own",
            "content",
        ),
        (
            &|rootfs| {
                fs::remove_file(rootfs.join("data/link")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", rootfs.join("data/link")).unwrap();
            },
            "data/link",
            "content",
        ),
    ];
    for (change, path, detail) in changes {
        let found = problems(change);
        assert!(found.len() == 1 && found[0].0 == path && found[0].1.contains(detail), "{path}: {found:?}");
    }
}

#[test]
fn a_checkout_of_copies_is_mended_by_copies() {
    let bench = Bench::new();
    let (lock, store, image) = pulled(&bench);
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    store.checkout(&lock, &image, fs::File::open(elsewhere.path()).unwrap().as_fd(), "rootfs").unwrap();
    let path = elsewhere.path().join("rootfs");
    let rootfs = fs::File::open(&path).unwrap();
    fs::write(path.join("data/own"), "x").unwrap();
    for gone in ["data/shared", "data/link", "exports/hostfs/tool"] {
        fs::remove_file(path.join(gone)).unwrap();
    }
    let problems = || {
        let mut report = Report::default();
        store.verify_checkout(&image.commit, rootfs.as_fd(), &[], &path, &mut report).unwrap();
        report.problems
    };
    assert_eq!(problems().len(), 4);
    store.mend_checkout(&lock, &image.commit, rootfs.as_fd(), &[], &path).unwrap();
    assert_eq!(problems(), []);
}

#[test]
fn what_an_image_holds_is_read_without_a_checkout() {
    let bench = Bench::new();
    let name = bench.image("image");
    bench.does(&["pull", &name]);
    let store = Store::open(&bench.root()).unwrap().unwrap();
    let image = store.find(&name.parse().unwrap()).unwrap().unwrap();
    let read = |path: &str| store.read_file(&image, Path::new(path), 1_000_000).unwrap();
    assert_eq!(read("data/own").unwrap(), vec![b'i'; 100_000]);
    // over a link, and over the root
    assert_eq!(read("/data/../../data/link").unwrap().len(), 100_000);
    for path in ["data", "data/none", "data/own/x", "none/x", ""] {
        assert!(read(path).is_none(), "{path}");
    }
    assert!(store.read_file(&image, Path::new("data/own"), 99_999).is_err());

    let tar = tar_of(&[dir("exports/", 0o755), link("exports/service.hbs", "/etc/passwd")]);
    let layout = Layout::new(&bench.work.path().join("linked"));
    layout.index(&[(None, &layout.image(this_architecture(), &[(tar, Packing::Gzip)]))]);
    let linked = format!("oci:{}", layout.folder.display());
    bench.does(&["pull", &linked]);
    let (code, _, err) = bench.sysctr(&["inspect", &linked]);
    assert!(code == 1 && err.contains("service.hbs") && err.contains("link"), "{err}");
}

#[test]
fn policy_ends_with_its_own_code() {
    let bench = Bench::new();
    let name = bench.image("image");
    let policy = bench.root().join("etc/containers/policy.json");
    fs::create_dir_all(policy.parent().unwrap()).unwrap();
    fs::write(&policy, r#"{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]}"#).unwrap();
    let (code, out, err) = bench.sysctr(&["pull", &name]);
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    assert!(err.starts_with("error: policy refuses") && err.contains("signedBy"), "{err}");
}

/// Many files, so that there is something to be cut short.
fn large_image(bench: &Bench, files: usize) -> String {
    let names: Vec<String> = (0..files).map(|number| format!("data/file-{number}")).collect();
    let contents: Vec<Vec<u8>> = (0..files).map(|number| number.to_string().repeat(4000).into_bytes()).collect();
    let mut entries = vec![dir("data/", 0o755)];
    entries.extend(names.iter().zip(&contents).map(|(name, content)| file(name, 0o644, content)));
    let layout = Layout::new(&bench.work.path().join("large"));
    layout.index(&[(None, &layout.image(this_architecture(), &[(tar_of(&entries), Packing::Gzip)]))]);
    format!("oci:{}", layout.folder.display())
}

#[test]
fn a_killed_pull_leaves_no_image_and_the_next_one_is_whole() {
    let bench = Bench::new();
    let name = large_image(&bench, 3000);
    let mut cut = 0;
    for delay in [30, 80, 150, 250, 400, 600] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sysctr"))
            .arg("--root")
            .arg(bench.root())
            .args(["pull", &name])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        let verified = bench.json(&["verify"]);
        assert_eq!(verified["ok"], true, "after {delay} ms: {verified}");
        cut += usize::from(bench.json(&["images"]).as_array().unwrap().is_empty());
    }
    assert!(cut > 0, "every pull was faster than its kill");
    bench.does(&["pull", &name]);
    let fresh = Bench::new();
    fresh.does(&["pull", &name]);
    let commit = |bench: &Bench| {
        let store = Store::open(&bench.root()).unwrap().unwrap();
        store.find(&name.parse().unwrap()).unwrap().unwrap().commit
    };
    assert_eq!(commit(&bench), commit(&fresh));
    assert_eq!(bench.objects().len(), fresh.objects().len());
    assert_eq!(bench.json(&["verify"])["ok"], true);
}

/// Waits until the program that this strace(1) runs is stopped, and gives its number.
fn stopped(strace: &mut Child) -> String {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let pid = fs::read_to_string(format!("/proc/{0}/task/{0}/children", strace.id())).unwrap_or_default();
        let pid = pid.trim().to_owned();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if [") T ", ") t "].iter().any(|stopped| state.contains(stopped)) {
            std::thread::sleep(Duration::from_millis(200));
            return pid;
        }
        assert!(Instant::now() < end && strace.try_wait().unwrap().is_none(), "it was never stopped: {state:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_removed_while_verify_looks_at_it_is_no_damage() {
    let bench = Bench::new();
    bench.does(&["pull", &bench.image("kept")]);
    let kept = bench.objects();
    let gone = bench.image("gone");
    bench.does(&["pull", &gone]);
    let first = bench.objects().into_iter().find(|object| !kept.contains(object)).unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=openat", "-e", "inject=openat:signal=STOP:when=1", "-P"]);
    strace.arg(&first).arg(env!("CARGO_BIN_EXE_sysctr")).arg("--root").arg(bench.root()).args(["--json", "verify"]);
    let mut strace =
        strace.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("strace(1), see tests/deps.sh");
    let pid = stopped(&mut strace);
    bench.does(&["remove", &gone]);
    assert_eq!(bench.objects(), kept);
    common::run("kill", &["-CONT", &pid]).unwrap();
    let output = strace.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains(r#""ok": true"#), "{out}{err}");
}

/// A small file system of its own, unmounted with the test.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf, size: &str) -> Small {
        fs::create_dir_all(&at).unwrap();
        common::run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at.to_str().unwrap()]).unwrap();
        Small(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        common::run("umount", &[self.0.to_str().unwrap()]).ok();
    }
}

#[test]
fn a_full_disk_is_one_line_and_leaves_the_store_as_it_was() {
    let bench = Bench::new();
    let small = bench.image("image");
    let large = large_image(&bench, 3000);
    let _disk = Small::mount(bench.root().join("var/lib/sysctr"), "12M");
    bench.does(&["pull", &small]);
    let before = (bench.json(&["images"]), bench.objects());
    let (code, out, err) = bench.sysctr(&["pull", &large]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.starts_with("error: pulling oci:") && err.lines().count() == 1 && err.contains("space"), "{err}");
    assert_eq!((bench.json(&["images"]), bench.objects()), before);
    let left =
        fs::read_dir(bench.root().join("var/lib/sysctr/repo/tmp")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(
        left.filter(|name| name != "cache").count(),
        0,
        "what was written before the disk was full is still there"
    );
    assert_eq!(bench.json(&["verify"])["ok"], true);
}

#[test]
fn a_mounted_image_stays_whole_in_a_store_that_is_a_mount_of_its_own() {
    let bench = Bench::new();
    let _disk = Small::mount(bench.root().join("var/lib/sysctr"), "64M");
    let name = bench.image("image");
    bench.does(&["pull", &name]);
    let (one, two) = (bench.work.path().join("one"), bench.work.path().join("two"));
    for at in [&one, &two] {
        fs::create_dir(at).unwrap();
        bench.does(&["mount", &name, at.to_str().unwrap()]);
    }
    bench.does(&["prune"]);
    for at in [&one, &two] {
        assert_eq!(fs::read(at.join("data/own")).unwrap().len(), 100_000);
        bench.does(&["unmount", at.to_str().unwrap()]);
    }
    assert!(!bench.root().join("var/lib/sysctr/mounts").exists());
    // another folder that is called like one of ours
    let foreign = bench.work.path().join("mounts/1");
    fs::create_dir_all(&foreign).unwrap();
    bench.does(&["mount", &name, one.to_str().unwrap()]);
    common::run("mount", &["--bind", foreign.to_str().unwrap(), two.to_str().unwrap()]).unwrap();
    let (code, _, err) = bench.sysctr(&["unmount", two.to_str().unwrap()]);
    common::run("umount", &[two.to_str().unwrap()]).unwrap();
    assert!(code == 1 && err.contains("no image is mounted there"), "{err}");
    bench.does(&["unmount", one.to_str().unwrap()]);
}
