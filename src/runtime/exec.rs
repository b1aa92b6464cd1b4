//! `sysctr exec`: one more program in a running container.
//!
//! ```text
//! waiter ── clone, into the container's cgroup ──▶ middle: joins all namespaces, becomes the user
//!    │ ◀─────── the program's pidfd, terminal ─────── │ clone ──▶ the program's process (child of the waiter)
//!    │                                                exit         │ terminal, seccomp, execve
//!    │ ◀────────── closed by exec, or the error ────────────────── │
//!    │ relay: streams, signals, window size                     the program
//! ```
//!
//! The container is hostile. Whoever enters its pid namespace can be seen there, so the process that is born in it has nothing left
//! of the host: neither root nor working folder, neither descriptors nor rights, and it cannot be looked into (CVE-2016-9962,
//! CVE-2024-21626).

use std::cell::Cell;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::ExecCPUAffinity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::process::{DumpableBehavior, Signal};

use super::affinity;
use super::console::Console;
use super::deployment::Deployment;
use super::init::{Ready, leave_keyring};
use super::labels::Labels;
use super::process::{self, Capable, NoProgram};
use super::running::Running;
use super::session::Inside;
use super::sys::{self, Child};
use super::{cgroup, exit, launch, one_line, passing, relay, schedule, seal, seccomp, session};
use crate::model::process::{Exec, Wishes};
use crate::model::user::User;

/// Says that the program's process is born; its number and its pidfd come along.
const BORN: u8 = b'+';
/// A passwd(5) or group(5) of a container is never larger.
const ACCOUNTS_LIMIT: u64 = 1 << 20;

/// Runs what `request`, an open file, asks for, in the container whose main process `pidfd` is. Gives the program's exit code, or
/// 125 to 127 and says why.
pub fn exec(pidfd: RawFd, request: RawFd) -> u8 {
    run(pidfd, request).unwrap_or_else(|error| {
        eprintln!("error: {}", one_line(&error));
        launch::code_of(&error)
    })
}

fn run(pidfd: RawFd, request: RawFd) -> Result<u8> {
    seal::from_own_executable()?;
    sys::close_all_but(vec![pidfd, request])?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let target = sys::take(pidfd).context("taking over the pidfd")?;
    let mut text = String::new();
    File::from(sys::take(request).context("taking over the request")?).read_to_string(&mut text)?;
    let exec: Exec = serde_json::from_str(&text).context("reading the request")?;
    let program = exec.wishes.args.first().map_or("", String::as_str);
    start(&exec, target).with_context(|| format!("running {program:?} in {}", exec.container))
}

fn start(exec: &Exec, target: OwnedFd) -> Result<u8> {
    let deployment = Deployment::load(&exec.deployment)?;
    let running = Running::of(&target)?;
    let group = cgroup::open(&exec.cgroup)?;
    let size = deployment.spec.process().as_ref().and_then(launch::console_size);
    let (mut outside, inside) = session::make(exec.wishes.terminal, exec.wishes.interactive, size)?;
    let (ours, theirs) = passing::pair()?;
    sys::default_action(libc::SIGCHLD);
    affinity::keep_to(affinities(&deployment).and_then(|both| both.initial().as_deref()))?;
    let middle = match sys::clone_into(0, false, Some(group.as_fd())).context("entering the container's cgroup")? {
        Some(middle) => middle,
        None => {
            drop((outside, ours, group));
            Joining { deployment, running, wishes: exec.wishes.clone(), inside, report: theirs }.main(target)
        }
    };
    drop((inside, theirs, target));
    let (mut child, mut failure) = (None, None);
    while let Some((message, files)) = passing::receive(&ours)? {
        match (message.split_first(), files.into_iter().next()) {
            (Some((&BORN, pid)), Some(pidfd)) => {
                // Until now a signal ends us, and with us what has not come to anything.
                relay::block_signals()?;
                child = Some(Child { pid: i32::from_ne_bytes(pid.try_into().context("a cut message")?), pidfd });
            }
            (Some((code, text)), _) => failure = Some(launch::Failed::new(*code, text)),
            (None, _) => {}
        }
    }
    waitpid(Pid::from_raw(middle.pid), None)?;
    if let Some(failure) = failure {
        child.map(|child| waitpid(Pid::from_raw(child.pid), None)).transpose()?;
        bail!(failure);
    }
    let child = child.context("it ended before it was there")?;
    outside.receive()?;
    relay::wait(outside, &child)
}

fn affinities(deployment: &Deployment) -> Option<&ExecCPUAffinity> {
    deployment.spec.process().as_ref()?.exec_cpu_affinity().as_ref()
}

/// The middle process, and the program's until its exec.
struct Joining {
    deployment: Deployment,
    running: Running,
    wishes: Wishes,
    inside: Inside,
    report: OwnedFd,
}

impl Joining {
    fn main(self, target: OwnedFd) -> ! {
        let code = match self.join(target) {
            Ok(()) => 0,
            Err(error) => {
                let text = [&[NoProgram::code(&error)], one_line(&error).as_bytes()].concat();
                // Nobody to tell is no reason to stay.
                let _ = passing::send(&self.report, &text, &[]);
                1
            }
        };
        std::process::exit(code)
    }

