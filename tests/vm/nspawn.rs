//! The same machine in a booted systemd-nspawn: seconds instead of half a minute, at native speed.
//!
//! It has its own systemd, mounts and (empty) network; the kernel and its controllers are the host's. A power cut here ends the
//! processes, but what they wrote stays in the host's cache: only QEMU shows what a real one does.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::image::{Payload, Tree};
use crate::logs;
use crate::machine::{Machine, Output};
use crate::process::{Guarded, run};

const BOOT: Duration = Duration::from_secs(60);

/// A machine in systemd-nspawn.
pub struct Nspawn {
    name: String,
    folder: tempfile::TempDir,
    tree: std::path::PathBuf,
    payload: std::path::PathBuf,
    leader: u32,
    process: Option<Guarded>,
}

impl Nspawn {
    /// Boots a machine and waits until its systemd answers.
    pub fn boot(name: &str, tree: &Tree, payload: &Payload) -> Result<Self> {
        Self::boot_prepared(name, tree, payload, "")
    }

    /// The same after a shell script on the host has prepared its `$root`, with `$payload` beside it.
    pub fn boot_prepared(name: &str, tree: &Tree, payload: &Payload, script: &str) -> Result<Self> {
        let folder = crate::image::run_folder(name)?;
        std::fs::write(folder.path().join("prepare.sh"), script)?;
        std::fs::write(folder.path().join("nspawn.sh"), include_str!("nspawn.sh"))?;
        let (tree, payload) = (tree.path().to_owned(), payload.path().to_owned());
        let mut machine = Self { name: name.to_owned(), folder, tree, payload, leader: 0, process: None };
        machine.start()?;
        Ok(machine)
    }

    fn start(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let console = folder.join("console.log");
        let mut process = Guarded::spawn(
            "unshare",
            |command| {
                command.args(["--mount", "bash"]).arg(folder.join("nspawn.sh"));
                command.args([&self.tree, &self.payload]).arg(folder).env("TERM", "dumb");
            },
            &console,
        )?;
        let end = Instant::now() + BOOT;
        let answers = "systemctl list-jobs >/dev/null";
        loop {
            if let Some(leader) = leader(process.id())
                && enter(leader, answers, Duration::from_secs(5)).is_ok_and(|output| output.code == 0)
            {
                self.leader = leader;
                break;
            }
            if !process.alive() || Instant::now() > end {
                bail!("{} did not boot in systemd-nspawn; {}", self.name, logs::last_lines(&console));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.process = Some(process);
        Ok(())
    }
}

impl Machine for Nspawn {
    fn try_run(&mut self, script: &str, limit: Duration) -> Result<Output> {
        enter(self.leader, script, limit)
    }

    fn reboot(&mut self) -> Result<()> {
        let _ = self.try_run("systemctl --no-block poweroff", Duration::from_secs(60));
        if let Some(mut process) = self.process.take() {
            process.wait(Duration::from_secs(120)).context("waiting for the shutdown")?;
        }
        self.start()
    }

    fn cut_power(&mut self) -> Result<()> {
        self.end();
        self.start()
    }

    fn bring_out(&mut self) {
        logs::bring_out_nspawn(&self.name, self.folder.path());
    }
}

impl Nspawn {
    /// A cable to another machine: each has a card `eth0` on it. It goes when one of them is shut down.
    #[allow(dead_code, reason = "no other program than the scenarios' has two machines")]
    pub fn plug_into(&self, other: &Nspawn) -> Result<()> {
        let (here, there) = (self.leader.to_string(), other.leader.to_string());
        let arguments =
            ["link", "add", "name", "eth0", "netns", &here, "type", "veth", "peer", "name", "eth0", "netns", &there];
        run(Command::new("ip").args(arguments)).map(drop)
    }

    /// The arguments of nsenter(1) that lead into it.
    #[allow(dead_code, reason = "the demo's shell goes through it, a scenario never does")]
    pub fn entrance(&self) -> Vec<String> {
        entrance(self.leader)
    }

    /// With its first process everything in it ends; the rest of the chain follows.
    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = Command::new("kill").args(["-KILL", &self.leader.to_string()]).status();
            let _ = process.wait(Duration::from_secs(10));
        }
    }
}

impl Drop for Nspawn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.bring_out();
        }
        self.end();
    }
}

/// The first process of the machine: a descendant of ours that is number 1 in the innermost namespace.
fn leader(ancestor: u32) -> Option<u32> {
    children(ancestor).into_iter().find_map(|child| {
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).ok()?;
        let numbers = status.lines().find(|line| line.starts_with("NSpid:"))?.split_whitespace().skip(1);
        let numbers: Vec<&str> = numbers.collect();
        if numbers.len() > 1 && numbers.last() == Some(&"1") { Some(child) } else { leader(child) }
    })
}

fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    std::fs::read_to_string(path).unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The arguments of nsenter(1) that lead into the machine.
fn entrance(leader: u32) -> Vec<String> {
    let mut arguments = vec!["--target".to_owned(), leader.to_string()];
    arguments.extend(
        [
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            "--root",
            "--wd",
            "env",
            "-i",
            "HOME=/root",
            "LC_ALL=C.UTF-8",
        ]
        .map(str::to_owned),
    );
    arguments.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    arguments
}

fn enter(leader: u32, script: &str, limit: Duration) -> Result<Output> {
    let output = Command::new("timeout")
        .args(["-k", "2", &limit.as_secs().max(1).to_string(), "nsenter"])
        .args(entrance(leader))
        .args(["bash", "-c", script])
        .stdin(Stdio::null())
        .output()
        .context("entering the machine")?;
    Ok(Output {
        code: output.status.code().unwrap_or(128),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
