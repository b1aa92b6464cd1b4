//! Images pulled from a registry and from files.

use std::{fs, path::Path};

use serde_json::{Value, json};
use sysctr::{
    host::source::this_architecture,
    model::fault::{Code, Fault},
};

use super::{
    bench::{Bench, all_packings, blob, digest_of, image_in, layer},
    common::{self, Layout, Packing, Registry, file, tar_of},
};

#[test]
fn gzip_zstd_and_plain_layers_come_out_whole_and_a_second_pull_fetches_nothing() {
    let bench = Bench::new();
    let mut registry = Registry::start(&bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "team/app:1");
    let name = format!("{}/team/app:1", registry.host());
    let stored = bench.pull(&name).unwrap();
    assert_eq!(stored.digest.to_string(), image["digest"]);
    assert_eq!(stored.references, [name.parse().unwrap()]);
    assert_eq!(stored.created(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(stored.size, 3 * 400_000 + "data/file-3".len() as u64);
    for number in 1..=3 {
        let content =
            bench.store.read_file(&stored, Path::new(&format!("data/file-{number}")), u64::MAX).unwrap().unwrap();
        assert!(layer(number).windows(content.len()).any(|window| window == content), "layer {number}");
    }
    assert_eq!(bench.store.read_file(&stored, Path::new("data/last"), 100).unwrap().unwrap(), b"data/file-3");

    // by digest, with all blobs gone: nothing but the manifest is asked for
    for layer in stored.manifest.layers() {
        fs::remove_file(registry.blob_file(layer.digest().as_ref())).unwrap();
    }
    let again = bench.pull(&format!("{}/team/app@{}", registry.host(), stored.digest)).unwrap();
    assert_eq!(again.commit, stored.commit);
    assert_eq!(again.references.len(), 2);
    registry.stop();
    bench.refuses(&name, &["cannot be reached", &registry.host()]);
}

#[test]
fn an_index_gives_the_image_for_this_machine_or_says_what_it_has() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.path("registry"));
    let layout = Layout::new(&bench.path("layout"));
    let place = |mut descriptor: Value, architecture: &str| {
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    };
    let ours = layout.image(this_architecture(), &[(layer(1), Packing::Gzip)]);
    let foreign = place(layout.image("s390x", &[(layer(2), Packing::Gzip)]), "s390x");
    let other = place(layout.image("mips64le", &[(layer(3), Packing::Gzip)]), "mips64le");
    let index = |entries: &[&Value]| {
        let text =
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
        layout.blob("application/vnd.oci.image.index.v1+json", text.to_string().as_bytes())
    };
    let both = index(&[&foreign, &place(ours.clone(), this_architecture())]);
    let none = index(&[&foreign, &other]);
    layout.index(&[(Some("both"), &both), (Some("none"), &none), (Some("one"), &foreign)]);
    for tag in ["both", "none", "one"] {
        layout.push(tag, &registry, &format!("app:{tag}"));
    }
    let stored = bench.pull(&format!("{}/app:both", registry.host())).unwrap();
    assert_eq!(stored.digest.to_string(), ours["digest"]);
    // by the digest of the index too
    let by_index = bench.pull(&format!("{}/app@{}", registry.host(), both["digest"].as_str().unwrap())).unwrap();
    assert_eq!(by_index.commit, stored.commit);
    let wanted = format!("no image for {}: it has mips64le, s390x", this_architecture());
    bench.refuses(&format!("{}/app:none", registry.host()), &[&wanted]);
    bench.refuses(&format!("{}/app:one", registry.host()), &["no image for", "s390x"]);
    bench.refuses(&format!("oci:{}:none", layout.folder.display()), &[&wanted]);
}

#[test]
fn what_is_not_there_or_broken_is_said_in_one_line_and_changes_nothing() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let host = registry.host();
    bench.refuses(&format!("{host}/nothing:1"), &["404", "nothing:1"]);
    bench.refuses(&format!("{host}/app:2"), &["404", "app:2"]);
    let unknown = bench.pull(&format!("{host}/app:2")).err().unwrap();
    assert_eq!(unknown.downcast_ref::<Fault>().map(Fault::code), Some(Code::NotFound));
    bench.refuses(&format!("127.0.0.1:{}/app:1", common::free_port()), &["cannot be reached", "refused"]);
    bench.refuses(&format!("{host}/app@sha256:{}", "0".repeat(64)), &["404"]);

    // each blob and the manifest, one byte flipped, then cut
    let manifest: Value = serde_json::from_slice(&blob(&layout, &image)).unwrap();
    let mut digests: Vec<String> = manifest["layers"].as_array().unwrap().iter().map(digest_of).collect();
    digests.push(digest_of(&manifest["config"]));
    for digest in &digests {
        let path = registry.blob_file(digest);
        let whole = fs::read(&path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            bench.refuses(&format!("{host}/app:1"), &["is corrupted", &digest[7..19]]);
        }
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        bench.refuses(&format!("{host}/app:1"), &["is cut short"]);
        fs::remove_file(&path).unwrap();
        bench.refuses(&format!("{host}/app:1"), &["404"]);
        fs::write(&path, &whole).unwrap();
    }
    bench.pull(&format!("{host}/app:1")).unwrap();
}

