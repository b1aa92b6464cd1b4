//! One more program in a running container: `sysctr-runtime exec`, as `sysctr exec` calls it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use crate::support::{Bundle, RUNTIME};

/// A container that runs until this is dropped.
pub struct Running {
    bundle: Bundle,
    launcher: Child,
    pid: i32,
}

impl Running {
    pub fn new(change: impl FnOnce(Bundle) -> Bundle) -> Self {
        Self::of(change(Bundle::script("echo up; sleep 100")))
    }

    fn of(bundle: Bundle) -> Self {
        let command = bundle.command();
        Self::started(bundle, command)
    }

    /// By a command that stays as the parent of the container's first process.
    fn started(bundle: Bundle, mut command: Command) -> Self {
        let mut launcher = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        let children = format!("/proc/{0}/task/{0}/children", launcher.id());
        let pid = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        Self { bundle, launcher, pid }
    }

    /// What `sysctr exec` would start, with these fields of the request's wishes.
    pub fn command(&self, wishes: Value) -> (Command, OwnedFd, File) {
        let mut all =
            json!({"args": [], "user": null, "workdir": null, "env": [], "terminal": false, "interactive": false});
        all.as_object_mut().unwrap().extend(wishes.as_object().unwrap().clone());
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).unwrap();
        let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
        let request =
            json!({"container": "box", "deployment": self.bundle.path(), "cgroup": cgroup, "wishes": all}).to_string();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(request.as_bytes()).unwrap();
        file.rewind().unwrap();
        let pidfd = pidfd_open(rustix::process::Pid::from_raw(self.pid).unwrap(), PidfdFlags::empty()).unwrap();
        fcntl_setfd(&pidfd, FdFlags::empty()).unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        let mut command = Command::new(RUNTIME);
        command.arg("exec").args([pidfd.as_raw_fd(), file.as_raw_fd()].map(|fd| fd.to_string())).stdin(Stdio::null());
        (command, pidfd, file)
    }

    fn exec_with(&self, wishes: Value) -> Output {
        let (mut command, _pidfd, _request) = self.command(wishes);
        command.output().unwrap()
    }

    fn exec(&self, args: &[&str]) -> Output {
        self.exec_with(json!({ "args": args }))
    }

    fn prints(&self, script: &str) -> String {
        printed(self.exec(&["sh", "-c", script]))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.launcher.kill().unwrap();
        self.launcher.wait().unwrap();
    }
}

