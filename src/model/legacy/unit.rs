//! The unit of an old image, on its way to be started by the launcher: what was meant for the old runtime is taken out, and said.

use anyhow::{Result, bail};

use crate::model::{
    directives::{self, Verdict},
    unit::UnitFile,
};

/// The service of an image that ships none.
pub const DEFAULT: &str = "[Unit]\nDescription=$NAME\n\n[Service]\nExecStart=$EXEC_START\nRestart=on-failure\n\n\
    [Install]\nWantedBy=multi-user.target\n";

/// Who it runs as and what it sees: without these it would have more than was meant.
const NOT_DROPPED: &str =
    "User Group SupplementaryGroups DynamicUser PAMName AmbientCapabilities SecureBits RootDirectory RootImage";

/// A unit, and what there was to change.
pub struct Mended {
    /// With what the old tool's runtime needed taken out.
    pub unit: UnitFile,
    /// It starts the container; else its commands run on the host and the image is only where they come from.
    pub is_container: bool,
    /// Its program says itself when it is ready.
    pub notifies: bool,
    /// For people.
    pub notes: Vec<String>,
}

/// Reads the finished text of `file`. `launch` is the launcher's command, `destdir` the folder of the deployment.
pub fn mend(file: &str, text: &str, launch: &str, destdir: &str) -> Result<Mended> {
    let mut unit = UnitFile::parse(file, text)?;
    let mut notes = Vec::new();
    let is_container = unit.values("Service", "ExecStart").any(|line| line.contains(launch));
    let notifies =
        is_container && unit.values("Service", "Type").any(|kind| matches!(kind, "notify" | "notify-reload"));
    unit.edit(|entry| match (entry.section, entry.key, entry.value) {
        ("Service", "Restart", "on-crash") => {
            notes.push("Restart=on-crash is none of systemd's; on-failure takes its place".to_owned());
            Some("on-failure".to_owned())
        }
        (_, _, value) if !is_container => Some(value.to_owned()),
        ("Service", "Type", kind @ ("simple" | "exec" | "idle" | "forking")) => {
            notes.push(format!(
                "Type={kind} is left out: the launcher tells systemd when the program runs (Type=notify)"
            ));
            None
        }
        ("Service", "PIDFile", path) => {
            notes.push(format!("PIDFile={path} is left out: the launcher tells systemd which process is the main one"));
            None
        }
        ("Service", "WorkingDirectory", folder) => {
            // Where the old runtime looked for config.json.
            if folder != destdir {
                notes.push(format!("WorkingDirectory={folder} is left out: the program starts where config.json says"));
            }
            None
        }
        ("Service", "NotifyAccess", "none" | "main" | "exec") => None,
        (_, _, value) => Some(value.to_owned()),
    });
    if is_container {
        let findings = directives::judge([&unit]);
        for (_, finding) in findings {
            match finding.verdict {
                Verdict::Refused if NOT_DROPPED.split_whitespace().any(|key| finding.key == key) => {
                    bail!("{file}: {}", finding.line())
                }
                Verdict::Refused => {
                    unit.edit(|entry| {
                        let is_it = entry.section == "Service" && entry.key == finding.key;
                        (!is_it).then(|| entry.value.to_owned())
                    });
                    notes.push(format!("{}; it is left out", finding.what));
                }
                Verdict::Caution => notes.push(finding.what),
                // systemd's to say.
                Verdict::Unknown => {}
            }
        }
    } else {
        notes.push("it starts no container: its commands run on the host".to_owned());
    }
    let notes = notes.into_iter().map(|words| format!("{file}: {words}")).collect();
    Ok(Mended { unit, is_container, notifies, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(text: &str) -> Mended {
        mend("/exports/service.template", text, "/launch a", "/d").expect(text)
    }

    #[test]
    fn what_was_the_old_runtimes_is_taken_out() {
        let text = "[Service]\nType=forking\nPIDFile=/run/a.pid\nExecStart=/launch a\nExecStop=\nRestart=on-crash\n\
            WorkingDirectory=/d\nPrivateTmp=yes\nNotifyAccess=main\nCapabilityBoundingSet=CAP_KILL\nLimitNOFILE=5\n";
        let mended = mended(text);
        let expected = "[Service]\nExecStart=/launch a\nExecStop=\nRestart=on-failure\nCapabilityBoundingSet=CAP_KILL\nLimitNOFILE=5\n";
        assert_eq!(mended.unit.to_text(), expected);
        assert!(mended.is_container && !mended.notifies);
        let said = mended.notes.join("\n");
        for word in ["on-crash", "Type=forking", "PIDFile=", "PrivateTmp=", "CapabilityBoundingSet="] {
            assert!(said.contains(word), "{word} is not in\n{said}");
        }
        assert!(!said.contains("WorkingDirectory="), "{said}");
    }

    #[test]
    fn a_unit_without_the_launcher_is_left_as_it_is() {
        let text = "[Service]\nType=forking\nExecStart=/usr/bin/python /usr/sbin/agent\nWorkingDirectory=/d/rootfs\n";
        let mended = mended(text);
        assert_eq!(mended.unit.to_text(), text);
        assert!(!mended.is_container);
    }

    #[test]
    fn what_would_loosen_it_is_refused() {
        let text = "[Service]\nExecStart=/launch a\nUser=nobody\n";
        let error = mend("/exports/service.template", text, "/launch a", "/d").err().expect("refused").to_string();
        assert!(error.contains("service.template") && error.contains("User="), "{error}");
    }
}
