//! Whether a machine boots without a container: it does, unless its manifest says `"essential": true`, which has to be accepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, bail};

use super::{
    fault::{Code, Fault},
    layout,
    name::ContainerName,
    request::Requests,
    rules,
    unit::UnitFile,
    value_spec::duration,
};

/// What systemd may do to the whole machine when such a unit fails.
const ACTIONS: [&str; 4] = ["FailureAction", "SuccessAction", "StartLimitAction", "JobTimeoutAction"];
const DONE: [&str; 6] = ["reboot", "poweroff", "exit", "halt", "kexec", "soft-reboot"];
/// Where a boot ends that has gone wrong.
const ENDS: &str = "emergency.target rescue.target reboot.target poweroff.target halt.target kexec.target exit.target \
    soft-reboot.target emergency.service rescue.service";
/// A job that runs to its end may take for ever unless somebody says how long (systemd.service(5)).
const PATIENCE: &str = "90";
/// What is longer a boot waits for only where that was accepted.
const LONGEST: Duration = Duration::from_secs(60 * 60);
const PULLS: [&str; 5] = ["Wants", "Requires", "Requisite", "BindsTo", "Upholds"];

/// What the units of a container do to a boot that they fail in. Without `essential` none of them stops it, and none holds it up for
/// ever unasked; with it the targets that want the service require it.
pub fn apply(essential: bool, name: &ContainerName, files: &mut BTreeMap<String, String>) -> Result<Requests> {
    let mut requests = Requests::new();
    let started = started(files)?;
    for (file, text) in files.iter_mut().filter(|(file, _)| layout::is_unit(file)) {
        let mut unit = UnitFile::parse(file, text)?;
        if !essential {
            refuse(file, &unit)?;
            requests.extend(patience(file, &mut unit, started.contains(file)));
        } else if *file == name.service_unit() {
            let wanted: Vec<String> = unit.values("Install", "WantedBy").map(str::to_owned).collect();
            wanted.iter().for_each(|targets| unit.add("Install", "RequiredBy", targets));
        }
        *text = unit.to_text();
    }
    if essential {
        requests.insert(rules::ESSENTIAL.ask(&[]));
    }
    Ok(requests)
}

fn refuse(file: &str, unit: &UnitFile) -> Result<()> {
    for entry in unit.entries() {
        let words = || entry.value.split_whitespace();
        let stops = match entry.key {
            "RequiredBy" => words().any(|other| other.ends_with(".target")),
            "OnFailure" | "OnSuccess" => words().any(|other| ENDS.split_whitespace().any(|end| end == other)),
            key => ACTIONS.contains(&key) && DONE.iter().any(|done| entry.value.starts_with(done)),
        };
        if stops {
            let message = format!(
                "{file}: {}={}: a container that fails does not keep the machine from booting, nor stop it",
                entry.key, entry.value
            );
            bail!(Fault::new(Code::Failed, message).hint("one that is to says `\"essential\": true` in its manifest"));
        }
    }
    Ok(())
}

/// The units that a boot starts: those that are installed into it, and what any of the set pulls in along with these. What a timer or a
/// socket starts later is none of them.
fn started(files: &BTreeMap<String, String>) -> Result<BTreeSet<String>> {
    let (mut installed, mut pulled) = (BTreeSet::new(), Vec::new());
    for (file, text) in files.iter().filter(|(file, _)| layout::is_unit(file)) {
        let unit = UnitFile::parse(file, text)?;
        if ["WantedBy", "RequiredBy", "UpheldBy"].iter().any(|key| unit.values("Install", key).next().is_some()) {
            installed.insert(file.clone());
        }
        let words = PULLS.iter().flat_map(|key| unit.values("Unit", key)).flat_map(str::split_whitespace);
        pulled.extend(words.map(str::to_owned));
    }
    if !installed.is_empty() {
        let is = |file: &str, word: &str| match file.split_once('@') {
            _ if word.contains('%') => true,
            Some((stem, _)) => word.split_once('@').is_some_and(|(other, _)| other == stem),
            None => file == word,
        };
        let named = files.keys().filter(|file| pulled.iter().any(|word| is(file, word)));
        installed.extend(named.cloned());
    }
    Ok(installed)
}

/// Whether a time-out ends within a sane time: systemd takes zero for none, and passes over what it cannot read.
fn ends(value: &str) -> bool {
    let each = value.split_whitespace().map(duration);
    let sum = each.reduce(|sum, next| sum?.checked_add(next?)).flatten();
    sum.is_some_and(|sum| !sum.is_zero() && sum <= LONGEST)
}

