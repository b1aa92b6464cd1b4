//! What strace(1) wrote, call by call: whose it is, and whether a start may make it.

use std::collections::{BTreeMap, BTreeSet};

/// The container's own /dev, a new file system: see [`super::DEPLOYMENT`].
const OWN_DEV: &str = "/rootfs/dev";
/// What a start may change, by the paths that it names.
const FREE: [&str; 3] = ["/run/", "/proc/", "/sys/"];
const NOTIFY: &str = "sun_path=\"/run/systemd/notify\"";

/// Calls that change files or wait for others, and those that make processes.
pub const WATCHED: &str = "connect,sendto,sendmsg,sendmmsg,bind,listen,socket,flock,fcntl,open,openat,openat2,creat,mkdir,mkdirat,\
    mknod,mknodat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,truncate,ftruncate,fallocate,\
    chmod,fchmod,fchmodat,chown,lchown,fchown,fchownat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr,\
    utimensat,execve,execveat,fsync,fdatasync,sync,syncfs,io_uring_setup,clone,clone3,fork,vfork";

/// One call, whole: where strace had to cut it in two, the halves are together.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pid: u32,
    /// Its name.
    pub name: String,
    arguments: String,
    result: String,
}

impl Call {
    fn failed(&self) -> bool {
        self.result.starts_with("-1")
    }

    /// As strace wrote it.
    pub fn line(&self) -> String {
        format!("{}({}) = {}", self.name, self.arguments, self.result)
    }
}

/// All calls of a trace, in the order in which they ended. Signals and exits are none.
pub fn parse(text: &str) -> Vec<Call> {
    let mut begun: BTreeMap<u32, String> = BTreeMap::new();
    let mut all = Vec::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Ok(pid) = pid.parse() else { continue };
        let mut rest = rest.trim_start().to_owned();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, start.to_owned());
            continue;
        }
        if let Some((_, end)) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            rest = begun.remove(&pid).unwrap_or_default() + end;
        }
        all.extend(call(pid, &rest));
    }
    // One that never came back was made all the same.
    all.extend(begun.into_iter().filter_map(|(pid, start)| call(pid, &format!("{start}) = ?"))));
    all
}

fn call(pid: u32, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ").map(|(head, result)| (head.trim_end(), result))?;
    let known = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    known.then(|| Call { pid, name: name.into(), arguments: arguments.into(), result: result.into() })
}

/// The calls of the launcher: of the first process and of all that come from it, but not what one of them does once it has become
/// `program`, nor what that one's children do. Nothing where nobody becomes it.
pub fn of_launcher(all: Vec<Call>, program: &str) -> Option<Vec<Call>> {
    let becomes =
        |call: &Call| call.name == "execve" && call.arguments.starts_with(&format!("\"{program}\"")) && !call.failed();
    let end = all.iter().position(becomes)?;
    // Whoever is seen before the program is there comes from the launcher.
    let mut family: BTreeSet<u32> = all[..=end].iter().map(|call| call.pid).collect();
    let own = all[end].pid;
    loop {
        let makes = |call: &&Call| matches!(call.name.as_str(), "clone" | "clone3" | "fork" | "vfork");
        let parents = all.iter().filter(makes).filter(|call| call.pid != own && family.contains(&call.pid));
        let children: BTreeSet<u32> = parents.filter_map(|call| call.result.split(' ').next()?.parse().ok()).collect();
        let before = family.len();
        family.extend(children);
        if family.len() == before {
            break;
        }
    }
    let theirs = |(at, call): &(usize, Call)| family.contains(&call.pid) && (call.pid != own || *at <= end);
    Some(all.into_iter().enumerate().filter(theirs).map(|(_, call)| call).collect())
}

