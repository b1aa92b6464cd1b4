//! What cannot be installed changes nothing.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{REGISTRY, install, registry, settle};
use crate::machine::Machine;
use crate::snapshot::Snapshot;

/// Each of these ends with one line, its own exit code, and the machine as before.
pub fn bad_installs_change_nothing(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.booted()?;
    let before = Snapshot::take(machine)?;
    let cases = [
        (5, "sysctr install 127.0.0.1:5000/none".to_owned(), "none"),
        (1, "sysctr install 127.0.0.1:5999/etcd".to_owned(), "127.0.0.1:5999"),
        (2, format!("sysctr install --name ../etcd {REGISTRY}/etcd"), "../etcd"),
        (1, format!("sysctr install --name docker-registry {REGISTRY}/etcd"), "docker-registry"),
        (1, format!("sysctr install --set client_port=many {REGISTRY}/etcd"), "client_port"),
        (1, format!("sysctr install --set no_such=1 {REGISTRY}/etcd"), "no_such"),
        (4, format!("sysctr install {REGISTRY}/httpd"), "/var/www"),
    ];
    for (code, command, named) in cases {
        let said = machine.fails(code, &command)?;
        ensure!(said.contains(named), "`{command}` does not name {named:?}: {said}");
        ensure!(said.contains("error: "), "`{command}` said {said}");
        before.ensure_same(&Snapshot::take(machine)?)?;
    }
    Ok(())
}

/// A layer that the registry serves with one wrong bit is refused; whole again, the same install works.
pub fn a_corrupted_blob_changes_nothing(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.booted()?;
    let flip = r#"blob=$(find /srv/payload/registry -name data -size +1M | sort | head -n 1)
        byte=$(od -An -tu1 -j 5000 -N 1 "$blob")
        printf "\\$(printf %o $((byte ^ 1)))" | dd of="$blob" bs=1 seek=5000 conv=notrunc status=none"#;
    let before = Snapshot::take(machine)?;
    machine.run(flip)?;
    // Which image has the blob is not known from here: one of the two must be refused, and for the digest.
    let refused = machine.run(&format!(
        "for image in etcd httpd; do sysctr install --yes --name $image-test {REGISTRY}/$image >/tmp/said 2>&1
         [ $? != 1 ] || cat /tmp/said; sysctr uninstall --purge $image-test >/dev/null 2>&1; done; rm -f /tmp/said"
    ))?;
    ensure!(refused.contains("error: "), "a flipped bit went unnoticed");
    before.ensure_same(&Snapshot::take(machine)?)?;
    machine.run(flip)?;
    machine.run(&format!("sysctr install {REGISTRY}/etcd && systemctl start etcd"))?;
    Ok(())
}

/// A disk that is too small for the image; with more room the same install works.
pub fn a_full_disk_changes_nothing(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.booted()?;
    machine.run("mkdir -p -m 700 /var/lib/sysctr && mount -t tmpfs -o size=40M,mode=700 tmpfs /var/lib/sysctr")?;
    // systemd hears of a mount a moment later.
    machine.wait_until(Duration::from_secs(30), "systemctl is-active var-lib-sysctr.mount")?;
    let before = Snapshot::take(machine)?;
    let said = machine.fails(1, &format!("sysctr install {REGISTRY}/etcd"))?;
    ensure!(said.contains("error: ") && said.to_lowercase().contains("space"), "it said {said}");
    before.ensure_same(&Snapshot::take(machine)?)?;
    machine.run("mount -o remount,size=1G /var/lib/sysctr")?;
    machine.run(&format!("sysctr install {REGISTRY}/etcd && systemctl start etcd"))?;
    Ok(())
}

/// Where there is no room for what would be noted, an uninstall and a rollback change nothing, and what runs goes on. Killed while all is
/// down, an uninstall is undone, and all is up again.
pub fn an_uninstall_that_is_not_done_stops_nothing(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    settle(machine, 1)?;
    install(machine, "tiny")?;
    machine.run(
        "sysctr -q update tiny --env A=b
         printf '[Unit]\\nRequires=tiny.service\\nAfter=tiny.service\\n[Service]\\nExecStart=/bin/sleep infinity\\n' \
             >/etc/systemd/system/needs-tiny.service && systemctl daemon-reload && systemctl start needs-tiny
         cp -a /etc/sysctr /root/settings && mount -t tmpfs -o size=1M,mode=755 tmpfs /etc/sysctr && cp -a /root/settings/. /etc/sysctr
         ! cat /dev/zero >/etc/sysctr/filler",
    )?;
    let runs = "systemctl show --value -p InvocationID -p ActiveState tiny needs-tiny";
    let before = machine.run(runs)?;
    for verb in ["uninstall", "rollback"] {
        let said = machine.fails(1, &format!("sysctr {verb} tiny"))?;
        ensure!(said.contains("error: ") && said.contains("No space left"), "it said {said}");
        ensure!(machine.run(runs)? == before, "{verb} touched what runs");
        machine.run("! ls /etc/sysctr/containers/tiny/journal.json 2>/dev/null")?;
    }
    machine.run("rm /etc/sysctr/filler && sysctr verify")?;

    let killed = |then: &str| {
        format!(
            "systemctl stop tiny needs-tiny && boot=$(cat /proc/sys/kernel/random/boot_id)
             echo '{{\"version\": 1, \"operation\": \"uninstall\", \"from\": 2, \"to\": null, \"enable\": false, \"purge\": true,
                 \"stopped\": [\"tiny.service\", \"needs-tiny.service\"], \"boot\": \"'$boot'\"}}' >/etc/sysctr/containers/tiny/journal.json
             {then}"
        )
    };
    // By the next command, and by whatever starts one of ours.
    for then in ["sysctr prune", "systemctl restart sysctr-recover"] {
        machine.run(&killed(then))?;
        machine
            .wait_until(Duration::from_secs(20), "[ \"$(systemctl is-active tiny needs-tiny | sort -u)\" = active ]")?;
    }
    machine.run("sysctr verify && sysctr uninstall tiny && ! systemctl is-active needs-tiny tiny").map(drop)
}
