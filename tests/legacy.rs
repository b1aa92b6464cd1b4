//! Images of atomic's format through the real program: each row of docs/legacy.md that is about more than a text.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::host::{Host, Image, assert_same};
use serde_json::{Value, json};

const SERVICE: &str = "[Unit]\nDescription=The relay $NAME\n\n[Service]\nExecStart=$EXEC_START\nExecStop=$EXEC_STOP\nRestart=on-crash\n\
    WorkingDirectory=$DESTDIR\nRuntimeDirectory=${NAME}\n\n[Install]\nWantedBy=multi-user.target\n";
const CONFIG: &str = r#"{"ociVersion": "0.3.0", "platform": {"os": "linux", "arch": "amd64"},
    "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["/bin/app", "--to=$RECEIVER", "--port=$PORT"],
        "env": ["PATH=/bin", "ID=$UUID"], "cwd": "/", "noNewPrivileges": true},
    "root": {"path": "rootfs", "readonly": true}, "hooks": {},
    "mounts": [{"destination": "/data", "type": "bind", "source": "${STATE_DIRECTORY}/${NAME}", "options": ["rbind", "rw", "mode=755"]}
        $ADDTL_MOUNTS],
    "linux": {"capabilities": ["CAP_KILL"], "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]}}"#;

fn relay() -> Image {
    let defaults = json!({"PORT": "8081", "ADDTL_MOUNTS": ""});
    Image::new()
        .manifest(json!({"version": "1.0", "defaultValues": defaults}))
        .export("service.template", SERVICE)
        .export("config.json.template", CONFIG)
        .export("tmpfiles.template", "d ${STATE_DIRECTORY}/${NAME} 0700 ${HOST_UID} ${HOST_GID} - -\n")
}

fn config(host: &Host, id: u32) -> Value {
    let path = format!("var/lib/sysctr/containers/relay/deployments/{id}/config.json");
    serde_json::from_str(&host.read(&path)).unwrap()
}

#[test]
fn an_old_image_installs_updates_and_goes_without_a_trace() {
    let host = Host::new();
    host.does(&["pull", &host.image("warm", &Image::new())]);
    let before = host.tree();
    let image = host.image("relay", &relay());
    host.refuses(1, &["/exports/config.json.template, line 2", "RECEIVER", "missing"], &["install", "--yes", &image]);
    host.refuses(4, &["run without a filter of system calls"], &["-q", "install", "--set", "RECEIVER=Pluto", &image]);
    assert_same(&before, &host.tree(), "refused");
    let outcome = host.sysctr(&["install", "--yes", "--set", "RECEIVER=Pluto", &image]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for word in ["note: ", "0.3.0", "Restart=on-crash", "linux.capabilities", "linux.rlimits"] {
        assert!(outcome.err.contains(word), "{word}: {outcome:?}");
    }
    let unit = host.read("etc/systemd/system.attached/relay.service");
    let launch = "ExecStart=/usr/libexec/sysctr/sysctr-runtime run /var/lib/sysctr/containers/relay/deployments/1\n";
    assert!(
        unit.contains("Description=The relay relay\n")
            && unit.contains(launch)
            && unit.contains("Restart=on-failure\n"),
        "{unit}"
    );
    assert_eq!(host.read("etc/tmpfiles.d/sysctr-relay.conf"), "d /var/lib/relay 0700 0 0 - -\n");
    let first = config(&host, 1);
    assert_eq!(first["process"]["args"], json!(["/bin/app", "--to=Pluto", "--port=8081"]));
    let uuid = first["process"]["env"][1].clone();
    assert!(uuid.as_str().unwrap().len() == "ID=".len() + 36, "{uuid}");
    // Once more is nothing to do; with other values it says what is there.
    assert!(host.does(&["install", "--set", "RECEIVER=Pluto", &image]).contains("nothing to do"));
    host.refuses(1, &["relay is installed already"], &["install", "--set", "RECEIVER=Mars", &image]);
    // An update keeps what was given, and the UUID.
    let mounts = r#"ADDTL_MOUNTS=, {"destination": "/srv", "type": "bind", "source": "/srv", "options": ["rbind", "ro", "rro"]}"#;
    host.does(&["update", "--yes", "relay", "--set", mounts]);
    let second = config(&host, 2);
    assert_eq!((&second["process"]["args"], &second["process"]["env"][1]), (&first["process"]["args"], &uuid));
    assert_eq!(second["mounts"][1]["source"], "/srv");
    host.does(&["rollback", "relay"]);
    assert!(host.read("etc/systemd/system.attached/relay.service").contains("deployments/1\n"));
    host.does(&["uninstall", "relay"]);
    assert_same(&before, &host.tree(), "uninstalled");
}

#[test]
fn a_name_that_somebody_has_is_told_with_the_file() {
    let host = Host::new();
    host.write("etc/systemd/system/relay.service", "[Service]\nExecStart=/bin/true\n");
    let image = host.image("relay", &relay());
    host.refuses(
        1,
        &["the name relay is taken by", "relay.service"],
        &["install", "--yes", "--set", "RECEIVER=x", &image],
    );
}

#[test]
fn an_image_that_is_run_once_is_not_installed() {
    let host = Host::new();
    let image = host.image("relay", &relay().config("Labels", json!({"atomic.run": "once"})));
    let shown = host.json(&["install", "--dry-run", &image]);
    assert_eq!(shown, json!({"name": "relay", "runOnce": true}));
    // Below another root nothing runs.
    let outcome = host.sysctr(&["install", "--yes", &image]);
    assert!(outcome.code == 1 && outcome.err.contains("only the running system can"), "{outcome:?}");
    assert!(!host.at("etc/systemd/system.attached").exists());
}

#[test]
fn lint_tells_what_is_changed_and_asked_for() {
    let host = Host::new();
    let image = host.image("relay", &relay());
    host.does(&["pull", &image]);
    let found = host.json(&["lint", &image]);
    assert_eq!(found["ok"], true);
    let text = found.to_string();
    for word in ["Restart=on-crash", "linux.capabilities", "run without a filter"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

/// A file of the host's shown on another one, until it is dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn on(path: &std::path::Path) -> Mounted {
        rustix::mount::mount_bind("/proc/self/status", path).unwrap();
        Mounted(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// The root of a running container is an overlay, and files of two of its layers may have one number (overlayfs, "Inode properties").
#[test]
fn files_of_one_number_on_two_disks_are_two() {
    use std::os::unix::fs::MetadataExt as _;
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mount = |arguments: &[&str], name: &str| {
        let path = at(name);
        std::fs::create_dir(&path).unwrap();
        common::run("mount", &[arguments, &[path.to_str().unwrap()]].concat()).unwrap();
        Mounted(path)
    };
    let layers = ["tool", "app"].map(|name| {
        let layer = mount(&["-t", "tmpfs", "layer"], &format!("layer-{name}"));
        std::fs::create_dir_all(layer.0.join("usr/bin")).unwrap();
        std::fs::write(layer.0.join("usr/bin").join(name), name).unwrap();
        std::fs::hard_link(layer.0.join("usr/bin").join(name), layer.0.join("usr/bin").join(format!("{name}-again")))
            .unwrap();
        layer
    });
    let exports = layers[0].0.join("exports");
    std::fs::create_dir(&exports).unwrap();
    std::fs::write(exports.join("service.template"), SERVICE).unwrap();
    std::fs::write(exports.join("config.json"), CONFIG.replace("$ADDTL_MOUNTS", "").replace('$', "")).unwrap();
    let lower = format!("xino=off,lowerdir={}:{}", layers[0].0.display(), layers[1].0.display());
    let root = mount(&["-t", "overlay", "-o", &lower, "root"], "rootfs");
    let number = |name: &str| root.0.join("usr/bin").join(name).metadata().unwrap().ino();
    assert_eq!(number("tool"), number("app"), "the control");
    host.does(&["install", "--yes", "--rootfs", root.0.to_str().unwrap(), "--name", "relay"]);
    for (name, content) in [("tool", "tool"), ("tool-again", "tool"), ("app", "app"), ("app-again", "app")] {
        let installed = format!("var/lib/sysctr/containers/relay/deployments/1/rootfs/usr/bin/{name}");
        assert_eq!(host.read(&installed), content, "{name}");
    }
}

/// Somebody goes on removing files there.
#[test]
fn a_root_file_system_that_changes_while_it_is_read_is_installed() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    let (exports, busy) = (folder.path().join("exports"), folder.path().join("usr"));
    for path in [&exports, &busy] {
        std::fs::create_dir(path).unwrap();
    }
    std::fs::write(exports.join("service.template"), SERVICE).unwrap();
    std::fs::write(exports.join("config.json"), CONFIG.replace("$ADDTL_MOUNTS", "").replace('$', "")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let paths: Vec<_> = (0..500).map(|number| busy.join(number.to_string())).collect();
            while !done.load(Ordering::Relaxed) {
                paths.iter().for_each(|path| std::fs::write(path, "x").unwrap());
                paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
            }
        });
        for number in 0..12 {
            let place = folder.path().to_str().unwrap();
            let outcome = host.sysctr(&["install", "--yes", "--rootfs", place, "--name", &format!("relay-{number}")]);
            let is_well = outcome.code == 0;
            if !is_well || number == 11 {
                done.store(true, Ordering::Relaxed);
            }
            assert!(is_well, "{}", outcome.err);
        }
    });
}

/// Where the old tool shared the folder, the container has what lay there when it was installed.
#[test]
fn an_unpacked_root_file_system_is_installed_as_it_was() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    let (place, root) = (folder.path().to_str().unwrap(), folder.path().join("rootfs"));
    host.refuses(1, &["is no root file system"], &["install", "--rootfs", place, "--name", "relay"]);
    host.refuses(2, &["--rootfs"], &["install", "--rootfs", place, "localhost/relay"]);
    let long = format!("usr/share/{}/{}", "l".repeat(120), "n".repeat(200));
    for (path, content) in [
        ("usr/bin/app", "app 1"),
        ("exports/service.template", SERVICE),
        ("exports/config.json", &CONFIG.replace("$ADDTL_MOUNTS", "").replace('$', "")),
        (&long, "far"),
    ] {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), content).unwrap();
    }
    let app = root.join("usr/bin/app");
    std::fs::set_permissions(&app, PermissionsExt::from_mode(0o4711)).unwrap();
    std::fs::hard_link(&app, root.join("usr/bin/same")).unwrap();
    symlink("/etc/shadow", root.join("usr/secret")).unwrap();
    std::os::unix::fs::chown(root.join(&long), Some(33), Some(44)).unwrap();
    let file = std::fs::File::open(root.join(&long)).unwrap();
    rustix::fs::fsetxattr(&file, "user.kept", b"\0\xff", rustix::fs::XattrFlags::empty()).unwrap();
    // What is mounted there, as a running container's, is the host's and stays out.
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/resolv.conf"), "").unwrap();
    let mounted = Mounted::on(&root.join("etc/resolv.conf"));
    // By the folder or by the root itself, it is the same image.
    let inner = root.to_str().unwrap();
    host.does(&["install", "--yes", "--rootfs", place, "--name", "relay"]);
    assert!(host.does(&["install", "--yes", "--rootfs", inner, "--name", "relay"]).contains("nothing to do"));
    drop(mounted);
    let checkout = |id: u32| host.at(&format!("var/lib/sysctr/containers/relay/deployments/{id}/rootfs"));
    assert!(checkout(1).join("etc").is_dir() && !checkout(1).join("etc/resolv.conf").exists());
    std::fs::remove_file(root.join("etc/resolv.conf")).unwrap();
    let about = std::fs::metadata(checkout(1).join(&long)).unwrap();
    assert_eq!((about.uid(), about.gid()), (33, 44));
    let mut kept = [1; 4];
    assert_eq!(rustix::fs::getxattr(checkout(1).join(&long), "user.kept", &mut kept[..]).unwrap(), 2);
    assert_eq!(kept[..2], [0, 0xff]);
    assert_eq!(std::fs::metadata(checkout(1).join("usr/bin/same")).unwrap().mode() & 0o7777, 0o4711);
    assert_eq!(std::fs::read_link(checkout(1).join("usr/secret")).unwrap().to_str(), Some("/etc/shadow"));
    // What happens in the folder is nothing to the container until it is updated.
    let broken = host.at(&format!("var/lib/sysctr/containers/relay/deployments/1/rootfs/{long}"));
    std::fs::remove_file(&broken).unwrap();
    host.does(&["verify", "--repair"]);
    std::fs::write(&app, "app 2").unwrap();
    host.does(&["verify"]);
    assert_eq!(std::fs::read_to_string(checkout(1).join("usr/bin/app")).unwrap(), "app 1");
    host.does(&["update", "relay"]);
    assert_eq!(std::fs::read_to_string(checkout(2).join("usr/bin/app")).unwrap(), "app 2");
    assert!(host.does(&["update", "relay"]).contains("relay"));
    assert!(!checkout(3).exists());
    std::fs::remove_dir_all(&root).unwrap();
    host.refuses(1, &["is no root file system"], &["update", "relay"]);
    host.does(&["rollback", "relay"]);
    host.does(&["uninstall", "relay"]);
}
