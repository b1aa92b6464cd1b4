use super::*;

const BOOT: &str = "11111111-2222-3333-4444-555555555555";

/// A container with two sets: the old one has a socket, the new one a timer.
struct Host(tempfile::TempDir);

impl Host {
    fn new(active: &str, journal: Option<Journal>) -> Host {
        let host = Host(tempfile::tempdir().expect("a folder"));
        let install = "[Install]\nWantedBy=";
        for (file, text) in [
            ("app/active", format!("{active}\n")),
            ("app/1/app.service", format!("[Service]\nExecStart=/old\n{install}multi-user.target\n")),
            ("app/1/app.socket", format!("[Socket]\nListenStream=/x\n{install}sockets.target\n")),
            ("app/1/tmpfiles.conf", "d /run/x\n".to_owned()),
            ("app/2/app.service", format!("[Service]\nExecStart=/new\n{install}sysinit.target\n")),
            ("app/2/app.timer", format!("[Timer]\nOnBootSec=1\n{install}timers.target\n")),
            ("plain/active", "1\n".to_owned()),
            ("plain/1/plain.service", "[Service]\nExecStart=/plain\n".to_owned()),
        ] {
            host.write(&format!("{}/{file}", layout::CONTAINERS), &text);
        }
        host.write("proc/sys/kernel/random/boot_id", &format!("{BOOT}\n"));
        if let Some(journal) = journal {
            host.write(&format!("{}/app/journal.json", layout::CONTAINERS), &record::to_text(&journal).expect("text"));
        }
        host
    }

