//! One more program in a running container, and a container that is thrown away.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{REGISTRY, etcd, httpd, processes, registry, stops_cleanly};
use crate::machine::{LIMIT, Machine};
use crate::snapshot::Snapshot;

pub fn equal(found: &str, wanted: &str, of: &str) -> Result<()> {
    ensure!(found == wanted, "{of}: {found:?}, not {wanted:?}");
    Ok(())
}

/// It runs where the service runs, as the service runs, and ends as the program does.
pub fn runs_beside_the_service(machine: &mut dyn Machine) -> Result<()> {
    etcd::install(machine)?;
    let value = machine.run("sysctr exec -e ETCDCTL_API=3 etcd etcdctl get --print-value-only greeting")?;
    equal(&value, "hello", "the key")?;
    equal(&machine.run("sysctr exec etcd -- id -u")?, "2379", "the user")?;
    equal(&machine.run("sysctr exec -u nobody etcd -- id -un")?, "nobody", "another user")?;
    equal(&machine.run("sysctr exec --user 0:34 etcd -- id -G")?, "34", "numbers")?;
    let said = machine
        .run("A=ours sysctr exec -w /var/lib/etcd -e A -e B=2 -e C etcd -- sh -c 'pwd; echo $A $B ${C-none}'")?;
    equal(&said, "/var/lib/etcd\nours 2 none", "folder and variables")?;
    machine.run("printf '# a comment\\nD=from file\\n\\nA\\nB=1\\n' >/root/env")?;
    let said = machine.run(
        "A=ours PRE_1=x PRE_2=y sysctr exec --env-file /root/env -e B=2 -e 'PRE_*' etcd -- sh -c 'echo $A $B $D $PRE_1 $PRE_2'",
    )?;
    equal(&said, "ours 2 from file x y", "variables of a file, and all that begin so")?;
    equal(&machine.run("echo text | sysctr exec -i etcd cat")?, "text", "what it read")?;
    equal(&machine.run("echo text | sysctr exec etcd cat")?, "", "what it read without --interactive")?;

    for (code, command, said) in [
        (7, "etcd -- sh -c 'exit 7'", ""),
        (127, "etcd nothing", "not found"),
        (126, "etcd /etc/passwd", "may not be executed"),
        (125, "--user none etcd true", "\"none\""),
        (125, "--workdir /none etcd true", "/none"),
        (125, "nothing true", "hint: `sysctr list`"),
    ] {
        let error = machine.fails(code, &format!("sysctr exec {command}"))?;
        ensure!(error.contains(said) && said.is_empty() == error.is_empty(), "{command}: {error}");
    }
    // Another deployment is in force by now, and not yet running: it is the running one that counts.
    machine.run(
        r#"cd /var/lib/sysctr/containers/etcd/deployments && cp -a 1 2 && sed -i 's|"id": 1|"id": 2|' 2/deployment.json
        sed -i 's|"HOME=[^"]*"|"HOME=/new"|' 2/config.json && grep -q HOME=/new 2/config.json
        echo 2 >/etc/sysctr/containers/etcd/active"#,
    )?;
    equal(&machine.run("sysctr exec etcd -- sh -c 'echo $HOME'")?, "/var/lib/etcd", "the environment")?;
    machine.run("echo 1 >/etc/sysctr/containers/etcd/active; rm -r /var/lib/sysctr/containers/etcd/deployments/2")?;

    machine.fails(143, "sysctr exec etcd sleep 60 & sleep 1; kill -TERM $!; wait $!")?;

    stops_cleanly(machine, "etcd")?;
    let error = machine.fails(125, "sysctr exec etcd true")?;
    ensure!(error.contains("it is inactive") && error.contains("hint: `systemctl start etcd`"), "{error}");
    Ok(())
}

