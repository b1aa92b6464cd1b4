//! What keeps a container from starting is told in one line, in the journal and as the unit's status; nothing of the attempt
//! stays, and the next start works.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::processes;
use crate::machine::Machine;

const DEPLOYMENT: &str = "/var/lib/sysctr/containers/tiny/deployments/1";

/// A place in config.json and what is put there (nothing: the file is cut), systemd's exit code, and words of the cause.
const CAUSES: [(&str, &str, u32, &str); 12] = [
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
    ("", "", 1, "reading /var/lib/sysctr/containers/tiny/deployments/1/config.json"),
];

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
    for (place, value, code, words) in CAUSES {
        fails_and_starts_again(machine, place, value, code, words).with_context(|| format!("{place}: {value}"))?;
    }
    Ok(())
}

fn fails_and_starts_again(machine: &mut dyn Machine, place: &str, value: &str, code: u32, words: &str) -> Result<()> {
    machine.run("systemctl stop tiny; systemctl reset-failed tiny 2>/dev/null || true")?;
    let traces = "findmnt -rn -o TARGET | sort; find /run /sys/fs/cgroup/system.slice -maxdepth 1 | grep -v journal | sort; \
        pgrep -c 'sysctr-runtime|tiny' || true";
    let before = machine.run(traces)?;
    let whole = machine.run("cat /root/whole")?;
    let text = if place.is_empty() { whole[..100].to_owned() } else { changed(&whole, place, value)? };
    machine.run(&format!("cat >{DEPLOYMENT}/config.json <<'END'\n{text}\nEND"))?;
    machine.fails(1, "systemctl start tiny")?;
    let status = machine.property("tiny", "StatusText")?;
    ensure!(status.contains(words), "the status is {status:?}");
    let ended = machine.property("tiny", "ExecMainStatus")?;
    ensure!(ended == code.to_string(), "it ended with {ended}, not {code}: {status}");
    let lines = machine.run(
        "id=$(systemctl show --value -p InvocationID tiny); journalctl --sync; journalctl -o cat _SYSTEMD_INVOCATION_ID=$id | grep -c '^error: '",
    )?;
    ensure!(lines == "1", "the journal has {lines} lines of it");
    ensure!(processes(machine, "tiny")?.is_empty(), "a process of it stayed");
    let after = machine.run(traces)?;
    ensure!(before == after, "something stayed:\n{before}\n---\n{after}");
    machine.run(&format!("cat /root/whole >{DEPLOYMENT}/config.json && systemctl start tiny")).map(drop)
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
