//! Images of one small web server, `web.c`, each with another health or another test of it.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::tiny;

/// Writes the OCI folders `web-...` into `folder`.
pub fn images(folder: &Path) -> Result<()> {
    let program = folder.join("web-program");
    tiny::compile("web.c", &program)?;
    let image = |name: &str, args: Value, network: &str, health: Value| {
        let mut manifest = json!({"version": "2.0", "description": name,
            "container": {"user": "4711", "network": network, "args": args}});
        if let Value::Object(test) = health {
            let quick = json!({"interval": "500ms", "retries": 2, "timeout": "1s"});
            let all = quick.as_object().cloned().unwrap_or_default().into_iter().chain(test);
            manifest["health"] = Value::Object(all.collect());
        }
        let manifest = manifest.to_string();
        let more = [("exports/manifest.json", manifest.as_str())];
        tiny::write(&folder.join(format!("web-{name}")), &program, &more, json!({"User": "4711"}))
    };
    let serving = |status: &str| json!(["/bin/tiny", "serve", "8181", status]);
    let http = || json!({"http": "http://127.0.0.1:8181/"});
    image("good", serving("200"), "host", http())?;
    image(
        "late",
        json!(["/bin/tiny", "serve", "8181", "200", "2"]),
        "host",
        json!({"http": "8181", "startPeriod": "20s"}),
    )?;
    image("503", serving("503"), "host", http())?;
    image("503-untested", serving("503"), "host", Value::Null)?;
    // Nobody follows it.
    image("moved", serving("302"), "private", http())?;
    image("confined", serving("200"), "private", json!({"exec": ["/bin/tiny", "confined", "4711"]}))?;
    image("ends-with-3", serving("200"), "private", json!({"exec": ["tiny", "end", "3"]}))?;
    image("hangs", serving("200"), "private", json!({"exec": ["/bin/tiny", "hang"]}))?;
    image("connects", serving("200"), "private", json!({"tcp": "127.0.0.1:8181"}))?;
    image("other-port", serving("200"), "private", json!({"tcp": "8182"}))?;
    image("elsewhere", serving("200"), "host", json!({"tcp": "192.0.2.1:8181"}))?;

    let docker = |name: &str, code: &str| {
        let config = json!({"User": "4711", "Cmd": ["/bin/tiny", "serve", "8181", "200"],
            "Healthcheck": {"Test": ["CMD", "/bin/tiny", "end", code], "Interval": 500_000_000, "Retries": 2}});
        tiny::write(&folder.join(format!("web-docker-{name}")), &program, &[], config)
    };
    docker("good", "0")?;
    docker("bad", "4")
}
