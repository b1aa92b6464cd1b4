//! The power goes once in each phase of each operation. strace(1) stops it right behind one system call; then the disk is that of a
//! power cut at that moment, and boots. The machine itself goes on: the same operation ends well.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{image, runs};
use crate::cut::Cut;
use crate::image::Payload;
use crate::machine::{Machine, scenario};
use crate::qemu::Qemu;

const SOON: Duration = Duration::from_secs(120);
const PULL: &str = "sysctr -q pull oci:/root/images/app:1";
const INSTALL: &str = "install --now oci:/root/images/app:1 --name app";
/// The image of each update is another one, but for the last ones.
const IMAGES: [&str; 6] = ["version-0", "version-1", "version-2", "version-3", "tiny", "tiny-next"];

/// What a boot makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Old,
    New,
    /// The call was not synced yet.
    Either,
}
use End::{Either, New, Old};

/// Where an operation stops: behind a call that is about this name, the how-manieth such one.
struct Phase {
    name: &'static str,
    call: &'static str,
    path: &'static str,
    when: u32,
    /// Whether a journal is on the disk; none where it is just being written or removed.
    pending: Option<bool>,
    end: End,
}

const fn phase(
    name: &'static str,
    (call, path, when): (&'static str, &'static str, u32),
    pending: Option<bool>,
    end: End,
) -> Phase {
    Phase { name, call, path, when, pending, end }
}

const RENAME: &str = "renameat,renameat2";
const UNLINK: &str = "unlinkat";
// A file that is written begins with the removal of what has its temporary name, and room set aside is given back at the end.
const TO_BE_NOTED: (&str, &str, u32) = (UNLINK, ".sysctr-journal.json.new", 1);
const NOTED: (&str, &str, u32) = (UNLINK, ".sysctr-active.new", 1);
const IN_FORCE: (&str, &str, u32) = (RENAME, "active", 1);
const UNIT_PLACED: (&str, &str, u32) = (RENAME, "app.service", 1);
const LIMIT_LIFTED: (&str, &str, u32) = (RENAME, "50-sysctr-update.conf", 1);
const RUNS: (&str, &str, u32) = (UNLINK, ".sysctr-reserve-0", 1);
const DROPPED: (&str, &str, u32) = (UNLINK, "journal.json", 1);

const INSTALLS: [Phase; 6] = [
    phase("staged", TO_BE_NOTED, Some(false), Old),
    phase("noted", NOTED, Some(true), Old),
    phase("in force", IN_FORCE, Some(true), Either),
    phase("unit placed", UNIT_PLACED, Some(true), New),
    phase("running", RUNS, Some(true), New),
    phase("journal dropped", DROPPED, None, New),
];
const UPDATES: [Phase; 7] = [
    phase("staged", TO_BE_NOTED, Some(false), Old),
    phase("noted", NOTED, Some(true), Old),
    phase("in force", IN_FORCE, Some(true), Old),
    phase("unit placed", UNIT_PLACED, Some(true), Old),
    phase("placed, the old one runs", LIMIT_LIFTED, Some(true), Old),
    phase("the new one runs", RUNS, Some(true), Old),
    phase("journal dropped", DROPPED, None, Either),
];
const ROLLBACKS: [Phase; 7] = [
    phase("about to be noted", TO_BE_NOTED, Some(false), Old),
    phase("noted", NOTED, Some(true), Old),
    phase("in force", IN_FORCE, Some(true), Either),
    phase("unit placed", UNIT_PLACED, Some(true), New),
    phase("placed, the later one runs", LIMIT_LIFTED, Some(true), New),
    phase("the earlier one runs", RUNS, Some(true), New),
    phase("journal dropped", DROPPED, None, New),
];
const UNINSTALLS: [Phase; 6] = [
    phase("about to be noted", TO_BE_NOTED, Some(false), Old),
    phase("noted", (RENAME, "journal.json", 1), None, Old),
    phase("out of force", (UNLINK, "active", 1), Some(true), Either),
    phase("unit removed", (UNLINK, "app.service", 2), Some(true), New),
    phase("deployments removed", (UNLINK, "deployments", 1), Some(true), New),
    phase("journal removed", DROPPED, None, New),
];
const PRUNES: [Phase; 3] = [
    phase("an old deployment's record removed", (UNLINK, "deployment.json", 1), Some(false), New),
    phase("its units removed", (UNLINK, "app.service", 1), Some(false), New),
    phase("an object removed", (UNLINK, "/var/lib/sysctr/repo/objects", 1), Some(false), New),
];

