//! Hooks and a writable root under systemd: what an image's own config.json may have.

use anyhow::{Result, ensure};

use super::stops_cleanly;
use crate::machine::Machine;

/// Makes the image `oci:/tmp/hooked` of the machine's own shell.
const MAKE: &str = r#"set -e
work=/tmp/hooked; rm -rf $work; root=/tmp/hooked-root; rm -rf $root
mkdir -p $work/blobs/sha256 $root/{bin,exports,proc,dev,etc}
for program in sh sleep; do
    cp -L /bin/$program $root/bin/
    for library in $(ldd /bin/$program | grep -o '/[^ ]*'); do mkdir -p $root/$(dirname $library); cp -L $library $root/$library; done
done
cat > $root/exports/config.json.hbs <<'END'
{ "ociVersion": "1.2.0", "root": { "path": "rootfs", "readonly": false },
  "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
    "args": ["sh", "-c", "trap 'exit 0' TERM; echo mine > /etc/new; sleep 1000 & wait"] },
  "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
  "hooks": {
    "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", "{ echo created; cat; echo; } >> /run/hooked.log"], "timeout": 10 }],
    "poststart": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo started >> /run/hooked.log"] }],
    "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo stopped >> /run/hooked.log"] }] },
  "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "cgroup" }] } }
END
add() { digest=$(sha256sum < $1 | cut -d' ' -f1); size=$(stat -c %s $1); mv $1 $work/blobs/sha256/$digest; }
described() { echo "{\"mediaType\": \"application/vnd.oci.image.$1\", \"digest\": \"sha256:$digest\", \"size\": $size}"; }
tar -C $root -cf $work/layer .
add $work/layer; layer=$(described layer.v1.tar)
echo "{\"architecture\": \"$(dpkg --print-architecture)\", \"os\": \"linux\", \"config\": {\"Entrypoint\": [\"/bin/sh\"]},
    \"rootfs\": {\"type\": \"layers\", \"diff_ids\": [\"sha256:$digest\"]}}" > $work/config
add $work/config; config=$(described config.v1+json)
echo "{\"schemaVersion\": 2, \"config\": $config, \"layers\": [$layer]}" > $work/manifest
add $work/manifest
echo "{\"schemaVersion\": 2, \"manifests\": [$(described manifest.v1+json)]}" > $work/index.json
echo '{"imageLayoutVersion": "1.0.0"}' > $work/oci-layout"#;

/// Hooks are asked for, run at a start and after a stop, and what was written to the root is gone.
pub fn hooks_run_around_a_service_with_a_root_to_write_on(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(MAKE)?;
    let asked = machine.fails(4, "sysctr install --name hooked oci:/tmp/hooked </dev/null")?;
    ensure!(asked.contains("run on the host: /bin/sh") && asked.contains("poststop hook"), "it asked {asked}");
    machine.run("sysctr install --yes --name hooked oci:/tmp/hooked && systemctl start hooked")?;
    let log = machine.run("cat /run/hooked.log")?;
    let lines: Vec<&str> = log.lines().collect();
    ensure!(lines.len() == 3 && lines[0] == "created" && lines[2] == "started", "the hooks wrote {log}");
    ensure!(lines[1].contains("\"id\":\"hooked\"") && lines[1].contains("\"status\":\"creating\""), "{log}");
    let pid = machine.property("hooked", "MainPID")?;
    ensure!(lines[1].contains(&format!("\"pid\":{pid}")), "the hook was told another process than {pid}: {log}");
    machine.run(&format!("grep -q mine /proc/{pid}/root/etc/new && sysctr verify"))?;
    stops_cleanly(machine, "hooked")?;
    let log = machine.run("cat /run/hooked.log")?;
    ensure!(log.ends_with("\nstopped"), "after the stop: {log}");
    machine
        .run("systemctl start hooked && sysctr verify && systemctl stop hooked && sysctr uninstall --purge hooked")?;
    let log = machine.run("grep -c stopped /run/hooked.log; rm /run/hooked.log")?;
    ensure!(log == "2", "poststop ran {log} times");
    Ok(())
}
