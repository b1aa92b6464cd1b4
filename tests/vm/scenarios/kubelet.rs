//! kubelet behind its engine, on a node of its own: a pod of a manifest runs, and outlives it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{REGISTRY, registry};
use crate::machine::Machine;

/// What a busy host may take for the first pod.
const POD: Duration = Duration::from_secs(240);

/// The engine knows the image of a pod's first process and that of the pod, and fetches nothing.
const ENGINE: &str = r#"set -e
    mkdir -p /etc/containerd /etc/kubernetes/kubelet.conf.d
    cat >/etc/containerd/config.toml <<'TOML'
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_cgroup = WITHOUT
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = WITH
TOML
    systemctl restart containerd
    # Two images, or the engine would call both by one name.
    tar -C /srv/payload/images/tiny -c . | ctr -n k8s.io images import --base-name localhost/app - >/dev/null
    tar -C /srv/payload/images/tiny-next -c . | ctr -n k8s.io images import --base-name localhost/pause - >/dev/null
    ctr -n k8s.io images ls -q | grep -qx localhost/pause:1
    # The disk of who tests this may be as full as it likes.
    cat >/etc/kubernetes/kubelet.conf.d/10-disk.conf <<'YAML'
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard: { memory.available: 10Mi }
imageGCHighThresholdPercent: 100
YAML"#;

/// A pod on the host's network, so that it needs no plug-in, with a volume that kubelet mounts.
const MANIFEST: &str = "mkdir -p /etc/kubernetes/manifests && cat >/etc/kubernetes/manifests/app.yaml <<'YAML'
apiVersion: v1
kind: Pod
metadata: { name: app }
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 2
  volumes: [{ name: memory, emptyDir: { medium: Memory } }]
  containers:
  - name: app
    image: localhost/app:1
    imagePullPolicy: Never
    volumeMounts: [{ name: memory, mountPath: /memory }]
YAML";

/// A machine in systemd-nspawn has the host's kernel: its settings are not for a test to change, and there are no controllers.
const WITHOUT_A_KERNEL: &str = "set -e
    [ -e /dev/kmsg ] || ln -s console /dev/kmsg
    mkdir -p /run/settings /etc/kubernetes/kubelet.conf.d
    for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1 \\
            kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        file=/run/settings/$(basename ${setting%=*}); echo ${setting#*=} >$file
        mount --bind $file /proc/sys/${setting%=*}
    done
    printf '%s\\n' 'apiVersion: kubelet.config.k8s.io/v1beta1' 'kind: KubeletConfiguration' 'cgroupsPerQOS: false' \\
        'enforceNodeAllocatable: []' >/etc/kubernetes/kubelet.conf.d/20-no-controllers.conf";

/// The tasks of the engine: a name of kubelet's and the number of its process.
pub const TASKS: &str = "ctr -n k8s.io tasks ls | awk '$3 == \"RUNNING\" { print $2 }' | sort | paste -sd ' '";

/// Images for the engine, a pod for kubelet, and kubelet itself, which is not started. A machine without a kernel of its own has no
/// controllers to limit pods by.
pub fn install(machine: &mut dyn Machine, own_kernel: bool) -> Result<()> {
    registry(machine)?;
    if !own_kernel {
        machine.run(WITHOUT_A_KERNEL)?;
    }
    machine.run(&ENGINE.replace("WITHOUT", &(!own_kernel).to_string()).replace("WITH", &own_kernel.to_string()))?;
    machine.run(MANIFEST)?;
    let asked = machine.fails(4, &format!("sysctr install {REGISTRY}/kubelet </dev/null"))?;
    for word in ["mount on, /var/lib/kubelet", "CAP_SYS_ADMIN", "processes", "/etc/kubernetes", "readiness as root"] {
        ensure!(asked.contains(word), "it does not ask for {word:?}: {asked}");
    }
    let driver = if own_kernel { "systemd" } else { "cgroupfs" };
    machine.run(&format!("sysctr -q install --yes --set cgroup_driver={driver} {REGISTRY}/kubelet && sync")).map(drop)
}

/// It started once Docker was there, which flanneld is before.
pub fn comes_after_the_engine(machine: &mut dyn Machine) -> Result<()> {
    machine.wait_until(POD, "systemctl is-active kubelet")?;
    let mut stamp = |unit: &str, property: &str| -> Result<u64> { Ok(machine.property(unit, property)?.parse()?) };
    let times = [
        stamp("flanneld", "ActiveEnterTimestampMonotonic")?,
        stamp("docker", "ActiveEnterTimestampMonotonic")?,
        stamp("kubelet", "ExecMainStartTimestampMonotonic")?,
        stamp("kubelet", "ActiveEnterTimestampMonotonic")?,
    ];
    ensure!(times[0] > 0 && times.is_sorted(), "flanneld, docker and kubelet came up at {times:?} µs");
    eprintln!("{}", machine.run("systemd-analyze critical-chain kubelet.service --no-pager; journalctl -b -o short-monotonic --no-pager -u kubelet -g '^(Started|Starting) ' ")?);
    Ok(())
}

/// It is well, and the pod of the manifest runs, with the volume that kubelet mounted for it.
pub fn runs_a_pod(machine: &mut dyn Machine) -> Result<()> {
    machine.wait_until(POD, "[ \"$(curl -s http://127.0.0.1:10248/healthz)\" = ok ]")?;
    ensure!(machine.property("kubelet", "ActiveState")? == "active", "kubelet says that it is well, and is not active");
    machine.wait_until(POD, &format!("[ $({TASKS} | wc -w) = 2 ]"))?;
    let names = machine.run("ctr -n k8s.io containers ls | sed 1d | awk '{ print $2 }' | sort")?;
    ensure!(names == "localhost/app:1\nlocalhost/pause:1", "the engine's containers are of {names}");
    // Mounted in kubelet's own mount namespace: the host and the pod have it too.
    let volume = "/var/lib/kubelet/pods/*/volumes/kubernetes.io~empty-dir/memory";
    machine.run(&format!(
        "grep -q ' /var/lib/kubelet/pods/.*/memory .* - tmpfs ' /proc/self/mountinfo && touch $(ls -d {volume})/here"
    ))?;
    machine.run(&format!("for pid in $({TASKS}); do ls /proc/$pid/root/memory 2>/dev/null; done | grep -qx here"))?;
    eprintln!("{}", machine.run("ctr -n k8s.io tasks ls; systemctl --no-pager -n 0 status kubelet | head -n 12")?);
    Ok(())
}

/// The pod runs on without it, is found again by the next one, and goes with its manifest.
pub fn the_pod_outlives_it(machine: &mut dyn Machine) -> Result<()> {
    let before = machine.run(TASKS)?;
    machine.run("systemctl stop kubelet")?;
    ensure!(machine.property("kubelet", "Result")? == "success", "kubelet did not end well");
    ensure!(machine.run(TASKS)? == before, "the pod did not outlive kubelet");
    machine.run("systemctl start kubelet")?;
    runs_a_pod(machine)?;
    ensure!(machine.run(TASKS)? == before, "kubelet started another pod beside {before}");
    machine.run("rm /etc/kubernetes/manifests/app.yaml")?;
    machine.wait_until(POD, &format!("[ -z \"$({TASKS})\" ] && ! grep -q /memory /proc/self/mountinfo"))?;
    machine.run("sysctr verify && sysctr uninstall kubelet && sysctr verify").map(drop)
}
