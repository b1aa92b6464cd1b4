//! One more program in a running container: `sysctr-runtime exec`, as `sysctr exec` calls it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use crate::support::{Bundle, RUNTIME};

mod terminal;
mod walls;

pub use terminal::on_terminal;

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

    pub fn of(bundle: Bundle) -> Self {
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
