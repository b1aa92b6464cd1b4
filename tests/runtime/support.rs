//! A container made of busybox-static, and the real launcher run on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The launcher as built for this test run.
pub const RUNTIME: &str = env!("CARGO_BIN_EXE_sysctr-runtime");

const APPLETS: [&str; 20] = [
    "sh", "true", "false", "cat", "ls", "id", "mount", "env", "sleep", "touch", "grep", "stat", "hostname", "head",
    "kill", "readlink", "cut", "stty", "tty", "test",
];

/// Copies a program by another process: one that is forked here meanwhile, by another test, would have the file open for writing
/// for a moment, and it could not be executed.
pub fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("--").args([from, to]).status().unwrap().success());
}

/// A deployment folder in a temporary place.
pub struct Bundle {
    dir: TempDir,
    /// its config.json, to be changed before a run
    pub spec: Value,
}

impl Bundle {
    /// A container that runs `args`, with what a unit without wishes gets.
    pub fn running(args: &[&str]) -> Self {
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "these tests need /bin/busybox: apt-get install busybox-static, dnf install busybox");
        assert!(nix::unistd::geteuid().is_root(), "these tests make containers: run them as root");
        let dir = tempfile::Builder::new().prefix("sysctr-runtime-").tempdir().unwrap();
        let root = dir.path().join("rootfs");
        for folder in ["bin", "dev", "proc", "sys", "tmp", "etc", "run/credentials", "data"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        copy_program(busybox, &root.join("bin/busybox"));
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/own"), "the image's own\n").unwrap();
        let mut spec = spec(args);
        if std::env::var_os("APART").is_some() {
            let map = json!([{"containerID": 0, "hostID": 2_000_000, "size": 65_536}]);
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        }
        Self { dir, spec }
    }

    /// The same, of a shell script.
    pub fn script(text: &str) -> Self {
        Self::running(&["sh", "-c", text])
    }

    /// Sets a field of config.json by its JSON pointer's parent and key.
    pub fn with(mut self, parent: &str, key: &str, value: Value) -> Self {
        self.spec.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    /// Adds a bind mount of a host folder.
    pub fn binding(mut self, source: &Path, destination: &str, options: &[&str]) -> Self {
        self.spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": destination, "type": "bind", "source": source, "options": options}));
        self
    }

    /// Leaves out what is mounted there.
    pub fn without_mount(mut self, destination: &str) -> Self {
        let mounts = self.spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != destination);
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// The launcher on this deployment, without anything of systemd's in its environment.
    pub fn command(&self) -> Command {
        self.started_by(&[RUNTIME])
    }

    /// The same by another command line, which gets `run DIR` at its end.
    pub fn started_by(&self, line: &[&str]) -> Command {
        fs::write(self.path().join("config.json"), self.spec.to_string()).unwrap();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).arg("run").arg(self.path()).stdin(Stdio::null());
        for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "CREDENTIALS_DIRECTORY"] {
            command.env_remove(name);
        }
        command
    }

    pub fn run(&self) -> Output {
        self.command().output().unwrap()
    }

    /// Does what an install does.
    pub fn prepares(&self) {
        self.command(); // writes config.json
        let output = Command::new(RUNTIME).arg("prepare").arg(self.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Runs it, wants success, gives what it printed.
    pub fn prints(&self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it, wants failure, gives the one line of the error.
    pub fn fails(&self) -> String {
        let output = self.run();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        one_error(&output.stderr)
    }
}

/// Standard error that holds one line, an error, without its newline.
pub fn one_error(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr).into_owned();
    assert!(text.starts_with("error: starting ") && text.lines().count() == 1, "{text:?}");
    text.trim_end().to_owned()
}

fn spec(args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "inside",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "CAP_CHOWN"],
                "permitted": ["CAP_KILL", "CAP_CHOWN"]
            }
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/keys", "/proc/timer_list", "/sys/firmware", "/not/there"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"]
        }
    })
}
