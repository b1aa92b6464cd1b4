//! containerd and kubelet on flanneld's network: a pod has an address of this host's subnet, by the file that flanneld's image has
//! systemd write.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::kubelet::{self, TASKS};
use super::{REGISTRY, registry};
use crate::machine::Machine;

const POD: Duration = Duration::from_secs(240);
const CONFIGURATION: &str = "/etc/cni/net.d/10-flannel.conflist";

/// Where Debian has the plug-ins; that of flannel itself is in no package, and lies there already.
const ENGINE: &str = r#"cat >>/etc/containerd/config.toml <<'TOML' && systemctl restart containerd
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
TOML"#;

/// etcd and flanneld on a card with nothing behind it.
fn network(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.run(&format!(
        "ip link add eth0 type veth peer name behind && ip address add 192.0.2.1/24 dev eth0
         ip link set eth0 up && ip link set behind up
         sysctr -q install --yes --now {REGISTRY}/etcd
         etcdctl put /coreos.com/network/config '{{\"Network\": \"10.77.0.0/16\", \"Backend\": {{\"Type\": \"vxlan\"}}}}'
         sysctr -q install --yes --now --set iface=eth0 --set cni=true {REGISTRY}/flanneld"
    ))?;
    machine.run(&format!("test -s {CONFIGURATION}")).map(drop)
}

/// The pod of a manifest gets its address, is reached at it over the bridge, and the address goes with the pod.
pub fn a_pod_has_an_address_of_the_subnet(machine: &mut dyn Machine) -> Result<()> {
    network(machine)?;
    kubelet::install(machine, false)?;
    machine.run(ENGINE)?;
    machine.run("sed -i 's/hostNetwork: true/hostNetwork: false/' /etc/kubernetes/manifests/app.yaml && systemctl start kubelet")?;
    machine.wait_until(POD, &format!("[ $({TASKS} | wc -w) = 2 ]"))?;
    let address = machine.run(&format!(
        "pids=$({TASKS}) && nsenter --net=/proc/${{pids%% *}}/ns/net ip -4 -o address show eth0 | grep -o 'inet [^ /]*' | cut -c 6-"
    ))?;
    let subnet = machine.run("sed -n 's/^FLANNEL_SUBNET=//p' /run/flannel/subnet.env")?;
    let bridge = machine.run("ip -4 -o address show cni0 | grep -o 'inet [^ ]*'")?;
    ensure!(bridge == format!("inet {subnet}"), "cni0 has {bridge:?}, flanneld's subnet is {subnet:?}");
    let network = |address: &str| address.rsplit_once('.').map(|(network, _)| network.to_owned());
    ensure!(
        address.starts_with("10.77.") && network(&address) == network(&subnet),
        "the pod's address is {address:?}, flanneld's subnet {subnet:?}"
    );
    machine.run(&format!("busybox ping -c 2 -W 5 {address}"))?;
    machine.run("rm /etc/kubernetes/manifests/app.yaml")?;
    machine.wait_until(POD, &format!("[ -z \"$({TASKS})\" ] && ! ls /var/lib/cni/networks/*/{address} 2>/dev/null"))?;
    machine.run("sysctr uninstall kubelet flanneld etcd && sysctr verify").map(drop)
}
