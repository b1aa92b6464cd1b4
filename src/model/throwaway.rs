//! A container that is thrown away after its program ended, made of one that would be installed.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use oci_spec::{
    image::ImageConfiguration,
    runtime::{Capability, Process, Spec},
};

use super::{
    deployment::OwnedFolder,
    given_mount::{self, GivenMount},
    process::Wishes,
    spec,
    user::User,
};

/// What a person lets one container have, or takes from it.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Mounts beside the image's own.
    pub mounts: Vec<GivenMount>,
    /// Full names of capabilities, or `ALL`.
    pub cap_add: Vec<String>,
    /// The same.
    pub cap_drop: Vec<String>,
    /// In the place of the image's; none where it is empty.
    pub entrypoint: Option<String>,
}

/// Changes the configuration so that nothing of the container lies on the host: its state and what it writes elsewhere are in memory. A
/// command takes the place of the image's Cmd and its Entrypoint stays, unless another one was given: that one stands alone.
pub fn throw_away(
    spec: &mut Spec,
    image: &ImageConfiguration,
    state: &[OwnedFolder],
    wishes: &Wishes,
    user: Option<&User>,
    entrypoint: Option<&String>,
) -> Result<()> {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let source = mount.source().as_deref().and_then(|source| source.to_str()).unwrap_or_default();
        if let Some(folder) = state.iter().find(|folder| folder.path == source) {
            let OwnedFolder { mode, uid, gid, .. } = folder;
            let options = [format!("mode={mode:04o}"), format!("uid={uid}"), format!("gid={gid}")];
            let plain = ["nosuid", "nodev"].map(str::to_owned);
            mount.set_typ(Some("tmpfs".to_owned())).set_source(Some("tmpfs".into()));
            mount.set_options(Some(plain.into_iter().chain(options).collect()));
        }
    }
    if let Some(root) = spec.root_mut() {
        root.set_readonly(Some(false));
    }
    if let Some(annotations) = spec.annotations_mut() {
        annotations.remove(spec::NOTIFY); // there is nobody to tell
    }
    let Some(process) = spec.process_mut() else { return Ok(()) };
    let mut wishes = wishes.clone();
    match entrypoint {
        Some(program) => {
            let program = Some(program).filter(|program| !program.is_empty());
            wishes.args = program.into_iter().cloned().chain(wishes.args).collect();
            ensure!(!wishes.args.is_empty(), "there is no program: neither --entrypoint nor a command names one");
        }
        None if !wishes.args.is_empty() => {
            let entrypoint = image.config().as_ref().and_then(|config| config.entrypoint().clone()).unwrap_or_default();
            wishes.args = [entrypoint, wishes.args].concat();
        }
        None => {}
    }
    wishes.apply(process, user)
}

/// Lays what was given over a configuration that was asked for already: whoever gives it need not accept it.
pub fn give(spec: &mut Spec, given: &Given) -> Result<()> {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    given_mount::add(&mut mounts, &given.mounts);
    spec.set_mounts(Some(mounts));
    spec.process_mut().as_mut().map_or(Ok(()), |process| change_capabilities(process, given))
}

/// A user that is not root gets what was added as ambient capabilities: nothing else would survive the exec.
fn change_capabilities(process: &mut Process, given: &Given) -> Result<()> {
    let (add, drop) = (capabilities(&given.cap_add)?, capabilities(&given.cap_drop)?);
    let root = process.user().uid() == 0;
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<HashSet<Capability>>, add: &HashSet<Capability>| {
        let kept = set.iter().flatten().filter(|name| !drop.contains(name));
        Some(kept.chain(add).copied().collect::<HashSet<Capability>>())
    };
    let none = HashSet::new();
    let kept = if root { &none } else { &add };
    sets.set_bounding(with(sets.bounding(), &add));
    sets.set_effective(with(sets.effective(), &add));
    sets.set_permitted(with(sets.permitted(), &add));
    sets.set_inheritable(with(sets.inheritable(), kept));
    sets.set_ambient(with(sets.ambient(), kept));
    process.set_capabilities(Some(sets));
    Ok(())
}

