//! A start needs nothing: etcd is started under strace(1), and up to the program's own exec there is no connection, no lock, and
//! no change to a file outside /run, /proc, /sys and the file systems that are new and the container's.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::{REGISTRY, registry};
use crate::machine::Machine;

/// What a start may change, by the paths that it names. The rest it changes through descriptors of new mounts.
const FREE: [&str; 3] = ["/run/", "/proc/", "/sys/"];

/// Calls that change files or wait for others.
const WATCHED: &str = "connect,sendto,sendmsg,bind,flock,fcntl,open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,\
    renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,truncate,ftruncate,chmod,fchmod,fchmodat,chown,\
    fchown,fchownat,setxattr,lsetxattr,fsetxattr,utimensat,execve,execveat,fsync,fdatasync,sync,syncfs";

/// Runs it, and then with one forbidden thing in front of the launcher, which must be seen.
pub fn a_start_needs_nothing(machine: &mut dyn Machine) -> Result<()> {
    registry(machine)?;
    machine.run(&format!("sysctr install {REGISTRY}/etcd"))?;
    let seen = trace(machine, "")?;
    ensure!(seen.iter().any(|line| line.contains("READY=1") || line.contains("MAINPID=")), "no hand-over: {seen:?}");
    let forbidden = forbidden(&seen);
    ensure!(forbidden.is_empty(), "the start did\n{}", forbidden.join("\n"));
    println!("a start of etcd: {} watched calls, among them {:?}", seen.len(), names(&seen));

    for wrong in [
        ": >/var/tmp/written",
        "flock /etc/hostname true",
        "mkdir /var/tmp/made",
        "bash -c ': >/dev/tcp/127.0.0.1/5000'",
        "mv /var/tmp/written /var/tmp/renamed",
    ] {
        let seen = trace(machine, &format!("{wrong};"))?;
        ensure!(!self::forbidden(&seen).is_empty(), "nothing was said of `{wrong}`: this test is blind");
    }
    Ok(())
}

/// What the unit's processes called until etcd itself began.
fn trace(machine: &mut dyn Machine, before: &str) -> Result<Vec<String>> {
    machine.run(&format!(
        "systemctl stop etcd; systemctl reset-failed etcd; rm -f /run/trace; mkdir -p /run/systemd/system/etcd.service.d
         cat >/run/launch <<'END'
{before} exec /usr/libexec/sysctr/sysctr-runtime run /var/lib/sysctr/containers/etcd/deployments/1
END
         cat >/run/systemd/system/etcd.service.d/trace.conf <<'END'
[Service]
ExecStart=
ExecStart=/usr/bin/strace -D -f -s 200 -e trace={WATCHED} -o /run/trace /bin/sh /run/launch
END
         systemctl daemon-reload && systemctl start etcd && systemctl stop etcd"
    ))?;
    let text = machine.run("cat /run/trace")?;
    // From its exec on, what etcd does is its own.
    let mut own = BTreeSet::new();
    let mut seen = Vec::new();
    for line in text.lines() {
        let (pid, call) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let before = own.is_empty() && !call.contains("= -1 ");
        let behind = !own.is_empty() && !own.contains(pid) && call.contains("sysctr");
        if before || behind {
            seen.push(call.trim_start().to_owned());
        }
        if call.trim_start().starts_with("execve(\"/usr/bin/etcd\"") {
            own.insert(pid.to_owned());
        }
    }
    ensure!(!own.is_empty(), "etcd was never executed:\n{text}");
    Ok(seen)
}

fn names(seen: &[String]) -> BTreeSet<&str> {
    seen.iter().filter_map(|call| call.split_once('(')).map(|(name, _)| name).collect()
}

fn forbidden(seen: &[String]) -> Vec<&str> {
    seen.iter().map(String::as_str).filter(|call| is_forbidden(call)).collect()
}

fn is_forbidden(call: &str) -> bool {
    let Some((name, arguments)) = call.split_once('(') else { return false };
    // The path as the call names it; relative to a descriptor it is below a new mount, which only the runtime has.
    let path = arguments.split('"').nth(1).unwrap_or_default();
    let elsewhere = path.starts_with('/') && !FREE.iter().any(|free| path.starts_with(free)) && path != "/dev/null";
    match name {
        "connect" => !arguments.contains("/run/systemd/notify"),
        "flock" | "sync" | "syncfs" | "fsync" | "fdatasync" | "bind" => true,
        "fcntl" => ["F_SETLK", "F_OFD_SETLK"].iter().any(|lock| arguments.contains(lock)),
        "sendto" | "sendmsg" => arguments.contains("sun_path") && !arguments.contains("/run/systemd/notify"),
        "open" | "openat" | "openat2" => {
            elsewhere && ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| arguments.contains(flag))
        }
        "execve" | "execveat" => false,
        _ => elsewhere,
    }
}
