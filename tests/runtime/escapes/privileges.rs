//! Ways to more rights than config.json gives.

use std::fs;

use rustix::fs::{XattrFlags, setxattr};
use serde_json::json;

use super::{Launcher, install, probe, probing};
use crate::support::Bundle;

/// A user that is not root runs the probe, which tells what it has become.
fn unprivileged(mode: u32) -> Bundle {
    let bundle = probing(&["/bin/raised", "who"]).with("/process", "user", json!({"uid": 998, "gid": 998}));
    install(&bundle, "/bin/raised", probe(false), mode);
    bundle
}

pub fn a_setuid_program(launcher: &Launcher) -> bool {
    let bundle = unprivileged(0o4755).with("/process", "noNewPrivileges", json!(false));
    launcher.prints(&bundle).starts_with("user 0 ")
}

pub fn file_capabilities(launcher: &Launcher) -> bool {
    let bundle = unprivileged(0o755).with("/process", "noNewPrivileges", json!(false));
    // struct vfs_cap_data, second version: CAP_CHOWN permitted, and effective at once.
    let chown = [0x0200_0001_u32, 1, 0, 0, 0].map(u32::to_le_bytes).concat();
    setxattr(bundle.root().join("bin/raised"), "security.capability", &chown, XattrFlags::empty()).unwrap();
    let printed = launcher.prints(&bundle);
    printed.starts_with("user 998 ") && !printed.ends_with("capabilities 0\n")
}

pub fn new_privileges(launcher: &Launcher) -> bool {
    let bundle = unprivileged(0o4755).with("", "annotations", json!({"org.sysctr.setuid": "true"}));
    launcher.prints(&bundle).starts_with("user 0 ")
}

/// A line of the program's /proc/self/status, under a launcher that was given more than usual.
fn status_under(launcher: &Launcher, setpriv: &[&str], line: &str) -> String {
    let bundle = Bundle::running(&["grep", &format!("^{line}:"), "/proc/self/status"]);
    let output = launcher.command(&bundle, &[&["setpriv"], setpriv].concat()).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.trim_start_matches(line).trim_matches([':', '\t', ' ', '\n']).to_owned()
}

pub fn groups_of_the_launcher(launcher: &Launcher) -> bool {
    status_under(launcher, &["--groups", "4242"], "Groups").contains("4242")
}

pub fn inheritable_capabilities(launcher: &Launcher) -> bool {
    status_under(launcher, &["--inh-caps", "+kill,+sys_admin"], "CapInh") != "0000000000000000"
}

pub fn the_bounding_set(launcher: &Launcher) -> bool {
    status_under(launcher, &["--groups", "0"], "CapBnd") != "0000000000000021"
}

pub fn the_keyring_of_the_launcher(launcher: &Launcher) -> bool {
    assert!(fs::metadata("/proc/keys").is_ok(), "this kernel has no keyrings to test with");
    let bundle = probing(&["/bin/probe", "key"]);
    let output = launcher.command(&bundle, &[probe(false).to_str().unwrap(), "keyring"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap() == "found\n"
}
