//! Quadlet files through the real program.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::host::{Host, Image, assert_same};
use serde_json::{Value, json};

fn config(host: &Host, id: u32) -> Value {
    let path = format!("var/lib/sysctr/containers/web/deployments/{id}/config.json");
    serde_json::from_str(&host.read(&path)).unwrap()
}

#[test]
fn a_quadlet_file_is_installed_updated_and_taken_back() {
    let host = Host::new();
    host.does(&["pull", &host.image("warm", &Image::new())]);
    // What the image says of itself does not count.
    let own = json!({"version": "2.0", "hostFiles": [{"path": "/etc/x"}]});
    let image = host.image("app", &Image::new().manifest(own));
    let before = host.tree();
    let file = host.work.path().join("web.container");
    let path = file.to_str().unwrap();
    let text = |more: &str| {
        format!(
            "[Unit]\nDescription=The web\n\n[Container]\nImage={image}\nNetwork=host\nExec=--port 80\nVolume=data.volume:/data\n{more}\n[Install]\nWantedBy=default.target\n"
        )
    };
    std::fs::write(&file, text("")).unwrap();
    host.refuses(1, &["web.container, line 8: Volume=", "data.volume"], &["install", "--quadlet", path]);
    std::fs::write(host.work.path().join("data.volume"), "[Volume]\nVolumeName=kept\n").unwrap();
    std::fs::write(&file, text("PublishPort=80:80\n")).unwrap();
    host.refuses(1, &["web.container, line 9: PublishPort="], &["install", "--quadlet", path]);
    std::fs::write(&file, text("")).unwrap();
    host.refuses(2, &["--quadlet"], &["install", "--quadlet", path, &image]);
    let drop_ins = host.work.path().join("web.container.d");
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(drop_ins.join("more.conf"), "[Container]\nUser=5\n").unwrap();
    host.refuses(1, &["web.container.d/more.conf", "drop-ins are not read"], &["install", "--quadlet", path]);
    std::fs::remove_dir_all(drop_ins).unwrap();
    assert_same(&before, &host.tree(), "refused");
    host.does(&["install", "--quadlet", path]);
    let unit = host.read("etc/systemd/system.attached/web.service");
    for line in ["Description=The web", "WantedBy=default.target", "Type=notify"] {
        assert!(unit.lines().any(|known| known == line), "{line} is missing in\n{unit}");
    }
    assert_eq!(config(&host, 1)["process"]["args"], json!(["/bin/app", "--port", "80"]));
    let mounts = config(&host, 1)["mounts"].clone();
    let data = mounts.as_array().unwrap().iter().find(|mount| mount["destination"] == "/data").unwrap();
    assert_eq!(data["source"], "/var/lib/web/kept");
    assert!(host.does(&["install", "--quadlet", path]).contains("nothing to do"));
    // The next image has another entry point, and the file is what it was.
    std::fs::remove_file(&file).unwrap();
    host.image("app", &Image::new().config("Entrypoint", json!(["/bin/app", "-v"])));
    host.does(&["update", "web"]);
    assert_eq!(config(&host, 2)["process"]["args"], json!(["/bin/app", "-v", "--port", "80"]));
    host.does(&["uninstall", "--purge", "web"]);
    assert_same(&before, &host.tree(), "uninstalled");
}
