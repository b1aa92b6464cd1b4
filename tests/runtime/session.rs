//! A container that somebody waits for: `sysctr-runtime run DIR --session`, as `sysctr run` calls it.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::exec::on_terminal;
use crate::support::{Bundle, RUNTIME};

fn session(bundle: &Bundle, options: &[&str]) -> Command {
    let mut command = bundle.command();
    command.arg("--session").args(options);
    command
}

#[test]
fn it_ends_as_the_program_does_and_says_why_it_could_not_run() {
    for (args, code, words) in
        [(&["sh", "-c", "exit 7"][..], 7, ""), (&["nothing"], 127, "not found"), (&["/etc"], 126, "is no file")]
    {
        let output = session(&Bundle::running(args), &[]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{said}");
    }
    let bundle = Bundle::running(&["true"]).with("/process", "cwd", json!("/none"));
    assert_eq!(session(&bundle, &[]).output().unwrap().status.code(), Some(125));
}

#[test]
fn nothing_of_the_callers_is_open_in_it_and_output_comes_back_whole() {
    let bundle = Bundle::script("ls -l /proc/self/fd >&2; head -c 3000000 /dev/zero; echo end >/dev/stderr").with(
        "/process",
        "user",
        json!({"uid": 33, "gid": 33}),
    );
    let mine = File::open("/etc").unwrap();
    rustix::io::fcntl_setfd(&mine, rustix::io::FdFlags::empty()).unwrap();
    let output = session(&bundle, &[]).output().unwrap();
    let listed = String::from_utf8(output.stderr).unwrap();
    let targets: Vec<&str> = listed.lines().filter_map(|line| line.rsplit_once(" -> ")).map(|it| it.1).collect();
    assert!(targets.iter().all(|target| target.starts_with("pipe:")), "{listed}");
    assert!(targets.len() == 3 && listed.ends_with("end\n"), "{listed}");
    assert_eq!(output.stdout.len(), 3_000_000);
}

#[test]
fn with_remove_the_deployment_goes_whatever_came_of_it() {
    for (args, code) in [(&["true"][..], 0), (&["nothing"], 127)] {
        let bundle = Bundle::running(args);
        assert_eq!(session(&bundle, &["--remove"]).output().unwrap().status.code(), Some(code));
        assert!(!bundle.path().exists());
        fs::create_dir(bundle.path()).unwrap(); // for its own clean-up
    }
}

#[test]
fn signals_are_passed_on_and_it_ends_with_its_owner() {
    let bundle = Bundle::script("trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done");
    for (signal, code) in [(Signal::SIGTERM, Some(9)), (Signal::SIGKILL, None)] {
        let mut launcher = session(&bundle, &[]).stdout(Stdio::piped()).spawn().unwrap();
        let mut printed = std::io::BufReader::new(launcher.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut printed, &mut String::new()).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", launcher.id());
        let init = fs::read_to_string(children).unwrap().trim().to_owned();
        kill(Pid::from_raw(launcher.id() as i32), signal).unwrap();
        assert_eq!(launcher.wait().unwrap().code(), code);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while fs::read_to_string(format!("/proc/{init}/cmdline")).is_ok_and(|line| line.contains("sleep")) {
            assert!(std::time::Instant::now() < end, "the container outlived its owner");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn a_terminal_is_the_containers_own_and_dev_console_too() {
    let script = "tty; stty size; stat -c '%n %t %a %u' /dev/console /dev/pts/0; echo console > /dev/console; \
        grep -c ' /dev/console ' /proc/self/mountinfo; exit 3";
    let bundle = Bundle::script(script).with("/process", "terminal", json!(true)).with(
        "/process",
        "user",
        json!({"uid": 33, "gid": 33}),
    );
    let (code, said) = on_terminal(&session(&bundle, &["--interactive"]), "stty rows 33 cols 77");
    let wanted = "/dev/pts/0\n33 77\n/dev/console 88 620 33\n/dev/pts/0 88 620 33\nconsole\n1\n";
    assert_eq!((code, said.replace('\r', "").as_str()), (3, wanted));
}

#[test]
fn without_a_terminal_of_ours_its_size_is_config_jsons() {
    let bundle = Bundle::script("stty size; test -t 0 && echo tty").with("/process", "terminal", json!(true)).with(
        "/process",
        "consoleSize",
        json!({"height": 12, "width": 34}),
    );
    let output = session(&bundle, &[]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).replace('\r', ""), "12 34\ntty\n", "{output:?}");
}

#[test]
fn a_link_of_the_image_does_not_choose_where_the_console_is() {
    let outside = tempfile::tempdir().unwrap();
    let host = outside.path().join("console");
    fs::write(&host, "host").unwrap();
    // Without a /dev of its own in config.json the launcher makes one; with the image's own folder there, a link may lie in it.
    let mut bundle = Bundle::script("tty").with("/process", "terminal", json!(true));
    bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    let dev = bundle.root().join("dev");
    fs::remove_dir(&dev).unwrap();
    std::os::unix::fs::symlink(outside.path(), &dev).unwrap();
    let output = session(&bundle, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(125) && said.contains("symbolic link"), "{output:?}");
    assert_eq!(fs::read_to_string(&host).unwrap(), "host");
}

#[test]
fn a_service_has_no_terminal() {
    let bundle = Bundle::running(&["true"]).with("/process", "terminal", json!(true));
    assert!(bundle.fails().contains("process.terminal must be false: a service has no terminal"));
    let prepared = Command::new(RUNTIME).arg("prepare").arg(bundle.path()).output().unwrap();
    let said = String::from_utf8_lossy(&prepared.stderr).into_owned();
    assert!(prepared.status.code() == Some(1) && said.contains("process.terminal"), "{said}");
}

#[test]
fn after_a_container_that_is_thrown_away_its_last_hooks_run() {
    let host = tempfile::tempdir().unwrap();
    let out = host.path().join("out");
    let mut bundle = Bundle::script("exit 3");
    let line = format!("cat > {}; ls {}/config.json", out.display(), bundle.path().display());
    bundle.spec["hooks"] = json!({"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin"]}]});
    let output = session(&bundle, &["--remove"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(std::fs::read_to_string(out).unwrap().contains("\"status\":\"stopped\""));
    assert!(!bundle.path().exists());
}
