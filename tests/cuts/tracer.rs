//! Runs a program and ends it with SIGKILL before one chosen system call of those that change what is on disk.
//!
//! A seccomp filter stops the program at these calls alone, so it runs nearly as fast as without, and they are counted over all its
//! threads. strace(1) can inject a signal too, but counts for each thread by itself, and so cannot go through them all.

use std::{
    fs,
    os::unix::{fs::FileExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// What tells whether a call changes anything, and what.
#[derive(Clone, Copy)]
enum Subject {
    /// The argument with the path that is changed.
    Path(usize),
    /// The same; only if the argument with the flags has O_CREAT or O_TRUNC.
    Opened(usize, usize),
    /// The argument with the descriptor; only a file counts, no pipe and no terminal.
    File(usize),
    /// ioctl(2): FICLONE and FICLONERANGE.
    Cloned,
}

/// The calls that change what is on disk, or make it stay.
const CALLS: &[(&str, Subject)] = &[
    ("open", Subject::Opened(0, 1)),
    ("openat", Subject::Opened(1, 2)),
    ("openat2", Subject::Opened(1, 2)),
    ("creat", Subject::Path(0)),
    ("write", Subject::File(0)),
    ("writev", Subject::File(0)),
    ("pwrite64", Subject::File(0)),
    ("pwritev", Subject::File(0)),
    ("pwritev2", Subject::File(0)),
    ("copy_file_range", Subject::File(2)),
    ("sendfile", Subject::File(0)),
    ("splice", Subject::File(2)),
    ("fallocate", Subject::File(0)),
    ("truncate", Subject::Path(0)),
    ("ftruncate", Subject::File(0)),
    ("ioctl", Subject::Cloned),
    ("rename", Subject::Path(1)),
    ("renameat", Subject::Path(3)),
    ("renameat2", Subject::Path(3)),
    ("link", Subject::Path(1)),
    ("linkat", Subject::Path(3)),
    ("symlink", Subject::Path(1)),
    ("symlinkat", Subject::Path(2)),
    ("unlink", Subject::Path(0)),
    ("unlinkat", Subject::Path(1)),
    ("rmdir", Subject::Path(0)),
    ("mkdir", Subject::Path(0)),
    ("mkdirat", Subject::Path(1)),
    ("mknod", Subject::Path(0)),
    ("mknodat", Subject::Path(1)),
    ("chmod", Subject::Path(0)),
    ("fchmod", Subject::File(0)),
    ("fchmodat", Subject::Path(1)),
    ("fchmodat2", Subject::Path(1)),
    ("chown", Subject::Path(0)),
    ("lchown", Subject::Path(0)),
    ("fchown", Subject::File(0)),
    ("fchownat", Subject::Path(1)),
    ("setxattr", Subject::Path(0)),
    ("lsetxattr", Subject::Path(0)),
    ("fsetxattr", Subject::File(0)),
    ("removexattr", Subject::Path(0)),
    ("lremovexattr", Subject::Path(0)),
    ("fremovexattr", Subject::File(0)),
    ("utime", Subject::Path(0)),
    ("utimes", Subject::Path(0)),
    ("utimensat", Subject::Path(1)),
    ("fsync", Subject::File(0)),
    ("fdatasync", Subject::File(0)),
    ("sync_file_range", Subject::File(0)),
    ("syncfs", Subject::File(0)),
    ("sync", Subject::Path(usize::MAX)),
];

/// FICLONE and FICLONERANGE of linux/fs.h.
const CLONE: [u64; 2] = [0x4004_9409, 0x4020_940d];

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    /// Each place where it could be cut, until it ended or was.
    pub places: Vec<String>,
    /// Its exit code; none where it was killed.
    pub code: Option<i32>,
}

/// When it is killed. The first call has the number 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Never,
    /// Before the call with this number.
    Before(usize),
    /// Some time after it began.
    After(usize, Duration),
}

/// Runs the program until it ends or is killed.
pub fn run(command: Command, cut: Cut) -> Run {
    watch(command, cut, &mut |_| ())
}

/// Runs the program to its end; `before` is called with the number of each call.
pub fn run_with(command: Command, before: &mut dyn FnMut(usize)) -> Run {
    watch(command, Cut::Never, before)
}

#[allow(clippy::zombie_processes, reason = "`follow` waits for it and for its threads")]
fn watch(mut command: Command, cut: Cut, before: &mut dyn FnMut(usize)) -> Run {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: the C library makes malloc usable after fork; nothing else is shared with the threads that are gone.
    #[allow(unsafe_code, reason = "only the child itself can ask to be traced")]
    unsafe {
        command.pre_exec(|| {
            ptrace::traceme()?;
            stop_at_changes().map_err(std::io::Error::other)
        });
    }
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let main = Pid::from_raw(child.id().cast_signed());
    follow(main, cut, before)
}

