//! Users of a container's own: etcd lives with them as without, and root among them is nobody to systemd.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{REGISTRY, etcd, processes, registry, stops_cleanly};
use crate::machine::Machine;

const ETCD: &str = include_str!("../../../images/etcd/exports/manifest.json");
/// The first range of those that systemd keeps for containers, and the next ones.
const FIRST: u32 = 524_288;
const WIDTH: u32 = 65_536;

/// etcd's image with a manifest of its own in a layer on top, as the OCI folder `to`.
fn derive(machine: &mut dyn Machine, manifest: &str, to: &str) -> Result<()> {
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let get = |what: &str| format!("curl -sfL -H '{accept}' http://{REGISTRY}/v2/etcd/{what}");
    let mut image: Value = serde_json::from_str(&machine.run(&get("manifests/latest"))?)?;
    let digest = |one: &Value| one["digest"].as_str().map(str::to_owned).context("a digest");
    let mut config: Value = serde_json::from_str(&machine.run(&get(&format!("blobs/{}", digest(&image["config"])?)))?)?;
    let layers = image["layers"].as_array_mut().context("layers")?;
    let fetch = layers.iter().map(|layer| {
        let digest = digest(layer)?;
        Ok(format!("{} -o {}\n", get(&format!("blobs/{digest}")), digest.replace(':', "/")))
    });
    let fetch = fetch.collect::<Result<String>>()?;
    let add = |machine: &mut dyn Machine, make: &str| -> Result<(String, u64)> {
        let script = format!(
            "cd {to}/blobs && {make}\nhash=$(sha256sum <new); hash=${{hash%% *}}; stat -c %s new; mv new sha256/$hash; echo $hash"
        );
        let said = machine.run(&script)?;
        let (size, hash) = said.split_once('\n').context("size and hash")?;
        Ok((format!("sha256:{hash}"), size.parse()?))
    };
    let text = |text: &str| format!("cat >new <<'END'\n{text}\nEND");
    machine.run(&format!("mkdir -p {to}/blobs/sha256 && cd {to}/blobs\n{fetch}echo '{{\"imageLayoutVersion\": \"1.0.0\"}}' >../oci-layout"))?;
    let tar = format!(
        "mkdir -p exports && cat >exports/manifest.json <<'END'\n{manifest}\nEND\ntar -cf new exports/manifest.json && rm -r exports"
    );
    let (layer, size) = add(machine, &tar)?;
    layers.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size}));
    config["rootfs"]["diff_ids"].as_array_mut().context("diff_ids")?.push(json!(layer));
    let (digest, size) = add(machine, &text(&config.to_string()))?;
    image["config"] = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size});
    let (digest, size) = add(machine, &text(&image.to_string()))?;
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
    machine.run(&format!("cat >{to}/index.json <<'END'\n{index}\nEND")).map(drop)
}

fn users(machine: &mut dyn Machine, unit: &str) -> Result<String> {
    let map = machine.run(&format!("cat /proc/$(systemctl show --value -p MainPID {unit})/uid_map"))?;
    Ok(map.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Its state has plain owners on disk, its processes have none of the host's, and both stay so over a restart and an update.
pub fn etcd_keeps_its_data(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    let apart = ETCD.replace("\"network\": \"host\",", "\"network\": \"host\", \"userns\": \"auto\",");
    ensure!(apart != ETCD, "etcd's manifest has another form");
    derive(machine, &apart, "/root/apart")?;
    machine.run("sysctr install --name etcd oci:/root/apart:1 && systemctl start etcd")?;
    machine.run("ETCDCTL_API=3 etcdctl put greeting hello")?;
    etcd::holds_the_key(machine)?;
    ensure!(users(machine, "etcd")? == format!("0 {FIRST} {WIDTH}"), "its users are {}", users(machine, "etcd")?);
    let user = machine.run("ps -o uid= -p $(systemctl show --value -p MainPID etcd)")?;
    ensure!(user.trim() == (FIRST + 2379).to_string(), "on the host it runs as {user}");
    let owner = machine.run("stat -c '%u:%g %a' /var/lib/etcd; find /var/lib/etcd ! -user 2379")?;
    ensure!(owner == "2379:2379 700", "its data belongs to {owner}");
    ensure!(processes(machine, "etcd")? == ["etcd"], "in its unit run {:?}", processes(machine, "etcd")?);
    let inside = machine.run("sysctr exec etcd sh -c 'id -u; stat -c %u /usr/bin/etcd /var/lib/etcd; hostname'")?;
    ensure!(inside.starts_with("2379\n0\n2379"), "inside there are {inside}");
    let root = machine.run("sysctr exec --user 0 etcd sh -c 'id -u; cat /proc/self/uid_map; touch /var/lib/etcd/x && rm /var/lib/etcd/x && echo wrote'")?;
    ensure!(root.starts_with("0\n") && root.ends_with("wrote"), "root inside is {root}");

    machine.run("systemctl restart etcd")?;
    etcd::holds_the_key(machine)?;
    // The update has the same users, and another container has others.
    derive(machine, &apart.replace("a distributed", "the distributed"), "/root/next")?;
    machine.run("sysctr update --yes --to oci:/root/next:1 etcd")?;
    etcd::holds_the_key(machine)?;
    ensure!(users(machine, "etcd")? == format!("0 {FIRST} {WIDTH}"), "its users changed: {}", users(machine, "etcd")?);
    let once = machine.run("sysctr run --user 0 oci:/root/apart:1 sh -c 'id -u; cat /proc/self/uid_map'")?;
    ensure!(once.contains(&(FIRST + WIDTH).to_string()), "one that is thrown away has {once}");
    stops_cleanly(machine, "etcd")
}

/// A foreign MAINPID from root inside is not believed, so that no request is needed; the host's root would be, which is the control.
pub fn root_inside_is_nobody_to_systemd(machine: &mut dyn Machine) -> Result<()> {
    for (image, options, survives) in [("tiny-apart", "", true), ("tiny-root", "--yes", false)] {
        machine.run("systemd-run -q --unit=victim sleep 1000")?;
        let victim = machine.property("victim", "MainPID")?;
        machine.run(&format!(
            "sysctr -q install {options} --set victim={victim} oci:/srv/payload/images/{image}:1 && systemctl start {image}"
        ))?;
        machine.run(&format!("sleep 1; systemctl is-active {image}; systemctl stop {image}"))?;
        let state = machine.property("victim", "ActiveState")?;
        ensure!((state == "active") == survives, "after the stop of {image} the other service is {state}");
        machine.run("systemctl stop victim; systemctl reset-failed victim; true")?;
    }
    Ok(())
}
