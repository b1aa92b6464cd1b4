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

/// A failure of the container's init as the launcher heard of it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failed {
    code: u8,
    text: String,
}

impl Failed {
    /// The code, and what went wrong.
    pub fn new(code: u8, text: &[u8]) -> Self {
        Self { code, text: String::from_utf8_lossy(text).into_owned() }
    }

    /// The code of an error that has one.
    pub fn code_of(error: &anyhow::Error) -> u8 {
        error.downcast_ref::<Self>().map_or(FAILURE, |failed| failed.code)
    }
}