/// What it asks for that would wait without an end; a job without a word on it gets systemd's usual time.
fn patience(file: &str, unit: &mut UnitFile, starts: bool) -> Vec<String> {
    let mut asked = Vec::new();
    // With it the job of the start does not fail when the program does, but waits for the next try, and the next.
    if starts && unit.values("Service", "RestartMode").last() == Some("direct") {
        asked.push(rules::HOLD_UP.ask(&[&"RestartMode", &"direct", &file]));
    }
    let given = unit
        .entries()
        .filter(|entry| entry.section == "Service" && matches!(entry.key, "TimeoutStartSec" | "TimeoutSec"));
    match given.last().map(|entry| (entry.key.to_owned(), entry.value.to_owned())) {
        Some((key, value)) if starts && !ends(&value) => asked.push(rules::HOLD_UP.ask(&[&key, &value, &file])),
        None if starts && unit.values("Service", "Type").last() == Some("oneshot") => {
            unit.add("Service", "TimeoutStartSec", PATIENCE);
        }
        _ => {}
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(essential: bool, text: &str) -> Result<(String, Vec<String>)> {
        let mut files = BTreeMap::from([("a.service".to_owned(), text.to_owned())]);
        let requests = apply(essential, &"a".parse().expect("a name"), &mut files)?;
        Ok((files.remove("a.service").unwrap_or_default(), requests.into_iter().collect()))
    }

    #[test]
    fn what_would_stop_a_boot_takes_essential() {
        for line in [
            "[Install]\nRequiredBy=sysinit.target",
            "[Install]\nRequiredBy=b.service multi-user.target",
            "[Unit]\nFailureAction=reboot-force",
            "[Unit]\nOnFailure=emergency.target",
            "[Unit]\nStartLimitAction=poweroff",
        ] {
            let error = of(false, line).expect_err(line).to_string();
            assert!(
                error.starts_with("a.service: ") && error.contains(line.rsplit('\n').next().unwrap_or("?")),
                "{error}"
            );
            let (_, requests) = of(true, line).expect(line);
            assert_eq!(requests, ["keep the machine from booting while it fails (essential)"]);
        }
        for line in ["[Install]\nRequiredBy=b.service", "[Unit]\nOnFailure=mail.service", "[Unit]\nFailureAction=none"]
        {
            assert_eq!(of(false, line).expect(line).1, Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn an_essential_service_is_required_where_it_is_wanted() {
        let (text, _) = of(true, "[Install]\nWantedBy=multi-user.target").expect("a unit");
        assert_eq!(text, "[Install]\nWantedBy=multi-user.target\nRequiredBy=multi-user.target\n");
    }

    #[test]
    fn a_start_without_an_end_is_asked_for() {
        let wanted = "[Install]\nWantedBy=multi-user.target";
        let (text, _) = of(false, &format!("[Service]\nType=oneshot\n{wanted}")).expect("a unit");
        assert!(text.contains("TimeoutStartSec=90\n"), "{text}");
        let endless = format!("[Service]\nTimeoutStartSec=infinity\n{wanted}");
        assert_eq!(
            of(false, &endless).expect("a unit").1,
            ["hold up the boot for as long as it takes: TimeoutStartSec=infinity (a.service)"]
        );
        let direct = format!("[Service]\nRestart=always\nRestartMode=direct\n{wanted}");
        assert_eq!(
            of(false, &direct).expect("a unit").1,
            ["hold up the boot for as long as it takes: RestartMode=direct (a.service)"]
        );
        assert_eq!(
            of(false, "[Service]\nType=oneshot\nTimeoutStartSec=0").expect("no boot waits").1,
            Vec::<String>::new()
        );
        let asked = |value: &str| {
            !of(false, &format!("[Service]\nTimeoutStartSec={value}\n{wanted}")).expect(value).1.is_empty()
        };
        for value in ["0", "00", "0s", "0min", "0 0", "1000y", "", "soon", "2h", "infinity", "59min 2min"] {
            assert!(asked(value), "TimeoutStartSec={value} is free");
        }
        for value in ["90", "5min", "5m", "1min 30s", "1h", "500ms"] {
            assert!(!asked(value), "TimeoutStartSec={value} is asked for");
        }
    }

    #[test]
    fn a_service_starts_with_the_boot_whoever_of_its_set_pulls_it_in() {
        let asked = |file: &str, service: &str, other: (&str, &str)| {
            let text = format!("[Service]\nTimeoutStartSec=infinity\n{service}");
            let mut files = BTreeMap::from([(file.to_owned(), text), (other.0.to_owned(), other.1.to_owned())]);
            let requests = apply(false, &"a".parse().expect("a name"), &mut files).expect("units");
            requests.len()
        };
        let installed = "[Install]\nWantedBy=multi-user.target";
        for (file, service, other, text) in [
            ("a.service", "", "a.target", "[Unit]\nWants=a.service"),
            ("a.service", "", "a.target", "[Unit]\nRequires=b.service a.service"),
            ("a.service", "", "a.target", "[Unit]\nWants=%N.service"),
            ("a@.service", "", "a.target", "[Unit]\nWants=a@1.service"),
            ("a.service", "[Install]\nRequiredBy=b.service", "a.timer", ""),
        ] {
            assert_eq!(asked(file, service, (other, &format!("{text}\n{installed}"))), 1, "{file} {text}");
        }
        for (other, text) in [("a.timer", "[Timer]\nOnCalendar=daily"), ("a.target", "[Unit]\nWants=b.service")] {
            assert_eq!(asked("a.service", "", (other, &format!("{text}\n{installed}"))), 0, "{text}");
        }
        assert_eq!(asked("a.service", "", ("a.target", "[Unit]\nWants=a.service")), 0, "no boot starts the target");
    }
}
