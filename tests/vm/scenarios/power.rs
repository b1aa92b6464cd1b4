//! The power goes in the middle of updates and rollbacks, again and again: whatever boots is the old or the new one, whole.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::{runs, settle};
use crate::cut::Cut;
use crate::image::Payload;
use crate::machine::{Machine, scenario};
use crate::qemu::Qemu;

const IMAGES: &str = "oci:/srv/payload/images";
const SOON: Duration = Duration::from_secs(120);

/// What is cut, and of which container: an update that changes the format of the state, the way back by hand, one that changes less.
fn operation(number: u32) -> (&'static str, String) {
    match number % 4 {
        0 => ("web", format!("update web --to {IMAGES}/load-second:1")),
        1 => ("app", "rollback app".to_owned()),
        2 => ("web", format!("update web --to {IMAGES}/load-first:1")),
        _ => ("app", format!("update app --to {IMAGES}/tiny-format-2:1")),
    }
}

/// A shell script that installs all of them into a tree before its machine boots, as emulated that takes minutes.
pub fn prepare(sysctr: &str, etcd: &Path) -> String {
    let install = format!("{sysctr} -q --root $root install --yes");
    format!(
        "{install} --name etcd oci:{}
         {install} --name app oci:$payload/images/tiny-format-1:1
         {install} --name web oci:$payload/images/load-first:1",
        etcd.display()
    )
}

/// Takes the power away so many times, each time some moment after an operation began or after it noted what it is about.
pub fn goes_in_the_middle(machine: &mut Qemu, payload: &Payload, cuts: u32) -> Result<()> {
    settle(machine, 1)?;
    machine.run(&format!("sysctr -q update app --to {IMAGES}/tiny-format-2:1"))?;
    let given = std::env::var("SYSCTR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or(u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()));
    println!("SYSCTR_TEST_SEED={seed}");
    let mut random = seed | 1;
    let mut pending = 0;
    for number in 0..cuts {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (name, operation) = operation(number);
        let journal = format!("etc/sysctr/containers/{name}/journal.json");
        // The first of an operation is the staging, which is quicker to look at than to hit behind its end.
        let (begun, range) = if number % 5 == 4 {
            (String::new(), 3000)
        } else {
            (format!("until [ -e /{journal} ]; do :; done;"), 1200)
        };
        let wait = (random >> 33) % range;
        let pause = format!("sleep {}.{:03}", wait / 1000, wait % 1000);
        machine.run(&format!(
            "systemd-run -q --collect --unit=cut sysctr --wait {operation}; timeout 60 sh -c '{begun} {pause}'"
        ))?;
        let cut = Cut::of(machine, "power-cut")?;
        let is_pending = cut.has(&journal);
        pending += u32::from(is_pending);
        let place = format!("cut {number}, {wait} ms after `{operation}` began, pending: {is_pending}");
        println!("{place}");
        scenario(cut.boot("after-power-cut", payload), is_whole).context(place)?;
        machine.wait_until(SOON, "! systemctl is-active -q cut.service")?;
        ensure!(machine.run("sysctr list --json")?.contains("\"app\""), "the machine itself lost something");
    }
    println!("{cuts} power cuts, {pending} of them in the middle of an operation");
    // the control: where nothing is cut nothing is shown
    ensure!(pending * 2 > cuts, "only {pending} of {cuts} cuts were in the middle of an operation");
    Ok(())
}

/// Every container is that which is in force, and runs, on a state that it can read.
fn is_whole(machine: &mut impl Machine) -> Result<()> {
    machine.booted()?;
    for name in ["app", "web"] {
        machine.wait_until(
            SOON,
            &format!(
                "[ $(systemctl is-active {name}) = active ] && [ ! -e /etc/sysctr/containers/{name}/journal.json ]"
            ),
        )?;
        let active = machine.run(&format!("cat /etc/sysctr/containers/{name}/active"))?.parse()?;
        runs(machine, name, active)?;
    }
    machine.run(
        "id=$(cat /etc/sysctr/containers/app/active)
         grep -q \"format-$(cat /var/lib/app/data/format)\" /var/lib/sysctr/containers/app/deployments/$id/config.json",
    )?;
    ensure!(!machine.run("curl -sf http://127.0.0.1:8080/")?.is_empty(), "the web server does not answer");
    machine.run("sysctr verify && sysctr prune && sysctr verify").map(drop)
}
