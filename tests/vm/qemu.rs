//! A machine in QEMU: its own kernel, its own disk, and a power cord that can be pulled.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::agent::Agent;
use crate::image::{Payload, Tree};
use crate::logs;
use crate::machine::{Machine, Output};
use crate::process::{Guarded, run};

/// Emulated, with a dozen builds beside it, a boot may take its time.
const BOOT: Duration = Duration::from_secs(900);

/// A machine in QEMU. Its disks are overlays: what a scenario does is gone with it.
pub struct Qemu {
    name: String,
    folder: tempfile::TempDir,
    kernel: PathBuf,
    network_card: bool,
    // The agent goes before the process that it is in.
    agent: Option<Agent>,
    process: Option<Guarded>,
    _alone: MutexGuard<'static, ()>,
}

/// An emulated processor takes a real one: two such machines at once would be slower than one behind the other.
static ALONE: Mutex<()> = Mutex::new(());

impl Qemu {
    /// Boots a machine and waits for its agent.
    pub fn boot(name: &str, tree: &Tree, payload: &Payload) -> Result<Self> {
        let folder = crate::image::run_folder(name)?;
        Self::boot_disk(name, folder, &tree.disk(), tree, payload)
    }

    /// The same after a shell script on the host has prepared its `$root`, with `$payload` beside it. The programs are there from its
    /// first boot on; else they come with the payload, which is mounted in the midst of it.
    #[allow(dead_code, reason = "no other program than the scenarios' prepares a disk")]
    pub fn boot_prepared(name: &str, tree: &Tree, payload: &Payload, script: &str) -> Result<Self> {
        let folder = crate::image::run_folder(name)?;
        let (disk, root) = (folder.path().join("prepared"), folder.path().join("root"));
        run(Command::new("cp").arg("--sparse=always").args([&tree.disk(), &disk]))?;
        std::fs::create_dir(&root)?;
        run(Command::new("mount").args(["-o", "loop"]).args([&disk, &root]))?;
        let script = format!("cp -a $payload/root/. $root/\n{script}");
        let prepared =
            run(Command::new("bash").args(["-euc", &script]).env("root", &root).env("payload", payload.path()));
        run(Command::new("umount").arg(&root))?;
        prepared?;
        Self::boot_disk(name, folder, &disk, tree, payload)
    }

    fn boot_disk(name: &str, folder: tempfile::TempDir, disk: &Path, tree: &Tree, payload: &Payload) -> Result<Self> {
        overlay(disk, &folder.path().join("disk.qcow2"))?;
        overlay(&payload.disk(), &folder.path().join("payload.qcow2"))?;
        let kernel = tree.kernel()?;
        let mut machine = Self {
            name: name.to_owned(),
            folder,
            kernel,
            network_card: true,
            agent: None,
            process: None,
            _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
        };
        machine.start()?;
        Ok(machine)
    }

    /// From the next start on there is no network card in it.
    pub fn without_network_card(&mut self) {
        self.network_card = false;
    }

    /// From the next start on there is one again.
    pub fn with_network_card(&mut self) {
        self.network_card = true;
    }

