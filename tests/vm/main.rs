//! Scenarios on a booted Debian: real systemd, D-Bus, cgroups, a real registry, etcd and httpd. Needs root; `make test` calls it.

mod agent;
mod image;
mod logs;
mod machine;
mod nspawn;
mod process;
mod qemu;

use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;
use machine::{Machine, scenario};

/// What the machines are made of, made once for all tests of this run.
struct Parts {
    tree: image::Tree,
    payload: image::Payload,
}

fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| {
        let made = || -> Result<Parts> {
            let programs = Path::new(env!("CARGO_BIN_EXE_sysctr")).parent().unwrap_or(Path::new("/"));
            Ok(Parts { tree: image::Tree::of("trixie")?, payload: image::Payload::new(programs)? })
        };
        made().unwrap_or_else(|error| panic!("{error:#}"))
    })
}

fn on_nspawn(name: &str, steps: impl FnOnce(&mut nspawn::Nspawn) -> Result<()>) -> Result<()> {
    scenario(nspawn::Nspawn::boot(name, &parts().tree, &parts().payload), steps)
}

fn on_qemu(name: &str, steps: impl FnOnce(&mut qemu::Qemu) -> Result<()>) -> Result<()> {
    scenario(qemu::Qemu::boot(name, &parts().tree, &parts().payload), steps)
}

#[test]
fn a_machine_boots_in_nspawn() -> Result<()> {
    on_nspawn("boot-nspawn", |machine| {
        machine.booted()?;
        println!("{}", machine.run("systemctl --failed; uname -a; curl -s http://127.0.0.1:5000/v2/_catalog")?);
        machine.run("echo kept >/etc/kept")?;
        machine.reboot()?;
        assert_eq!(machine.run("cat /etc/kept")?, "kept");
        Ok(())
    })
}

#[test]
fn a_machine_boots_in_qemu() -> Result<()> {
    on_qemu("boot-qemu", |machine| {
        machine.booted()?;
        println!("{}", machine.run("systemctl --failed; uname -a; curl -s http://127.0.0.1:5000/v2/_catalog; ip a")?);
        machine.run("echo kept >/etc/kept; sync")?;
        machine.without_network_card();
        machine.reboot()?;
        println!("{}", machine.run("ip a")?);
        machine.cut_power()?;
        assert_eq!(machine.run("cat /etc/kept")?, "kept");
        machine.fails(124, "exit 124")?;
        Ok(())
    })
}
