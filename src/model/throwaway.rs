//! A container that is thrown away after its program ended, made of one that would be installed.

use anyhow::Result;
use oci_spec::{image::ImageConfiguration, runtime::Spec};

use super::{deployment::OwnedFolder, process::Wishes, spec, user::User};

/// Changes the configuration so that nothing of the container lies on the host: its state and what it writes elsewhere are in memory. A command takes the place of the
/// image's Cmd, its Entrypoint stays.
pub fn throw_away(
    spec: &mut Spec,
    image: &ImageConfiguration,
    state: &[OwnedFolder],
    wishes: &Wishes,
    user: Option<&User>,
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
    if !wishes.args.is_empty() {
        let entrypoint = image.config().as_ref().and_then(|config| config.entrypoint().clone()).unwrap_or_default();
        wishes.args = [entrypoint, wishes.args].concat();
    }
    wishes.apply(process, user)
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
        let made = |args: &[&str]| {
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
            throw_away(&mut spec, &image, &state, &wishes, None).expect("made");
            serde_json::to_value(spec).expect("json")
        };
        let spec = made(&["x", "y"]);
        assert_eq!(spec["process"]["args"], json!(["/e", "x", "y"]));
        assert_eq!(made(&[])["process"]["args"], json!(["/a"]));
        let tmpfs = json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=0700", "uid=5", "gid=6"]});
        assert_eq!(spec["mounts"][0], tmpfs);
        assert_eq!(spec["mounts"][1]["source"], "/etc/hosts");
        assert_eq!(spec["root"]["readonly"], json!(false));
        assert_eq!(spec["annotations"], json!({"x": "y"}));
    }
}
