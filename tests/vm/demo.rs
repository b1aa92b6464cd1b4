//! `make demo`: what sysctr does, shown on a machine booted in systemd-nspawn. Each command is printed as typed, and what came of it.
#![allow(dead_code, reason = "the scenarios use more of the harness than the demo does")]

mod agent;
mod image;
mod logs;
mod machine;
mod nspawn;
mod process;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use machine::Machine;

/// What is shown, and why: an empty command is only a remark.
const STEPS: [(&str, &str); 18] = [
    ("An etcd that is only an image in a registry", ""),
    ("", "sysctr inspect 127.0.0.1:5000/etcd | head -n 12"),
    ("becomes a service of this machine.", "sysctr install 127.0.0.1:5000/etcd"),
    ("", "sysctr list"),
    ("From here on systemd has it, like any other:", "systemctl start etcd"),
    ("", "systemctl status etcd --no-pager --lines=0"),
    ("It works,", "etcdctl put greeting 'hello from a system container'"),
    ("", "systemctl restart etcd"),
    ("and its data outlives it.", "etcdctl get greeting"),
    ("No engine, no daemon, no helper: this is all that runs.", "systemd-cgls --no-pager --unit etcd.service"),
    ("An image that wants something of the host has to ask:", "! sysctr install 127.0.0.1:5000/httpd"),
    ("", "sysctr install --yes --now 127.0.0.1:5000/httpd"),
    ("", "echo '<h1>a page of the host</h1>' > /var/www/index.html"),
    ("", "curl -s --retry 20 --retry-connrefused --retry-delay 1 http://localhost/"),
    ("Everything is as it was installed,", "sysctr verify"),
    ("and its log is where any log is.", "journalctl --no-pager -u httpd -o cat --grep GET"),
    ("It goes as it came:", "sysctr uninstall --purge etcd httpd"),
    ("", "sysctr list"),
];

fn main() {
    let shell = std::env::args().any(|argument| argument == "--shell");
    if let Err(error) = show(shell) {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

fn show(shell: bool) -> Result<()> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sysctr")).parent().unwrap_or(Path::new("/"));
    let tree = image::Tree::of("trixie")?;
    let payload = image::Payload::new(programs)?;
    let begin = Instant::now();
    let mut machine = nspawn::Nspawn::boot("demo", &tree, &payload)?;
    machine.run("mkdir -p /var/www")?;
    machine.wait_until(Duration::from_secs(60), "curl -sf http://127.0.0.1:5000/v2/ >/dev/null")?;
    println!(
        "A Debian 13 has booted in {:.1} s, with a registry inside and no network.",
        begin.elapsed().as_secs_f32()
    );
    if shell {
        println!("This is a shell in it; it goes when you leave. Try: sysctr install 127.0.0.1:5000/etcd");
        Command::new("nsenter").args(machine.entrance()).args(["bash", "-l"]).status()?;
        return Ok(());
    }
    for (remark, command) in STEPS {
        step(&mut machine, remark, command)?;
    }
    println!(
        "\nThat took {:.0} s. Try next:\n  \
         make machine                  a shell in such a machine: systemctl edit etcd, sysctr --help, ...\n  \
         make test                     all of it checked, also over a power cut and a boot without a network card\n  \
         less images/etcd/README.md    what an image has to bring along",
        begin.elapsed().as_secs_f32()
    );
    Ok(())
}

fn step(machine: &mut dyn Machine, remark: &str, command: &str) -> Result<()> {
    if !remark.is_empty() {
        println!("\n# {remark}");
    }
    if command.is_empty() {
        return Ok(());
    }
    let (typed, wanted) = command.strip_prefix("! ").map_or((command, true), |typed| (typed, false));
    println!("$ {typed}");
    let begin = Instant::now();
    let output = machine.try_run(&format!("set -o pipefail; {{ {typed}; }} 2>&1"), machine::LIMIT)?;
    let took = begin.elapsed();
    print!("{}", output.stdout);
    match output.code {
        0 if took > Duration::from_millis(500) => println!("({:.1} s)", took.as_secs_f32()),
        0 => {}
        code => println!("(exit code {code}, {:.1} s)", took.as_secs_f32()),
    }
    if (output.code == 0) != wanted {
        machine.bring_out();
        bail!("`{typed}` did not do what it should");
    }
    ensure!(took < machine::LIMIT, "`{typed}` took {took:?}");
    Ok(())
}
