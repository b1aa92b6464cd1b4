//! What is on a machine at one moment: files, units, mounts and processes, to compare with another moment.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::machine::Machine;

/// One line for each thing. Left out: the store, what the system itself writes as time goes by, and what the harness runs.
const SCRIPT: &str = r#"
find / /var -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log \
    -o -path /var/lib/sysctr -o -path /var/lib/systemd -o -path /srv/payload -o -path /lost+found \) -prune \
    -o -type d -printf 'folder %p %m %U %G\n' -o -printf 'file %p %y %m %U %G %s %l\n'
find /etc -xdev -type f ! -name ld.so.cache -exec sha256sum {} +
find /run /run/systemd/system /run/systemd/transient /run/systemd/system.attached -mindepth 1 -maxdepth 1 -printf 'run %p\n' 2>/dev/null
systemctl list-unit-files --no-legend --no-pager | awk '{print "unit file", $1, $2}'
systemctl list-units --all --plain --no-legend --no-pager | awk '$1 !~ /\.(device|scope)$/ {print "unit", $1}'
findmnt -rn -o TARGET | sed 's/^/mount /'
ps -e -o ppid= -o comm= | awk '$1 != 2 && $1 != 0 {print "process", $2}'
"#;

/// The harness's own, and the system's helpers that come and go.
const PASSING: [&str; 9] = [
    "process ps",
    "process awk",
    "process bash",
    "process nsenter",
    "process env",
    "process timeout",
    "process (udev-worker)",
    "process (sd-pam)",
    "run /run/sysctr",
];

/// The state of a machine.
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Takes one.
    pub fn take(machine: &mut dyn Machine) -> Result<Self> {
        let said = machine.run(SCRIPT)?;
        Ok(Self(said.lines().filter(|line| !PASSING.contains(line)).map(str::to_owned).collect()))
    }

    /// Fails with every difference if there is one.
    pub fn ensure_same(&self, later: &Self) -> Result<()> {
        let gone = self.0.difference(&later.0).map(|line| format!("- {line}"));
        let new = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        let all: Vec<String> = gone.chain(new).collect();
        ensure!(all.is_empty(), "the machine is not as before:\n{}", all.join("\n"));
        Ok(())
    }

    /// Whether a line of it begins so.
    pub fn has(&self, beginning: &str) -> bool {
        self.0.iter().any(|line| line.starts_with(beginning))
    }
}