    fn write(&self, below: &str, text: &str) {
        let path = self.0.path().join(below);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// What there is below `early` and `normal`: each file's text or a link's target, whose own folder is left out.
    fn generate(&self) -> Vec<String> {
        let (normal, early) = (self.0.path().join("normal"), self.0.path().join("early"));
        fs::create_dir_all(&normal).expect("made");
        fs::create_dir_all(&early).expect("made");
        generate(self.0.path(), &Output { normal: &normal, early: &early });
        let mut found = Vec::new();
        let mut todo = vec![normal.clone(), early.clone()];
        while let Some(folder) = todo.pop() {
            for path in fs::read_dir(folder).expect("read").map(|entry| entry.expect("read").path()) {
                let below = path.strip_prefix(self.0.path()).expect("below").display().to_string();
                if let Ok(target) = fs::read_link(&path) {
                    let target = target.strip_prefix(&early).unwrap_or(&target).display().to_string();
                    found.push(format!("{below} -> {target}"));
                } else if path.is_dir() {
                    todo.push(path);
                } else {
                    let text = fs::read_to_string(&path).expect("read");
                    let start = text.lines().find_map(|line| line.strip_prefix("ExecStart="));
                    found.push(format!("{below} {}", start.unwrap_or_default()).trim_end().to_owned());
                }
            }
        }
        found.sort();
        found
    }
}

use crate::model::journal::Operation::{self, *};

fn journal(operation: Operation, from: Option<u32>, to: Option<u32>) -> Option<Journal> {
    Some(Journal::new(operation, from, to, true))
}

const OLD: [&str; 6] = [
    "early/app.service /old",
    "early/app.socket",
    "early/app.timer -> /dev/null",
    "early/multi-user.target.wants/app.service -> app.service",
    "early/sockets.target.wants/app.socket -> app.socket",
    "early/sysinit.target.wants/app.service -> /dev/null",
];
const NEW: [&str; 6] = [
    "early/app.service /new",
    "early/app.socket -> /dev/null",
    "early/app.timer",
    "early/multi-user.target.wants/app.service -> /dev/null",
    "early/sysinit.target.wants/app.service -> app.service",
    "early/timers.target.wants/app.timer -> app.timer",
];

/// The links of the other set, whose units are masked anyway.
fn without_masked_links(found: Vec<String>) -> Vec<String> {
    let masked =
        |line: &String| line.contains(".wants/app.socket -> /dev") || line.contains(".wants/app.timer -> /dev");
    found.into_iter().filter(|line| !masked(line)).collect()
}

#[test]
fn systemd_gets_the_set_that_recovery_will_leave_in_force_whole() {
    for (active, journal, expected) in [
        ("1", journal(Update, Some(1), Some(2)), OLD),
        ("2", journal(Update, Some(1), Some(2)), OLD),
        ("1", journal(Rollback, Some(2), Some(1)), OLD),
        ("2", journal(Rollback, Some(2), Some(1)), NEW),
        ("2", journal(Rollback, Some(1), Some(2)), NEW),
    ] {
        let text = format!("{journal:?} with {active} in force");
        assert_eq!(without_masked_links(Host::new(active, journal).generate()), expected, "{text}");
    }
    let mut keeps = journal(Update, Some(1), Some(2));
    keeps.iter_mut().for_each(|journal| journal.keep = true);
    assert_eq!(without_masked_links(Host::new("2", keeps).generate()), NEW);
}

#[test]
fn what_is_being_removed_or_was_never_installed_is_masked() {
    for journal in [journal(Uninstall, Some(1), None), journal(Install, None, Some(1))] {
        let host = Host::new("none", journal);
        let found = host.generate();
        assert!(found.iter().all(|line| line.ends_with("-> /dev/null")), "{found:?}");
        assert!(found.contains(&"early/app.service -> /dev/null".to_owned()), "{found:?}");
    }
}

#[test]
fn without_a_journal_and_with_one_of_this_boot_it_says_nothing() {
    assert_eq!(Host::new("1", None).generate(), [""; 0]);
    let mut running = journal(Update, Some(1), Some(2));
    running.iter_mut().for_each(|journal| journal.boot = Some(BOOT.to_owned()));
    assert_eq!(Host::new("2", running).generate(), [""; 0]);
}

#[test]
fn the_admins_unit_and_mask_go_on_to_win() {
    let host = Host::new("2", journal(Update, Some(1), Some(2)));
    host.write("etc/systemd/system/app.service", "[Service]\nExecStart=/admin\n");
    let found = host.generate();
    assert!(!found.iter().any(|line| line.starts_with("early/app.service")), "{found:?}");
    assert!(found.contains(&"early/app.socket".to_owned()), "{found:?}");
}

#[test]
fn what_is_damaged_is_passed_over_and_the_others_are_not() {
    for (file, text) in [
        ("app/journal.json", "{\"version\": 1, \"operat"),
        ("app/journal.json", "{\"version\": 99}"),
        ("app/journal.json", "\0\0\0\0"),
        ("app/probation.json", "[]"),
    ] {
        let host = Host::new("2", None);
        host.write(&format!("{}/{file}", layout::CONTAINERS), text);
        let other = journal(Install, None, Some(1)).expect("one");
        host.write(&format!("{}/plain/journal.json", layout::CONTAINERS), &record::to_text(&other).expect("text"));
        assert_eq!(host.generate(), ["early/plain.service /plain"], "{file}: {text:?}");
    }
    // Not even half of a set whose other half is gone.
    let host = Host::new("1", journal(Update, Some(1), Some(2)));
    fs::remove_dir_all(host.0.path().join(layout::CONTAINERS).join("app/1")).expect("removed");
    assert_eq!(host.generate(), [""; 0]);
}

#[test]
fn a_deployment_on_probation_is_watched_while_it_is_in_force() {
    let probation = |boot: Option<&str>| {
        let mut probation = Probation::new(2, 1, 600, 3);
        probation.boot = boot.map(str::to_owned);
        record::to_text(&probation).expect("text")
    };
    let file = format!("{}/app/probation.json", layout::CONTAINERS);
    let watched = "normal/app.service.d/50-sysctr-probation.conf";
    for (active, boot, expected) in [
        ("2", Some(BOOT), &[watched][..]),
        ("2", Some("another"), &[watched, "normal/sysctr.boot"]),
        ("2", None, &[watched, "normal/sysctr.boot"]),
        ("1", Some(BOOT), &[]),
    ] {
        let host = Host::new(active, None);
        host.write(&file, &probation(boot));
        assert_eq!(host.generate(), expected, "{active} {boot:?}");
    }
    let host = Host::new("2", None);
    host.write(&file, &probation(Some(BOOT)));
    host.generate();
    let text = fs::read_to_string(host.0.path().join(watched)).expect("read");
    assert!(text.contains("\n[Unit]\nOnFailure=sysctr-failed@app.service\n"), "{text}");
}
