//! Manifests and configs that lie: each is refused with its reason, and the store is as before.

use std::fs;

use serde_json::{Value, json};
use sysctr::host::source::this_architecture;

use super::{
    bench::{Bench, blob, layer},
    common::{Layout, Packing, sha256, tar_of},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What a hostile image is made of.
struct Made {
    layout: Layout,
    manifest: Value,
    config: Value,
}

/// A sound image to change.
fn sound(bench: &Bench) -> Made {
    let layout = Layout::new(&bench.path("hostile"));
    let image = layout.image(this_architecture(), &[(layer(1), Packing::Gzip)]);
    let manifest: Value = serde_json::from_slice(&blob(&layout, &image)).unwrap();
    let config = serde_json::from_slice(&blob(&layout, &manifest["config"])).unwrap();
    Made { layout, manifest, config }
}

impl Made {
    fn put(&self, text: &[u8]) -> Value {
        let described = self.layout.blob(MANIFEST, text);
        self.layout.index(&[(None, &described)]);
        described
    }

    fn put_manifest(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut manifest = self.manifest.clone();
        change(&mut manifest);
        self.put(manifest.to_string().as_bytes())
    }

    fn put_config(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut config = self.config.clone();
        change(&mut config);
        let described = self.layout.blob(CONFIG, config.to_string().as_bytes());
        self.put_manifest(|manifest| manifest["config"] = described)
    }

    /// An index around these entries, named by the layout.
    fn put_index(&self, entries: &[Value]) -> Value {
        let text = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
        let mut described = self.layout.blob(INDEX, text.as_bytes());
        self.layout.index(&[(None, &described)]);
        described["platform"] = json!({"os": "linux", "architecture": this_architecture()});
        described
    }
}

#[test]
fn manifests_and_configs_that_lie_are_refused_by_name() {
    let bench = Bench::new();
    let made = sound(&bench);
    let name = format!("oci:{}", made.layout.folder.display());
    let refused = |words: &[&str]| {
        bench.refuses(&name, words);
        println!("{}: {:#}", words.join(", "), bench.pull(&name).err().unwrap());
    };
    let placed = |mut entry: Value| {
        entry["platform"] = json!({"os": "linux", "architecture": this_architecture()});
        entry
    };
    let nested = |open: &str, depth: usize, close: &str| [open.repeat(depth), close.repeat(depth)].concat();

    // sizes
    made.put_manifest(|manifest| manifest["layers"][0]["size"] = json!(10));
    refused(&["longer than the 10 bytes promised"]);
    made.put_manifest(|manifest| manifest["layers"][0]["size"] = json!(1 << 30));
    refused(&["is cut short"]);
    made.put_manifest(|manifest| manifest["layers"][0]["size"] = json!(u64::MAX));
    refused(&["its layers are", "of space are free"]);
    made.put_manifest(|manifest| manifest["layers"][0]["size"] = json!(-1));
    refused(&["reading the manifest"]);
    made.put_manifest(|manifest| manifest["config"]["size"] = json!(7));
    refused(&["the image's config", "longer than the 7 bytes"]);
    made.put_manifest(|manifest| manifest["config"]["size"] = json!(1u64 << 40));
    refused(&["config is larger than"]);
    let described = made.put_manifest(|_| {});
    let mut lying = placed(described.clone());
    lying["size"] = json!(described["size"].as_u64().unwrap() + 1);
    made.put_index(&[lying]);
    refused(&["its index promises"]);

    // digests
    let other = sha256(b"other");
    fs::write(made.layout.folder.join("blobs/sha256").join(&other[7..]), "not other").unwrap();
    made.put_manifest(|manifest| manifest["config"]["digest"] = json!(other));
    refused(&["the image's config"]);
    made.put_manifest(|manifest| manifest["layers"][0] = json!({"mediaType": LAYER, "digest": other, "size": 9}));
    refused(&["is corrupted", &other[7..19]]);
    made.put_manifest(|manifest| manifest["layers"][0]["digest"] = json!("sha512:00"));
    refused(&["reading the manifest", "digest length 2"]);
    made.put_manifest(|manifest| manifest["layers"][0]["digest"] = json!(format!("sha512:{}", "0".repeat(128))));
    refused(&["invalid digest \"sha512:000"]);
    made.put_manifest(|manifest| manifest["layers"][0]["digest"] = json!(format!("sha256:{}", "../".repeat(21) + "x")));
    refused(&["reading the manifest", "../../../"]);
    made.put_config(|config| config["rootfs"]["diff_ids"] = json!([other]));
    refused(&["promises", &other]);
    made.put_config(|config| config["rootfs"]["diff_ids"] = json!([]));
    refused(&["1 layers and the config 0"]);
    made.put_index(&[placed(json!({"mediaType": MANIFEST, "digest": other, "size": 9}))]);
    refused(&["is corrupted"]);

    // indexes in indexes
    let mut inner = made.put_manifest(|_| {});
    for _ in 0..4 {
        inner = made.put_index(&[placed(inner)]);
    }
    refused(&["nested too deep"]);
    made.put_index(&[]);
    refused(&["names no platform"]);

    // what they say they are
    made.put_manifest(|manifest| manifest["manifests"] = json!([]));
    refused(&["an index and an image at once"]);
    made.put_manifest(|manifest| manifest["mediaType"] = json!(INDEX));
    refused(&["its content is an image"]);
    let text = made.manifest.to_string();
    made.put_index(&[placed(made.layout.blob(INDEX, text.as_bytes()))]);
    refused(&["its content is an image"]);
    made.put_manifest(|manifest| manifest["layers"][0]["mediaType"] = json!("application/vnd.in-toto+json"));
    refused(&["no tar archive"]);
    made.put_manifest(|manifest| manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json"));
    refused(&["an artifact of type"]);
    made.put_config(|config| config["os"] = json!("windows"));
    refused(&["no image for", "windows"]);
    made.put_manifest(|manifest| manifest["schemaVersion"] = json!(1));
    refused(&["Docker's first schema"]);

    // JSON to choke on
    made.put(format!(r#"{{"schemaVersion":2,"layers":{}}}"#, nested("[", 10_000, "]")).as_bytes());
    refused(&["not JSON", "recursion limit"]);
    made.put(nested(r#"{"manifests":"#, 10_000, "}").as_bytes());
    refused(&["not JSON"]);
    // where no reader looks
    let deep = made.config.to_string().replacen('{', &format!(r#"{{"x":{},"#, nested("[", 10_000, "]")), 1);
    let deep = made.layout.blob(CONFIG, deep.as_bytes());
    made.put_manifest(|manifest| manifest["config"] = deep);
    refused(&["reading the image's config", "recursion limit"]);
    made.put(&[b"{\"schemaVersion\":2,\"x\":\"".as_slice(), &vec![b'x'; 5 << 20], b"\"}"].concat());
    refused(&["larger than"]);
    made.put(b"\xff\xfe{}");
    refused(&["not JSON"]);
    made.put_manifest(|manifest| manifest["layers"] = vec![manifest["layers"][0].clone(); 600].into());
    refused(&["600 layers"]);

    // and the image was sound before all that
    made.put_manifest(|_| {});
    bench.pull(&name).unwrap();
}

#[test]
fn layers_without_a_file_and_images_without_a_layer_come_out_empty() {
    let bench = Bench::new();
    let layout = Layout::new(&bench.path("empty"));
    let nothing = tar_of(&[]);
    for (count, layers) in
        [(0, vec![]), (1, vec![(nothing.clone(), Packing::Gzip)]), (3, vec![(nothing, Packing::Gzip); 3])]
    {
        layout.index(&[(None, &layout.image(this_architecture(), &layers))]);
        let stored = bench.pull(&format!("oci:{}", layout.folder.display())).unwrap();
        assert_eq!((stored.size, stored.manifest.layers().len()), (0, count));
    }
}

#[test]
fn dockers_second_schema_is_an_image_too() {
    let bench = Bench::new();
    let registry = super::common::Registry::start(&bench.path("registry"));
    let (layout, _) = super::bench::image_in(&bench.path("layout"));
    let made = layout.image(this_architecture(), &[(layer(1), Packing::Gzip), (layer(2), Packing::Gzip)]);
    layout.index(&[(Some("1"), &made)]);
    let to = format!("docker://{}/app:1", registry.host());
    let from = format!("oci:{}:1", layout.folder.display());
    super::common::run("skopeo", &["copy", "-q", "--format=v2s2", "--dest-tls-verify=false", &from, &to]).unwrap();
    let stored = bench.pull(&format!("{}/app:1", registry.host())).unwrap();
    let kind = stored.manifest.media_type().as_ref().map(ToString::to_string);
    assert_eq!(kind.as_deref(), Some("application/vnd.docker.distribution.manifest.v2+json"));
    assert_eq!(stored.size, bench.pull(&from).unwrap().size);
}