/// Instances of a template unit that the admin wrote are named as systemctl names them, and each is entered by itself.
pub fn reaches_an_instance(machine: &mut dyn Machine) -> Result<()> {
    machine.booted()?;
    machine.run(
        "sysctr -q install --no-enable oci:/srv/payload/images/tiny:1
         sed '/^ExecStart=/s/$/ --instance %i/' /etc/systemd/system.attached/tiny.service >/etc/systemd/system/tiny@.service
         systemctl daemon-reload && systemctl start tiny@a tiny@b",
    )?;
    machine.run("systemd-run --quiet --unit=caller sysctr exec tiny@b -- /bin/tiny")?;
    let groups = "cat /sys/fs/cgroup$(systemctl show --value -p ControlGroup tiny@INSTANCE)/cgroup.procs | wc -l";
    machine.wait_until(Duration::from_secs(20), &format!("[ $({}) = 2 ]", groups.replace("INSTANCE", "b")))?;
    equal(&machine.run(&groups.replace("INSTANCE", "a"))?, "1", "processes of the other instance")?;
    machine.run("systemctl stop tiny@b && sysctr exec tiny@a -- /bin/tiny end")?;
    for (code, name, said) in [
        (125, "tiny@b", "hint: `systemctl start tiny@b` starts it"),
        (125, "tiny", "hint: `systemctl start tiny` starts it"),
        (125, "none@a", "no container \"none\" is installed"),
        (2, "tiny@", "invalid instance"),
    ] {
        let error = machine.fails(code, &format!("sysctr exec {name} -- /bin/tiny end"))?;
        ensure!(error.contains(said), "{name}: {error}");
    }
    machine.run("systemctl stop tiny@a && rm /etc/systemd/system/tiny@.service && systemctl daemon-reload")?;
    let error = machine.fails(125, "sysctr exec tiny@a -- /bin/tiny end")?;
    ensure!(error.contains("there is no tiny@.service"), "{error}");
    Ok(())
}

/// Confined exactly as the main process is, in its control group, and with nothing of the caller's.
pub fn is_confined_as_the_service(machine: &mut dyn Machine) -> Result<()> {
    etcd::install(machine)?;
    machine.run("mkdir -p /etc/systemd/system/etcd.service.d && printf '[Service]\\nLimitMEMLOCK=1M\\nOOMScoreAdjust=100\\nCapabilityBoundingSet=~CAP_KILL\\n' >/etc/systemd/system/etcd.service.d/a.conf && systemctl daemon-reload && systemctl restart etcd")?;
    let main = "$(systemctl show --value -p MainPID etcd)";
    let same = |machine: &mut dyn Machine, what: &str| -> Result<()> {
        let of = |process: &str| what.replace("PROCESS", process);
        let service = machine.run(&of(main))?;
        // By way of systemd, whose own seccomp filters, in systemd-nspawn, the service has too.
        let call = "systemd-run --quiet --pipe --wait sysctr exec etcd -- sh -c";
        let ours = machine.run(&format!("{call} {}", quoted(&of("self"))))?;
        ensure!(!service.is_empty(), "{what} says nothing");
        equal(&ours, &service, what)
    };
    let fields = "Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask";
    same(machine, &format!("grep -E '^({fields})' /proc/PROCESS/status"))?;
    // The first thread of a Go program may be one that is not used any more, with all signals blocked: what most threads have.
    let most = "sort | uniq -c | sort -rn | sed -n '1s/.*SigBlk/SigBlk/p'";
    same(machine, &format!("cat /proc/PROCESS/task/*/status | grep ^SigBlk | {most}"))?;
    same(machine, "grep ^Max /proc/PROCESS/limits; cat /proc/PROCESS/oom_score_adj")?;
    for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup", "user"] {
        same(machine, &format!("readlink /proc/PROCESS/ns/{kind}"))?;
    }
    let bounding = machine.run("sysctr exec etcd -- grep CapBnd /proc/self/status")?;
    let number = u64::from_str_radix(bounding.rsplit('\t').next().unwrap_or_default(), 16)?;
    ensure!(number & (1 << 5) == 0, "CAP_KILL, which the unit takes away, came back: {bounding}");

    let open = machine.run("exec 7</etc 8</etc/shadow; sysctr exec etcd -- ls /proc/self/fd | tr '\\n' ' '")?;
    equal(open.trim(), "0 1 2 3", "its descriptors, with the folder that ls reads")?;
    // In the unit's control group: seen there, and gone with the unit.
    machine.run("systemd-run --quiet --unit=caller sysctr exec etcd -- sleep 1000")?;
    machine.wait_until(Duration::from_secs(20), "pgrep -x sleep")?;
    let group = processes(machine, "etcd")?;
    ensure!(group.contains(&"etcd".to_owned()) && group.contains(&"sleep".to_owned()), "in the group run {group:?}");
    stops_cleanly(machine, "etcd")?;
    machine.wait_until(Duration::from_secs(20), "! systemctl is-active caller")?;
    equal(&machine.property("caller", "ExecMainStatus")?, "137", "the caller's end")
}

