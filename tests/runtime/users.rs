//! User namespaces: root inside is nobody outside, and what lies on disk keeps plain numbers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::manager::Manager;
use crate::support::{Bundle, RUNTIME, one_error};

/// Where the container's users are on the host.
const BASE: u32 = 1_000_000;

/// The same container with users of its own.
fn apart(mut bundle: Bundle) -> Bundle {
    let map = json!([{"containerID": 0, "hostID": BASE, "size": 65_536}]);
    bundle.spec["linux"]["uidMappings"] = map.clone();
    bundle.spec["linux"]["gidMappings"] = map;
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    bundle
}

fn script(text: &str) -> Bundle {
    apart(Bundle::script(text))
}

#[test]
fn root_inside_is_nobody_of_the_host() {
    let printed = script("id -u; id -g; cat /proc/self/uid_map; grep -E '^(Cap(Eff|Bnd)|NoNewPrivs)' /proc/self/status").prints();
    let words: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!(words[..5], ["0", "0", "0", "1000000", "65536"], "{printed}");
    assert!(printed.contains("CapEff:\t0000000000000021\nCapBnd:\t0000000000000021\nNoNewPrivs:\t1"), "{printed}");
}

#[test]
fn all_its_namespaces_belong_to_its_users_and_the_launcher_is_out_of_reach() {
    let printed = script("for kind in mnt pid ipc uts cgroup user net; do readlink /proc/self/ns/$kind; done; ls /proc | grep -c '^[0-9]'").prints();
    let own: Vec<String> = ["mnt", "pid", "ipc", "uts", "cgroup", "user"]
        .map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string())
        .to_vec();
    for namespace in &own {
        assert!(!printed.contains(namespace), "{namespace} is the host's: {printed}");
    }
    let net = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(printed.contains(net.to_str().unwrap()), "the host's network was asked for: {printed}");
}

#[test]
fn the_image_and_a_folder_of_state_have_plain_owners_inside_and_on_disk() {
    let host = tempfile::tempdir().unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(host.path().join("old"), "x").unwrap();
    std::os::unix::fs::chown(host.path().join("old"), Some(33), Some(34)).unwrap();
    let script = "stat -c '%u:%g %n' /etc/own /data /data/old; echo y > /data/new; touch /new || echo ro";
    let bundle = apart(Bundle::script(script).binding(host.path(), "/data", &["rbind", "ridmap"]));
    assert_eq!(bundle.prints(), "0:0 /etc/own\n0:0 /data\n33:34 /data/old\nro\n");
    let new = fs::metadata(host.path().join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 0));
    // Without the option it is a folder of strangers.
    let bundle = apart(
        Bundle::script("stat -c %u /data; ls /data || echo closed").binding(host.path(), "/data", &["rbind"]),
    );
    assert_eq!(bundle.prints(), "65534\nclosed\n");
}
