//! The config.json that another runtime gets: the deployment's, without what only the bundled runtime knows, and with what systemd
//! passed. Other runtimes hand on few of these things by themselves, and LISTEN_FDNAMES, credentials and the watchdog not at all.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde_json::{Value, json};

use super::check::namespace;
use super::deployment::Deployment;
use super::environment::{Passed, Places};
use super::init::{NOTIFY, NOTIFY_PLACE};

/// What becomes of it.
pub struct Bundle<'a> {
    /// what to run
    pub deployment: &'a Deployment,
    /// what systemd passed
    pub passed: &'a Passed,
    /// the container's own control group, from the hierarchy's root
    pub cgroup: &'a str,
    /// where the unit's credentials are, for the container's user
    pub credentials: Option<PathBuf>,
}

/// Refuses what only the bundled runtime does.
pub fn check(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref().context("linux is missing")?;
    ensure!(
        !namespace(linux, LinuxNamespaceType::User),
        "a user namespace needs the bundled runtime, which shows the image's files as the container's own"
    );
    ensure!(
        spec.root().as_ref().and_then(|root| root.readonly()) == Some(true),
        "a writable root needs the bundled runtime, which keeps the store's files out of reach"
    );
    Ok(())
}

impl Bundle<'_> {
    /// The text of the file.
    pub fn config(&self) -> Result<Vec<u8>> {
        let Deployment { dir, spec, .. } = self.deployment;
        check(spec)?;
        let mut config = serde_json::to_value(spec)?;
        let path = spec.root().as_ref().map_or(Path::new("rootfs"), |root| root.path());
        config["root"]["path"] = json!(dir.join(path));
        config["linux"]["cgroupsPath"] = json!(self.cgroup);
        // DeviceAllow= and the limits are the unit's; the default of some runtimes is to allow hardly any device.
        config["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
        // Some change what a runtime does, and not all of that is an image's to choose.
        if let Some(whole) = config.as_object_mut() {
            whole.remove("annotations");
        }
        let private_pids = spec.linux().as_ref().is_some_and(|linux| namespace(linux, LinuxNamespaceType::Pid));
        if !self.passed.directories.is_empty() {
            let given = spec.mounts().as_deref().unwrap_or_default();
            let image = File::open(dir.join(path)).context("opening the root file system")?;
            config["mounts"] = json!(self.passed.directories.among(given, &image, false).map_err(|(_, error)| error)?);
        }
        let mut mounts = self.mounts(config["mounts"].take());
        let notify = self.passed.notify_socket.as_ref().filter(|_| self.deployment.annotated(NOTIFY));
        if let Some(socket) = notify {
            let socket = socket.to_str().context("NOTIFY_SOCKET is not UTF-8")?;
            mounts.push(bind(Path::new(socket), Path::new(NOTIFY_PLACE), false));
        }
        if let (Some(from), Some(to)) = (&self.credentials, &self.passed.credentials) {
            mounts.push(bind(from, to, true));
        }
        config["mounts"] = Value::Array(mounts);
        config["process"]["env"] = json!(self.environment(spec, private_pids, notify.is_some())?);
        Ok(serde_json::to_vec(&config)?)
    }

    /// Without the option of ours that lets a source be missing, and without those mounts whose source is.
    fn mounts(&self, given: Value) -> Vec<Value> {
        let Value::Array(mut mounts) = given else { return Vec::new() };
        mounts.retain_mut(|mount| {
            let source = mount["source"].as_str().map(|source| self.deployment.dir.join(source));
            let Some(options) = mount["options"].as_array_mut() else { return true };
            let before = options.len();
            options.retain(|option| option != "nofail");
            options.len() == before || source.is_some_and(|source| source.exists())
        });
        if !mounts.iter().any(|mount| mount["destination"] == "/dev") {
            let options = ["nosuid", "strictatime", "mode=755", "size=65536k"];
            mounts.insert(0, json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": options}));
        }
        mounts
    }

    fn environment(&self, spec: &Spec, private_pids: bool, notify: bool) -> Result<Vec<String>> {
        let own = spec.process().as_ref().and_then(|process| process.env().clone()).unwrap_or_default();
        let notify = notify.then(|| NOTIFY_PLACE.into());
        let places = Places { notify, ..Places::default() };
        let all = self.passed.of_program(&own, 1, &places)?;
        let all = all.into_iter().map(|text| text.into_string().context("a variable of systemd's is not UTF-8"));
        // In the host's own numbering nobody knows the program's before it is there.
        let names_pid =
            |text: &String| ["LISTEN_", "WATCHDOG_", "SYSTEMD_EXEC_PID="].iter().any(|start| text.starts_with(start));
        all.filter(|text| private_pids || !text.as_ref().is_ok_and(names_pid)).collect()
    }
}

fn bind(source: &Path, destination: &Path, read_only: bool) -> Value {
    let options = ["bind", "nosuid", "nodev", "noexec"].into_iter().chain(read_only.then_some("ro"));
    json!({"type": "bind", "source": source, "destination": destination, "options": options.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(text: &Value) -> Deployment {
        Deployment { dir: "/d".into(), spec: serde_json::from_value(text.clone()).unwrap() }
    }

    fn spec() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": true},
            "process": {"user": {"uid": 5, "gid": 5}, "args": ["/a"], "cwd": "/", "env": ["A=b"]},
            "mounts": [
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/x", "type": "bind", "source": "/no/such/file", "options": ["bind", "nofail"]},
                {"destination": "/y", "type": "bind", "source": "/dev/null", "options": ["bind", "nofail"]},
            ],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
            "annotations": {"org.sysctr.notify": "true", "run.oci.handler": "krun"},
        })
    }

    #[test]
    fn the_runtime_sees_no_word_of_ours_and_no_annotation_of_the_image() {
        let (deployment, passed) = (deployment(&spec()), Passed::default());
        let bundle = Bundle { deployment: &deployment, passed: &passed, cgroup: "/a/container", credentials: None };
        let config: Value = serde_json::from_slice(&bundle.config().unwrap()).unwrap();
        assert_eq!(config["root"]["path"], "/d/rootfs");
        assert_eq!(config["linux"]["cgroupsPath"], "/a/container");
        assert_eq!(config.get("annotations"), None);
        assert!(!config.to_string().contains("nofail"));
        let places: Vec<_> = config["mounts"].as_array().unwrap().iter().map(|mount| &mount["destination"]).collect();
        assert_eq!(places, ["/dev", "/y"]);
    }

    #[test]
    fn what_systemd_passed_is_in_it() {
        let (deployment, mut passed) = (deployment(&spec()), Passed::default());
        passed.notify_socket = Some("/run/systemd/notify".into());
        passed.credentials = Some("/run/credentials/a.service".into());
        let credentials = Some("/run/sysctr/foreign/a/credentials".into());
        let bundle = Bundle { deployment: &deployment, passed: &passed, cgroup: "/a/container", credentials };
        let config: Value = serde_json::from_slice(&bundle.config().unwrap()).unwrap();
        let env = json!(["A=b", "CREDENTIALS_DIRECTORY=/run/credentials/a.service", "NOTIFY_SOCKET=/dev/notify"]);
        assert_eq!(config["process"]["env"], env);
        let mounts = config["mounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["destination"] == "/dev/notify"));
        assert!(mounts.iter().any(|mount| mount["destination"] == "/run/credentials/a.service"));
    }

    #[test]
    fn what_only_the_bundled_runtime_does_is_refused() {
        for (pointer, value) in
            [("/root/readonly", json!(false)), ("/linux/namespaces", json!([{"type": "mount"}, {"type": "user"}]))]
        {
            let mut spec = spec();
            *spec.pointer_mut(pointer).unwrap() = value;
            let error = check(&serde_json::from_value(spec).unwrap()).expect_err(pointer).to_string();
            assert!(error.contains("needs the bundled runtime"), "{error}");
        }
    }
}
