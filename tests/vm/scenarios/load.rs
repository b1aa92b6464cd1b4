//! A socket stays open while its service is updated: nobody is refused and nobody is cut off. The server is one of our own
//! (`load.c`): Debian's Apache takes no socket from systemd.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::machine::Machine;

const RATE: u32 = 200;
const CHANGES: u32 = 20;
const IMAGES: &str = "/srv/payload/images";
/// In the background, until it is told to end.
const BEGIN: &str = "rm -f /run/enough; systemd-run -q --unit=load -p StandardOutput=file:/run/load -p StandardError=file:/run/load.failed \
    --remain-after-exit /srv/payload/images/load-program load 8080 RATE /run/enough";
const END: &str =
    "touch /run/enough; while [ \"$(systemctl show --value -p SubState load)\" = running ]; do sleep 0.1; done
    cat /run/load; head -n 20 /run/load.failed >&2; systemctl stop load";

/// What the load saw.
struct Seen {
    asked: u32,
    failed: u32,
    longest: u32,
    first: u32,
    second: u32,
}

/// Twenty updates and rollbacks under 200 requests a second.
pub fn nobody_is_refused(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run("mkdir -p /etc/sysctr && printf '[update]\\nsettle = 0\\n' >/etc/sysctr/sysctr.toml")?;
    machine.run(&format!("sysctr -q install --name web oci:{IMAGES}/load-first:1 && systemctl start web.socket"))?;
    ensure!(machine.property("web", "ActiveState")? == "inactive", "it runs before anyone asked");
    let change = |machine: &mut dyn Machine, number: u32| {
        let update = format!("update web --to oci:{IMAGES}/load-second:1");
        let verb = [update.as_str(), "rollback web"][number as usize % 2];
        machine.run(&format!("sysctr -q {verb}")).map(drop)
    };
    let seen = under_load(machine, CHANGES, change)?;
    tell("sysctr", &seen);
    ensure!(seen.failed == 0, "{} of {} requests failed", seen.failed, seen.asked);
    machine.run("sysctr verify")?;
    // The control: a socket that is closed meanwhile is noticed.
    let reopen = "systemctl stop web.socket web && systemctl start web.socket";
    let seen = under_load(machine, 1, |machine, _| machine.run(reopen).map(drop))?;
    ensure!(seen.failed > 0, "none of {} requests failed while there was no socket", seen.asked);
    Ok(())
}

/// The same with Podman Quadlet, where an update is another image of that name and a restart: for comparison. Nothing lifts systemd's
/// start limit meanwhile, five starts in ten seconds: its file has to. What it runs is what the image's own config says.
pub fn quadlet_beside(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(&format!(
        r#"cd /etc/systemd/system && printf '[Socket]\nListenStream=127.0.0.1:8080\n' >web.socket
         mkdir -p /etc/containers/systemd && cat >/etc/containers/systemd/web.container <<'END'
[Unit]
StartLimitIntervalSec=0
[Container]
Image=localhost/web:1
Notify=true
Network=host
Pull=never
ReadOnly=true
PidsLimit=0
END
         for version in first second; do
             podman pull -q oci:{IMAGES}/load-$version:1 >/tmp/id && podman create -q --name $version $(cat /tmp/id)
             podman commit -q --change "CMD [\"/bin/tiny\", \"$version\"]" $version localhost/web-$version:1
             podman rm $version
         done
         podman tag localhost/web-first:1 localhost/web:1
         systemctl daemon-reload && systemctl start web.socket"#
    ))?;
    let change = |machine: &mut dyn Machine, number: u32| {
        let version = ["second", "first"][number as usize % 2];
        machine.run(&format!("podman tag localhost/web-{version}:1 localhost/web:1 && systemctl restart web")).map(drop)
    };
    let seen = under_load(machine, CHANGES, change)?;
    tell("Quadlet", &seen);
    Ok(())
}

fn under_load(
    machine: &mut dyn Machine,
    changes: u32,
    change: impl Fn(&mut dyn Machine, u32) -> Result<()>,
) -> Result<Seen> {
    machine.run(&BEGIN.replace("RATE", &RATE.to_string()))?;
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    for number in 0..changes {
        change(machine, number).with_context(|| format!("change {number}"))?;
        // some requests of each
        std::thread::sleep(Duration::from_millis(200));
    }
    let took = begun.elapsed();
    let seen = Seen::read(&machine.run(END)?)?;
    // What shows that there was a load, and that all versions served it.
    let least = u32::try_from(took.as_millis())? * RATE / 1000 * 9 / 10;
    ensure!(seen.asked >= least, "only {} requests were made in {took:?}", seen.asked);
    ensure!(
        seen.first > RATE / 2 && (changes == 1 || seen.second > RATE / 2),
        "{} and {} answers",
        seen.first,
        seen.second
    );
    Ok(seen)
}

fn tell(who: &str, seen: &Seen) {
    // past the harness, which would swallow it
    let _ = writeln!(
        std::io::stderr(),
        "{who}: {RATE} requests a second during {CHANGES} updates and rollbacks: {} of {} failed, the longest wait was {} ms",
        seen.failed,
        seen.asked,
        seen.longest
    );
}

impl Seen {
    fn read(said: &str) -> Result<Seen> {
        let number = |name: &str| -> Result<u32> {
            let word = said.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
            word.with_context(|| format!("the load said {said:?}"))?.parse().context("a number")
        };
        Ok(Seen {
            asked: number("asked")?,
            failed: number("failed")?,
            longest: number("longest")?,
            first: number("first")?,
            second: number("second")?,
        })
    }
}