/// Goes through all of them, on one machine.
pub fn each_is_cut(machine: &mut Qemu, payload: &Payload) -> Result<()> {
    machine.booted()?;
    keep(machine, 20)?;
    image(machine, "app", IMAGES[0])?;
    machine.run(PULL)?;
    let mut cuts = 0;
    let mut cut = |machine: &mut Qemu, verb: &str, phase: &Phase| {
        cuts += 1;
        let begun = std::time::Instant::now();
        let at = format!("`sysctr {verb}`, {}", phase.name);
        let end = is_cut(machine, payload, verb, phase).with_context(|| at.clone())?;
        println!("{at}: the {end} one; {:.1?}", begun.elapsed());
        anyhow::Ok(())
    };
    for number in 0..INSTALLS.len().max(UNINSTALLS.len()) {
        if let Some(phase) = INSTALLS.get(number) {
            cut(machine, INSTALL, phase)?;
        }
        if let Some(phase) = UNINSTALLS.get(number) {
            cut(machine, "uninstall app", phase)?;
        }
    }
    machine.run(&format!("sysctr -q {INSTALL}"))?;
    for number in 0..UPDATES.len() {
        let next = number + 1;
        image(machine, "app", IMAGES.get(next).copied().unwrap_or(IMAGES[4 + next % 2]))?;
        machine.run(PULL)?;
        cut(machine, "update app", &UPDATES[number])?;
        cut(machine, "rollback app", &ROLLBACKS[number])?;
    }
    for phase in &PRUNES {
        let there: u32 = machine.run("ls /etc/sysctr/containers/app | grep -c '^[0-9]'")?.parse()?;
        keep(machine, there - 1)?;
        cut(machine, "prune", phase)?;
    }
    println!("{cuts} power cuts, one in each phase of an install, update, rollback, uninstall and prune");
    Ok(())
}

/// How many deployments stay.
fn keep(machine: &mut dyn Machine, count: u32) -> Result<()> {
    let text = format!("[update]\\nsettle = 0\\nkeep = {count}\\n");
    machine.run(&format!("mkdir -p /etc/sysctr && printf '{text}' >/etc/sysctr/sysctr.toml && sync")).map(drop)
}

/// One operation, and a cut in one phase of it; which one was found.
fn is_cut(machine: &mut Qemu, payload: &Payload, verb: &str, phase: &Phase) -> Result<&'static str> {
    let Phase { call, path, when, .. } = phase;
    let old = files(machine)?;
    machine.run(&format!(
        "rm -f /run/trace; systemd-run -q --unit=operation --remain-after-exit strace -f -o /run/trace \
             -P {path} -e trace={call} -e inject={call}:signal=SIGSTOP:when={when} sysctr -q --wait {verb}
         until grep -q 'stopped by SIGSTOP' /run/trace 2>/dev/null; do
             [ \"$(systemctl show --value -p SubState operation)\" != running ] || {{ sleep 0.1; continue; }}
             echo 'it never stopped' >&2; cat /run/trace >&2; journalctl -q -o cat -u operation >&2; exit 1
         done"
    ))?;
    let cut = Cut::of(machine, "phase")?;
    let pending = cut.has("etc/sysctr/containers/app/journal.json");
    ensure!(phase.pending.is_none_or(|wanted| wanted == pending), "whether a journal is there: {pending}");
    machine.run(
        "kill -CONT $(pgrep -x sysctr)
         while [ \"$(systemctl show --value -p SubState operation)\" = running ]; do sleep 0.1; done
         [ $(systemctl show --value -p Result operation) = success ] || { journalctl -q -o cat -u operation; exit 1; } >&2
         systemctl stop operation",
    )?;
    if verb != "prune" {
        machine.run("sysctr -q prune")?;
    }
    let new = files(machine)?;
    ensure!(old != new, "it changed nothing");
    let mut found = "";
    scenario(cut.boot("after-the-cut", payload), |machine| {
        found = is_whole(machine, phase.end, &old, &new)?;
        Ok(())
    })?;
    Ok(found)
}

/// What booted is what it has to be, to the last file, and runs.
fn is_whole(machine: &mut impl Machine, end: End, old: &str, new: &str) -> Result<&'static str> {
    machine.booted()?;
    machine
        .run("[ ! -e /etc/sysctr/containers/app/journal.json ] && sysctr verify && sysctr -q prune && sysctr verify")?;
    let left = files(machine)?;
    let found = match (left == old, left == new) {
        (true, _) if end != New => "old",
        (_, true) if end != Old => "new",
        _ => {
            let unlike = |one: &str| -> String {
                let lines = one.lines().filter(|line| !left.contains(line)).map(|line| format!("- {line}\n"));
                lines.chain(left.lines().filter(|line| !one.contains(line)).map(|line| format!("+ {line}\n"))).collect()
            };
            anyhow::bail!("it is not {end:?}. Against the old:\n{}Against the new:\n{}", unlike(old), unlike(new));
        }
    };
    if left.contains("/containers/app/active\t") {
        let active = machine.run("cat /etc/sysctr/containers/app/active")?.parse()?;
        machine.wait_until(SOON, "systemctl is-active app")?;
        runs(machine, "app", active)?;
    } else {
        machine.fails(5, "sysctr show app")?;
        machine.run("! systemctl cat app.service 2>/dev/null")?;
    }
    Ok(found)
}

/// Every file of ours: what it is, whose, and its content. Only what counts time and failures differs between runs of the same, and the
/// note of who has the lock just now.
fn files(machine: &mut dyn Machine) -> Result<String> {
    machine.run(
        r#"cd / && places=$(ls -d etc/sysctr/containers etc/systemd/system.attached etc/systemd/system etc/systemd/system-preset \
              etc/tmpfiles.d etc/sysusers.d var/lib/sysctr 2>/dev/null)
          ours() { find $places \( -name 'probation*.json' -o -name quarantine.json -o -path var/lib/sysctr/repo/tmp -o -path var/lib/sysctr/lock \) -prune -o "$@"; }
          { ours -printf '/%p\t%y\t%m\t%U\t%G\t%l\n'; ours -type f -exec sha256sum {} +; } | sort"#,
    )
}