/// Whether a start of the deployment must not make this call. What fails has changed no file; a connection or a lock that is only
/// tried for is one too many.
pub fn is_forbidden(call: &Call, deployment: &str) -> bool {
    let arguments = call.arguments.as_str();
    let changes = |kept: usize, of: usize| {
        let places = places(arguments);
        let mut named = places.iter().take(of).skip(kept).flatten();
        !call.failed() && named.any(|place| is_elsewhere(place, deployment))
    };
    match call.name.as_str() {
        "connect" => !arguments.contains(NOTIFY),
        "sendto" | "sendmsg" | "sendmmsg" => arguments.contains("sa_family=") && !arguments.contains(NOTIFY),
        "socket" => !arguments.starts_with("AF_UNIX"),
        "bind" | "listen" | "flock" | "sync" | "syncfs" | "fsync" | "fdatasync" | "io_uring_setup" => true,
        "fcntl" => ["F_SETLK", "F_OFD_SETLK"].iter().any(|lock| arguments.contains(lock)),
        "open" | "openat" | "openat2" => {
            ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| arguments.contains(flag)) && changes(0, 1)
        }
        "execve" | "execveat" | "clone" | "clone3" | "fork" | "vfork" => false,
        "rename" | "renameat" | "renameat2" | "link" | "linkat" => changes(0, 2),
        "symlink" | "symlinkat" => changes(1, 2),
        _ => changes(0, 1),
    }
}

fn is_elsewhere(place: &str, deployment: &str) -> bool {
    let dev = format!("{deployment}{OWN_DEV}");
    let free = FREE.iter().any(|free| place.starts_with(free));
    !free && place != "/dev/null" && place != dev && !place.starts_with(&format!("{dev}/"))
}

/// The files that arguments name, each by its path. A descriptor of "/" is that of a mount which is not attached yet, and new: what
/// is in it has no path of the host's, nor have pipes, sockets and memory.
fn places(arguments: &str) -> Vec<Option<String>> {
    let mut places = Vec::new();
    let mut base: Option<(bool, &str)> = None;
    let mut rest = arguments;
    while let Some(at) = rest.find(['"', '<']) {
        let (word, quoted) = (&rest[..at], rest.as_bytes()[at] == b'"');
        rest = &rest[at + 1..];
        let end = if quoted { closing_quote(rest) } else { rest.find('>') };
        let Some(end) = end else { break };
        let text = &rest[..end];
        rest = &rest[end + 1..];
        if !quoted {
            // A descriptor that no name follows is itself what the call is about.
            places.extend(base.take().map(|base| join(base, "")));
            base = Some((word.ends_with("AT_FDCWD"), text));
        } else {
            places.push(join(base.take().unwrap_or((true, "/")), text));
        }
    }
    places.extend(base.map(|base| join(base, "")));
    places
}

