//! What keeps a container from starting is told in one line, in the journal and as the unit's status; nothing of the attempt
//! stays, and the next start works.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::processes;
use crate::machine::Machine;

const DEPLOYMENT: &str = "/var/lib/sysctr/containers/tiny/deployments/1";

/// A place in config.json and what is put there (nothing: the file is cut), systemd's exit code, and words of the cause.
const CAUSES: [(&str, &str, u32, &str); 20] = [
    ("/process/args", r#"["/bin/none"]"#, 203, "program \"/bin/none\" not found in the image"),
    ("/process/args", r#"["/exports/manifest.json"]"#, 203, "may not be executed by user 4711"),
    ("/process/args", r#"["/bin/foreign"]"#, 203, "it is a program for"),
    ("/process/args", r#"["/bin/text"]"#, 203, "neither an ELF program nor a script"),
    ("/process/args", r#"["/bin/script"]"#, 203, "the interpreter \"/no/sh\" that it names is missing"),
    ("/process/args", r#"["/bin/dynamic"]"#, 203, "the dynamic loader"),
    ("/process/cwd", r#""/no""#, 200, "the working directory \"/no\" is missing"),
    ("/process/user/uid", "4294967295", 1, "nobody's number"),
    (
        "/mounts/0",
        r#"{"type": "bind", "source": "/no/source", "destination": "/tmp"}"#,
        226,
        "opening the source /no/source",
    ),
    ("/linux/devices", r#"[{"path": "/bin/x", "type": "c", "major": 1, "minor": 3}]"#, 226, "making the device /bin/x"),
    (
        "/process/rlimits",
        r#"[{"type": "RLIMIT_NOFILE", "soft": 9000000000000, "hard": 9000000000000}]"#,
        205,
        "RLIMIT_NOFILE",
    ),
    (
        "/linux/resources",
        r#"{"memory": {"limit": 1}}"#,
        1,
        "linux.resources.memory is not applied here: set it in the unit",
    ),
    ("/linux/resources", r#"{"pids": {"limit": 5}}"#, 1, "linux.resources.pids is not applied here"),
    ("/linux/resources", r#"{"rdma": {"none": {"hcaHandles": 5}}}"#, 1, "linux.resources.rdma is not applied here"),
    ("/linux/resources", r#"{"unified": {"none.max": "5"}}"#, 1, "linux.resources.unified is not applied here"),
    ("/linux/seccomp", r#"{"defaultAction": "SCMP_ACT_BOGUS"}"#, 1, "unknown variant `SCMP_ACT_BOGUS`"),
    ("/linux/seccomp", r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#, 1, "linux.seccomp refuses execve"),
    (
        "/linux/seccomp/syscalls/0",
        r#"{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 7, "value": 1, "op": "SCMP_CMP_EQ"}]}"#,
        228,
        "the seccomp rule of mount",
    ),
    ("/linux/namespaces/0", r#"{"type": "network", "path": "/no/namespace"}"#, 226, "/no/namespace"),
    ("", "", 1, "reading /var/lib/sysctr/containers/tiny/deployments/1/config.json"),
];

/// The same of a drop-in, with a config.json in which the container keeps to the host's cgroup namespace.
const HIDDEN: (&str, u32, &str) = ("TemporaryFileSystem=/sys/fs/cgroup", 226, "the host has no cgroup v2 mounted");

/// Every cause, one after the other.
pub fn each_cause_is_told_and_the_next_start_works(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run("sysctr -q install oci:/srv/payload/images/tiny:1")?;
    machine.run(&format!(
        "cp {DEPLOYMENT}/config.json /root/whole; mkdir -p /etc/systemd/system/tiny.service.d
         printf '[Service]\\nRestart=no\\n[Unit]\\nStartLimitIntervalSec=0\\n' >/etc/systemd/system/tiny.service.d/test.conf
         systemctl daemon-reload; cd {DEPLOYMENT}/rootfs/bin
         head -c 18 tiny >foreign; case $(uname -m) in aarch64) printf '\\076\\000' ;; *) printf '\\267\\000' ;; esac >>foreign
         tail -c +21 tiny >>foreign; echo hello >text; echo '#!/no/sh' >script; cp /bin/true dynamic; chmod 755 foreign text script dynamic"
    ))?;
    let whole = machine.run("cat /root/whole")?;
    for (place, value, code, words) in CAUSES {
        let text = if place.is_empty() { whole[..100].to_owned() } else { changed(&whole, place, value)? };
        fails_and_starts_again(machine, &text, "", code, words).with_context(|| format!("{place}: {value}"))?;
    }
    let namespaces = r#"[{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}]"#;
    let (line, code, words) = HIDDEN;
    let whole = changed(&whole, "/linux/namespaces", namespaces)?;
    fails_and_starts_again(machine, &whole, line, code, words).context(line)
}

fn fails_and_starts_again(machine: &mut dyn Machine, config: &str, line: &str, code: u32, words: &str) -> Result<()> {
    let around = |line: &str| {
        format!(
            "printf '[Service]\\n{line}\\n' >/etc/systemd/system/tiny.service.d/around.conf; systemctl daemon-reload"
        )
    };
    machine.run(&format!("systemctl stop tiny; systemctl reset-failed tiny 2>/dev/null; {}", around(line)))?;
    let traces = "findmnt -rn -o TARGET | sort; find /run /sys/fs/cgroup/system.slice -maxdepth 1 | grep -v journal | sort; \
        pgrep -c 'sysctr-runtime|tiny' || true";
    let before = machine.run(traces)?;
    machine.run(&format!("cat >{DEPLOYMENT}/config.json <<'END'\n{config}\nEND"))?;
    let cursor = machine.run("journalctl -n 1 --show-cursor -o cat | sed -n 's/^-- cursor: //p'")?;
    machine.fails(1, "systemctl start tiny")?;
    let status = machine.property("tiny", "StatusText")?;
    ensure!(status.contains(words), "the status is {status:?}");
    let ended = machine.property("tiny", "ExecMainStatus")?;
    ensure!(ended == code.to_string(), "it ended with {ended}, not {code}: {status}");
    // By its name: what else the journal knows of a process that ended at once depends on how busy it is. (Not by --after-cursor:
    // that of systemd 252 passes over the first line that matches.)
    let lines = machine.run(&format!(
        "journalctl --sync; journalctl -o cat -t tiny --cursor='{cursor}' | grep -c '^error: ' || true"
    ))?;
    ensure!(lines == "1", "the journal has {lines} lines of it");
    ensure!(processes(machine, "tiny")?.is_empty(), "a process of it stayed");
    let after = machine.run(traces)?;
    ensure!(before == after, "something stayed:\n{before}\n---\n{after}");
    machine.run(&format!("cat /root/whole >{DEPLOYMENT}/config.json; {} && systemctl start tiny", around(""))).map(drop)
}

fn changed(text: &str, place: &str, value: &str) -> Result<String> {
    let mut config: Value = serde_json::from_str(text)?;
    let (parent, key) = place.rsplit_once('/').context("no place")?;
    match config.pointer_mut(parent).context("no such place")? {
        Value::Array(items) => items.push(serde_json::from_str(value)?),
        other => other[key] = serde_json::from_str(value)?,
    }
    Ok(config.to_string())
}
