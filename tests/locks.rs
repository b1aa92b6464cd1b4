//! One writer at a time, and who comes second is told who is at work. The first one is stopped in the middle of its work by strace's
//! fault injection.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use common::host::{Host, Image, Outcome};
use serde_json::json;

/// `sysctr update app`, stopped before it puts anything in force.
struct Holder {
    strace: Child,
    pid: String,
}

fn host() -> Host {
    let host = Host::new();
    for name in ["app", "other"] {
        let image = host.image(name, &Image::new());
        host.does(&["install", &image]);
    }
    host.image("app", &Image::new().manifest(json!({"version": "2.0", "description": "second"})));
    host
}

fn hold(host: &Host) -> Holder {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat", "-e", "inject=renameat:signal=STOP:when=3"]);
    strace.arg(env!("CARGO_BIN_EXE_sysctr")).arg("--root").arg(host.root()).args(["update", "app"]);
    let strace = strace.stdout(Stdio::null()).spawn().expect("strace(1), see tests/deps.sh");
    let mut holder = Holder { strace, pid: String::new() };
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let note = std::fs::read_to_string(host.at("var/lib/sysctr/lock")).unwrap_or_default();
        holder.pid = note.split_whitespace().next().unwrap_or_default().to_owned();
        let state = std::fs::read_to_string(format!("/proc/{}/stat", holder.pid)).unwrap_or_default();
        if note.contains("update") && [") T ", ") t "].iter().any(|stopped| state.contains(stopped)) {
            sleep(Duration::from_millis(200));
            return holder;
        }
        assert!(Instant::now() < end, "it was never stopped: {note:?} {state:?}");
        sleep(Duration::from_millis(20));
    }
}

impl Holder {
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid]).status().unwrap().success());
    }
}

fn spawn(host: &Host, words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sysctr"));
    let command = command.arg("--root").arg(host.root()).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_second_writer_says_who_is_at_work_and_leaves_or_waits() {
    let host = host();
    let mut holder = hold(&host);
    let started = Instant::now();
    let who = format!("`sysctr update` (process {}, since 2", holder.pid);
    for words in [&["update", "app"][..], &["uninstall", "other"], &["rollback", "app"], &["prune"]] {
        let said = host.refuses(1, &[&who], words);
        assert!(said.contains("hint: nothing was changed; --wait"), "{said}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "somebody waited");
    let started = Instant::now();
    let tried = host.sysctr(&["uninstall", "other", "--wait=2"]);
    assert!(tried.code == 1 && tried.err.contains(&who) && tried.err.contains("within 2 s"), "{}", tried.err);
    assert!(started.elapsed() >= Duration::from_secs(2), "it did not wait");

    // who only looks does not wait
    assert_eq!(host.json(&["list"]).as_array().unwrap().len(), 2);
    assert_eq!(host.json(&["verify"])["ok"], true);
    assert_eq!(host.json(&["update", "--check", "app"])[0]["result"], "available");

    // and a pull, which nobody loses by, takes its turn
    let image = host.image("third", &Image::new());
    let mut waiting = [spawn(&host, &["pull", &image]), spawn(&host, &["--wait", "uninstall", "other"])];
    sleep(Duration::from_secs(1));
    waiting.iter_mut().for_each(|child| assert!(child.try_wait().unwrap().is_none(), "one did not wait"));
    holder.signal("-CONT");
    assert!(holder.strace.wait().unwrap().success());
    for child in waiting {
        let Outcome { code, out, err } = Outcome::of(&child.wait_with_output().unwrap());
        assert!(code == 0 && err.contains("waiting for `sysctr "), "{code}: {out}{err}");
    }
    let left = host.json(&["list"]);
    assert_eq!((left.as_array().unwrap().len(), &left[0]["deployment"]), (1, &json!(2)));
}

#[test]
fn a_dead_writer_blocks_nobody() {
    let host = host();
    let mut holder = hold(&host);
    let waiting = spawn(&host, &["--wait", "uninstall", "other"]);
    sleep(Duration::from_millis(500));
    holder.signal("-KILL");
    holder.strace.wait().unwrap();
    let Outcome { code, err, .. } = Outcome::of(&waiting.wait_with_output().unwrap());
    assert!(code == 0 && err.contains(&holder.pid), "{code}: {err}");
    host.does(&["prune"]);
    assert_eq!(host.json(&["verify"])["ok"], true);
    assert_eq!(host.json(&["list"])[0]["deployment"], 1);
    assert_eq!(std::fs::read_to_string(host.at("var/lib/sysctr/lock")).unwrap(), "", "a name of nobody is left");
}

#[test]
fn what_is_no_time_is_refused() {
    host().refuses(2, &["soon", "seconds"], &["prune", "--wait=soon"]);
}
