//! What a start that fails ends with under systemd: the codes of systemd's own executor (systemd.exec(5), "Process Exit
//! Codes"), so that `systemctl status` says `status=226/NAMESPACE` and the like. By hand it is 1.

#![allow(missing_docs)]

pub const FAILURE: u8 = 1;
pub const CHDIR: u8 = 200;
pub const EXEC: u8 = 203;
pub const LIMITS: u8 = 205;
pub const OOM_ADJUST: u8 = 206;
pub const USER: u8 = 217;
pub const CAPABILITIES: u8 = 218;
pub const NAMESPACE: u8 = 226;
pub const NO_NEW_PRIVILEGES: u8 = 227;
pub const SECCOMP: u8 = 228;
pub const APPARMOR: u8 = 231;
pub const CREDENTIALS: u8 = 243;
