//! Instances of an image's template unit are part of the container: what happens to it happens to those that run.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::exec::equal;
use crate::machine::Machine;

const RUNNING: &str = "for instance in a b; do
    tr '\\0' ' ' </proc/$(systemctl show --value -p MainPID app@$instance)/cmdline; done";

pub fn follow_their_container(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    let images = "oci:/srv/payload/images/instances";
    machine.run(&format!("sysctr -q install --name app {images}-1 && systemctl start app@a app@b"))?;
    equal(&machine.run(RUNNING)?, "/bin/tiny X_N=1 /bin/tiny X_N=1", "what runs first")?;
    machine.run(&format!("sysctr -q update app --to {images}-2"))?;
    equal(&machine.run(RUNNING)?, "/bin/tiny X_N=2 /bin/tiny X_N=2", "what runs after the update")?;
    equal(&machine.run("systemctl show --value -p ActiveState app")?, "inactive", "the service nobody started")?;
    let error = machine.fails(3, &format!("sysctr -q update app --to {images}-bad"))?;
    ensure!(error.contains("app@a.service"), "{error}");
    equal(&machine.run(RUNNING)?, "/bin/tiny X_N=2 /bin/tiny X_N=2", "what runs after one that fails")?;
    // Killed while they are watched: the next command lets them be what is in force again.
    machine.run("mkdir -p /etc/sysctr && printf '[update]\\nsettle = 60\\n' >/etc/sysctr/sysctr.toml")?;
    machine.run(&format!("sysctr -q update app --to {images}-1 >/root/said 2>&1 & echo $! >/root/pid"))?;
    let both = format!("echo $({RUNNING}) | grep -q 'X_N=1 /bin/tiny X_N=1'");
    machine.wait_until(Duration::from_secs(30), &both)?;
    machine
        .run("kill -9 $(cat /root/pid); printf '[update]\\nsettle = 1\\n' >/etc/sysctr/sysctr.toml; sysctr -q prune")?;
    equal(&machine.run(RUNNING)?, "/bin/tiny X_N=2 /bin/tiny X_N=2", "what runs after an update that was killed")?;
    // Nobody takes the files away from beneath one that was not restarted.
    machine.run(
        "rm /etc/sysctr/sysctr.toml; for port in 1 2 3; do sysctr -q update app --no-restart --env PORT=$port; done",
    )?;
    machine.run("ls /var/lib/sysctr/containers/app/deployments/2/rootfs/bin/tiny && sysctr -q rollback app")?;
    machine.run("sysctr -q uninstall app && ! systemctl is-active app@a app@b && ! pgrep -x tiny").map(drop)
}
