//! What a machine leaves behind when its scenario fails: target/vm-logs/SCENARIO/.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::agent::Agent;

const STATE: &str = "systemctl --no-pager list-units --all; systemctl --no-pager --failed; mount; ps -ef; \
                     find /etc/sysctr /etc/systemd/system.attached /var/lib/sysctr/containers 2>/dev/null | head -200; \
                     journalctl --no-pager -o short-monotonic";

fn folder(name: &str) -> std::io::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/vm-logs").join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Writes the state and journal that the agent can still tell, and the console.
pub fn bring_out(name: &str, agent: Option<&mut Agent>, run: &Path) {
    let Ok(to) = folder(name) else { return };
    for file in ["console.log", "qemu.log"] {
        let _ = std::fs::copy(run.join(file), to.join(file));
    }
    if let Some(Ok(output)) = agent.map(|agent| agent.run(STATE, Duration::from_secs(60))) {
        let _ = std::fs::write(to.join("state"), output.stdout);
    }
    eprintln!("logs of {name}: {}", to.display());
}

/// The same of a machine in systemd-nspawn, whose journal lies on the host's file system.
pub fn bring_out_nspawn(name: &str, run: &Path) {
    let Ok(to) = folder(name) else { return };
    let _ = std::fs::copy(run.join("console.log"), to.join("console.log"));
    if let Ok(file) = File::create(to.join("journal")) {
        let mut journal = Command::new("journalctl");
        journal.args(["--no-pager", "-o", "short-monotonic", "-D"]).arg(run.join("var/log/journal"));
        let _ = journal.stdout(file).stderr(Stdio::null()).status();
    }
    eprintln!("logs of {name}: {}", to.display());
}

/// The end of a console, for an error message.
pub fn last_lines(file: &Path) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    format!("its console ended with\n{}", lines[lines.len().saturating_sub(25)..].join("\n"))
}
