//! A service is kept only if it is well by the test that its image ships; without a test the same image is taken.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::machine::Machine;

const IMAGES: &str = "oci:/srv/payload/images";

/// Images that run and are not well: what the update says of each.
const BAD: [(&str, &[&str]); 7] = [
    ("web-503", &["GET http://127.0.0.1:8181/ answered 503, ", " times in "]),
    ("web-ends-with-3", &["`tiny end 3` in the container ended with 3 (ended as told), "]),
    ("web-hangs", &["`/bin/tiny hang` in the container did not end within 1 s, 2 times in "]),
    ("web-other-port", &["a connection to 127.0.0.1:8182 was not made: connection refused, "]),
    // An address of nobody's here is not even tried, were it reachable.
    ("web-elsewhere", &["192.0.2.1 is no address of the container's network"]),
    ("web-docker-bad", &["`/bin/tiny end 4` in the container ended with 4 (ended as told), "]),
    // Not even started.
    ("tiny-broken", &["restarting app.service: it ended before it was ready"]),
];

/// Images that are well: what the update says of each.
const GOOD: [(&str, &str); 6] = [
    // Control: of a service that answers 503 and has no test, nothing is known.
    ("web-503-untested", "it was started; the image has no health test"),
    ("web-late", "GET http://127.0.0.1:8181/ answered 200"),
    ("web-moved", "GET http://127.0.0.1:8181/ answered 302"),
    ("web-confined", "`/bin/tiny confined 4711` in the container ended with 0"),
    ("web-connects", "a connection to 127.0.0.1:8181 was made"),
    ("web-docker-good", "`/bin/tiny end 0` in the container ended with 0"),
];

/// Everything in one boot.
pub fn has_to_pass(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run("mkdir -p /etc/sysctr && printf '[update]\\nsettle = 1\\n' >/etc/sysctr/sysctr.toml")?;
    an_install_is_undone(machine).context("install --now")?;
    machine.run("cp -r /srv/payload/images/web-good /root/image")?;
    let said = machine.run("sysctr install --now --name app oci:/root/image:1")?;
    ensure!(
        said.contains("and started it: GET http://127.0.0.1:8181/ answered 200, and it stayed up for 1 s"),
        "{said}"
    );
    is_known(machine, "healthy", "answered 200")?;
    // What is asked of a test is done soon.
    machine.run("printf '[update]\\nsettle = 0\\n' >/etc/sysctr/sysctr.toml")?;
    for (image, words) in BAD {
        is_rolled_back(machine, image, words).with_context(|| image.to_owned())?;
    }
    is_not_tried_again(machine)?;
    for (image, words) in GOOD {
        let said = machine.run(&format!("sysctr update app --to {IMAGES}/{image}:1"))?;
        ensure!(said.contains(words), "the update to {image} said {said}");
    }
    is_known(machine, "healthy", "ended with 0")?;
    // On the host's network and in a private one it is the container's user who connects, not root.
    let asked = machine.run("journalctl --sync; journalctl -u app -o cat | grep -F 'asked by' | sort | uniq -c")?;
    ensure!(asked.lines().count() == 1 && asked.ends_with(" asked by user 4711"), "{asked}");
    let said = machine.run("sysctr rollback app")?;
    ensure!(said.contains("a connection to 127.0.0.1:8181 was made"), "the rollback said {said}");
    later_runs_are_known(machine)?;
    machine.run("sysctr verify && sysctr uninstall app && ! ls /run/sysctr/health | grep app").map(drop)
}

fn an_install_is_undone(machine: &mut dyn Machine) -> Result<()> {
    let said = machine.fails(1, &format!("sysctr install --now --name app {IMAGES}/web-503:1"))?;
    ensure!(said.contains("which is undone: GET http://127.0.0.1:8181/ answered 503"), "it said {said}");
    machine.run("! systemctl cat app 2>/dev/null && ! pgrep -x tiny && ! ls /etc/sysctr/containers/app 2>/dev/null")?;
    // Control: without --now nobody asks.
    machine.run(&format!(
        "sysctr -q install --name app {IMAGES}/web-503:1 && systemctl start app && sysctr -q uninstall app"
    ))?;
    Ok(())
}

fn is_rolled_back(machine: &mut dyn Machine, image: &str, words: &[&str]) -> Result<()> {
    let run = machine.property("app", "InvocationID")?;
    let said = machine.fails(3, &format!("sysctr update app --to {IMAGES}/{image}:1"))?;
    // What failed, and how the old one came back.
    for word in words.iter().chain(&["rolled back", "deployment 1 runs again: GET http://127.0.0.1:8181/ answered 200"])
    {
        ensure!(said.contains(word), "no {word:?} in {said}");
    }
    ensure!(machine.property("app", "InvocationID")? != run, "it was never restarted: the test shows nothing");
    ensure!(machine.property("app", "Description")? == "good", "another one runs");
    // Nothing of a test outlives it.
    let left = machine.run("pgrep -fx '/bin/tiny hang' || true")?;
    ensure!(left.is_empty(), "of the test these run: {left}");
    is_known(machine, "healthy", "answered 200")
}

/// One that was not well is not tried again by itself: here the reference of the container names it.
fn is_not_tried_again(machine: &mut dyn Machine) -> Result<()> {
    machine.run("rm -r /root/image && cp -r /srv/payload/images/web-503 /root/image")?;
    let run = machine.property("app", "InvocationID")?;
    let said = machine.run("sysctr update app 2>&1")?;
    ensure!(said.contains("failed before") && said.contains("answered 503"), "the update said {said}");
    ensure!(machine.property("app", "InvocationID")? == run, "it was tried again");
    Ok(())
}

/// What `list` and `show` know without a try.
fn is_known(machine: &mut dyn Machine, health: &str, judged: &str) -> Result<()> {
    let shown: Value = serde_json::from_str(&machine.run("sysctr --json show app")?)?;
    let listed: Value = serde_json::from_str(&machine.run("sysctr --json list")?)?;
    ensure!(shown["health"] == health && listed[0]["health"] == health, "it is {} and not {health}", shown["health"]);
    ensure!(shown["judged"].as_str().unwrap_or_default().contains(judged), "judged by {}", shown["judged"]);
    Ok(())
}

fn later_runs_are_known(machine: &mut dyn Machine) -> Result<()> {
    // A run that nobody has judged.
    machine.run("systemctl restart app")?;
    is_known(machine, "unknown", "")?;
    machine.run("systemctl stop app")?;
    is_known(machine, "none", "")?;
    machine.run(
        "mkdir -p /run/systemd/system/app.service.d && cd /run/systemd/system/app.service.d
         printf '[Service]\\nRestart=no\\n' >test.conf && systemctl daemon-reload && systemctl start app && systemctl kill -s KILL app
         systemctl is-failed --quiet app || sleep 1; rm -r /run/systemd/system/app.service.d",
    )?;
    is_known(machine, "unhealthy", "")
}