fn join((folder, base): (bool, &str), name: &str) -> Option<String> {
    // The runtime resolves absolute names within a descriptor (RESOLVE_IN_ROOT); with AT_FDCWD they are what they are.
    let name_inside = if folder { name } else { name.trim_start_matches('/') };
    match (folder, base) {
        (true, _) if name.starts_with('/') => Some(name.to_owned()),
        (true, "/") => Some(format!("/{name}")),
        (false, "/") => None,
        (_, base) if !base.starts_with('/') || base.starts_with("/memfd:") => None,
        (_, base) if name_inside.is_empty() => Some(base.to_owned()),
        (_, base) => Some(format!("{base}/{name_inside}")),
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "/var/lib/sysctr/containers/etcd/deployments/1";

    #[test]
    fn the_launcher_is_judged_to_its_end_and_the_program_is_not() {
        let text = r#"10 execve("/bin/sh", ["sh"], 0x7 /* 9 vars */) = 0
10 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>
11 mkdir("/early", 0777) = 0
10 <... clone resumed>, child_tidptr=0x7) = 11
10 clone3({flags=CLONE_PARENT|CLONE_NEWPID}, 88) = 12
12 execve("/usr/bin/none", ["etcd"], 0x7) = -1 ENOENT (No such file or directory)
12 mkdir("/still-ours", 0777) = 0
12 execve("/usr/bin/etcd", ["etcd"], 0x7 <unfinished ...>
10 mkdir("/meanwhile", 0777) = 0
12 <... execve resumed>) = 0
12 mkdir("/its-own", 0777) = 0
12 clone(flags=CLONE_VM) = 11
13 mkdir("/its-own", 0777) = 0
10 vfork() = 14
14 mkdir("/late", 0777) = 0
10 mkdir("/last", 0777) = 0
10 +++ exited with 0 +++
14 flock(3</x>, LOCK_EX <unfinished ...>
"#;
        let calls = of_launcher(parse(text), "/usr/bin/etcd").unwrap();
        let forbidden: Vec<String> = calls.iter().filter(|call| is_forbidden(call, AT)).map(Call::line).collect();
        let names = ["/early", "/still-ours", "/meanwhile", "/late", "/last"];
        let wanted: Vec<String> = names.iter().map(|name| format!("mkdir(\"{name}\", 0777) = 0")).collect();
        assert_eq!(forbidden[..5], wanted[..]);
        assert_eq!(forbidden[5..], ["flock(3</x>, LOCK_EX) = ?"]);
        assert_eq!(of_launcher(parse(text), "/usr/bin/other"), None);
    }

    /// Each watched call that can be wrong, once wrong and, where there is such a one, once right.
    const SAMPLES: &[(&str, &str)] = &[
        (
            r#"connect(3<socket:[1]>, {sa_family=AF_UNIX, sun_path="/run/dbus/system_bus_socket"}, 30) = -1 ENOENT (x)"#,
            r#"connect(3<socket:[1]>, {sa_family=AF_UNIX, sun_path="/run/systemd/notify"}, 21) = 0"#,
        ),
        (
            r#"sendto(3<socket:[1]>, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(53)}, 16) = 1"#,
            r#"sendto(3<socket:[1]>, "x", 1, 0, NULL, 0) = 1"#,
        ),
        (
            r#"sendmsg(3<socket:[1]>, {msg_name={sa_family=AF_UNIX, sun_path="/run/other"}}, 0) = 1"#,
            r#"sendmsg(3<socket:[1]>, {msg_name={sa_family=AF_UNIX, sun_path="/run/systemd/notify"}}, 0) = 1"#,
        ),
        (r#"sendmmsg(3<socket:[1]>, [{msg_hdr={msg_name={sa_family=AF_UNIX, sun_path="/run/other"}}}], 1, 0) = 1"#, ""),
        (r#"bind(3<socket:[1]>, {sa_family=AF_UNIX, sun_path="/run/x"}, 9) = 0"#, ""),
        (r#"listen(3<socket:[1]>, 5) = 0"#, ""),
        (r#"socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = 3"#, r#"socket(AF_UNIX, SOCK_DGRAM|SOCK_CLOEXEC, 0) = 3"#),
        (r#"flock(3</run/x>, LOCK_EX) = -1 EAGAIN (x)"#, ""),
        (
            r#"fcntl(3</run/x>, F_OFD_SETLKW, {l_type=F_WRLCK}) = 0"#,
            r#"fcntl(3</run/x>, F_GETFD) = 0x1 (flags FD_CLOEXEC)"#,
        ),
        (r#"fcntl(3</run/x>, F_SETLK, {l_type=F_WRLCK}) = 0"#, ""),
        (r#"open("/var/x", O_WRONLY) = 3"#, r#"open("/var/x", O_RDONLY) = 3"#),
        (r#"openat(AT_FDCWD</>, "x", O_RDWR) = 3</x>"#, r#"openat(AT_FDCWD</>, "/var/x", O_WRONLY) = -1 EROFS (x)"#),
        (
            r#"openat(5</var>, "x", O_WRONLY|O_CREAT, 0600) = 3</var/x>"#,
            r#"openat(5</>, "x", O_WRONLY|O_CREAT, 0600) = 3</x>"#,
        ),
        (
            r#"openat2(5</var/lib>, "/x", {flags=O_WRONLY|O_CREAT, resolve=RESOLVE_IN_ROOT}, 24) = 3</var/lib/x>"#,
            r#"openat2(5</var/lib/sysctr/containers/etcd/deployments/1/rootfs>, "/dev/x", {flags=O_WRONLY|O_CREAT, resolve=RESOLVE_IN_ROOT}, 24) = 3"#,
        ),
        (r#"creat("/var/x", 0600) = 3"#, r#"creat("/run/x", 0600) = 3"#),
        (r#"mkdir("x", 0755) = 0"#, r#"mkdir("/var/x", 0755) = -1 EEXIST (x)"#),
        (
            r#"mkdirat(5</var/lib/sysctr/containers/etcd/deployments/1/rootfs>, "x", 0755) = 0"#,
            r#"mkdirat(5</var/lib/sysctr/containers/etcd/deployments/1/rootfs/dev>, "pts", 0755) = 0"#,
        ),
        (r#"mknod("/var/x", S_IFIFO|0600) = 0"#, ""),
        (
            r#"mknodat(AT_FDCWD</>, "/var/x", S_IFIFO|0600) = 0"#,
            r#"mknodat(5</>, "null", S_IFCHR|0666, makedev(0x1, 0x3)) = 0"#,
        ),
        (r#"rename("/run/x", "/var/x") = 0"#, r#"rename("/run/x", "/run/y") = 0"#),
        (r#"renameat(AT_FDCWD</>, "/run/x", AT_FDCWD</>, "/var/x") = 0"#, ""),
        (
            r#"renameat2(5</run>, "x", 6</var>, "x", RENAME_NOREPLACE) = 0"#,
            r#"renameat2(5</run>, "x", 6</run>, "y", 0) = 0"#,
        ),
        (r#"unlink("/var/x") = 0"#, r#"unlink("/var/x") = -1 ENOENT (x)"#),
        (r#"unlinkat(5</var>, "x", 0) = 0"#, ""),
        (r#"rmdir("/var/x") = 0"#, ""),
        (r#"link("/run/x", "/var/x") = 0"#, ""),
        (r#"linkat(AT_FDCWD</>, "/run/x", 5</var>, "x", 0) = 0"#, ""),
        (r#"symlink("/run/x", "/var/x") = 0"#, r#"symlink("/var/x", "/run/x") = 0"#),
        (r#"symlinkat("/run/x", 5</var>, "x") = 0"#, r#"symlinkat("pts/ptmx", 5</>, "ptmx") = 0"#),
        (r#"truncate("/var/x", 0) = 0"#, ""),
        (r#"ftruncate(5</var/x>, 0) = 0"#, r#"ftruncate(5</memfd:x (deleted)>, 0) = 0"#),
        (r#"fallocate(5</var/x>, 0, 0, 9) = 0"#, ""),
        (r#"chmod("/var/x", 0600) = 0"#, ""),
        (r#"fchmod(5</var/x>, 0600) = 0"#, r#"fchmod(5<pipe:[1]>, 0600) = 0"#),
        (r#"fchmodat(AT_FDCWD</>, "/var/x", 0600) = 0"#, ""),
        (r#"chown("/var/x", 0, 0) = 0"#, ""),
        (r#"lchown("/var/x", 0, 0) = 0"#, ""),
        (r#"fchown(5</var/x>, 0, 0) = 0"#, ""),
        (r#"fchownat(5</var/x>, "", 0, 0, AT_EMPTY_PATH) = 0"#, r#"fchownat(5</>, "", 0, 0, AT_EMPTY_PATH) = 0"#),
        (
            r#"setxattr("/var/x", "user.x", "/run/x", 6, 0) = 0"#,
            r#"setxattr("/sys/fs/cgroup/x", "trusted.x", "/var/x", 6, 0) = 0"#,
        ),
        (r#"lsetxattr("/var/x", "user.x", "x", 1, 0) = 0"#, ""),
        (r#"fsetxattr(5</var/x>, "user.x", "x", 1, 0) = 0"#, ""),
        (r#"removexattr("/var/x", "user.x") = 0"#, ""),
        (r#"lremovexattr("/var/x", "user.x") = 0"#, ""),
        (r#"fremovexattr(5</var/x>, "user.x") = 0"#, ""),
        (r#"utimensat(5</var/x>, NULL, NULL, 0) = 0"#, ""),
        (r#"fsync(5</run/x>) = 0"#, ""),
        (r#"fdatasync(5</run/x>) = 0"#, ""),
        (r#"sync() = 0"#, ""),
        (r#"syncfs(5</run/x>) = 0"#, ""),
        (r#"io_uring_setup(4, {flags=0}) = 5"#, ""),
    ];

    #[test]
    fn each_watched_call_is_told_wrong_from_right() {
        let one = |text: &str| call(1, text).unwrap_or_else(|| panic!("no call: {text}"));
        let mut wrong_ones = BTreeSet::new();
        for (wrong, right) in SAMPLES {
            assert!(is_forbidden(&one(wrong), AT), "{wrong}");
            assert!(right.is_empty() || !is_forbidden(&one(right), AT), "{right}");
            wrong_ones.insert(one(wrong).name);
        }
        for name in WATCHED
            .split(',')
            .filter(|name| !matches!(*name, "execve" | "execveat" | "clone" | "clone3" | "fork" | "vfork"))
        {
            assert!(wrong_ones.contains(name), "no sample of {name}");
        }
    }
}
