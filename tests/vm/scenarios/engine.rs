//! A container engine that needs what system containers bring: etcd, then flanneld, then Docker on flanneld's subnet.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{REGISTRY, registry};
use crate::machine::Machine;
use crate::process::run;

const BOOT: Duration = Duration::from_secs(180);
const NETWORK: &str = r#"{"Network": "10.77.0.0/16", "Backend": {"Type": "vxlan"}}"#;
/// The engine's drop-in, as images/flanneld/README.md says.
const DROP_IN: &str = "install -D -m 644 /var/lib/sysctr/containers/flanneld/current/rootfs/usr/share/flanneld/docker.conf \
    /etc/systemd/system/docker.service.d/flanneld.conf";

/// Packages beside those of every machine.
pub fn packages(suite: &str) -> &'static [&'static str] {
    match suite {
        "bookworm" => &["docker.io", "busybox-static", "containernetworking-plugins"],
        _ => &["docker.io", "docker-cli", "busybox-static", "containernetworking-plugins"],
    }
}

/// etcdctl with the certificate that etcd wants to see.
const ETCDCTL: &str = "etcdctl --endpoints https://127.0.0.1:2379 --cacert /etc/etcd/ca.crt --cert /etc/flanneld/client.crt \
    --key /etc/flanneld/client.key";

/// Installs all of it, speaking TLS, and starts nothing but etcd, which has to learn which network there is.
pub fn install(machine: &mut dyn Machine, iface: &str) -> Result<()> {
    registry(machine)?;
    certificates(machine)?;
    machine.run(&format!(
        "sysctr -q install --yes --now --set early=true --set client_tls=true --set peer_tls=true {REGISTRY}/etcd &&
         {ETCDCTL} put /coreos.com/network/config '{NETWORK}'"
    ))?;
    // Who shows none has no answer.
    machine.fails(1, "etcdctl --endpoints https://127.0.0.1:2379 --cacert /etc/etcd/ca.crt get --prefix / 2>&1")?;
    let settings = format!("--set iface={iface} --set tls=true --set etcd_endpoints=https://127.0.0.1:2379");
    machine.run(&format!(
        "sysctr -q install --yes {settings} {REGISTRY}/flanneld && {DROP_IN} &&
         systemctl enable docker.service systemd-networkd-wait-online.service && sync"
    ))?;
    Ok(())
}

/// An authority, and one certificate for both sides, in the files of the host that the images take them from.
fn certificates(machine: &mut dyn Machine) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = "new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        openssl req -x509 $new -days 2 -subj /CN=authority -keyout ca.key -out ca.crt &&
        openssl req $new -subj /CN=etcd -keyout key -out request &&
        echo subjectAltName=IP:127.0.0.1 >names &&
        openssl x509 -req -days 2 -in request -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names -out crt";
    run(Command::new("sh").args(["-c", script]).current_dir(folder.path()))?;
    let read = |file: &str| std::fs::read_to_string(folder.path().join(file));
    let (authority, certificate, key) = (read("ca.crt")?, read("crt")?, read("key")?);
    machine
        .run(&format!(
            "mkdir -p /etc/etcd /etc/flanneld && umask 077 && cd /etc/etcd && cat >ca.crt <<'END' && cat >server.crt <<'END' && cat >server.key <<'END' &&
{authority}END\n{certificate}END\n{key}END
             cp ca.crt /etc/flanneld && cp server.crt /etc/flanneld/client.crt && cp server.key /etc/flanneld/client.key"
        ))
        .map(drop)
}