    /// Returns in the middle process, once the program's process is born. That one returns only where it fails.
    fn join(&self, target: OwnedFd) -> Result<()> {
        let end_with_waiter = || rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        end_with_waiter()?;
        leave_keyring()?;
        let spec = &self.deployment.spec;
        let (Some(base), Some(linux)) = (spec.process(), spec.linux()) else { bail!("config.json is not whole") };
        let filter = linux.seccomp().as_ref();
        let filter = filter.map(|seccomp| seccomp::Filter::of(seccomp, &self.deployment.dir)).transpose()?;
        let labels = Labels::of(base)?;
        self.running.share_schedule();
        affinity::keep_to(affinities(&self.deployment).and_then(|both| both.cpu_affinity_final().as_deref()))?;
        self.running.share_oom_score();
        self.running.share_limits()?;
        self.enter(target)?;

        let user = self.wishes.user.as_deref().map(user).transpose()?;
        let mut process = base.clone();
        self.wishes.apply(&mut process, user.as_ref())?;
        self.place_streams(process.user().uid())?;
        process::enter_folder(process.cwd())?;
        schedule::apply(0, process.scheduler().as_ref(), process.io_priority().as_ref())?;
        schedule::personality(linux.personality().as_ref())?;
        labels.apply()?;
        let capable =
            Capable::of(process.capabilities().as_ref(), &process::bounding()?)?.within(self.running.bounding);
        capable.bound()?;
        let sealed = process.no_new_privileges() == Some(true) || self.running.no_new_privileges;
        if sealed {
            rustix::thread::set_no_new_privs(true)?;
        }
        let strings = |all: &Option<Vec<String>>| -> Result<Vec<CString>> {
            all.iter()
                .flatten()
                .map(|text| CString::new(text.as_str()).context("an argument or variable has a NUL"))
                .collect()
        };
        let settle = || -> Result<CString> {
            process::become_user(process.user(), Mode::from_raw_mode(0o022))?;
            capable.apply()?;
            // A change of user takes it back where fs.suid_dumpable says so.
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
            process::find_program(&process, &strings(process.env())?)
        };
        // A filter that could be loaded by nobody but root comes first, and would stand in the way of what follows here.
        let program = if sealed || filter.is_none() { Some(settle()?) } else { None };
        if let Some(child) = sys::clone(0, true).context("making the program's process")? {
            let born = [&[BORN], &child.pid.to_ne_bytes()[..]].concat();
            return passing::send(&self.report, &born, &[&child.pidfd]);
        }

        rustix::process::setsid()?;
        if self.inside.terminal {
            sys::control_terminal(std::io::stdin()).context("taking the terminal")?;
        }
        let (program, filter) = match (program, filter) {
            (Some(program), filter) => (program, filter),
            (None, filter) => {
                filter.as_ref().map_or(Ok(()), seccomp::Filter::load)?;
                (settle()?, None)
            }
        };
        end_with_waiter()?;
        let mut hung_up = [PollFd::new(&self.report, PollFlags::empty())];
        ensure!(poll(&mut hung_up, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0, "nobody waits for it any more");
        sys::close_on_exec_from(3)?;
        let ready = Ready {
            program,
            args: strings(process.args())?,
            env: strings(process.env())?,
            filter,
            hooks: None,
            mask: None,
        };
        let Err(error) = ready.exec(&Cell::new(exit::EXEC));
        Err(error)
    }

    /// Joins all namespaces of the container; its pid namespace has the children of this process only.
    fn enter(&self, target: OwnedFd) -> Result<()> {
        let mut all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP;
        if self.running.other_users {
            all |= CloneFlags::CLONE_NEWUSER;
        }
        if self.running.other_time {
            all |= CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
        }
        setns(&target, all).context("joining the container's namespaces")?;
        if self.running.other_users {
            // Root of the container's, if there is one, owns what we make there.
            let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
            let _ = setgroups(&[]).and(setresgid(group, group, group)).and(setresuid(root, root, root));
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        }
        Ok(())
    }

    fn place_streams(&self, uid: u32) -> Result<()> {
        if !self.inside.terminal {
            return self.inside.place_pipes(uid);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat2(CWD, "/dev/pts", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
        let console = folder.map_err(anyhow::Error::from).and_then(|folder| Console::open(&folder));
        self.inside.place_console(console.context("making a terminal in the container")?, uid)
    }
}

/// `USER[:GROUP]` as the container knows it now.
fn user(text: &str) -> Result<User> {
    User::resolve(text, &accounts("/etc/passwd")?, &accounts("/etc/group")?)
}

/// A regular file of the container's; empty where it has none. A pipe in its place must not hold us up.
fn accounts(path: &str) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat2(CWD, Path::new(path), flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(String::new()),
        Err(error) => return Err(anyhow!(error).context(format!("opening {path} of the container"))),
    };
    ensure!(
        FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile,
        "{path} of the container is no file"
    );
    let mut bytes = Vec::new();
    File::from(file).take(ACCOUNTS_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