fn stop_at_changes() -> Result<(), libseccomp::error::SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    for (number, (name, subject)) in CALLS.iter().enumerate() {
        // not every architecture has all of them
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        let action = ScmpAction::Trace(u16::try_from(number).unwrap());
        match (*name, subject) {
            ("open" | "openat", Subject::Opened(_, flags)) => {
                for flag in [libc::O_CREAT, libc::O_TRUNC, libc::O_TMPFILE & !libc::O_DIRECTORY] {
                    let flag = u64::from(flag.cast_unsigned());
                    let has =
                        ScmpArgCompare::new(u32::try_from(*flags).unwrap(), ScmpCompareOp::MaskedEqual(flag), flag);
                    filter.add_rule_conditional(action, call, &[has])?;
                }
            }
            (_, Subject::Cloned) => {
                for request in CLONE {
                    let is = ScmpArgCompare::new(1, ScmpCompareOp::Equal, request);
                    filter.add_rule_conditional(action, call, &[is])?;
                }
            }
            _ => drop(filter.add_rule(action, call)?),
        }
    }
    filter.load()
}

fn follow(main: Pid, cut: Cut, before: &mut dyn FnMut(usize)) -> Run {
    let mut run = Run { places: Vec::new(), code: None };
    // only the children of this very thread: other tests run beside it
    let any = || waitpid(None::<Pid>, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD));
    loop {
        let pid = match any() {
            Err(Errno::ECHILD) => return run,
            Err(error) => panic!("waiting for the program: {error}"),
            Ok(WaitStatus::Exited(pid, code)) => {
                if pid == main {
                    run.code = Some(code);
                }
                continue;
            }
            Ok(WaitStatus::Signaled(..)) => continue,
            Ok(WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_SECCOMP)) => {
                if let Some(place) = change(pid) {
                    let number = run.places.len();
                    run.places.push(place);
                    before(number);
                    match cut {
                        Cut::Before(at) if at == number => kill(main, Signal::SIGKILL).unwrap(),
                        Cut::After(at, time) if at == number => {
                            resume(pid, None);
                            thread::sleep(time);
                            // it may have ended meanwhile, but is not waited for
                            kill(main, Signal::SIGKILL).unwrap();
                            continue;
                        }
                        _ => {}
                    }
                }
                pid
            }
            // its execve(2)
            Ok(WaitStatus::Stopped(pid, Signal::SIGTRAP)) if pid == main => {
                let threads = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
                let options = threads | Options::PTRACE_O_TRACESECCOMP | Options::PTRACE_O_EXITKILL;
                ptrace::setoptions(pid, options | Options::PTRACE_O_TRACEEXEC).unwrap();
                pid
            }
            Ok(WaitStatus::PtraceEvent(pid, ..)) => pid,
            // the first stop of a new thread
            Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)) => pid,
            Ok(WaitStatus::Stopped(pid, signal)) => {
                resume(pid, Some(signal));
                continue;
            }
            Ok(_) => continue,
        };
        resume(pid, None);
    }
}

fn resume(pid: Pid, signal: Option<Signal>) {
    match ptrace::cont(pid, signal) {
        // killed meanwhile
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("resuming {pid}: {error}"),
    }
}

/// What the thread is about to change; none where it is nothing on disk.
fn change(pid: Pid) -> Option<String> {
    let (call, subject) = CALLS[usize::try_from(ptrace::getevent(pid).ok()?).unwrap()];
    // proc(5): the number, six arguments, stack and program counter
    let line = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let hexadecimal = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let arguments: Vec<u64> = line.split_whitespace().skip(1).filter_map(hexadecimal).collect();
    let of_descriptor = |number: u64| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
        is_on_disk(&link).then(|| link.display().to_string())
    };
    let subject = match subject {
        Subject::File(argument) => of_descriptor(arguments[argument])?,
        Subject::Cloned => of_descriptor(arguments[0])?,
        Subject::Path(argument) if argument < 6 => text(pid, arguments[argument]),
        Subject::Path(_) => String::new(),
        Subject::Opened(path, flags) => {
            let flags = if call == "openat2" { number(pid, arguments[flags]) } else { arguments[flags] };
            let changes = u64::from((libc::O_CREAT | libc::O_TRUNC).cast_unsigned());
            let unnamed = u64::from(libc::O_TMPFILE.cast_unsigned());
            let path = text(pid, arguments[path]);
            let on_disk = is_on_disk(&Path::new("/").join(&path));
            (on_disk && (flags & changes != 0 || flags & unnamed == unnamed)).then_some(path)?
        }
    };
    Some(format!("{call} {subject}"))
}

/// A device, a pipe or what the kernel tells is not.
fn is_on_disk(path: &Path) -> bool {
    path.is_absolute() && (path.starts_with("/dev/shm") || !path.starts_with("/dev") && !path.starts_with("/proc"))
}

fn memory(pid: Pid, address: u64, buffer: &mut [u8]) -> usize {
    let file = fs::File::open(format!("/proc/{pid}/mem"));
    file.and_then(|file| file.read_at(buffer, address)).unwrap_or(0)
}

fn text(pid: Pid, address: u64) -> String {
    // a page at a time: the next one may not be there
    let mut buffer = vec![0; 4096 - usize::try_from(address % 4096).unwrap()];
    let read = memory(pid, address, &mut buffer);
    let end = buffer[..read].iter().position(|byte| *byte == 0).unwrap_or(read);
    String::from_utf8_lossy(&buffer[..end]).into_owned()
}

fn number(pid: Pid, address: u64) -> u64 {
    let mut buffer = [0; 8];
    memory(pid, address, &mut buffer);
    u64::from_ne_bytes(buffer)
}
