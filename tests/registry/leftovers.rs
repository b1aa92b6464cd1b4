//! What a pull that was cut off leaves, the next one goes on with: whole layers, if they are what they were.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::Value;
use sysctr::{
    host::{lock::StoreLock, ostree::Store},
    model::settings::Settings,
};

use super::{
    bench::{Bench, blob, image_in, listing},
    common::{self, Registry},
    proxy::{Fault, Proxy, large_image},
};

/// Files of these folders of a store that are not of finished pulls.
fn left(root: &Path) -> Vec<PathBuf> {
    let state = root.join("var/lib/sysctr");
    let unfinished = |path: &PathBuf| {
        let below = path.strip_prefix(&state).unwrap().to_str().unwrap().to_owned();
        below.starts_with("repo/tmp/sysctr") || below.starts_with("layers/.")
    };
    listing(&state).into_keys().filter(unfinished).collect()
}

/// Whether some layer came whole; the store may be in the making.
fn a_layer_is_left(root: &Path) -> bool {
    let records = fs::read_dir(root.join("var/lib/sysctr/layers")).into_iter().flatten().flatten();
    records.map(|record| record.file_name()).any(|name| name.to_str().unwrap().starts_with(".whole-"))
}

/// Pulls by a program of its own, killed as soon as a layer is whole.
fn killed_pull(root: &Path, image: &str) {
    fs::create_dir_all(root).unwrap();
    let mut pull = Command::new(env!("CARGO_BIN_EXE_sysctr"));
    pull.arg("--root").arg(root).args(["pull", image]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut pull = pull.spawn().unwrap();
    let begun = Instant::now();
    while !a_layer_is_left(root) {
        assert!(pull.try_wait().unwrap().is_none(), "the pull is over");
        assert!(begun.elapsed() < Duration::from_secs(60), "no layer came");
        std::thread::sleep(Duration::from_millis(20));
    }
    pull.kill().unwrap();
    assert_eq!(pull.wait().unwrap().code(), None);
}

/// Pulls what is still to be had; gives the commit, and how many bytes of blobs came.
fn pull_again(root: &Path, registry: &Registry) -> (String, u64) {
    let proxy = Proxy::start(registry, Fault::CutAt(100));
    let image = format!("{}/app:1", proxy.host);
    common::run(env!("CARGO_BIN_EXE_sysctr"), &["--root", root.to_str().unwrap(), "pull", &image]).unwrap();
    assert_eq!(left(root), Vec::<PathBuf>::new());
    let lock = StoreLock::acquire(root, "pull", Duration::ZERO).unwrap();
    let store = Store::open_or_create(&lock).unwrap();
    common::run("ostree", &["fsck", &format!("--repo={}", store.path().display())]).unwrap();
    (store.find(&image.parse().unwrap()).unwrap().unwrap().commit, proxy.passed.load(Ordering::SeqCst))
}

#[test]
fn a_layer_that_came_whole_before_a_kill_is_not_fetched_again_unless_it_was_damaged() {
    let bench = Bench::new();
    let (registry, bytes, small) = large_image(&bench);
    let direct = bench.pull(&format!("{}/app:1", registry.host())).unwrap();
    let proxy = Proxy::start(&registry, Fault::HoldsAt(50));
    let image = format!("{}/app:1", proxy.host);
    let (sound, damaged, pruned) = (bench.path("sound"), bench.path("damaged"), bench.path("pruned"));
    for root in [&sound, &damaged, &pruned] {
        killed_pull(root, &image);
    }
    assert_eq!(pull_again(&sound, &registry), (direct.commit.clone(), bytes - small));

    // as a power cut may leave it: the name is there, the end is not
    let object = left(&damaged).into_iter().find(|path| path.metadata().unwrap().len() == 400_000).unwrap();
    fs::OpenOptions::new().write(true).open(object).unwrap().set_len(399_999).unwrap();
    assert_eq!(pull_again(&damaged, &registry), (direct.commit.clone(), bytes));

    common::run(env!("CARGO_BIN_EXE_sysctr"), &["--root", pruned.to_str().unwrap(), "prune"]).unwrap();
    assert_eq!(left(&pruned), Vec::<PathBuf>::new());
    assert_eq!(pull_again(&pruned, &registry), (direct.commit, bytes));
}

#[test]
fn a_pull_that_the_registry_broke_off_leaves_whole_layers_to_the_next_image_that_has_them() {
    let mut bench = Bench::new();
    let (registry, bytes, small) = large_image(&bench);
    let proxy = Proxy::start(&registry, Fault::HoldsAt(50));
    bench.settings = Settings::parse("[registry]\nretries = 1\nidle = 1\n").unwrap();
    let error = bench.pull(&format!("{}/app:1", proxy.host)).expect_err("held back");
    assert!(format!("{error:#}").contains("broke off"), "{error:#}");
    assert!(a_layer_is_left(bench.lock.root()));

    let (layout, image) = image_in(&bench.path("layout-of-another"));
    layout.push("1", &registry, "other:1");
    let manifest: Value = serde_json::from_slice(&blob(&layout, &image)).unwrap();
    let size = |descriptor: &Value| descriptor["size"].as_u64().unwrap();
    // its first layer is the small one of the image before
    assert_eq!(size(&manifest["layers"][0]), small);
    let new = size(&manifest["config"]) + size(&manifest["layers"][1]) + size(&manifest["layers"][2]);
    let other = Proxy::start(&registry, Fault::CutAt(100));
    bench.pull(&format!("{}/other:1", other.host)).unwrap();
    assert_eq!(other.passed.load(Ordering::SeqCst), new);
    assert_eq!(left(bench.lock.root()), Vec::<PathBuf>::new());
    let whole = Proxy::start(&registry, Fault::CutAt(100));
    bench.pull(&format!("{}/app:1", whole.host)).unwrap();
    assert_eq!(whole.passed.load(Ordering::SeqCst), bytes - small);
}
