//! Keeps the container from the runtime's own executable (CVE-2019-5736).
//!
//! An image can make its program, or the interpreter of it, `/proc/self/exe`: at that moment the launcher itself. Root in the
//! container could then write to the host's file through that link. So the launcher runs itself again through a read-only
//! mount of its file that hangs nowhere and that the container cannot make writable: writing through the link then says
//! "read-only file system". Where the file lies on a read-only mount already, as on an atomic host, nothing is to do. It
//! costs a second execve(2), well under a millisecond, and needs no copy in memory.

use std::env;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use nix::fcntl::AtFlags;
use nix::unistd::execveat;
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};

use super::controls::{Defence, without};
use super::mounts;
use super::options::READ_ONLY;
use super::sys;

/// Returns once this process runs from a read-only mount.
pub fn from_own_executable() -> Result<()> {
    let file = openat(CWD, "/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::RDONLY) || without(Defence::Seal) {
        // The kernel took the name from a descriptor's number.
        rustix::thread::set_name(c"sysctr-runtime")?;
        return Ok(());
    }
    let mount = mounts::copy(&file).context("copying the mount of the runtime's own file")?;
    sys::mount_setattr(&mount, READ_ONLY, false)?;
    let args: Vec<CString> = env::args_os().map(|arg| CString::new(arg.as_bytes())).collect::<Result<_, _>>()?;
    let env: Vec<CString> = env::vars_os()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<_, _>>()?;
    sys::restore_pipe_signal();
    execveat(&mount, c"", &args, &env, AtFlags::AT_EMPTY_PATH).context("running from a read-only mount")?;
    Ok(())
}