#[test]
fn archives_hold_the_same_image_and_a_cut_one_is_refused() {
    let bench = Bench::new();
    let (layout, image) = image_in(&bench.path("layout"));
    let tar = bench.work.path().join("image.tar");
    layout.tar(&tar);
    let from_folder = bench.pull(&format!("oci:{}", layout.folder.display())).unwrap();
    let from_file = bench.pull(&format!("oci-archive:{}:1", tar.display())).unwrap();
    assert_eq!((from_file.digest.to_string(), &from_file.commit), (digest_of(&image), &from_folder.commit));
    bench.refuses(&format!("oci-archive:{}:2", tar.display()), &["no image \"2\"", "\"1\""]);
    bench.refuses("oci-archive:/nowhere.tar", &["/nowhere.tar", "No such file"]);
    bench.refuses(&format!("oci:{}", tar.display()), &["is not a folder"]);
    bench.refuses(&format!("docker-archive:{}", tar.display()), &["not a docker archive"]);

    // what `docker save` writes, made by a tool of its own
    let saved = bench.work.path().join("saved.tar");
    let docker_layout = Layout::new(&bench.path("docker-layout"));
    let gzip = all_packings().map(|(tar, _)| (tar, Packing::Gzip));
    docker_layout.index(&[(Some("1"), &docker_layout.image(this_architecture(), &gzip))]);
    let from = format!("oci:{}:1", docker_layout.folder.display());
    common::run("skopeo", &["copy", "-q", &from, &format!("docker-archive:{}:localhost/app:1", saved.display())])
        .unwrap();
    let docker = bench.pull(&format!("docker-archive:{}", saved.display())).unwrap();
    assert_eq!(docker.size, from_folder.size);
    assert_eq!(docker.references[0].repository_name(), "saved");
    let named = bench.pull(&format!("docker-archive:{}:localhost/app:1", saved.display())).unwrap();
    assert_eq!(named.digest, docker.digest);
    bench.refuses(&format!("docker-archive:{}:localhost/app:2", saved.display()), &["localhost/app:1"]);
    common::run("gzip", &["-k", saved.to_str().unwrap()]).unwrap();
    assert_eq!(bench.pull(&format!("docker-archive:{}.gz", saved.display())).unwrap().digest, docker.digest);

    // all but the last two blocks, which only mark the end
    let whole = fs::read(&tar).unwrap();
    let fresh = Bench::new();
    let cut = fresh.work.path().join("cut.tar");
    for percent in [1, 30, 60, 90] {
        fs::write(&cut, &whole[..whole.len() * percent / 100 - 7]).unwrap();
        fresh.refuses(&format!("oci-archive:{}", cut.display()), &["cut.tar"]);
    }
}

#[test]
fn the_same_image_makes_the_same_commit_and_hostile_ones_make_none() {
    let (one, two) = (Bench::new(), Bench::new());
    let (layout, _) = image_in(&one.path("layout"));
    let name = format!("oci:{}:1", layout.folder.display());
    assert_eq!(one.pull(&name).unwrap().commit, two.pull(&name).unwrap().commit);

    let hostile: &[(&[common::Entry<'_>], &str)] = &[
        (&[file("data/fine", 0o644, b"x"), file("../../../../escaped", 0o644, b"x")], "escaped"),
        (&[common::link("out", "../../.."), file("out/escaped", 0o644, b"x")], "leads out"),
        (&[common::hardlink("h", "/etc/shadow")], "absolute"),
        (&[file("a\nb", 0o644, b"x")], "control characters"),
    ];
    for (entries, why) in hostile {
        let layout = Layout::new(&two.path("hostile"));
        let image = layout.image(this_architecture(), &[(tar_of(entries), Packing::Gzip)]);
        layout.index(&[(None, &image)]);
        two.refuses(&format!("oci:{}", layout.folder.display()), &["layer entry", why]);
    }
    // a config that promises other content than the layer has
    let layout = Layout::new(&two.path("lying"));
    // not one that the store knows already: that would not be fetched
    let image = layout.image(this_architecture(), &[(layer(4), Packing::Gzip)]);
    let mut manifest: Value = serde_json::from_slice(&blob(&layout, &image)).unwrap();
    manifest["layers"] = json!([layout.blob("application/vnd.oci.image.layer.v1.tar", &layer(5))]);
    let image = layout.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    layout.index(&[(None, &image)]);
    two.refuses(&format!("oci:{}", layout.folder.display()), &["promises"]);
}

#[test]
fn policy_is_asked_before_anything_is_fetched() {
    let bench = Bench::new();
    let policy = bench.lock.root().join("etc/containers/policy.json");
    fs::create_dir_all(policy.parent().unwrap()).unwrap();
    fs::write(&policy, r#"{"default": [{"type": "reject"}]}"#).unwrap();
    // no registry listens there: a refusal says that none was asked
    let name = format!("127.0.0.1:{}/app:1", common::free_port());
    bench.refuses(&name, &["policy refuses", "default is rejected"]);
}
