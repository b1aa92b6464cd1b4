//! The hand-over to systemd, with a socket that answers as systemd does. This process stands for PID 1: init is its child.

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::manager::Manager;
use crate::support::{Bundle, one_error};

fn start(bundle: &Bundle, manager: &Manager) -> Child {
    let mut command = bundle.command();
    command.env("NOTIFY_SOCKET", manager.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned()
}

fn error_of(launcher: Child) -> String {
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    one_error(&output.stderr)
}

#[test]
fn init_becomes_the_managers_child_is_held_until_it_is_known_and_then_is_the_program() {
    let (bundle, manager) = (Bundle::running(&["sleep", "60"]), Manager::new());
    let mut launcher = start(&bundle, &manager);
    let pid = manager.main_pid();
    assert_eq!(parent_of(pid), std::process::id() as i32);
    let barrier = manager.next();
    assert_eq!(barrier.text, "BARRIER=1");
    assert!(manager.is_silent(), "something was said before the barrier was answered");
    assert_ne!(comm(pid), "sleep", "the program ran before the manager knew it");
    drop(barrier);
    assert_eq!(manager.next().text, "READY=1");
    assert_eq!(comm(pid), "sleep");
    manager.answer_barrier();
    assert!(launcher.wait().unwrap().success());
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(
        waitpid(Pid::from_raw(pid), None).unwrap(),
        WaitStatus::Signaled(Pid::from_raw(pid), Signal::SIGKILL, false)
    );
}

#[test]
fn a_program_that_ends_at_once_is_told_by_its_own_status() {
    let (bundle, manager) = (Bundle::script("exit 5"), Manager::new());
    let mut launcher = start(&bundle, &manager);
    let pid = Pid::from_raw(manager.main_pid());
    manager.answer_barrier();
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 5));
    assert_eq!(manager.next().text, "READY=1");
    manager.answer_barrier();
    assert!(launcher.wait().unwrap().success());
}

#[test]
fn a_failure_while_preparing_is_told_and_is_never_ready() {
    let (bundle, manager) = (Bundle::running(&["/bin/nothing"]), Manager::new());
    let launcher = start(&bundle, &manager);
    // named while the root is put together: systemd takes it in meanwhile
    manager.main_pid();
    manager.answer_barrier();
    let text = manager.next().text;
    assert!(
        text.starts_with("STATUS=starting ") && text.ends_with("program \"/bin/nothing\" not found in the image"),
        "{text}"
    );
    manager.answer_barrier();
    assert!(error_of(launcher).contains("not found in the image"));
    assert!(manager.is_silent());
}

#[test]
fn a_failed_exec_is_told_before_init_ends_with_203_and_is_never_ready() {
    let (bundle, manager) = (Bundle::running(&["/bin/script"]), Manager::new());
    let script = bundle.root().join("bin/script");
    fs::write(&script, "#!/no/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let launcher = start(&bundle, &manager);
    let pid = Pid::from_raw(manager.main_pid());
    manager.answer_barrier();
    let status = manager.next();
    assert!(status.text.contains("STATUS=") && status.text.contains("interpreter"), "{}", status.text);
    assert_eq!(waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).unwrap(), WaitStatus::StillAlive);
    manager.answer_barrier();
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 203));
    assert!(error_of(launcher).contains("interpreter"));
    assert!(manager.is_silent());
}

#[test]
fn init_ends_with_a_launcher_that_is_killed_before_the_hand_over() {
    let (bundle, manager) = (Bundle::running(&["sleep", "60"]), Manager::new());
    let mut launcher = start(&bundle, &manager);
    let pid = Pid::from_raw(manager.main_pid());
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 1));
}

#[test]
fn a_program_that_notifies_itself_says_ready_and_no_other_has_the_socket() {
    let manager = Manager::new();
    let script = "echo $NOTIFY_SOCKET; test -S \"$NOTIFY_SOCKET\" && echo socket";
    for (annotated, printed) in [(true, "/dev/notify\nsocket\n"), (false, "\n")] {
        let bundle =
            Bundle::script(script).with("", "annotations", json!({"org.sysctr.notify": annotated.to_string()}));
        let mut launcher = start(&bundle, &manager);
        let pid = Pid::from_raw(manager.main_pid());
        manager.answer_barrier();
        if !annotated {
            assert_eq!(manager.next().text, "READY=1");
        }
        manager.answer_barrier();
        assert!(launcher.wait().unwrap().success());
        waitpid(pid, None).unwrap();
        let mut text = String::new();
        launcher.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, printed);
    }
}

#[test]
fn waiting_can_be_asked_for_in_spite_of_a_manager() {
    let (bundle, manager) = (Bundle::script("exit 4"), Manager::new());
    let output = bundle.command().arg("--wait").env("NOTIFY_SOCKET", manager.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(manager.is_silent());
}

#[test]
fn a_failure_names_container_and_instance() {
    let bundle = Bundle::running(&["/bin/nothing"]);
    let dir = bundle.path().join("etcd/deployments/3");
    fs::create_dir_all(&dir).unwrap();
    let output = bundle.command().args(["--instance", "blue"]).output().unwrap();
    assert!(one_error(&output.stderr).contains("@blue: program"));
    fs::copy(bundle.path().join("config.json"), dir.join("config.json")).unwrap();
    let output = std::process::Command::new(crate::support::RUNTIME)
        .arg("run")
        .arg(&dir)
        .env_remove("NOTIFY_SOCKET")
        .output()
        .unwrap();
    assert!(one_error(&output.stderr).starts_with("error: starting etcd: opening the root file system"));
}