/// A terminal of a known size, and what the program left of it.
pub fn has_a_terminal(machine: &mut dyn Machine) -> Result<()> {
    etcd::install(machine)?;
    let said = machine.run(&on_terminal(
        "stty rows 33 cols 77; sysctr exec -t etcd -- sh -c 'tty; stty size; test -t 1 && echo $TERM'",
    ))?;
    ensure!(said.starts_with("/dev/pts/") && said.contains("\n33 77\n"), "{said}");
    equal(&machine.run("sysctr exec etcd -- test -t 1; echo $?")?, "1", "without -t")?;
    let killed = "a=$(stty -g); sysctr exec -it etcd -- sh -c 'stty raw -echo; kill -9 $$'; echo $?; [ \"$a\" = \"$(stty -g)\" ] && echo sane";
    equal(&machine.run(&on_terminal(killed))?, "137\nsane", "after kill -9 of the program")?;
    // A new size reaches the program.
    let resized = "stty rows 20 cols 40
        (until pgrep -f '[W]INCH; stty'; do sleep 0.2; done; sleep 2; stty rows 21 cols 41 </dev/tty) >/dev/null &
        sysctr exec -it etcd -- sh -c 'trap \"stty size; exit\" WINCH; stty size; while :; do sleep 0.2; done'";
    equal(&machine.run(&on_terminal(resized))?, "20 40\n21 41", "sizes")?;
    Ok(())
}

/// It runs, says how it ended, and leaves nothing.
pub fn throws_a_container_away(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.booted()?;
    machine.run(&format!("sysctr pull {REGISTRY}/etcd && sysctr pull {REGISTRY}/httpd"))?;
    let before = Snapshot::take(machine)?;
    let nothing_left = |machine: &mut dyn Machine| -> Result<()> {
        equal(
            &machine.run(
                "ls /var/lib/sysctr/run 2>/dev/null; systemctl list-units --all --plain --no-legend 'sysctr-run-*'",
            )?,
            "",
            "what is left",
        )?;
        before.ensure_same(&Snapshot::take(machine)?)
    };
    let etcd = format!("{REGISTRY}/etcd");
    ensure!(
        machine.run(&format!("sysctr run {etcd} etcdctl version"))?.contains("etcdctl version: 3"),
        "etcdctl said nothing"
    );
    equal(&machine.run(&format!("sysctr run --rm {etcd} -- id -u"))?, "2379", "the user")?;
    equal(
        &machine.run(&format!(
            "sysctr run -u 0 -w /tmp -e A=b {etcd} -- sh -c 'id -u; pwd; echo $A; echo x >/usr/f && cat /usr/f'"
        ))?,
        "0\n/tmp\nb\nx",
        "choices",
    )?;
    equal(&machine.run(&format!("echo in | sysctr run -i {etcd} cat"))?, "in", "what it read")?;
    machine.run("mkdir -p /root/given && echo page >/root/given/page")?;
    let given = format!(
        "cd /root && sysctr run -u 0 --volume ./given:/data:ro --mount type=bind,src=/root/given,dst=/srv/w --cap-add sys_time \
         --mount type=tmpfs,dst=/t,tmpfs-mode=700 --cap-drop kill {etcd} -- \
         sh -c 'cat /data/page; touch /srv/w/made; touch /data/x 2>/dev/null || echo sealed; stat -c %a /t; grep CapEff /proc/self/status'"
    );
    let said = machine.run(&given)?;
    let (said, capabilities) = said.rsplit_once("CapEff:\t").unwrap_or_default();
    equal(said, "page\nsealed\n700\n", "what it was given")?;
    let number = u64::from_str_radix(capabilities, 16)?;
    ensure!(number & (1 << 25) != 0 && number & (1 << 5) == 0, "capabilities {capabilities}");
    equal(&machine.run("ls /root/given && rm -r /root/given")?, "made\npage", "what it wrote")?;
    let special = "--volume /run/dbus/system_bus_socket:/opt/bus --volume /etc/hostname:/opt/name --volume /dev/zero:/opt/zero:dev";
    let kinds = format!(
        "sysctr run {special} {etcd} -- sh -c 'test -S /opt/bus && test -s /opt/name && head -c 1 /opt/zero >/tmp/one && echo all'"
    );
    equal(&machine.run(&kinds)?, "all", "a socket, a file and a device")?;
    let bare = format!("sysctr run --entrypoint /bin/echo {etcd} x; sysctr run --entrypoint '' {etcd} /bin/echo y");
    equal(&machine.run(&bare)?, "x\ny", "another entrypoint")?;
    // Its state is its own, and gone with it.
    equal(&machine.run(&format!("sysctr run {etcd} -- sh -c 'stat -c %u:%a /var/lib/etcd; touch /var/lib/etcd/x'; ls /var/lib/etcd 2>&1 | grep -c 'No such'"))?, "2379:700\n1", "its state")?;
    nothing_left(machine)?;
    for (code, command, said) in [
        (7, format!("{etcd} -- sh -c 'exit 7'"), ""),
        (137, format!("{etcd} -- sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'"), "Killed"),
        (127, format!("{etcd} nothing"), "not found"),
        (126, format!("{etcd} /etc/passwd"), "may not be executed"),
        (125, format!("-w relative/ {etcd} true"), "relative"),
        (125, format!("-u none {etcd} true"), "\"none\""),
        (125, format!("--volume /none/at/all:/x {etcd} true"), "/none/at/all"),
        (125, format!("--env-file /none {etcd} true"), "/none"),
        (2, format!("--volume data:/x {etcd} true"), "named volumes"),
        (125, format!("{REGISTRY}/none true"), "none"),
        (4, format!("{REGISTRY}/httpd true"), "/var/www"),
    ] {
        let code = if command.starts_with("-w relative") { 2 } else { code };
        let error = machine.fails(code, &format!("sysctr run {command}"))?;
        ensure!(error.contains(said) && said.is_empty() == error.is_empty(), "{command}: {error}");
    }
    nothing_left(machine)?;
    httpd::page(machine)?;
    let page = machine.run(&format!(
        "sysctr run --yes {REGISTRY}/httpd cat /var/www/index.html 2>/dev/null; rm /var/www/index.html"
    ))?;
    ensure!(page.contains("from the host"), "{page}");
    let shown = format!(
        "stty rows 33 cols 77; sysctr run -t {etcd} -- sh -c 'tty; stty size; ls -l /dev/console; exit 3'; echo $?"
    );
    let said = machine.run(&on_terminal(&shown))?;
    ensure!(said.starts_with("/dev/pts/0\n33 77\nc") && said.ends_with("\n3"), "{said}");
    nothing_left(machine)
}

