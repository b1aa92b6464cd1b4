//! A start needs nothing: etcd is started under strace(1), and the launcher, in each of its processes up to the program's own exec and
//! to its own end, connects to nothing but systemd, takes no lock, and changes no file outside /run, /proc, /sys and the file systems
//! that are new and the container's. What the host's file systems hold afterwards says the same.

mod calls;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use calls::{Call, WATCHED, is_forbidden, of_launcher, parse};

use super::{REGISTRY, registry};
use crate::machine::Machine;

const PROGRAM: &str = "/usr/bin/etcd";
const DEPLOYMENT: &str = "/var/lib/sysctr/containers/etcd/deployments/1";

/// What is wrong, by a shell in front of the launcher, and how it shows. The last is done by a process of the launcher's when the
/// program runs already.
const WRONG: [(&str, &str); 16] = [
    (": >/var/tmp/written", "openat("),
    ("mkdir /var/tmp/made", "mkdir("),
    ("mkfifo /var/tmp/fifo", "mknod"),
    ("mv /var/tmp/written /var/tmp/renamed", "rename"),
    ("ln /var/tmp/renamed /var/tmp/linked", "link"),
    ("ln -s /run/x /var/tmp/symbolic", "symlink"),
    ("truncate -s 5 /var/tmp/renamed", "ftruncate("),
    ("chmod 600 /var/tmp/renamed", "chmod"),
    ("chown 1 /var/tmp/renamed", "chown"),
    ("touch /var/tmp/renamed", "utimensat("),
    ("rm /var/tmp/linked", "unlink"),
    ("flock /etc/hostname true", "flock("),
    ("perl -MFcntl -e 'open F, \"+</etc/hosts\"; $lock = pack \"ssqql\", F_RDLCK; fcntl F, F_SETLK, $lock'", "fcntl("),
    ("sync /etc/hostname", "fsync("),
    ("bash -c ': >/dev/tcp/127.0.0.1/5000'", "connect("),
    ("(until pgrep -x etcd; do sleep 0.1; done; mkdir /var/tmp/late) >/dev/null 2>&1 &", "mkdir(\"/var/tmp/late\""),
];

/// Once as it is, and once with each forbidden thing in front of the launcher: all of them must be seen.
pub fn a_start_needs_nothing(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.booted()?;
    machine.run(&format!("sysctr install {REGISTRY}/etcd"))?;
    let seen = trace(machine, "", "true")?;
    let spoken = |word: &str| seen.iter().any(|call| call.line().contains(word));
    ensure!(spoken("MAINPID="), "no hand-over is in the trace");
    let forbidden = forbidden(&seen);
    ensure!(forbidden.is_empty(), "the start did\n{}", forbidden.join("\n"));
    let changed = changed(machine)?;
    ensure!(changed.is_empty(), "the start changed files of the host:\n{changed}");
    let names: BTreeSet<&str> = seen.iter().map(|call| call.name.as_str()).collect();
    println!("a start of etcd: {} watched calls of the launcher, among them {names:?}", seen.len());

    let before: Vec<&str> = WRONG.iter().map(|(wrong, _)| *wrong).collect();
    let seen = trace(machine, &before.join("\n"), "until [ -d /var/tmp/late ]; do sleep 0.1; done")?;
    let found = self::forbidden(&seen);
    for (wrong, call) in WRONG {
        ensure!(found.iter().any(|line| line.contains(call)), "nothing was said of `{wrong}`: {}", found.join("\n"));
    }
    let changed = self::changed(machine)?;
    ensure!(changed.contains("/var/tmp/made"), "files that changed were not found: {changed}");
    Ok(())
}

/// What the launcher called. etcd's own calls are in the trace too, and left out.
fn trace(machine: &mut dyn Machine, before: &str, until: &str) -> Result<Vec<Call>> {
    machine.run(&format!(
        "systemctl stop etcd; systemctl reset-failed etcd; rm -rf /run/trace /var/tmp/*; mkdir -p /run/systemd/system/etcd.service.d
         cat >/run/launch <<'END'
{before}
exec /usr/libexec/sysctr/sysctr-runtime run {DEPLOYMENT}
END
         cat >/run/systemd/system/etcd.service.d/trace.conf <<'END'
[Service]
ExecStart=
ExecStart=/usr/bin/strace -D -f -y -s 200 -e trace={WATCHED} -o /run/trace /bin/sh /run/launch
END
         systemctl daemon-reload; sleep 0.1; touch /run/before; sleep 0.1
         systemctl start etcd && {until} && systemctl stop etcd"
    ))?;
    let text = machine.run("cat /run/trace")?;
    let all = parse(&text);
    let count = all.len();
    let ours = of_launcher(all, PROGRAM).with_context(|| format!("{PROGRAM} was never executed:\n{text}"))?;
    ensure!(ours.len() < count && text.contains("bind("), "of what etcd itself does nothing is in the trace");
    Ok(ours)
}

fn forbidden(seen: &[Call]) -> Vec<String> {
    seen.iter().filter(|call| is_forbidden(call, DEPLOYMENT)).map(Call::line).collect()
}

/// Files of the host that are newer than the start, but for the journal's and what etcd itself keeps.
fn changed(machine: &mut dyn Machine) -> Result<String> {
    machine.run(
        r"find / /var -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /srv/payload \
            -o -path /var/log -o -path /var/lib/etcd -o -path /var/lib/vm-agent-done \) -prune -o -cnewer /run/before -print",
    )
}