fn capabilities(names: &[String]) -> Result<HashSet<Capability>> {
    let all = |name: &String| name == "ALL";
    let names = if names.iter().any(all) { spec::every_capability().collect() } else { names.to_vec() };
    serde_json::from_value(names.into()).context("reading the capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_throw_away_container_keeps_the_entrypoint_and_touches_no_state() {
        let image: ImageConfiguration = serde_json::from_value(json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Entrypoint": ["/e"], "Cmd": ["c"]}
        }))
        .expect("an image");
        let made = |entrypoint: Option<&str>, args: &[&str]| {
            let mut spec: Spec = serde_json::from_value(json!({
                "ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"user": {"uid": 5, "gid": 5}, "args": ["/a"], "cwd": "/"},
                "mounts": [
                    {"destination": "/data", "type": "bind", "source": "/var/lib/a", "options": ["rbind", "rw"]},
                    {"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["bind", "ro"]}
                ],
                "annotations": {spec::NOTIFY: "true", "x": "y"}
            }))
            .expect("a spec");
            let state = [OwnedFolder { path: "/var/lib/a".into(), mode: 0o700, uid: 5, gid: 6 }];
            let wishes = Wishes { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Wishes::default() };
            throw_away(&mut spec, &image, &state, &wishes, None, entrypoint.map(str::to_owned).as_ref()).expect("made");
            serde_json::to_value(spec).expect("json")
        };
        let spec = made(None, &["x", "y"]);
        assert_eq!(spec["process"]["args"], json!(["/e", "x", "y"]));
        assert_eq!(made(None, &[])["process"]["args"], json!(["/a"]));
        assert_eq!(made(Some("/o"), &["x"])["process"]["args"], json!(["/o", "x"]));
        assert_eq!(made(Some(""), &["/x"])["process"]["args"], json!(["/x"]));
        assert_eq!(made(Some("/o"), &[])["process"]["args"], json!(["/o"]));
        let tmpfs = json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=0700", "uid=5", "gid=6"]});
        assert_eq!(spec["mounts"][0], tmpfs);
        assert_eq!(spec["mounts"][1]["source"], "/etc/hosts");
        assert_eq!(spec["root"]["readonly"], json!(false));
        assert_eq!(spec["annotations"], json!({"x": "y"}));
    }
    #[test]
    fn capabilities_that_are_given_reach_whoever_runs() {
        let made = |uid: u32, add: &[&str], drop: &[&str]| {
            let sets =
                |names: &[&str]| json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": names, "permitted": names});
            let mut spec: Spec = serde_json::from_value(json!({
                "ociVersion": "1.0.2", "process": {"user": {"uid": uid, "gid": 5}, "args": ["/a"], "cwd": "/",
                    "capabilities": sets(if uid == 0 { &["CAP_KILL", "CAP_CHOWN"] } else { &[] })}
            }))
            .expect("a spec");
            let [cap_add, cap_drop] = [add, drop].map(|names| names.iter().map(|&name| name.to_owned()).collect());
            give(&mut spec, &Given { cap_add, cap_drop, ..Given::default() }).expect("given");
            let sets = spec.process().as_ref().and_then(|process| process.capabilities().clone()).expect("sets");
            [sets.bounding(), sets.effective(), sets.ambient()].map(|set| {
                let mut names: Vec<String> = set.iter().flatten().map(|name| format!("{name:?}")).collect();
                names.sort();
                names.join(" ")
            })
        };
        assert_eq!(made(0, &["CAP_SYS_TIME"], &["CAP_KILL"]), ["Chown SysTime", "Chown SysTime", ""]);
        assert_eq!(made(5, &["CAP_SYS_TIME"], &[]), ["Chown Kill SysTime", "SysTime", "SysTime"]);
        assert_eq!(made(0, &["CAP_SYS_TIME"], &["ALL"]), ["SysTime", "SysTime", ""]);
        assert_eq!(made(0, &["ALL"], &[])[1].split(' ').count(), 41);
    }
}
