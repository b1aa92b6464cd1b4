//! Which variables of the launcher's environment are the unit's own, and so the program's: what `Environment=`,
//! `EnvironmentFile=` and `PassEnvironment=` set, and what systemd itself tells a service (systemd.exec(5), "Environment
//! Variables Set or Propagated by the Service Manager").
//!
//! Left behind is what speaks of the host's files or of another process: they mean something else in the container.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// Taken care of one by one in `environment`, or of no use inside.
const NOT_AS_IT_IS: &str = "LISTEN_FDS LISTEN_PID LISTEN_PIDFDID LISTEN_FDNAMES WATCHDOG_USEC WATCHDOG_PID NOTIFY_SOCKET \
    SYSTEMD_EXEC_PID CREDENTIALS_DIRECTORY RUNTIME_DIRECTORY STATE_DIRECTORY CACHE_DIRECTORY LOGS_DIRECTORY \
    CONFIGURATION_DIRECTORY MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE MANAGERPID MANAGERPIDFDID";

/// What systemd gives where the unit says nothing. The image's own PATH is meant then.
const DEFAULT_PATHS: [&str; 4] = [
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    "/usr/local/bin:/usr/bin:/bin",
    "/usr/local/bin:/usr/bin",
];

/// Whether this very process was executed by the system's manager: only then is its environment the unit's.
pub fn by_systemd(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let own = std::process::id().to_string();
    variable("SYSTEMD_EXEC_PID").is_some_and(|pid| pid == OsStr::new(&own)) && variable("MANAGERPID").is_none()
}

/// Those of `all` that the program gets as they are.
pub fn of_unit(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let mut locale = None;
    all.filter(|(name, value)| {
        let Some(name) = name.to_str() else { return true };
        match name {
            "PATH" => !value.to_str().is_some_and(|path| DEFAULT_PATHS.contains(&path)),
            _ if NOT_AS_IT_IS.split_ascii_whitespace().any(|known| known == name) => false,
            _ if name == "LANG" || name == "LANGUAGE" || name.starts_with("LC_") => {
                let locale = locale.get_or_insert_with(|| fs::read("/etc/locale.conf").unwrap_or_default());
                !is_hosts_locale(name, value, locale)
            }
            _ => true,
        }
    })
    .collect()
}

/// systemd gives each service the host's locale (locale.conf(5)), which an image seldom has.
fn is_hosts_locale(name: &str, value: &OsStr, locale: &[u8]) -> bool {
    if name == "LANG" && value == "C.UTF-8" {
        return true;
    }
    locale.split(|byte| *byte == b'\n').any(|line| {
        let rest = line.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
        rest.is_some_and(|rest| unquoted(rest.trim_ascii()) == value.as_bytes())
    })
}

fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [first @ (b'"' | b'\''), inner @ .., last] if first == last => inner,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_variables_pass_and_the_hosts_stay() {
        let given = [
            ("FOO", "bar"),
            ("HOME", "/srv"),
            ("INVOCATION_ID", "00"),
            ("MONITOR_UNIT", "a.service"),
            ("PATH", "/usr/local/bin:/usr/bin"),
            ("LANG", "C.UTF-8"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("LISTEN_FDS", "1"),
            ("MANAGERPID", "1"),
        ];
        let all = given.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let passed: Vec<String> = of_unit(all).into_iter().map(|(name, _)| name.into_string().unwrap()).collect();
        assert_eq!(passed, ["FOO", "HOME", "INVOCATION_ID", "MONITOR_UNIT"]);
        assert_eq!(of_unit([("PATH".into(), "/opt/bin".into())].into_iter()).len(), 1);
    }

    #[test]
    fn the_hosts_locale_is_told_from_the_units() {
        let file = b"LANG=de_DE.UTF-8\nLC_TIME=\"C\"\n";
        assert!(is_hosts_locale("LANG", "de_DE.UTF-8".as_ref(), file));
        assert!(is_hosts_locale("LC_TIME", "C".as_ref(), file));
        assert!(!is_hosts_locale("LANG", "fr_FR.UTF-8".as_ref(), file));
    }

    #[test]
    fn only_the_process_that_systemd_executed_has_the_units_environment() {
        let own = std::process::id();
        let with = |pid: u32| move |name: &str| (name == "SYSTEMD_EXEC_PID").then(|| pid.to_string().into());
        assert!(by_systemd(with(own)) && !by_systemd(with(own + 1)) && !by_systemd(|_| None));
    }
}
