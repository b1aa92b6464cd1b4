//! The first `/exports` of an image: what its config says already, and comments on what else there is.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde_json::{Value as Json, json};

use super::name::ContainerName;

/// The unit, as the default one is, with what else one may want of it.
const SERVICE: &str = "\
# The unit that systemd runs; lines that begin with '#' say what else it may have. Each name in double braces is filled in at install:
# name, description, exec_start, image_name, and the values of manifest.json as values.NAME. What this file leaves out (Delegate=,
# KillMode=, the order that manifest.json asks for) sysctr adds. Without this file the image gets the same unit.
[Unit]
Description={{description}}
# StartLimitIntervalSec=60

[Service]
Type=notify
ExecStart={{exec_start}}
Restart=on-failure
# RestartSec=5
# TimeoutStopSec=30
# MemoryMax=512M
# LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
";

/// The files by their path in `/exports`.
pub fn exports(name: &ContainerName, config: Option<&ImageConfiguration>) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("manifest.json".to_owned(), manifest(name, config)),
        ("service.hbs".to_owned(), SERVICE.to_owned()),
        ("README.md".to_owned(), readme(name, config)),
    ])
}

fn manifest(name: &ContainerName, image: Option<&ImageConfiguration>) -> String {
    let config = image.and_then(|image| image.config().as_ref());
    let labels = config.and_then(|config| config.labels().clone()).unwrap_or_default();
    let label =
        |key: &str| labels.get(&format!("org.opencontainers.image.{key}")).filter(|text| !text.trim().is_empty());
    let description = label("description").or(label("title"));
    let description = description.and_then(|text| text.lines().next()).unwrap_or(name.as_str());
    let description: String = description.chars().filter(|c| !c.is_control()).take(120).collect();
    let mut lines = vec![entry("version", &json!("2.0")), entry("description", &json!(description.trim()))];
    lines.push("\"values\": {}".to_owned());
    let user = config.and_then(|config| config.user().as_deref()).filter(|user| !user.is_empty());
    let mut container = vec![entry("network", &json!("host"))];
    container.extend(user.map(|user| entry("user", &json!(user))));
    lines.push(format!("\"container\": {{\n    {}\n  }}", container.join(",\n    ")));
    if let [port] = ports(image).as_slice() {
        lines.push(format!("\"health\": {{ {} }}", entry("tcp", &json!(port.to_string()))));
    }
    format!("{{\n  {}\n}}\n", lines.join(",\n  "))
}

fn entry(key: &str, value: &Json) -> String {
    format!("{key:?}: {value}")
}

/// The TCP ports that the config names.
fn ports(image: Option<&ImageConfiguration>) -> Vec<u16> {
    let config = image.and_then(|image| image.config().as_ref());
    let named = config.and_then(|config| config.exposed_ports().clone()).unwrap_or_default();
    let tcp = named.iter().filter_map(|port| match port.split_once('/') {
        Some((number, "tcp")) => number.parse().ok(),
        None => port.parse().ok(),
        Some(_) => None,
    });
    tcp.collect()
}

/// What JSON has no comments for.
fn readme(name: &ContainerName, image: Option<&ImageConfiguration>) -> String {
    let config = image.and_then(|image| image.config().as_ref());
    let list = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let program = [
        list(config.and_then(|config| config.entrypoint().as_ref())),
        list(config.and_then(|config| config.cmd().as_ref())),
    ]
    .concat();
    let program =
        if program.is_empty() { "Entrypoint and Cmd of the image".to_owned() } else { format!("`{}`", json!(program)) };
    let volumes = config.and_then(|config| config.volumes().clone()).unwrap_or_default();
    let volumes = match volumes.as_slice() {
        [] => "the image has no volumes".to_owned(),
        some => format!("the image's volumes ({}) lie below /var/lib/{name}", some.join(", ")),
    };
    format!(
        "# /exports

`sysctr lint DIR` judges these files, `sysctr install --dry-run IMAGE` shows what they come to, `sysctr inspect --schema` prints the schema
of manifest.json.

| in manifest.json | is | for now |
| --- | --- | --- |
| `values` | settings of the admin's, such as `\"port\": {{\"type\": \"integer\", \"default\": 80, \"minimum\": 1, \"maximum\": 65535, \"description\": \"...\"}}`; a password is a `string` with `\"secret\": true` | none |
| `container.args` | the program and its arguments, where `{{{{values.port}}}}` may stand | {program} |
| `container.env` | variables, beside those of the image | none |
| `container.network` | `host`, or `private` for loopback alone | `host` |
| `container.capabilities` | `{{\"add\": [], \"drop\": []}}` against the default set | the default set |
| `container.mounts` | `[{{\"source\": \"/var/www\", \"target\": \"/var/www\", \"options\": [\"ro\"]}}]`; an admin has to accept it | none |
| `container.notify` | `true` if the program says itself when it is ready (sd_notify) | it counts as started once it runs |
| `state.folders` | what outlives an update, such as `[{{\"path\": \"/var/lib/{name}\", \"mode\": \"0700\"}}]` | {volumes} |
| `after`, `requires`, `wants` | containers or units | none |
| `health` | how to tell that it works: `http`, `tcp` or `exec` | {health} |
",
        health = match ports(image).as_slice() {
            [port] => format!("port {port} answers"),
            _ => "it stays up".to_owned(),
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{lint, manifest::Manifest};

    #[test]
    fn what_it_writes_is_a_manifest_and_says_what_the_image_says() {
        let config = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Entrypoint": ["/usr/bin/app"], "User": "app", "Labels": {"org.opencontainers.image.description": "A \"program\"\nmore"},
                "ExposedPorts": {"8080/tcp": {}, "53/udp": {}}, "Volumes": {"/data": {}}}}"#;
        let config: ImageConfiguration = serde_json::from_str(config).expect("a config");
        let files = exports(&"app".parse().expect("a name"), Some(&config));
        let manifest = Manifest::parse(&files["manifest.json"]).expect("a manifest");
        assert_eq!(manifest.description.as_deref(), Some("A \"program\""));
        assert_eq!(manifest.container.user.as_deref(), Some("app"));
        assert_eq!(manifest.health.and_then(|health| health.tcp).as_deref(), Some("8080"));
        assert!(files["README.md"].contains("/usr/bin/app") && files["README.md"].contains("/data"));
        let plain = exports(&"app".parse().expect("a name"), None);
        Manifest::parse(&plain["manifest.json"]).expect("a manifest");
        for files in [files, plain] {
            let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
            assert_eq!(lint::tests::linted_with("app:x:1:1::/:/bin/sh\n", &files), Vec::<String>::new());
        }
    }
}
