//! Ways out through the launcher's own process and file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::json;

use super::{Launcher, install, probe, probing};
use crate::exec::Running;
use crate::manager::Manager;
use crate::support::Bundle;

/// Where a program for this machine looks for its loader.
const LOADER: &str =
    if cfg!(target_arch = "aarch64") { "/lib/ld-linux-aarch64.so.1" } else { "/lib64/ld-linux-x86-64.so.2" };

/// Hands the container over, so that the launcher ends, and says whether the launcher's file changed.
fn overwrites(launcher: &Launcher, bundle: &Bundle) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let launcher = launcher.copied(folder.path());
    let (before, manager) = (launcher.bytes(), Manager::new());
    let mut command = launcher.command(bundle, &[]);
    let mut child =
        command.env("NOTIFY_SOCKET", manager.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let text = manager.next().text;
    manager.answer_barrier();
    let Some(pid) = text.strip_prefix("MAINPID=") else {
        child.wait().unwrap();
        return false; // refused before anything of the image ran
    };
    let text = manager.next().text;
    assert!(text == "READY=1" || text.starts_with("STATUS="), "{text}");
    manager.answer_barrier();
    child.wait().unwrap();
    waitpid(Pid::from_raw(pid.parse().unwrap()), None).unwrap();
    // refused while init was preparing, nothing of the image has run, and nothing has changed
    launcher.bytes() != before
}

pub fn an_interpreter_overwrites(launcher: &Launcher) -> bool {
    let bundle = Bundle::running(&["/bin/attack"]);
    install(&bundle, LOADER, probe(false), 0o755);
    attack(&bundle, "#!/proc/self/exe overwrite\n");
    overwrites(launcher, &bundle)
}

pub fn a_library_overwrites(launcher: &Launcher) -> bool {
    let bundle = Bundle::running(&["/bin/attack"]);
    // The real loader and libraries, and one more that the image's own settings name.
    let list = Command::new("ldd").arg(&launcher.path).output().unwrap();
    for word in String::from_utf8(list.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
        install(&bundle, word, Path::new(word), 0o755);
    }
    install(&bundle, "/lib/evil.so", probe(true), 0o755);
    fs::write(bundle.root().join("etc/ld.so.preload"), "/lib/evil.so\n").unwrap();
    attack(&bundle, "#!/proc/self/exe --version\n");
    overwrites(launcher, &bundle)
}

fn attack(bundle: &Bundle, text: &str) {
    let script = bundle.path().join("attack");
    fs::write(&script, text).unwrap();
    install(bundle, "/bin/attack", &script, 0o755);
}

pub fn the_program_itself_overwrites(launcher: &Launcher) -> bool {
    let bundle = Bundle::running(&["/proc/self/exe", "overwrite"]);
    install(&bundle, LOADER, probe(false), 0o755);
    overwrites(launcher, &bundle)
}

/// What is executed in the container stays behind there until the launcher has gone.
pub fn an_executed_interpreter_overwrites(launcher: &Launcher) -> bool {
    let (folder, shared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let launcher = launcher.copied(folder.path());
    let before = launcher.bytes();
    let running = Running::new(|bundle| {
        install(&bundle, LOADER, probe(false), 0o755);
        attack(&bundle, "#!/proc/self/exe overwrite-later\n");
        bundle.binding(shared.path(), "/data", &["bind"])
    });
    let (command, _pidfd, _request) = running.command(json!({"args": ["/bin/attack"]}));
    assert!(launcher.instead(&command).output().unwrap().status.success());
    await_file(&shared.path().join("done"));
    launcher.bytes() != before
}

/// A pipe lies where the terminal would come from. Whoever opens it lets its reader go on.
pub fn a_terminal_of_the_containers_choice(launcher: &Launcher) -> bool {
    let shared = tempfile::tempdir().unwrap();
    let script = "busybox mkdir /dev/pts; busybox mkfifo /dev/pts/ptmx; \
        { read x < /dev/pts/ptmx; echo > /data/opened; } & echo up; sleep 100";
    let running =
        Running::of(Bundle::script(script).without_mount("/dev/pts").binding(shared.path(), "/data", &["bind"]));
    // Several times, as the reader may be late.
    (0..10).any(|_| {
        let (command, _pidfd, _request) = running.command(json!({"args": ["true"], "terminal": true}));
        assert!(!launcher.instead(&command).output().unwrap().status.success());
        std::thread::sleep(Duration::from_millis(50));
        shared.path().join("opened").exists()
    })
}

fn await_file(path: &Path) {
    let end = Instant::now() + Duration::from_secs(30);
    while !path.exists() {
        assert!(Instant::now() < end, "{} did not come", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A container in the same pid namespace waits for the other's init while it is held, with equal rights.
pub fn a_neighbour_looks_in(launcher: &Launcher) -> bool {
    // It tells once it has looked through all processes while the other one is held.
    let script = "echo up; while :; do held=; [ -e /data/held ] && held=1; for p in /proc/[0-9]*; do read c < $p/comm; \
        case $c in sysctr-*) readlink $p/exe && exit;; esac; done; [ -n \"$held\" ] && echo nothing && exit; sleep 0.05; done";
    let folder = tempfile::tempdir().unwrap();
    let neighbour = Bundle::script(script).binding(folder.path(), "/data", &["bind", "ro"]);
    let mut first = launcher.command(&neighbour, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut printed = BufReader::new(first.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(printed.next().as_deref(), Some("up"));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", first.id())).unwrap();
    let place = format!("/proc/{}/ns/pid", children.trim());

    let mut second = probing(&["true"]);
    second.spec["linux"]["namespaces"] =
        json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "pid", "path": place}]);
    let manager = Manager::new();
    let mut command = launcher.command(&second, &[]);
    let mut held = command.env("NOTIFY_SOCKET", manager.path()).stderr(Stdio::null()).spawn().unwrap();
    let pid = manager.main_pid();
    fs::write(folder.path().join("held"), "").unwrap();
    let seen = printed.next();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    held.kill().unwrap();
    held.wait().unwrap();
    waitpid(Pid::from_raw(pid), None).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    seen.is_some_and(|seen| seen != "nothing")
}
