//! System calls that no crate wraps, each as one small safe function.
#![allow(unsafe_code)] // raw system calls; every argument is owned by the function or borrowed for its length

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a mount's attributes become, as mount_setattr(2) takes them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttr {
    /// MOUNT_ATTR_* to set
    pub set: u64,
    /// MOUNT_ATTR_* to clear
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE; 0 leaves it
    pub propagation: u64,
    userns: u64,
}

impl MountAttr {
    /// Attributes to set and to clear, and a propagation.
    pub const fn of(set: u64, clear: u64, propagation: u64) -> Self {
        Self { set, clear, propagation, userns: 0 }
    }

    /// MOUNT_ATTR_IDMAP: files are shown through the map of this user namespace.
    pub fn through(namespace: BorrowedFd) -> Self {
        Self { set: libc::MOUNT_ATTR_IDMAP, userns: namespace.as_raw_fd() as u64, ..Self::default() }
    }

    /// True where there is nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// mount_setattr(2) on the mount that `mount` is the root of; `recursive` takes in every mount below it.
pub fn mount_setattr(mount: impl AsFd, attr: MountAttr, recursive: bool) -> io::Result<()> {
    if attr.is_empty() {
        return Ok(());
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path is NUL-terminated, `attr` is the kernel's struct mount_attr and outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// A child as its parent knows it.
#[derive(Debug)]
pub struct Child {
    /// its number in the parent's pid namespace
    pub pid: libc::pid_t,
    /// becomes readable once it has ended
    pub pidfd: OwnedFd,
}

/// struct clone_args of clone(2), the size that Linux 5.7 knows.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// CLONE_INTO_CGROUP of clone(2)
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) like fork(2): `None` in the child. With `sibling` the caller's parent becomes the child's parent.
///
/// The caller must have one thread: the child goes on with a copy of its memory, locks included.
pub fn clone(namespaces: u64, sibling: bool) -> io::Result<Option<Child>> {
    clone_into(namespaces, sibling, None)
}

/// The same, with the child born in this control group.
pub fn clone_into(namespaces: u64, sibling: bool, cgroup: Option<BorrowedFd>) -> io::Result<Option<Child>> {
    let mut pidfd: libc::c_int = -1;
    let parent = if sibling { libc::CLONE_PARENT as u64 } else { 0 };
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let args = CloneArgs {
        flags: namespaces | parent | into | libc::CLONE_PIDFD as u64,
        cgroup: cgroup.map_or(0, |cgroup| cgroup.as_raw_fd() as u64),
        pidfd: &raw mut pidfd as u64,
        // With CLONE_PARENT the kernel takes the caller's own exit signal and refuses another.
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    // SAFETY: no stack is given, so the child runs on its own copy of ours, as after fork(2); `args` and `pidfd` outlive the call.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) });
    let pid = pid.map_err(|error| match error.raw_os_error() {
        Some(libc::EAGAIN) => io::Error::other("no room for one more process: is TasksMax= of the unit too low?"),
        _ => error,
    })?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Some(Child { pid: pid as libc::pid_t, pidfd }))
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: takes numbers only, and closes nothing before an exec.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes what a caller left open by mistake: everything but standard input, output, error and these. Only for the start of a process,
/// while nothing of its own is open.
pub fn close_all_but(mut kept: Vec<RawFd>) -> io::Result<()> {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter_map(|fd| u32::try_from(fd).ok()).chain([u32::MAX]) {
        if fd > first {
            // SAFETY: takes numbers only; no value of this program owns one of them yet.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, fd.saturating_sub(1), 0) })?;
        }
        first = first.max(fd.saturating_add(1));
    }
    Ok(())
}

/// Lets descriptor `fd` through an exec; an error where it is not open.
pub fn keep_on_exec(fd: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into()).map(drop)
}

/// Every signal as it is by default, none blocked.
pub fn reset_signals() {
    // The kernel's struct sigaction and a signal set are no longer than this; all zero is SIG_DFL, and nothing blocked.
    let zero = [0u64; 16];
    // SAFETY: past libc, which keeps two signals to itself that an ignoring parent hands on all the same. `zero` outlives the
    // calls, the old values are not asked for, and 8 is the kernel's size of a signal set.
    unsafe {
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, &zero, std::ptr::null_mut::<u64>(), 8);
        }
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &zero, std::ptr::null_mut::<u64>(), 8);
    }
}

/// Whether this process was given SIGPIPE ignored, as systemd does unless IgnoreSIGPIPE=no.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before Rust's own start, which ignores SIGPIPE whatever it was.
#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn() = {
    extern "C" fn remember() {
        // SAFETY: an all-zero sigaction is a valid one; the call only reads the disposition into it.
        unsafe {
            let mut given: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut given);
            PIPE_IGNORED.store(given.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
        }
    }
    remember
};

