//! Security labels: process.apparmorProfile, process.selinuxLabel and linux.mountLabel.
//!
//! The file to name a label in is opened in the host's /proc before the container's root is entered: an image's own /proc may
//! be anything, and a label written elsewhere would be a container without one (CVE-2019-19921, CVE-2025-52881).

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{Linux, Process};
use rustix::fs::statfs;

/// SELINUX_MAGIC of linux/magic.h.
const SELINUX_MAGIC: u32 = 0xf97c_ff8c;

/// Labels that the program gets at its exec.
#[derive(Debug, Default)]
pub struct Labels {
    each: Vec<(File, String, &'static str)>,
}

impl Labels {
    /// Those that are wanted; refuses what this kernel does not have.
    pub fn of(process: &Process) -> Result<Self> {
        let mut labels = Self::default();
        if let Some(profile) = said(process.apparmor_profile()) {
            let enabled =
                std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
            ensure!(enabled, "process.apparmorProfile is {profile:?}, but this kernel runs without AppArmor");
            let file = open("/proc/thread-self/attr/apparmor/exec").or_else(|_| open("/proc/thread-self/attr/exec"));
            let file = file.context("opening the process's AppArmor attribute")?;
            labels.each.push((file, format!("exec {profile}"), "AppArmor profile"));
        }
        if let Some(label) = said(process.selinux_label()) {
            ensure!(has_selinux(), "process.selinuxLabel is {label:?}, but this kernel runs without SELinux");
            let file = open("/proc/thread-self/attr/exec").context("opening the process's SELinux attribute")?;
            labels.each.push((file, label.to_owned(), "SELinux label"));
        }
        Ok(labels)
    }

    /// Names them to the kernel for the next exec.
    pub fn apply(self) -> Result<()> {
        for (mut file, text, what) in self.each {
            file.write_all(text.as_bytes()).with_context(|| format!("setting the {what} {text:?}"))?;
        }
        Ok(())
    }
}

/// The label for files of new file systems, where there is one.
pub fn of_mounts(linux: &Linux) -> Result<Option<String>> {
    let label = said(linux.mount_label());
    if let Some(label) = label {
        ensure!(has_selinux(), "linux.mountLabel is {label:?}, but this kernel runs without SELinux");
    }
    Ok(label.map(str::to_owned))
}

fn said(label: &Option<String>) -> Option<&str> {
    label.as_deref().filter(|label| !label.is_empty())
}

fn open(path: &str) -> std::io::Result<File> {
    File::options().write(true).open(path)
}

fn has_selinux() -> bool {
    statfs("/sys/fs/selinux").is_ok_and(|found| found.f_type as u32 == SELINUX_MAGIC)
}
