//! What systemd passes in the environment, and which of it the program gets.
//!
//! The program's environment is config.json's and, on top, what the unit sets and by which systemd talks to a service. The
//! environment of a launcher that systemd did not execute goes no further, but for the variables of socket activation and
//! their like.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::controls::{Defence, without};
use super::directories::Directories;
use super::{given, sys};

/// The first descriptor passed by socket activation, see sd_listen_fds(3).
const LISTEN_FDS_START: u32 = 3;

/// What systemd passed to this process.
#[derive(Debug, Default)]
pub struct Passed {
    listen: u32,
    listen_names: Option<OsString>,
    watchdog: Option<OsString>,
    plain: Vec<(OsString, OsString)>,
    /// systemd executed this very process
    pub by_systemd: bool,
    /// the folders that systemd made for the unit
    pub directories: Directories,
    /// the file that tells of memory pressure, see systemd.exec(5)
    pub pressure: Option<OsString>,
    /// the folder of the unit's credentials, see systemd.exec(5)
    pub credentials: Option<PathBuf>,
    /// the socket to notify the manager through
    pub notify_socket: Option<OsString>,
    /// the unit's instance, as `--instance` named it
    pub instance: Option<String>,
}

/// Where what is passed lies in the container, as far as the program may have it.
#[derive(Debug, Default)]
pub struct Places {
    /// the notification socket
    pub notify: Option<OsString>,
    /// the memory pressure file
    pub pressure: Option<OsString>,
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
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let by_systemd = given::by_systemd(|name| env::var_os(name));
        let plain = match by_systemd {
            true => given::of_unit(env::vars_os()),
            false => ["INVOCATION_ID", "JOURNAL_STREAM"]
                .into_iter()
                .filter_map(|name| Some((name.into(), set(name)?)))
                .collect(),
        };
        Ok(Self {
            listen,
            listen_names: set("LISTEN_FDNAMES").filter(|_| listen > 0),
            watchdog: set("WATCHDOG_USEC"),
            plain,
            by_systemd,
            directories: if by_systemd { Directories::of(|name| env::var_os(name)) } else { Directories::default() },
            pressure: set("MEMORY_PRESSURE_WATCH").filter(|_| by_systemd),
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

    /// The program's environment: `own`, and what systemd passed, which wins. `pid` is what the program sees as its own.
    pub fn of_program(&self, own: &[String], pid: u32, places: &Places) -> Result<Vec<CString>> {
        let pid = OsString::from(pid.to_string());
        let mut passed = self.plain.clone();
        let mut pass = |name: &str, value: OsString| passed.push((name.into(), value));
        if self.by_systemd {
            pass("SYSTEMD_EXEC_PID", pid.clone());
        }
        if self.listen > 0 {
            pass("LISTEN_FDS", self.listen.to_string().into());
            pass("LISTEN_PID", pid.clone());
            if let Some(names) = &self.listen_names {
                pass("LISTEN_FDNAMES", names.clone());
            }
        }
        if let Some(interval) = &self.watchdog {
            pass("WATCHDOG_USEC", interval.clone());
            pass("WATCHDOG_PID", pid);
        }
        for (variable, folders) in self.directories.variables() {
            pass(variable, folders.to_owned());
        }
        if let Some(file) = &places.pressure {
            pass("MEMORY_PRESSURE_WATCH", file.clone());
            if let Some(text) = env::var_os("MEMORY_PRESSURE_WRITE") {
                pass("MEMORY_PRESSURE_WRITE", text);
            }
        }
        if let Some(dir) = &self.credentials {
            pass("CREDENTIALS_DIRECTORY", dir.clone().into_os_string());
        }
        if let Some(instance) = &self.instance {
            pass("SYSCTR_INSTANCE", instance.into());
        }
        if let Some(path) = &places.notify {
            pass("NOTIFY_SOCKET", path.clone());
        }
        let named = |text: &str| passed.iter().any(|(name, _)| text.split('=').next().map(OsStr::new) == Some(name));
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
            plain: vec![("INVOCATION_ID".into(), OsString::from_vec(vec![0xff]))],
            ..Passed::default()
        };
        let all = passed.of_program(&["PATH=/bin".into(), "LISTEN_FDS=9".into()], 1, &Places::default()).unwrap();
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
