//! The terminal of an executed program, and ours.

use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use super::Running;
use crate::support::Bundle;

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
