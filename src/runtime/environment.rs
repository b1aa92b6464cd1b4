//! What systemd passes in the environment, and which of it the program gets.
//!
//! The program's environment is config.json's and, on top, the few variables by which systemd talks to a service. The
//! launcher's own environment goes no further.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::controls::{Defence, without};
use super::sys;

/// The first descriptor passed by socket activation, see sd_listen_fds(3).
const LISTEN_FDS_START: u32 = 3;

/// What systemd passed to this process.
#[derive(Debug, Default)]
pub struct Passed {
    listen: u32,
    listen_names: Option<OsString>,
    watchdog: Option<OsString>,
    plain: Vec<(&'static str, OsString)>,
    /// the folder of the unit's credentials, see systemd.exec(5)
    pub credentials: Option<PathBuf>,
    /// the socket to notify the manager through
    pub notify_socket: Option<OsString>,
    /// the unit's instance, as `--instance` named it
    pub instance: Option<String>,
}

impl Passed {
    /// Reads it from this process's environment. Descriptors that are meant for another process are not taken.
    pub fn from_env() -> Result<Self> {
        let own = env::var_os("LISTEN_PID").is_some_and(|pid| pid == OsStr::new(&std::process::id().to_string()));
        let listen = match env::var_os("LISTEN_FDS") {
            Some(count) if own => count
                .to_str()
                .and_then(|count| count.parse().ok())
                .with_context(|| format!("LISTEN_FDS is {count:?}"))?,
            _ => 0,
        };
        let set = |name: &'static str| env::var_os(name).filter(|value| !value.is_empty());
        Ok(Self {
            listen,
            listen_names: set("LISTEN_FDNAMES").filter(|_| listen > 0),
            watchdog: set("WATCHDOG_USEC"),
            plain: ["INVOCATION_ID", "JOURNAL_STREAM"]
                .into_iter()
                .filter_map(|name| Some((name, set(name)?)))
                .collect(),
            credentials: set("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            notify_socket: set("NOTIFY_SOCKET"),
            instance: None,
        })
    }

    /// How many descriptors of socket activation there are.
    pub fn sockets(&self) -> u32 {
        self.listen
    }

    /// Leaves open across an exec: standard input, output and error, and the passed sockets.
    pub fn keep_descriptors(&self) -> Result<()> {
        let end = LISTEN_FDS_START.checked_add(self.listen).context("LISTEN_FDS is too large")?;
        if !without(Defence::Descriptors) {
            sys::close_on_exec_from(end).context("closing other descriptors")?;
        }
        for fd in LISTEN_FDS_START..end {
            ensure!(
                sys::keep_on_exec(fd as i32).is_ok(),
                "LISTEN_FDS is {}, but descriptor {fd} is not open",
                self.listen
            );
        }
        Ok(())
    }

    /// The program's environment: `own`, and what systemd passed, which wins. `pid` is what the program sees as its own;
    /// `notify` is the path of the notification socket in the container, where the program may have it.
    pub fn of_program(&self, own: &[String], pid: u32, notify: Option<&OsStr>) -> Result<Vec<CString>> {
        let pid = OsString::from(pid.to_string());
        let mut passed = self.plain.clone();
        if self.listen > 0 {
            passed.push(("LISTEN_FDS", self.listen.to_string().into()));
            passed.push(("LISTEN_PID", pid.clone()));
            passed.extend(self.listen_names.clone().map(|names| ("LISTEN_FDNAMES", names)));
        }
        if let Some(interval) = &self.watchdog {
            passed.push(("WATCHDOG_USEC", interval.clone()));
            passed.push(("WATCHDOG_PID", pid));
        }
        passed.extend(self.credentials.clone().map(|dir| ("CREDENTIALS_DIRECTORY", dir.into_os_string())));
        passed.extend(self.instance.clone().map(|instance| ("SYSCTR_INSTANCE", instance.into())));
        passed.extend(notify.map(|path| ("NOTIFY_SOCKET", path.to_owned())));
        let named = |text: &str| passed.iter().any(|(name, _)| text.split('=').next() == Some(name));
        // Of several with one name programs would see the first or the last, each as it likes: it is the last.
        let again = |at: usize| own[at + 1..].iter().any(|later| later.split('=').next() == own[at].split('=').next());
        let own = own.iter().enumerate().filter(|(at, text)| !named(text) && !again(*at)).map(|(_, text)| text);
        let own = own.map(|text| text.clone().into_bytes());
        let passed = passed.iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
        own.chain(passed)
            .map(|text| {
                let shown = OsString::from_vec(text.clone());
                CString::new(text).with_context(|| format!("the environment variable {shown:?} has a NUL"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_watchdog_name_the_programs_own_pid_and_win_over_config_json() {
        let passed = Passed {
            listen: 2,
            listen_names: Some("a:b".into()),
            watchdog: Some("5000".into()),
            plain: vec![("INVOCATION_ID", OsString::from_vec(vec![0xff]))],
            credentials: None,
            notify_socket: None,
            instance: None,
        };
        let all = passed.of_program(&["PATH=/bin".into(), "LISTEN_FDS=9".into()], 1, None).unwrap();
        let all: Vec<&[u8]> = all.iter().map(|text| text.to_bytes()).collect();
        let expected: [&[u8]; 7] = [
            b"PATH=/bin",
            b"INVOCATION_ID=\xff",
            b"LISTEN_FDS=2",
            b"LISTEN_PID=1",
            b"LISTEN_FDNAMES=a:b",
            b"WATCHDOG_USEC=5000",
            b"WATCHDOG_PID=1",
        ];
        assert_eq!(all, expected);
    }
}
