//! Scenarios on a booted Debian: real systemd, D-Bus, cgroups, a real registry, etcd and httpd. Needs root; `make test` calls it.

mod agent;
mod cut;
mod differential;
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
use cut::Cut;
use machine::{Machine, scenario};
use scenarios::{
    auto, boot, boots, cni, dependents, directives, engine, etcd, exec, failures, foreign, handover, health, hooks,
    httpd, instances, kubelet, legacy, limits, load, many, on_demand, order, phases, power, probation, refuse, secret,
    sockets, state, together, trace, update, updates, users,
};

/// What the machines are made of, made once for all tests of this run.
struct Parts {
    tree: image::Tree,
    payload: image::Payload,
}

/// `SYSCTR_TEST_SUITE=bookworm` runs the same on a Debian 12.
fn suite() -> String {
    std::env::var("SYSCTR_TEST_SUITE").unwrap_or_else(|_| "trixie".into())
}

fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| {
        let made = || -> Result<Parts> {
            let programs = Path::new(env!("CARGO_BIN_EXE_sysctr")).parent().unwrap_or(Path::new("/"));
            Ok(Parts { tree: image::Tree::of(&suite())?, payload: image::Payload::new(programs)? })
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
    exec_reaches_an_instance: super::exec::reaches_an_instance;
    instances_follow_their_container: super::instances::follow_their_container;
    exec_is_confined_as_the_service: super::exec::is_confined_as_the_service;
    exec_has_a_terminal: super::exec::has_a_terminal;
    run_throws_a_container_away: super::exec::throws_a_container_away;
    run_leaves_nothing_when_it_is_killed: super::exec::leaves_nothing_when_it_is_killed;
    httpd_serves_the_hosts_pages: super::httpd::serves_the_hosts_pages;
    httpd_starts_on_the_first_request: super::httpd::starts_on_the_first_request;
    httpd_leaves_nothing_behind: super::httpd::leaves_nothing_behind;
    hooks_run_around_a_service: super::hooks::hooks_run_around_a_service_with_a_root_to_write_on;
    crun_in_place_of_the_bundled_runtime_leaves_a_service_a_service: super::foreign::crun_runs_etcd;
    runc_in_place_of_the_bundled_runtime_leaves_a_service_a_service: super::foreign::runc_runs_etcd;
    another_runtime_hands_on_what_systemd_passes: super::foreign::hands_on_what_systemd_passes;
    a_runtime_that_is_none_is_refused: super::foreign::what_is_none_is_refused;
    a_drop_in_reaches_the_program: super::handover::a_drop_in_reaches_the_program;
    the_journal_shows_the_programs_own_name: super::handover::the_journal_shows_the_programs_own_name;
    each_cause_of_a_failed_start_is_told: super::failures::each_cause_is_told_and_the_next_start_works;
    root_inside_names_no_main_process: super::handover::root_inside_names_no_main_process;
    listening_sockets_arrive_as_in_a_plain_unit: super::sockets::listeners_arrive;
    an_accepted_connection_reaches_its_instance: super::sockets::a_connection_reaches_its_instance;
    an_image_answers_each_connection: super::sockets::an_image_answers_each_connection;
    files_are_standard_streams_as_in_a_plain_unit: super::sockets::files_are_standard_streams;
    a_service_starts_on_the_first_connection: super::on_demand::starts_on_the_first_connection;
    stored_descriptors_come_back: super::sockets::stored_descriptors_come_back;
    a_service_talks_to_systemd_as_a_plain_unit: super::sockets::a_service_talks_to_systemd;
    a_start_needs_nothing: super::trace::a_start_needs_nothing;
    thirty_containers_start_at_once: super::many::thirty;
    the_table_of_directives_is_whole: super::directives::the_table_is_whole;
    a_container_is_under_a_directive_as_a_plain_unit_is: super::directives::a_container_is_under_them_as_a_plain_unit_is;
    systemd_comes_to_the_same_end_as_with_a_plain_unit: super::directives::systemd_comes_to_the_same_end;
    a_drop_in_that_would_be_lost_is_told: super::directives::a_drop_in_that_would_be_lost_is_told;
    an_update_is_kept_only_if_the_service_is_well: super::update::is_kept_only_if_well;
    a_service_has_to_pass_its_health_test: super::health::has_to_pass;
    an_image_that_failed_is_not_tried_twice: super::update::is_not_tried_twice;
    the_timer_does_what_the_policy_says: super::auto::the_timer_does_what_the_policy_says;
    nobody_is_refused_while_a_service_is_updated: super::load::nobody_is_refused;
    etcd_lives_with_users_of_its_own: super::users::etcd_keeps_its_data;
    root_of_a_user_namespace_is_nobody_to_systemd: super::users::root_inside_is_nobody_to_systemd;
    an_update_that_fails_in_any_way_leaves_the_old_one: super::updates::fails_in_any_way;
    unusual_updates_and_one_bad_of_twenty: super::updates::unusual_ones_and_twenty;
    state_in_another_format_comes_and_goes_with_its_program: super::state::comes_and_goes_with_its_program;
    containers_are_updated_as_one_or_none: super::together::all_or_none;
    what_requires_an_updated_service_comes_back: super::dependents::come_back;
    an_update_that_fails_in_its_probation_goes_back: super::probation::goes_back_when_it_fails;
    only_failures_of_an_update_itself_take_it_back: super::probation::only_its_own_failures_count;
    an_update_that_fails_behind_a_boot_goes_back: super::probation::goes_back_after_a_reboot;
    a_boot_after_a_cut_starts_from_one_whole_unit_set: super::boot::starts_from_one_whole_set;
    a_secret_reaches_its_program_alone: super::secret::reaches_its_program_alone;
    an_old_image_runs_as_it_says: super::legacy::an_old_image_runs_as_it_says;
    bad_installs_change_nothing: super::refuse::bad_installs_change_nothing;
    a_corrupted_blob_changes_nothing: super::refuse::a_corrupted_blob_changes_nothing;
    a_full_disk_changes_nothing: super::refuse::a_full_disk_changes_nothing;
    an_uninstall_that_is_not_done_stops_nothing: super::refuse::an_uninstall_that_is_not_done_stops_nothing;
    names_hold_and_cycles_are_refused: super::order::names_hold_and_cycles_are_refused;
    unit_files_say_what_systemd_says: super::order::files_say_what_systemd_says;
    failing_containers_do_not_stop_a_boot: super::boots::failing_containers_do_not_stop_one;
    only_etc_and_a_late_var_can_be_written_to: super::boots::only_etc_and_a_late_var_can_be_written_to;
    runtimes_agree: super::differential::runtimes_agree;
    a_lost_capability_is_seen: super::differential::a_lost_capability_is_seen;
}

/// `sysctr --root` makes a tree that has never run.
#[test]
fn a_tree_that_was_installed_into_boots_with_its_services() -> Result<()> {
    let script = boots::prepare(env!("CARGO_BIN_EXE_sysctr"));
    let machine = nspawn::Nspawn::boot_prepared("tree", &parts().tree, &parts().payload, &script);
    scenario(machine, |machine| boots::a_tree_has_its_services(machine))
}

#[test]
#[ignore = "slower, and the same in systemd-nspawn: `make test-long`"]
fn a_tree_that_was_installed_into_boots_with_its_services_in_qemu() -> Result<()> {
    let script = boots::prepare(env!("CARGO_BIN_EXE_sysctr"));
    let machine = qemu::Qemu::boot_prepared("tree", &parts().tree, &parts().payload, &script);
    scenario(machine, |machine| boots::a_tree_has_its_services(machine))
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn two_hundred_containers_start_at_once() -> Result<()> {
    on_nspawn("two-hundred", |machine| many::two_hundred(machine))
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn two_hundred_containers_start_at_once_in_qemu() -> Result<()> {
    let script = many::prepare_two_hundred(env!("CARGO_BIN_EXE_sysctr"));
    let machine = qemu::Qemu::boot_prepared("two-hundred", &parts().tree, &parts().payload, &script);
    scenario(machine, |machine| many::prepared_two_hundred(machine))
}

#[test]
#[ignore = "for comparison, with podman in the machine: `make test-long`"]
fn quadlet_is_updated_under_the_same_load() -> Result<()> {
    let tree = image::Tree::with("trixie", &["podman", "conmon"])?;
    scenario(nspawn::Nspawn::boot("quadlet-load", &tree, &parts().payload), |machine| load::quadlet_beside(machine))
}

#[test]
#[ignore = "systemd-nspawn has no controllers to limit by: `make test-long`"]
fn limits_hold_as_for_a_plain_unit() -> Result<()> {
    on_qemu("limits", |machine| limits::hold_as_for_a_plain_unit(machine))
}

#[test]
fn with_no_card_in_the_machine_etcd_is_there_before_the_network() -> Result<()> {
    on_qemu("before-the-network", |machine| {
        etcd::install_with(machine, "--set early=true")?;
        etcd::obeys_a_drop_in(machine)?;
        etcd::makes_the_boot_wait_for_a_card(machine)?;
        machine.without_network_card();
        machine.reboot()?;
        etcd::was_there_before_the_network(machine)?;
        etcd::limit_holds(machine)
    })
}

/// With an engine in the machine, and these images in its registry.
fn engine(images: &[&str]) -> Result<(image::Tree, image::Payload)> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sysctr")).parent().unwrap_or(Path::new("/"));
    let tree = image::Tree::with(&suite(), engine::packages(&suite()))?;
    Ok((tree, image::Payload::with(programs, &format!("vm-payload-{}", images.join("-")), images)?))
}

/// A card for a machine that has none, with nothing behind it.
const CARD: &str =
    "cd /etc/systemd/network && printf '[NetDev]\\nName=eth0\\nKind=veth\\n[Peer]\\nName=behind\\n' >eth0.netdev
    printf '[Match]\\nName=eth0\\n[Network]\\nAddress=192.0.2.1/24\\n' >10-eth0.network
    printf '[Match]\\nName=behind\\n[Network]\\nLinkLocalAddressing=no\\n' >10-behind.network";

#[test]
#[ignore = "minutes to build flannel and a machine with an engine: `make test-long`"]
fn docker_starts_on_the_subnet_of_flanneld() -> Result<()> {
    let (tree, payload) = engine(&["etcd", "flanneld"])?;
    scenario(nspawn::Nspawn::boot("engine", &tree, &payload), |machine| {
        machine.run(CARD)?;
        engine::install(machine, "eth0")?;
        machine.reboot()?;
        engine::started_in_order(machine)
    })
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn docker_starts_on_the_subnet_of_flanneld_from_power_on() -> Result<()> {
    let (tree, payload) = engine(&["etcd", "flanneld"])?;
    scenario(qemu::Qemu::boot("engine-qemu", &tree, &payload), |machine| {
        engine::install(machine, "eth0")?;
        machine.without_network_card();
        machine.reboot()?;
        engine::boots_without_a_card(machine)?;
        // With a card again, and the power goes in the midst of that boot.
        machine.with_network_card();
        machine.cut_power()?;
        machine.cut_power()?;
        engine::started_in_order(machine)
    })
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn containers_of_two_machines_reach_each_other() -> Result<()> {
    let (tree, payload) = engine(&["etcd", "flanneld"])?;
    scenario(nspawn::Nspawn::boot("one", &tree, &payload), |one| {
        scenario(nspawn::Nspawn::boot("other", &tree, &payload), |other| {
            one.plug_into(other)?;
            engine::containers_reach_each_other(one, other)
        })
    })
}

#[test]
#[ignore = "a quarter of an hour to build kubelet: `make kubelet`, `make test-long`"]
fn kubelet_runs_a_pod() -> Result<()> {
    let (tree, payload) = engine(&["kubelet"])?;
    scenario(nspawn::Nspawn::boot("kubelet", &tree, &payload), |machine| {
        kubelet::install(machine, false)?;
        machine.run("systemctl start kubelet")?;
        kubelet::runs_a_pod(machine)?;
        kubelet::the_pod_outlives_it(machine)
    })
}

#[test]
#[ignore = "a quarter of an hour to build kubelet: `make kubelet`, `make test-long`"]
fn kubelets_pod_is_on_flannels_network() -> Result<()> {
    let (tree, payload) = engine(&["etcd", "flanneld", "kubelet"])?;
    let plugin = image::containers::flannel_plugin()?;
    let script = format!("install -D -m 755 {} $root/usr/lib/cni/flannel", plugin.display());
    scenario(nspawn::Nspawn::boot_prepared("cni", &tree, &payload, &script), |machine| {
        cni::a_pod_has_an_address_of_the_subnet(machine)
    })
}

#[test]
#[ignore = "minutes: `make kubelet`, `make test-long`"]
fn kubelet_comes_last_from_power_on() -> Result<()> {
    let (tree, payload) = engine(&["etcd", "flanneld", "kubelet"])?;
    scenario(qemu::Qemu::boot("kubelet-qemu", &tree, &payload), |machine| {
        engine::install(machine, "eth0")?;
        kubelet::install(machine, true)?;
        machine.cut_power()?;
        engine::started_in_order(machine)?;
        kubelet::comes_after_the_engine(machine)?;
        kubelet::runs_a_pod(machine)
    })
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn etcd_upgrades_its_data() -> Result<()> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sysctr")).parent().unwrap_or(Path::new("/"));
    let payload = image::Payload::with(programs, "vm-payload-etcd", &["etcd", "etcd:bookworm"])?;
    scenario(nspawn::Nspawn::boot("etcd-upgrade", &image::Tree::of(&suite())?, &payload), |machine| {
        etcd::upgrades_its_data(machine)
    })
}

#[test]
fn five_power_cuts_in_updates_and_one_after_a_put_lose_nothing() -> Result<()> {
    scenario(with_containers_to_cut("power-cuts"), |machine| {
        etcd::put(machine)?;
        let cut = Cut::of(machine, "after-a-put")?;
        scenario(cut.boot("after-a-put", &parts().payload), |machine| {
            etcd::holds_the_key(machine)?;
            machine.run("sysctr verify").map(drop)
        })?;
        drop(cut);
        power::goes_in_the_middle(machine, &parts().payload, 5)
    })
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn a_power_cut_in_each_phase_of_each_operation_leaves_the_old_or_the_new() -> Result<()> {
    on_qemu("phases", |machine| phases::each_is_cut(machine, &parts().payload))
}

#[test]
#[ignore = "minutes: `make test-long`"]
fn a_hundred_power_cuts_in_the_middle_of_updates() -> Result<()> {
    scenario(with_containers_to_cut("hundred-power-cuts"), |machine| {
        power::goes_in_the_middle(machine, &parts().payload, 100)
    })
}

fn with_containers_to_cut(name: &str) -> Result<qemu::Qemu> {
    let script = power::prepare(env!("CARGO_BIN_EXE_sysctr"), &image::containers::image("etcd")?);
    qemu::Qemu::boot_prepared(name, &parts().tree, &parts().payload, &script)
}
