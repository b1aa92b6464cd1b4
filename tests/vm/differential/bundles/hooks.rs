//! hooks: <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>

use serde_json::{Value, json};

use super::{Bundles, WORK};

/// Every kind, in the order in which they run.
const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that leaves a marker; the kind of the container's own namespaces finds it all inside.
fn hook(kind: &str) -> Value {
    let (path, folder) = match kind {
        "startContainer" => ("/probe".to_owned(), "/markers"),
        _ => (format!("{WORK}/probe"), "BUNDLE/markers"),
    };
    json!({"path": path, "args": ["probe", "hook", kind, folder], "env": ["A=1", format!("KIND={kind}")]})
}

fn markers() -> (&'static str, Value) {
    (
        "/mounts/-",
        json!({"destination": "/markers", "type": "bind", "source": "BUNDLE/markers", "options": ["bind", "rw"]}),
    )
}

pub fn add(all: &mut Bundles) {
    for kind in KINDS {
        let lower = kind.to_lowercase();
        let pointer = format!("/hooks/{kind}");
        all.add(format!("hook-{lower}"), &[(&pointer, json!([hook(kind)])), markers()]);
        let mut failing = hook(kind);
        failing["args"] = json!(["probe", "fail"]);
        let failing = json!([failing]);
        all.add(format!("hook-{lower}-fails"), &[(&pointer, failing)]);
        all.add(format!("hook-{lower}-missing"), &[(&pointer, json!([{"path": "/no/such/hook"}]))]);
    }
    let every: Value =
        KINDS.iter().map(|kind| ((*kind).to_owned(), json!([hook(kind)]))).collect::<serde_json::Map<_, _>>().into();
    all.add("hooks-all", &[("/hooks", every), markers()]);
    let mut first = hook("createRuntime");
    first["args"][2] = json!("first");
    all.add("hooks-two-of-a-kind", &[("/hooks/createRuntime", json!([first, hook("createRuntime")])), markers()]);
    all.add("hook-relative", &[("/hooks/createRuntime", json!([{"path": "probe"}]))]);
    let slow = |timeout: i64| json!([{"path": "/bin/sleep", "args": ["sleep", "5"], "timeout": timeout, "env": ["PATH=/bin"]}]);
    all.add("hook-too-slow", &[("/hooks/createRuntime", slow(1))]);
    all.add("hook-timeout-zero", &[("/hooks/createRuntime", slow(0))]);
    let annotated = ("/annotations", json!({"org.example.key": "value"}));
    all.add("hook-sees-annotations", &[("/hooks/createRuntime", json!([hook("createRuntime")])), markers(), annotated]);
    all.add("hooks-empty", &[("/hooks", json!({"prestart": [], "poststop": []}))]);
}
