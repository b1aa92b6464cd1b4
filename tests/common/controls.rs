//! Programs that were built with the cargo feature `controls`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds one beside `shipped`. The build shares what is built of other crates (cargo 1.91 and later), so that this crate alone is
/// compiled again, which takes some seconds; only the program goes to a folder of its own.
pub fn build(shipped: &str) -> PathBuf {
    let shipped = Path::new(shipped);
    let (profile, name) = (shipped.parent().unwrap(), shipped.file_name().unwrap());
    let target = profile.parent().unwrap();
    let own = target.join("controls");
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--features", "controls", "--bin"]).arg(name);
    build.args(profile.ends_with("release").then_some("--release")).current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo tells this test of its own package would look like a change to other crates' build scripts.
    let told = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|start| name.starts_with(start))
    };
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        build.env_remove(name);
    }
    build.env("CARGO_BUILD_BUILD_DIR", target).arg("--target-dir").arg(&own);
    assert!(build.status().unwrap().success(), "{} with controls was not built", name.display());
    own.join(profile.file_name().unwrap()).join(name)
}