/// In a scope of its own while it runs; with its owner it ends, and the next command sweeps up.
pub fn leaves_nothing_when_it_is_killed(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.run(&format!("sysctr pull {REGISTRY}/etcd"))?;
    let start = |machine: &mut dyn Machine| -> Result<()> {
        machine.run(&format!(
            "setsid sysctr run --name trial {REGISTRY}/etcd sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >/root/pid"
        ))?;
        machine.wait_until(Duration::from_secs(20), "pgrep -x sleep").map(drop)
    };
    start(machine)?;
    let group = processes(machine, "sysctr-run-trial.scope")?;
    ensure!(group.contains(&"sleep".to_owned()) && group.len() == 2, "in the scope run {group:?}");
    let error = machine.fails(125, &format!("sysctr run --name trial {REGISTRY}/etcd true"))?;
    ensure!(error.contains("trial is running already"), "{error}");
    // One that runs is nobody's to sweep.
    machine.run("sysctr prune >/dev/null && ls /var/lib/sysctr/run/trial/rootfs/usr >/dev/null && pgrep -x sleep")?;
    machine.run("kill -KILL $(pgrep -x sysctr-runtime)")?;
    machine.wait_until(Duration::from_secs(20), "! pgrep -x sleep && ! systemctl is-active sysctr-run-trial.scope")?;
    machine
        .run("ls /var/lib/sysctr/run/trial >/dev/null && sysctr prune && ! ls /var/lib/sysctr/run/trial 2>/dev/null")?;
    start(machine)?;
    machine.run("timeout 30 systemctl stop sysctr-run-trial.scope")?;
    machine.wait_until(Duration::from_secs(20), "! pgrep -x sleep && ! pgrep -x sysctr-runtime")?;
    machine.try_run("rm -f /root/pid", LIMIT)?;
    machine
        .run(&format!("sysctr run --name trial {REGISTRY}/etcd true && [ -z \"$(ls /var/lib/sysctr/run)\" ]"))
        .map(drop)
}

/// The script on a terminal of its own, whose keyboard nobody touches.
fn on_terminal(script: &str) -> String {
    format!("script -qec {} /dev/null < <(exec sleep 15 2>/dev/null) | tr -d '\\r'", quoted(script))
}

/// One word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
