//! A boot after a cut starts from one whole unit set, whatever lies in its places, and is told by whom.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::machine::Machine;

const IMAGES: &str = "oci:/srv/payload/images";
const SOON: Duration = Duration::from_secs(60);
/// Where systemd found the service and the socket.
const FOUND: &str =
    "systemctl show -p FragmentPath --value app.service; systemctl show -p LoadState --value app.socket";

/// What lies on disk when the power goes in the middle of an update from deployment 1, a plain service, to deployment 2, which has a
/// socket as well: the new one is in force, its socket is placed, and the unit of the service is still the old one.
const CUT: &str = r#"cd /etc/sysctr/containers/app && rm -f probation.json
    echo '{"version": 1, "operation": "update", "from": 1, "to": 2, "enable": true, "purge": false}' >journal.json
    cp 1/app.service /etc/systemd/system.attached/app.service
    echo 2 >active
    sync"#;

fn install(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(&format!(
        "mkdir -p /etc/sysctr && printf '[update]\\nsettle = 1\\n' >/etc/sysctr/sysctr.toml
         sysctr -q install --now --name app {IMAGES}/tiny:1
         sysctr -q update app --to {IMAGES}/tiny-socket:1 && [ $(cat /etc/sysctr/containers/app/active) = 2 ]"
    ))?;
    machine.run(CUT).map(drop)
}

/// Recovery is switched off first, so that what the generator does is seen; and then the generator, which is the control.
pub fn starts_from_one_whole_set(machine: &mut dyn Machine) -> Result<()> {
    install(machine)?;
    machine.run(
        "mkdir -p /etc/systemd/system/sysctr-recover.service.d /etc/systemd/system-generators
         printf '[Service]\\nExecStart=\\nExecStart=/bin/true\\n' >/etc/systemd/system/sysctr-recover.service.d/off.conf",
    )?;
    machine.cut_power()?;
    machine.booted()?;
    let early = "/run/systemd/generator.early/app.service\nmasked";
    ensure!(machine.run(FOUND)? == early, "the boot found {}", machine.run(FOUND)?);
    let whole =
        "[ $(systemctl is-active app.service) = active ] && systemctl show -p ExecStart app | grep -q deployments/1";
    machine.wait_until(SOON, whole)?;
    // An operation that runs is not in its way.
    machine.run("sed -i \"s/}/, \\\"boot\\\": \\\"$(cat /proc/sys/kernel/random/boot_id)\\\"}/\" /etc/sysctr/containers/app/journal.json")?;
    machine.run("systemctl daemon-reload")?;
    ensure!(!machine.run(FOUND)?.contains("generator"), "it is given a set while an operation runs");

    machine.run("ln -s /dev/null /etc/systemd/system-generators/sysctr-generator")?;
    machine.cut_power()?;
    machine.booted()?;
    ensure!(
        machine.run(FOUND)? == "/etc/systemd/system.attached/app.service\nloaded",
        "without it the boot found {}",
        machine.run(FOUND)?
    );

    // Both as they are, and /var/lib/sysctr on a file system that is not there yet when generators and early units run.
    machine.run(
        "rm -r /etc/systemd/system-generators /etc/systemd/system/sysctr-recover.service.d
         cp -a /var/lib/sysctr /var/elsewhere && rm -r /var/lib/sysctr/* && touch /var/lib/sysctr/not-mounted
         cat >/etc/systemd/system/slow-disk.service <<'END'
[Unit]
DefaultDependencies=no
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sleep 3
END
         cat >/etc/systemd/system/var-lib-sysctr.mount <<'END'
[Unit]
Requires=slow-disk.service
After=slow-disk.service
[Mount]
What=/var/elsewhere
Where=/var/lib/sysctr
Type=none
Options=bind
[Install]
WantedBy=local-fs.target
END
         systemctl enable var-lib-sysctr.mount && sync",
    )?;
    machine.cut_power()?;
    machine.booted()?;
    machine.wait_until(SOON, whole)?;
    machine.run(
        "mountpoint -q /var/lib/sysctr && [ $(cat /etc/sysctr/containers/app/active) = 1 ] &&
         ! ls /etc/sysctr/containers/app/journal.json 2>/dev/null && ! systemctl cat app.socket 2>/dev/null && sysctr verify",
    )?;
    ensure!(
        machine.run(FOUND)?.starts_with("/etc/systemd/system.attached/app.service\n"),
        "recovery left {}",
        machine.run(FOUND)?
    );
    // What the boot recovers and cannot run is told; what it could above was not.
    let told = "journalctl -q -o cat SYSCTR_OPERATION=recovery SYSCTR_RESULT=needsYou";
    ensure!(machine.run(told)?.is_empty(), "it was told of one that is well: {}", machine.run(told)?);
    machine.run(
        r#"echo '{"version": 1, "operation": "rollback", "from": 2, "to": 1, "enable": true, "purge": false}' \
             >/etc/sysctr/containers/app/journal.json
           mkdir -p /etc/systemd/system/app.service.d
           printf '[Service]\nExecStartPost=/bin/false\n' >/etc/systemd/system/app.service.d/bad.conf; sync"#,
    )?;
    machine.cut_power()?;
    machine.wait_until(SOON, &format!("{told} | grep 'boot that recovered it'"))?;
    // Where it is not mounted, nobody takes what /etc has for left over.
    machine.run("umount /var/lib/sysctr && { sysctr prune; ls /etc/sysctr/containers/app/1/app.service /etc/sysctr/containers/app/active; }").map(drop)
}