fn printed(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn until(what: &str, mut come: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !come() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const FILTER: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;

#[test]
fn the_program_is_confined_as_the_main_process_is() {
    for sealed in [true, false] {
        let running = Running::new(|bundle| {
            bundle
                .with("/linux", "seccomp", serde_json::from_str(FILTER).unwrap())
                .with("/process", "noNewPrivileges", json!(sealed))
                .with("/process", "rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]))
        });
        let wanted = |file: &str, of: &str, lines: &[&str]| {
            let text = fs::read_to_string(format!("/proc/{of}/{file}")).unwrap_or_default();
            let text = if of == "self" { running.prints(&format!("cat /proc/self/{file}")) } else { text };
            let lines = text.lines().filter(|line| lines.iter().any(|start| line.starts_with(start)));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let main = running.pid.to_string();
        for (file, lines) in [
            ("status", &["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp:", "Seccomp_filters", "Umask"][..]),
            ("status", &["SigBlk", "SigIgn"]),
            ("limits", &["Max"]),
        ] {
            let main = wanted(file, &main, lines);
            assert!(!main.is_empty() && wanted(file, "self", lines) == main, "{sealed} {file}: {main:#?}");
        }
        for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup", "user"] {
            let main = fs::read_link(format!("/proc/{main}/ns/{kind}")).unwrap();
            assert_eq!(running.prints(&format!("readlink /proc/self/ns/{kind}")).trim(), main.to_str().unwrap());
        }
        assert!(running.prints("hostname new 2>&1 || true").contains("Function not implemented"));
        assert_eq!(running.prints("readlink /proc/self/root; pwd; cat /etc/own"), "/\n/\nthe image's own\n");
    }
}

#[test]
fn it_runs_where_the_main_process_runs_or_where_config_json_says() {
    let pick = |list: Value| {
        let running = Running::new(|bundle| match list.is_null() {
            true => bundle,
            false => bundle.with("/process", "execCPUAffinity", json!({ "final": list })),
        });
        assert!(
            Command::new("taskset").args(["-pc", "0", &running.pid.to_string()]).output().unwrap().status.success()
        );
        assert!(Command::new("renice").args(["5", "-p", &running.pid.to_string()]).output().unwrap().status.success());
        running.prints("grep Cpus_allowed_list /proc/self/status; cut -d' ' -f19 /proc/self/stat")
    };
    assert_eq!(pick(Value::Null), "Cpus_allowed_list:\t0\n5\n");
    assert_eq!(pick(json!("1")), "Cpus_allowed_list:\t1\n5\n");
}

#[test]
fn only_its_three_streams_are_open_and_none_is_the_callers() {
    let running = Running::new(|bundle| bundle);
    let mine = File::create(running.bundle.path().join("out")).unwrap();
    fcntl_setfd(&mine, FdFlags::empty()).unwrap(); // one that the caller forgot to close
    let (mut command, _pidfd, _request) = running.command(json!({"args": ["ls", "-l", "/proc/self/fd"]}));
    assert!(command.stdout(mine).status().unwrap().success());
    let listed = fs::read_to_string(running.bundle.path().join("out")).unwrap();
    let targets: Vec<&str> = listed.lines().filter_map(|line| line.rsplit_once(" -> ")).map(|it| it.1).collect();
    assert!(targets.len() == 3 && targets.iter().all(|target| target.starts_with("pipe:")), "{listed}");
}

#[test]
fn it_ends_as_the_program_does() {
    let running = Running::new(|bundle| bundle);
    let code = |args: &[&str]| running.exec(args).status.code();
    assert_eq!(code(&["true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(137));
    fs::write(running.bundle.root().join("bin/plain"), "x").unwrap();
    let script = running.bundle.root().join("bin/script");
    fs::write(&script, "#!/no/interpreter\n").unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    for (args, code, words) in [
        ("nothing", 127, "not found"),
        ("/bin/nothing", 127, "not found"),
        ("/bin/script", 127, "interpreter"),
        ("/bin/plain", 126, "may not be executed"),
        ("/etc", 126, "is no file"),
        ("/proc/1/exe", 126, "refused"),
    ] {
        let output = running.exec(&[args]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args}: {said}");
        assert!(said.starts_with(&format!("error: running \"{args}\" in box: ")) && said.contains(words), "{said}");
        assert_eq!(said.lines().count(), 1);
    }
    let output = running.exec_with(json!({"args": ["true"], "workdir": "/none"}));
    assert!(output.status.code() == Some(125), "{output:?}");
}

#[test]
fn user_folder_and_environment_are_chosen() {
    let running = Running::new(|bundle| {
        fs::write(bundle.root().join("etc/passwd"), "web:x:33:34::/srv:/bin/sh\n").unwrap();
        fs::write(bundle.root().join("etc/group"), "web:x:34:\nlog:x:4:web\n").unwrap();
        bundle
    });
    let script =
        "id -u; id -g; id -G; pwd; echo $HOME $A $B; grep -E '^Cap(Eff|Bnd)' /proc/self/status; echo x > /dev/stdout";
    let output = running.exec_with(json!({
        "args": ["sh", "-c", script], "user": "web", "workdir": "/tmp", "env": ["A=1", "B=2=3"]
    }));
    let wanted = "33\n34\n34 4\n/tmp\n/srv 1 2=3\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000021\nx\n";
    assert_eq!(printed(output), wanted);
    assert_eq!(printed(running.exec_with(json!({"args": ["id", "-G"], "user": "77:log"}))), "4\n");
    let output = running.exec_with(json!({"args": ["id"], "user": "nobody"}));
    assert!(output.status.code() == Some(125) && String::from_utf8_lossy(&output.stderr).contains("\"nobody\""));
}

#[test]
fn it_reads_our_input_only_where_it_is_interactive() {
    let running = Running::new(|bundle| bundle);
    let megabytes = "0123456789abcdef".repeat(200_000);
    for (interactive, wanted) in [(true, megabytes.as_str()), (false, "")] {
        let (mut command, _pidfd, _request) = running.command(json!({"args": ["cat"], "interactive": interactive}));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text = megabytes.clone();
        let writer = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
        let mut read = String::new();
        child.stdout.take().unwrap().read_to_string(&mut read).unwrap();
        assert!(child.wait().unwrap().success());
        writer.join().unwrap();
        assert!(read == wanted, "{interactive}: {} bytes came back", read.len());
    }
}

#[test]
fn a_reader_that_leaves_ends_the_program() {
    let running = Running::new(|bundle| bundle);
    let (mut command, _pidfd, _request) = running.command(json!({"args": ["sh", "-c", "while echo y; do :; done"]}));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13)); // SIGPIPE
}

#[test]
fn a_program_left_in_the_background_holds_nobody_up() {
    let running = Running::new(|bundle| bundle);
    let before = Instant::now();
    assert_eq!(running.prints("sleep 30 & echo x"), "x\n");
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[test]
fn signals_are_passed_on() {
    let running = Running::new(|bundle| bundle);
    for (signal, script, code) in [
        (Signal::SIGTERM, "echo up; exec sleep 50", 143),
        (Signal::SIGINT, "trap 'exit 4' INT; echo up; while :; do sleep 0.1; done", 4),
        (Signal::SIGHUP, "trap 'exit 5' HUP; echo up; while :; do sleep 0.1; done", 5),
        (Signal::SIGUSR1, "trap 'exit 6' USR1; echo up; while :; do sleep 0.1; done", 6),
    ] {
        let (mut command, _pidfd, _request) = running.command(json!({"args": ["sh", "-c", script]}));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
    }
}

#[test]
fn it_ends_with_its_caller_and_with_its_container() {
    let mut running = Running::new(|bundle| bundle);
    let start = |running: &Running| {
        let (mut command, pidfd, request) = running.command(json!({"args": ["sh", "-c", "echo up; exec sleep 50"]}));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        (child, stdout, (pidfd, request))
    };
    let (mut child, mut stdout, _files) = start(&running);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(stdout.read_line(&mut String::new()).unwrap(), 0);
    until("the end of the program", || {
        !running.prints("ls /proc | grep -c '^[0-9]'; cat /proc/[0-9]*/comm").contains("sleep\nsleep")
    });

    let (mut child, _stdout, _files) = start(&running);
    running.launcher.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    running.launcher = Command::new("sleep").arg("9").spawn().unwrap();

    let mut other = Running::new(|bundle| bundle);
    let (mut command, _pidfd, _request) = other.command(json!({"args": ["true"]}));
    other.launcher.kill().unwrap();
    until("the end of the container", || fs::read_to_string(format!("/proc/{}/stat", other.pid)).is_err());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(125) && said.contains("main process has just ended"), "{said}");
}

#[test]
fn a_container_that_watches_sees_nothing_of_the_host_in_who_comes_in() {
    // Root in the container, who may even trace, looks at each new process for as long as it can: at its root, its working folder,
    // and its descriptors.
    let watch = "echo up; while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) \
        r=$(ls $p/root/); case \"$r\" in *usr*) echo root $p $r;; esac; \
        ls -l $p/fd | grep -E ' -> /' | grep -vE ' -> (/dev/null|/proc/[0-9]+/fd|/data/seen)$'; readlink $p/cwd | grep -v '^/$'; \
        esac; done; done > /data/seen 2>/dev/null";
    let host = tempfile::tempdir().unwrap();
    let ptrace = json!(["CAP_SYS_PTRACE"]);
    let capable = json!({"bounding": ptrace, "effective": ptrace, "permitted": ptrace});
    let bundle = Bundle::script(watch).binding(host.path(), "/data", &["bind"]);
    let running = Running::of(bundle.with("/process", "capabilities", capable));
    let seen = || fs::read_to_string(host.path().join("seen")).unwrap();
    for _ in 0..40 {
        let (mut command, _pidfd, _request) = running.command(json!({"args": ["true"]}));
        let mine = File::open("/etc").unwrap();
        fcntl_setfd(&mine, FdFlags::empty()).unwrap();
        assert!(command.status().unwrap().success());
    }
    assert_eq!(seen(), "");
    // The control: somebody who comes in as careless programs do is seen.
    let pid = running.pid.to_string();
    let careless = Command::new("nsenter").args(["--target", &pid, "--pid", "sleep", "2"]).status().unwrap();
    assert!(careless.success() && seen().contains("root /proc/"), "{:?}", seen());
}

#[test]
fn a_working_folder_or_accounts_behind_a_link_to_the_hosts_lead_nowhere() {
    let running = Running::new(|bundle| {
        symlink("/dev/null", bundle.root().join("etc/passwd")).unwrap();
        bundle
    });
    for number in 3..12 {
        let output = running.exec_with(json!({"args": ["true"], "workdir": format!("/proc/self/fd/{number}")}));
        assert_eq!(output.status.code(), Some(125), "{number}: {output:?}");
    }
    let output = running.exec_with(json!({"args": ["true"], "user": "web"}));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/etc/passwd of the container is no file"), "{said}");
}

#[test]
fn a_terminal_is_the_containers_own_and_has_the_size_of_ours() {
    let running = Running::new(|bundle| bundle);
    let request = json!({"args": ["sh", "-c", "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo tty; exit 3"], "terminal": true, "interactive": true});
    let (command, _pidfd, _request) = running.command(request);
    let (code, said) = on_terminal(&command, "stty rows 33 cols 77");
    assert_eq!((code, said.replace('\r', "").as_str()), (3, "/dev/pts/0\n33 77\ntty\n"));
}

#[test]
fn our_terminal_is_as_before_whatever_became_of_the_program() {
    let running = Running::new(|bundle| bundle);
    for (script, code) in [("stty raw -echo; kill -9 $$", 137), ("exit 0", 0)] {
        let request = json!({"args": ["sh", "-c", script], "terminal": true, "interactive": true});
        let (command, _pidfd, _request) = running.command(request);
        let mut around = Command::new("sh");
        around.args(["-c", r#"a=$(stty -g); "$@"; c=$?; [ "$a" = "$(stty -g)" ] && echo same; exit $c"#, "sh"]);
        around.arg(command.get_program()).args(command.get_args());
        let (ended, said) = on_terminal(&around, "true");
        assert!(ended == code && said.ends_with("same\r\n"), "{ended} {said:?}");
    }
}

#[test]
fn a_devpts_that_the_container_replaced_is_not_taken_for_one() {
    // Root in the container owns /dev: it puts a link or something else where the terminal would come from.
    for change in [
        "mount -t tmpfs none /dev/pts && mkfifo /dev/pts/ptmx",
        "mount -t tmpfs none /dev/pts && ln -s /data/ptmx /dev/pts/ptmx",
        "mount --move /dev/pts /tmp && rmdir /dev/pts && ln -s /tmp /dev/pts",
    ] {
        let capable =
            json!({"bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"]});
        let script = format!("PATH=$PATH:/tmp; {change} || busybox sh -c '{change}'; echo up; sleep 100");
        let bundle = Bundle::script(&script).with("/process", "capabilities", capable);
        for applet in ["mkfifo", "rmdir", "ln", "mv"] {
            symlink("busybox", bundle.root().join("bin").join(applet)).unwrap();
        }
        let running = Running::of(bundle);
        let output = running.exec_with(json!({"args": ["true"], "terminal": true}));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(125) && said.contains("making a terminal in the container"),
            "{change}: {output:?}"
        );
    }
}

/// A container whose users 0 to 65535 are 100000 to 165535 of the host, made by hand.
fn with_other_users() -> (Running, Child) {
    let bundle = Bundle::script("true");
    drop(bundle.command()); // writes config.json
    fs::set_permissions(bundle.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let root = bundle.root();
    fs::create_dir_all(root.join("dev/pts")).unwrap();
    fs::create_dir(root.join("old")).unwrap();
    let holder = Command::new("unshare").args(["--user", "sleep", "100"]).spawn().unwrap();
    let users = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).unwrap();
    let id = holder.id().to_string();
    until("a user namespace", || users(&id) != users("self"));
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{id}/{map}"), "0 100000 65536").unwrap();
    }
    let inner = format!(
        "mount --bind {0} {0} && cd {0} && mount -t proc proc proc \
         && mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts && pivot_root . old \
         && exec /bin/sh -c 'cd /; /bin/busybox umount -l /old; echo up; exec /bin/sleep 100'",
        root.display()
    );
    let mut command = Command::new("nsenter");
    command.args(["--target", &id, "--user", "--setuid", "0", "--setgid", "0"]);
    command.args([
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--uts",
        "--ipc",
        "--cgroup",
        "sh",
        "-c",
        &inner,
    ]);
    (Running::started(bundle, command), holder)
}

#[test]
fn a_user_namespace_is_joined_and_its_root_owns_what_the_program_gets() {
    let (running, mut holder) = with_other_users();
    let script = "id -u; cat /proc/self/uid_map; stat -L -c %u /proc/self/fd/1; echo x > /proc/self/fd/1; readlink /proc/self/ns/user";
    let wanted = fs::read_link(format!("/proc/{}/ns/user", running.pid)).unwrap().display().to_string();
    for (user, uid) in [(json!(null), 0), (json!("33:44"), 33)] {
        let output = running.exec_with(json!({"args": ["sh", "-c", script], "user": user}));
        let said = printed(output).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(said, format!("{uid} 0 100000 65536 {uid} x {wanted}"));
        let request = json!({"args": ["sh", "-c", "id -u; stat -c %u /dev/pts/0; echo x > /dev/pts/0"], "user": user, "terminal": true});
        let (command, _pidfd, _request) = running.command(request);
        let (code, said) = on_terminal(&command, "true");
        assert_eq!((code, said.replace('\r', "")), (0, format!("{uid}\n{uid}\nx\n")));
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// Runs a command on a terminal, after `before` on the same one. Gives its exit code and what the terminal showed.
pub fn on_terminal(command: &Command, before: &str) -> (i32, String) {
    let quote = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"));
    let words = [command.get_program()].into_iter().chain(command.get_args()).map(quote).collect::<Vec<_>>().join(" ");
    let script = Command::new("script")
        .args(["-qec", &format!("{before}; {words}"), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut script, mut text) = (script, Vec::new());
    let stdin = script.stdin.take(); // open until its end: script(1) would type what it takes for an end of file
    script.stdout.take().unwrap().read_to_end(&mut text).unwrap();
    drop(stdin);
    let output = Output { status: script.wait().unwrap(), stdout: text, stderr: Vec::new() };
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}
