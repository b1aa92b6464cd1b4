//! Where images really are: mirrors, other locations, short names, engines.

use std::{fs, process::Command, sync::atomic::Ordering};

use serde_json::Value;
use sysctr::{
    host::source::this_architecture,
    model::fault::{Code, Fault},
};

use super::{
    bench::{Bench, digest_of, image_in, layer},
    common::{self, Layout, Packing, Registry},
    logins::pull_among,
    proxy::{self, Proxy, large_image},
};

impl Bench {
    fn conf(&self, text: &str) {
        let folder = self.lock.root().join("etc/containers");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("registries.conf"), text).unwrap();
    }
}

/// Another image than that of the bench.
fn another(bench: &Bench) -> (Layout, Value) {
    let layout = Layout::new(&bench.path("another"));
    let image = layout.image(this_architecture(), &[(layer(7), Packing::Gzip)]);
    layout.index(&[(Some("1"), &image)]);
    (layout, image)
}

#[test]
fn a_mirror_that_has_the_image_is_used_and_then_the_place_it_was_moved_to() {
    let bench = Bench::new();
    let (own, mirror) = (Registry::start(&bench.path("own")), Registry::start(&bench.path("mirror")));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &own, "moved/app:1");
    let with = |more: &str, mirrors: &[&str]| {
        let mirrors = mirrors.iter().map(|at| format!("[[registry.mirror]]\nlocation = '{at}'\n")).collect::<String>();
        let own = own.host();
        bench.conf(&format!("[[registry]]\nprefix = 'example.org/team'\nlocation = '{own}/moved'\n{more}\n{mirrors}"));
    };
    let (nobody, behind) = (format!("127.0.0.1:{}/x", common::free_port()), format!("{}/behind", mirror.host()));
    let pulled = |name: &str| bench.pull(name).unwrap().digest.to_string();
    // neither mirror has it: one is down
    with("", &[&nobody, &behind]);
    assert_eq!(pulled("example.org/team/app:1"), digest_of(&image));
    bench.refuses("example.org/team/nothing:1", &["no mirror has it", "cannot be reached", "404", &own.host()]);
    let (newer, other) = another(&bench);
    newer.push("1", &mirror, "behind/app:1");
    with("", &[&nobody, &behind]);
    let stored = bench.pull("example.org/team/app:1").unwrap();
    assert_eq!(stored.digest.to_string(), digest_of(&other));
    // the image keeps the name by which it was asked for
    assert_eq!(stored.references[0].to_string(), "example.org/team/app:1");
    with("mirror-by-digest-only = true", &[&behind]);
    assert_eq!(pulled("example.org/team/app:1"), digest_of(&image));
    assert_eq!(pulled(&format!("example.org/team/app@{}", digest_of(&other))), digest_of(&other));
    with("blocked = true", &[]);
    let error = bench.pull("example.org/team/app:1").err().unwrap();
    assert_eq!(Fault::code_of(&error), Some(Code::Refused));
    bench.refuses("example.org/team/app:1", &["registries.conf blocks example.org/team/app:1"]);
    bench.conf("[[registry]]\nblocked = true\n");
    bench.refuses("example.org/team/app:1", &["registries.conf", "neither prefix nor location"]);
}

#[test]
fn where_a_mirror_dies_within_a_layer_the_next_place_goes_on() {
    let bench = Bench::new();
    let (registry, bytes, _) = large_image(&bench);
    let (mirror, own) =
        (Proxy::start(&registry, proxy::Fault::DiesAt(60)), Proxy::start(&registry, proxy::Fault::CutAt(100)));
    bench.conf(&format!(
        "[[registry]]\nprefix = 'example.org'\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\n",
        own.host, mirror.host
    ));
    let stored = bench.pull("example.org/app:1").unwrap();
    assert_eq!(stored.commit, Bench::new().pull(&format!("{}/app:1", registry.host())).unwrap().commit);
    let [of_mirror, of_own] = [&mirror, &own].map(|proxy| proxy.passed.load(Ordering::SeqCst) as f64 / bytes as f64);
    assert!(of_mirror > 0.5 && of_own > 0.3 && of_mirror + of_own < 1.1, "{of_mirror} and {of_own}");
}

#[test]
fn a_short_name_is_its_alias_or_searched_for() {
    let bench = Bench::new();
    let (one, two) = (Registry::start(&bench.path("one")), Registry::start(&bench.path("two")));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &two, "app:1");
    let sysctr = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sysctr"));
        command.env("XDG_CONFIG_HOME", bench.path("config")).args(["--wait=30", "--root"]).arg(bench.lock.root());
        let output = command.args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
    };
    let digest = digest_of(&image);
    bench.conf(&format!("unqualified-search-registries = ['{}', '{}']\n", one.host(), two.host()));
    let (code, said) = sysctr(&["inspect", "app:1"]);
    assert!(code == 0 && said.contains(&digest) && said.contains(&format!("{}/app:1", two.host())), "{said}");
    let (code, said) = sysctr(&["inspect", "app:2"]);
    assert!(code == 5 && said.contains("no registry has app:2") && said.contains(&one.host()), "{code} {said}");
    bench.conf(&format!(
        "unqualified-search-registries = ['{}', '{}']\nshort-name-mode = 'enforcing'\n[aliases]\n'known' = '{}/app'\n",
        one.host(),
        two.host(),
        two.host()
    ));
    let (code, said) = sysctr(&["inspect", "app:1"]);
    assert!(code == 2 && said.contains("enforcing") && said.contains("hint: write one of them"), "{code} {said}");
    let (code, said) = sysctr(&["inspect", "known:1"]);
    assert!(code == 0 && said.contains(&digest), "{said}");
    bench.conf("");
    let (code, said) = sysctr(&["inspect", "app:1"]);
    assert!(code == 2 && said.contains("no alias for it") && said.contains("hint: "), "{code} {said}");
}

#[test]
fn an_engines_image_comes_through_skopeo() {
    let bench = Bench::new();
    let (layout, _) = another(&bench);
    let store = format!("[vfs@{}+{}]", bench.path("storage").display(), bench.path("run").display());
    let name = format!("containers-storage:{store}localhost/app:1");
    common::run("skopeo", &["copy", "-q", &format!("oci:{}:1", layout.folder.display()), &name]).unwrap();
    let stored = bench.pull(&name).unwrap();
    let direct = bench.pull(&format!("oci:{}:1", layout.folder.display())).unwrap();
    assert_eq!(stored.size, direct.size);
    assert_eq!(stored.references[0].to_string(), name);
    // the same image has the same digest when it is asked for again, so an update sees none
    assert_eq!(bench.pull(&name).unwrap().digest, stored.digest);
    bench.refuses(&format!("containers-storage:{store}localhost/none:1"), &["skopeo could not fetch it", "none"]);
    let without = pull_among(&bench, &name, "{}", &[("PATH", "/nowhere")]);
    assert!(without.contains("skopeo, which is not installed"), "{without}");
    let left = fs::read_dir("/var/tmp").unwrap().filter_map(Result::ok).filter(|entry| {
        entry.file_name().to_string_lossy().starts_with("sysctr-") && entry.path().join("image.tar").exists()
    });
    assert_eq!(left.count(), 0, "an image was left in /var/tmp");
}
