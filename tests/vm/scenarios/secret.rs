//! A secret value is where its program reads it, and nowhere else.

use anyhow::{Result, ensure};

use super::exec::equal;
use crate::machine::Machine;

const IMAGE: &str = "oci:/srv/payload/images/tiny-secret:1";
/// What the program says of the credential that it was handed.
const TOLD: &str = "exec 3<>/dev/tcp/127.0.0.1/4711; grep -o 'credential=[^ ]*' <&3 | cut -d= -f2";

/// The secret in /root/NAME, which the machine chose: no script that is run here has it in it.
fn chosen(machine: &mut dyn Machine, name: &str) -> Result<String> {
    machine.run(&format!("umask 077; tr -dc a-z </dev/urandom | head -c 24 >/root/{name}; cat /root/{name}"))
}

/// Where the secret in /root/NAME is to be found, but for that file.
fn found(machine: &mut dyn Machine, name: &str) -> Result<Vec<String>> {
    let files = machine.run(&format!("grep -rlsFf /root/{name} /etc /run /var /tmp /usr/lib/systemd; true"))?;
    Ok(files.lines().map(str::to_owned).collect())
}

pub fn reaches_its_program_alone(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    let refused = machine.fails(1, &format!("sysctr install --name app {IMAGE}"))?;
    ensure!(
        refused.contains("the value secret is missing (of the API)") && refused.contains("--set-file"),
        "{refused}"
    );
    let first = chosen(machine, "first")?;
    machine.run(&format!("sysctr install --now --name app --set-file secret=/root/first {IMAGE}"))?;
    equal(&machine.run(TOLD)?, &first, "what the program was handed")?;

    let kept = |id: u32| format!("/var/lib/sysctr/containers/app/deployments/{id}/secrets/secret");
    let handed = "/run/credentials/app.service/secret".to_owned();
    equal(&machine.run(&format!("stat -c '%a %U' {}", kept(1)))?, "600 root", "who may read it")?;
    let mut places = found(machine, "first")?;
    places.sort();
    ensure!(places == [handed.clone(), kept(1)], "it lies in {places:?}");
    // What tells of a service, a container, an image or a process.
    for command in [
        "sysctr show app",
        "sysctr --json show app",
        "sysctr --json verify",
        &format!("sysctr --json inspect {IMAGE}"),
        "systemctl cat app",
        "systemctl show app app.socket",
        "journalctl --sync; journalctl -o export",
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null",
    ] {
        machine.run(&format!("! {{ {command}; }} | grep -aqFf /root/first"))?;
    }
    // A pass of systemd's own: what is shown is there at all.
    machine.run("journalctl -o export | grep -aqF UNIT=app.service")?;

    let second = chosen(machine, "second")?;
    machine.run("sysctr update app --set-file secret=/root/second")?;
    equal(&machine.run(TOLD)?, &second, "what it was handed after the update")?;
    machine.run("sysctr rollback app")?;
    equal(&machine.run(TOLD)?, &first, "what it was handed after the rollback")?;
    machine.run("! sysctr diff app 1 2 | grep -F -f /root/first -f /root/second")?;
    machine.run("! journalctl -o export | grep -aqF -f /root/first -f /root/second")?;
    machine.run("sysctr uninstall app")?;
    for name in ["first", "second"] {
        let places = found(machine, name)?;
        ensure!(places.is_empty(), "after the uninstall the {name} one lies in {places:?}");
    }
    Ok(())
}
