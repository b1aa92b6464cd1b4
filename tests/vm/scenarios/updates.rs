//! The ways in which an update can go wrong, or be none of the usual ones.

use anyhow::{Result, ensure};

use super::{image, install, run_of, runs, settle};
use crate::machine::Machine;

/// Whatever is wrong with the new image or its surroundings: the old one runs afterwards, and the message says why.
pub fn fails_in_any_way(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    settle(machine, 1)?;
    install(machine, "app")?;
    machine.run(
        "mkdir -p /etc/systemd/system/app.service.d &&
         printf '[Service]\\nTimeoutStartSec=2\\n' >/etc/systemd/system/app.service.d/soon.conf && systemctl daemon-reload",
    )?;
    for (bad, why, long) in
        [("silent", "app.service", 1), ("broken", "app.service", 1), ("crash", "did not stay up", 3)]
    {
        settle(machine, long)?;
        image(machine, "app", &format!("tiny-{bad}"))?;
        let run = run_of(machine, "app")?;
        let said = machine.fails(3, "sysctr update app")?;
        ensure!(said.contains("rolled back") && said.contains(why), "tiny-{bad}: {said}");
        runs(machine, "app", 1)?;
        ensure!(run_of(machine, "app")? != run, "tiny-{bad} was never started: the test shows nothing");
    }
    settle(machine, 1)?;

    // One that is well, but something else does not go along with it.
    machine.run(
        "printf '[Unit]\\nRequires=app.service\\nAfter=app.service\\n[Service]\\nExecStart=/bin/sh -c \\
         \"sleep 0.3; systemctl show -p Description app | grep -q next && exit 1; exec sleep infinity\"\\n' \\
         >/etc/systemd/system/companion.service && systemctl daemon-reload && systemctl start companion",
    )?;
    image(machine, "app", "tiny-next")?;
    let said = machine.fails(3, "sysctr update app")?;
    ensure!(said.contains("rolled back") && said.contains("companion.service"), "the broken companion: {said}");
    runs(machine, "app", 1)?;
    ensure!(machine.property("companion", "ActiveState")? == "active", "the companion stayed down");
    // the control: without the companion the same image is fine
    machine.run("systemctl stop companion && sysctr update app --to oci:/root/images/app:1")?;
    let active = machine.run("cat /etc/sysctr/containers/app/active")?.parse()?;
    runs(machine, "app", active)?;

    // Nothing to update to.
    let run = run_of(machine, "app")?;
    machine.run("rm -r /root/images/app")?;
    let said = machine.fails(1, "sysctr update app")?;
    ensure!(said.contains("/root/images/app"), "the image that is gone: {said}");
    super::registry(machine)?;
    let said = machine.fails(5, "sysctr update app --to 127.0.0.1:5000/gone:1")?;
    ensure!(said.contains("gone:1"), "the image that the registry has not: {said}");
    machine.run("systemctl stop docker-registry")?;
    machine.fails(1, "sysctr update app --to 127.0.0.1:5000/etcd")?;
    ensure!(run_of(machine, "app")? == run, "an image that is gone disturbed what runs");
    machine.run("sysctr verify").map(drop)
}

/// Values only, another name of the same image, an older image, two updates at once; and of twenty the one bad alone goes back.
pub fn unusual_ones_and_twenty(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    settle(machine, 1)?;
    install(machine, "app")?;
    image(machine, "app", "tiny-value")?;
    machine.run("sysctr update app")?;
    machine.run("sysctr update app --set word=X_B=2")?;
    runs(machine, "app", 3)?;
    let said = machine.fails(3, "sysctr update app --set word=end")?;
    ensure!(said.contains("rolled back"), "a value that breaks it: {said}");
    runs(machine, "app", 3)?;
    ensure!(machine.run("sysctr --json show app")?.contains("X_B=2"), "the value of before is lost");
    machine.run("sysctr update app --set word=X_C=3")?;

    let number = |machine: &mut dyn Machine| -> Result<u32> {
        Ok(machine.run("cat /etc/sysctr/containers/app/active")?.parse()?)
    };
    let before = number(machine)?;
    machine.run("cp -r /root/images/app /root/images/again && sysctr update app --to oci:/root/images/again:1")?;
    runs(machine, "app", before + 1)?;
    ensure!(machine.run("sysctr show app")?.contains("/root/images/again:1"), "it follows the old name");
    ensure!(machine.run("sysctr update app")?.contains("up to date"), "the same under the same name is an update");

    install(machine, "other")?;
    machine.run("sysctr update other --to oci:/srv/payload/images/tiny-next:1")?;
    machine.run("sysctr update other --to oci:/srv/payload/images/tiny:1")?;
    runs(machine, "other", 3)?;
    ensure!(machine.property("other", "Description")? == "as small as can be", "it is not the older image");

    settle(machine, 3)?;
    let said = machine.run(
        "sysctr update app --to oci:/root/images/app:1 & first=$!; sleep 1
         sysctr update other --to oci:/srv/payload/images/tiny-next:1 2>&1; echo \"it ended with $?\"
         sysctr update other --to oci:/srv/payload/images/tiny-next:1 --wait=60 2>&1 && wait $first && echo both",
    )?;
    let refused = said.contains("locked by `sysctr update` (process") && said.contains("it ended with 1");
    ensure!(refused && said.contains("both"), "two updates at once: {said}");
    runs(machine, "app", before + 2)?;
    runs(machine, "other", 4)?;
    machine.run("sysctr uninstall app other")?;
    one_bad_of_twenty(machine)
}

fn one_bad_of_twenty(machine: &mut dyn Machine) -> Result<()> {
    settle(machine, 0)?;
    let script = "mkdir -p /root/images && for n in $(seq 20); do cp -r /srv/payload/images/tiny /root/images/n$n &&
         sysctr -q install --now oci:/root/images/n$n:1 --name n$n || exit 1; done
         for n in $(seq 20); do i=next; [ $n = 13 ] && i=broken
         rm -r /root/images/n$n; cp -r /srv/payload/images/tiny-$i /root/images/n$n; done";
    machine.run(script)?;
    let said = machine.run("sysctr --json update --all 2>/root/errors; echo \"it ended with $?\"")?;
    let count = |word: &str| said.matches(&format!("\"result\": \"{word}\"")).count();
    ensure!(said.ends_with("it ended with 3"), "it said {said}");
    ensure!((count("updated"), count("rolledBack")) == (19, 1), "it said {said}");
    for n in 1..=20 {
        runs(machine, &format!("n{n}"), if n == 13 { 1 } else { 2 })?;
    }
    let said = machine.run("sysctr update --all 2>&1")?;
    ensure!(said.contains("n13 stays as it is") && said.contains("n7 is up to date"), "the next one said {said}");
    machine.run("sysctr verify").map(drop)
}