    fn start(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let socket = folder.join("agent");
        let console = folder.join("console.log");
        let drive = |file: &str| {
            format!("file={},format=qcow2,if=none,id={file}", folder.join(file).with_extension("qcow2").display())
        };
        // `quiet` would save little, and a boot that hangs would leave nothing to read.
        // On a busy host an emulated timer can seem dead to the kernel's check of it, which then gives up.
        let kernel_line =
            "root=/dev/nvme0n1 rw console=ttyS0 net.ifnames=0 panic=-1 no_timer_check systemd.show_status=1 loglevel=4";
        // Beside another machine it would miss the time-outs that its systemd has for devices.
        let mut process = Guarded::spawn(
            "nice",
            |command| {
                command.args(["-n", "-10", "qemu-system-x86_64"]);
                command.args(acceleration()).args(["-smp", "2", "-m", "2048"]);
                command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
                command.arg("-kernel").arg(&self.kernel).args(["-append", kernel_line]);
                command.args(["-drive", &drive("disk"), "-device", "nvme,drive=disk,serial=disk"]);
                command.args(["-drive", &drive("payload"), "-device", "virtio-blk-pci,drive=payload"]);
                command.args(["-device", "virtio-serial-pci", "-chardev"]);
                command.arg(format!("socket,id=agent,path={},server=on,wait=off", socket.display()));
                command.args([
                    "-device",
                    "virtserialport,chardev=agent,name=sysctr.agent",
                    "-device",
                    "virtio-rng-pci",
                ]);
                command.args(["-chardev", &format!("file,id=console,append=on,path={}", console.display())]);
                command.args(["-serial", "chardev:console"]);
                if self.network_card {
                    // `restrict`: a card with DHCP and nothing behind it. What is installed comes from inside.
                    command.args(["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net"]);
                }
            },
            &folder.join("qemu.log"),
        )?;
        let agent = Agent::connect(&socket, BOOT, || process.alive())
            .with_context(|| format!("booting {} in QEMU; {}", self.name, logs::last_lines(&console)))?;
        self.agent = Some(agent);
        self.process = Some(process);
        Ok(())
    }

    /// Its disk as a power cut at this moment would leave it: a copy of the overlay. The machine stands still meanwhile.
    pub fn copy_disk(&self, to: &Path) -> Result<()> {
        let process = self.process.as_ref().with_context(|| format!("{} is off", self.name))?.id();
        let signal = |name: &str| run(Command::new("kill").args([name, &process.to_string()]));
        signal("-STOP")?;
        let copied = stands_still(process).and_then(|()| {
            run(Command::new("cp").arg("--sparse=always").args([&self.folder.path().join("disk.qcow2"), to]))
        });
        signal("-CONT")?;
        copied.map(drop)
    }

    fn stopped(&mut self) -> Result<()> {
        self.agent = None;
        self.process = None;
        // A socket that stays would be connected to before the new process listens on it.
        match std::fs::remove_file(self.folder.path().join("agent")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Machine for Qemu {
    fn try_run(&mut self, script: &str, limit: Duration) -> Result<Output> {
        let Some(agent) = &mut self.agent else { bail!("{} is off", self.name) };
        agent.run(script, limit)
    }

    fn reboot(&mut self) -> Result<()> {
        // The answer races the end of the agent, and may be lost: that the machine goes down is what counts.
        let _ = self.try_run("systemctl --no-block reboot", Duration::from_secs(60));
        if let Some(process) = &mut self.process {
            process.wait(Duration::from_secs(180)).context("waiting for the shutdown")?;
        }
        self.stopped()?;
        self.start()
    }

    fn cut_power(&mut self) -> Result<()> {
        if let Some(process) = &mut self.process {
            process.kill()?;
        }
        self.stopped()?;
        self.start()
    }

    fn bring_out(&mut self) {
        logs::bring_out(&self.name, self.agent.as_mut(), self.folder.path());
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.bring_out();
        }
    }
}

/// KVM only where the processor says that it can: elsewhere /dev/kvm may be there and the guest hangs. With a thread for each emulated
/// processor, one at times trips over code of the kernel that the other is just patching.
fn acceleration() -> [&'static str; 4] {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = processor.split_whitespace().any(|word| word == "vmx" || word == "svm");
    if able && Path::new("/dev/kvm").exists() {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=single", "-cpu", "max"]
    }
}

/// Waits until no thread is in the midst of a write any more.
fn stands_still(process: u32) -> Result<()> {
    let tasks = format!("/proc/{process}/task");
    loop {
        let mut still = true;
        for task in std::fs::read_dir(&tasks)? {
            // the state is the first word behind the name, which is in parentheses
            let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
            still &= stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
        }
        if still {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn overlay(base: &Path, disk: &Path) -> Result<()> {
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).args([base, disk])).map(drop)
}