/// SIGPIPE as this process was given it. No other disposition was changed.
pub fn restore_pipe_signal() {
    let action = if PIPE_IGNORED.load(Ordering::Relaxed) { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither is a handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, action) };
}

/// One signal as it is by default.
pub fn default_action(signal: i32) {
    // SAFETY: SIG_DFL is no handler of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// seccomp(2) with a filter of whole struct sock_filter, in this machine's byte order.
pub fn load_seccomp(program: &[u8], flags: u64) -> io::Result<()> {
    let instructions: Vec<libc::sock_filter> = program
        .chunks_exact(size_of::<libc::sock_filter>())
        .map(|one| libc::sock_filter {
            code: u16::from_ne_bytes([one[0], one[1]]),
            jt: one[2],
            jf: one[3],
            k: u32::from_ne_bytes([one[4], one[5], one[6], one[7]]),
        })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let program = libc::sock_fprog { len, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions, which outlive the call, and checks them itself.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) }).map(drop)
}

/// setdomainname(2)
pub fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are those of `name`, which outlives the call.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// Brings the loopback device of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: `request` is a zeroed struct ifreq with a short NUL-terminated name, and outlives both calls.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())?;
        let socket = OwnedFd::from_raw_fd(socket as i32);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request).into())?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request).into()).map(drop)
    }
}

/// struct sched_attr of sched_setattr(2), the size that every kernel since 3.14 knows.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the kernel's names
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// sched_setattr(2) of a process, 0 is the calling one.
pub fn sched_setattr(pid: i32, attr: &SchedAttr) -> io::Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: `attr` is the kernel's struct of the size that it names, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &attr, 0) }).map(drop)
}

/// ioprio_set(2) of a process, 0 is the calling one.
pub fn ioprio_set(pid: i32, class: u32, priority: u32) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, (class << 13) | priority) }).map(drop)
}

/// personality(2)
pub fn personality(persona: libc::c_ulong) -> io::Result<()> {
    // SAFETY: takes a number only.
    check(unsafe { libc::personality(persona) }.into()).map(drop)
}

/// keyctl(2), KEYCTL_JOIN_SESSION_KEYRING without a name: a new and empty session keyring.
pub fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for a keyring without one.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) }).map(drop)
}

/// Starts the command, at its exec, with no descriptor but the first three, every signal as by default, and after `first`.
pub fn before_exec(command: &mut Command, first: impl Fn() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: this process has one thread, so that the child may do whatever this one may.
    unsafe {
        command.pre_exec(move || {
            reset_signals();
            close_on_exec_from(3)?;
            first()
        });
    }
}

/// Takes over a descriptor that was passed by its number, and keeps it from every program run later.
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open, as the call above shows, and whoever passed it left it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a copy of `fd` in place of descriptor `place`, open across an exec.
pub fn put_in_place(fd: impl AsFd, place: RawFd) -> io::Result<()> {
    // SAFETY: takes numbers only; only standard input, output and error are replaced so, which nothing here owns.
    check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), place) }.into()).map(drop)
}

/// The other end of a pseudo-terminal, opened without a look at any path, and unlocked.
pub fn terminal_of(master: impl AsFd) -> io::Result<OwnedFd> {
    let master = master.as_fd().as_raw_fd();
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads the integer behind the pointer, TIOCGPTPEER takes flags and makes a descriptor for us.
    unsafe {
        check(libc::ioctl(master, libc::TIOCSPTLCK, &raw const locked).into())?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let fd = check(libc::ioctl(master, libc::TIOCGPTPEER, flags).into())?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// The number of a pseudo-terminal in its devpts.
pub fn terminal_number(master: impl AsFd) -> io::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes the integer behind the pointer.
    check(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTN, &raw mut number) }.into())?;
    Ok(number)
}

/// Makes a terminal the controlling one of this process's session, which it leads.
pub fn control_terminal(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: takes a number; 0 takes it from nobody.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Rows and columns of a terminal.
pub fn window_size(terminal: impl AsFd) -> io::Result<libc::winsize> {
    // SAFETY: all-zero is a valid struct winsize, which TIOCGWINSZ fills.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        check(libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size).into())?;
        Ok(size)
    }
}

/// Sets rows and columns of a terminal; its programs hear of it by SIGWINCH.
pub fn set_window_size(terminal: impl AsFd, size: &libc::winsize) -> io::Result<()> {
    // SAFETY: TIOCSWINSZ reads the struct behind the pointer.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) }.into())
        .map(drop)
}
