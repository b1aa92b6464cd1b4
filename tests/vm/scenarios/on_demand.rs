//! A socket from an image: its service is off until the first connection, which may come before sysinit.target.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::machine::Machine;

/// How many first answers of each are timed.
const ROUNDS: usize = 5;
/// The same program as a plain unit.
const PLAIN: &str = "install -m 755 /srv/payload/images/load-program /usr/local/bin/load
    printf '[Socket]\\nListenStream=127.0.0.1:8081\\n' >/etc/systemd/system/plain.socket
    printf '[Service]\\nType=notify\\nExecStart=/usr/local/bin/load first\\n' >/etc/systemd/system/plain.service
    systemctl daemon-reload && systemctl start plain.socket";
/// Who asks as soon as the socket is there.
const EARLY: &str = "cat >/etc/systemd/system/asks.service <<'END'
[Unit]
DefaultDependencies=no
Requires=demand.socket
After=demand.socket
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/curl -s --max-time 30 -o /run/answer http://127.0.0.1:8080/
[Install]
WantedBy=sysinit.target
END
    systemctl -q enable asks";

/// Off, on with the first connection, and on in the midst of a boot.
pub fn starts_on_the_first_connection(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run("sysctr -q install --name demand oci:/srv/payload/images/on-demand:1")?;
    machine.reboot()?;
    machine.booted()?;
    machine.run("systemctl is-active demand.socket && ! systemctl is-active demand.service")?;
    machine.run(PLAIN)?;
    first_answers(machine, ("demand", 8080), ("plain", 8081), "first")?;

    machine.run(EARLY)?;
    machine.reboot()?;
    machine.booted()?;
    ensure!(
        machine.wait_until(Duration::from_secs(30), "cat /run/answer")? == "first",
        "the early answer is another one"
    );
    let mut stamp =
        |unit: &str| -> Result<u64> { Ok(machine.property(unit, "ActiveEnterTimestampMonotonic")?.parse()?) };
    let (service, sysinit) = (stamp("demand.service")?, stamp("sysinit.target")?);
    ensure!(service > 0 && service < sysinit, "it was active at {service} µs, sysinit.target at {sysinit} µs");
    Ok(())
}

/// Times the first answers of two services that are off, a container and a plain unit: both are this text.
pub fn first_answers(machine: &mut dyn Machine, ours: (&str, u16), plain: (&str, u16), text: &str) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (times, one) in times.iter_mut().zip([ours, plain]) {
            times.push(first_answer(machine, one, text)?);
        }
    }
    let [ours, plain] = times.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[ROUNDS / 2] * 1000.0
    });
    eprintln!("the first answer takes {ours:.0} ms, of a plain unit {plain:.0} ms (medians of {ROUNDS})");
    ensure!(ours < plain + 1000.0, "the first answer takes {ours:.0} ms, of a plain unit {plain:.0} ms");
    Ok(())
}

/// Seconds until a service that was off has answered.
fn first_answer(machine: &mut dyn Machine, (unit, port): (&str, u16), text: &str) -> Result<f64> {
    let script = format!(
        "systemctl stop {unit}.service 2>/dev/null; systemctl reset-failed {unit}.service; rm -f /run/one
         systemctl start {unit}.socket && ! systemctl -q is-active {unit}.service &&
         [ $(curl -sf -w '%{{time_total}}' -o /run/one http://127.0.0.1:{port}/ >/run/took; cat /run/one) = {text} ] && cat /run/took"
    );
    machine.run(&script)?.trim().parse().context("how long the answer took")
}