/// From power on: etcd is active, then flanneld is ready and its subnet written, then Docker starts, with that subnet on its bridge.
pub fn started_in_order(machine: &mut dyn Machine) -> Result<()> {
    machine.wait_until(BOOT, "systemctl is-active docker")?;
    let mut stamp = |unit: &str, property: &str| -> Result<u64> { Ok(machine.property(unit, property)?.parse()?) };
    let times = [
        stamp("etcd", "ActiveEnterTimestampMonotonic")?,
        stamp("flanneld", "ExecMainStartTimestampMonotonic")?,
        stamp("flanneld", "ActiveEnterTimestampMonotonic")?,
        stamp("docker", "ExecMainStartTimestampMonotonic")?,
        stamp("docker", "ActiveEnterTimestampMonotonic")?,
    ];
    ensure!(times[0] > 0 && times.is_sorted(), "etcd, flanneld and docker came up at {times:?} µs");
    eprintln!("{}", machine.run("systemd-analyze critical-chain docker.service --no-pager; journalctl -b -o short-monotonic --no-pager -g '^(Started|Starting|Reached target Multi|ready to serve|flannel is ready)' -u etcd -u flanneld -u docker")?);
    machine.run("[ /run/flannel/subnet.env -ot /run/docker.pid ]")?;
    let (subnet, bridge) = (
        machine.run("sed -n 's/^FLANNEL_SUBNET=//p' /run/flannel/subnet.env")?,
        machine.run("ip -4 -o address show docker0 | grep -o 'inet [^ ]*'")?,
    );
    ensure!(
        !subnet.is_empty() && bridge == format!("inet {subnet}"),
        "docker0 has {bridge:?}, flanneld's subnet is {subnet:?}"
    );
    Ok(())
}

/// With no network card: etcd was there before the network, the boot went on to its end, and Docker waits for its subnet.
pub fn boots_without_a_card(machine: &mut dyn Machine) -> Result<()> {
    machine.wait_until(BOOT, "systemctl is-active multi-user.target")?;
    ensure!(machine.run("ls /sys/class/net")? == "lo", "there is a network card");
    let mut stamp =
        |unit: &str| -> Result<u64> { Ok(machine.property(unit, "ActiveEnterTimestampMonotonic")?.parse()?) };
    let (etcd, online) = (stamp("etcd")?, stamp("network-online.target")?);
    ensure!(etcd > 0 && etcd < online, "etcd was active at {etcd} µs, the network at {online} µs");
    machine.run("! systemctl is-active docker && ! ls /run/flannel/subnet.env 2>/dev/null")?;
    machine.run(&format!("{ETCDCTL} endpoint health")).map(drop)
}

/// An image of one static program for the engine.
const BUSYBOX: &str = "tar -C / -c bin/busybox 2>/dev/null | docker import - busybox >/dev/null";

/// A container on the one machine reaches one on the other, each on its own host's subnet of one VXLAN.
pub fn containers_reach_each_other(one: &mut dyn Machine, other: &mut dyn Machine) -> Result<()> {
    join(one, "192.0.2.1")?;
    join(other, "192.0.2.2")?;
    one.run("docker run -d --name there busybox /bin/busybox sleep 600")?;
    let address = one.run("docker inspect -f '{{.NetworkSettings.IPAddress}}' there")?;
    let subnet = other.run("sed -n 's/^FLANNEL_SUBNET=//p' /run/flannel/subnet.env")?;
    ensure!(address.starts_with("10.77.") && !subnet.is_empty(), "the container's address is {address:?}");
    let third = |text: &str| text.split('.').nth(2).unwrap_or_default().to_owned();
    ensure!(third(&address) != third(&subnet), "both machines have the subnet of {address}");
    other.run("ip -d link show flannel.1 | grep vxlan")?;
    let ping = format!("docker run --rm busybox /bin/busybox ping -c 3 -W 5 {address}");
    other.wait_until(Duration::from_secs(60), &ping)?;
    // And not by another way.
    other.run("ip link set flannel.1 down")?;
    other.fails(1, &ping).map(drop)
}

/// Gives a machine its address on the cable, and its engine a subnet; etcd is on the first one.
fn join(machine: &mut dyn Machine, address: &str) -> Result<()> {
    registry(machine)?;
    machine.run(&format!("ip link set eth0 up && ip address add {address}/24 dev eth0"))?;
    let first = "192.0.2.1";
    if address == first {
        machine.run(&format!(
            "sysctr -q install --now --set client_host={address} {REGISTRY}/etcd
             etcdctl --endpoints {address}:2379 put /coreos.com/network/config '{NETWORK}'"
        ))?;
    }
    let settings = format!("--set iface=eth0 --set etcd_endpoints=http://{first}:2379");
    machine
        .run(&format!(
            "sysctr -q install --yes --now {settings} {REGISTRY}/flanneld &&
             {DROP_IN} && systemctl daemon-reload && systemctl restart docker && {BUSYBOX}"
        ))
        .map(drop)
}
