//! Scenarios on a booted Debian: real systemd, D-Bus, cgroups, a real registry, etcd and httpd. Needs root; `make test` calls it.

mod agent;
mod image;
mod logs;
mod machine;
mod nspawn;
mod process;
mod qemu;
mod scenarios;
mod snapshot;

use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;
use machine::{Machine, scenario};
use scenarios::{etcd, exec, httpd, refuse};

/// What the machines are made of, made once for all tests of this run.
struct Parts {
    tree: image::Tree,
    payload: image::Payload,
}

/// `SYSCTR_TEST_SUITE=bookworm` runs the same on a Debian 12.
fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| {
        let made = || -> Result<Parts> {
            let programs = Path::new(env!("CARGO_BIN_EXE_sysctr")).parent().unwrap_or(Path::new("/"));
            let suite = std::env::var("SYSCTR_TEST_SUITE").unwrap_or_else(|_| "trixie".into());
            Ok(Parts { tree: image::Tree::of(&suite)?, payload: image::Payload::new(programs)? })
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

/// The scenarios that run on either kind of machine: in systemd-nspawn by default, in QEMU with `--include-ignored`.
macro_rules! scenarios {
    ($($name:ident: $steps:path;)*) => {
        mod in_nspawn {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                super::on_nspawn(stringify!($name), |machine| $steps(machine))
            })*
        }
        mod in_qemu {
            $(#[test]
            #[ignore = "slower, and the same in systemd-nspawn: `make test-long`"]
            fn $name() -> anyhow::Result<()> {
                super::on_qemu(stringify!($name), |machine| $steps(machine))
            })*
        }
    };
}

scenarios! {
    etcd_lives_as_any_service: super::etcd::lives_as_any_service;
    etcd_leaves_nothing_behind: super::etcd::leaves_nothing_behind;
    etcd_keeps_its_data_without_purge: super::etcd::keeps_its_data_without_purge;
    an_install_that_was_cut_is_finished_by_the_boot: super::etcd::is_finished_by_the_boot_after_a_cut;
    exec_runs_beside_the_service: super::exec::runs_beside_the_service;
    exec_is_confined_as_the_service: super::exec::is_confined_as_the_service;
    exec_has_a_terminal: super::exec::has_a_terminal;
    run_throws_a_container_away: super::exec::throws_a_container_away;
    run_leaves_nothing_when_it_is_killed: super::exec::leaves_nothing_when_it_is_killed;
    httpd_serves_the_hosts_pages: super::httpd::serves_the_hosts_pages;
    httpd_leaves_nothing_behind: super::httpd::leaves_nothing_behind;
    bad_installs_change_nothing: super::refuse::bad_installs_change_nothing;
    a_corrupted_blob_changes_nothing: super::refuse::a_corrupted_blob_changes_nothing;
    a_full_disk_changes_nothing: super::refuse::a_full_disk_changes_nothing;
}

#[test]
fn etcd_is_there_before_the_network_with_no_card_in_the_machine() -> Result<()> {
    on_qemu("before-the-network", |machine| {
        etcd::install(machine)?;
        etcd::obeys_a_drop_in(machine)?;
        etcd::makes_the_boot_wait_for_a_card(machine)?;
        machine.without_network_card();
        machine.reboot()?;
        etcd::was_there_before_the_network(machine)?;
        etcd::limit_holds(machine)
    })
}

#[test]
fn a_power_cut_after_an_install_and_a_put_loses_neither() -> Result<()> {
    on_qemu("power-cut", |machine| {
        etcd::install(machine)?;
        machine.cut_power()?;
        etcd::holds_the_key(machine)?;
        machine.run("sysctr verify").map(drop)
    })
}
