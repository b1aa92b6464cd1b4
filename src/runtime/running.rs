//! What a container's main process is confined to, as the kernel shows it: what joins the container gets no more.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, setrlimit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{getpriority_process, setpriority_process};

/// A row of /proc/PID/limits for each resource.
const LIMITS: [(&str, Resource); 16] = [
    ("Max cpu time", Resource::RLIMIT_CPU),
    ("Max file size", Resource::RLIMIT_FSIZE),
    ("Max data size", Resource::RLIMIT_DATA),
    ("Max stack size", Resource::RLIMIT_STACK),
    ("Max core file size", Resource::RLIMIT_CORE),
    ("Max resident set", Resource::RLIMIT_RSS),
    ("Max processes", Resource::RLIMIT_NPROC),
    ("Max open files", Resource::RLIMIT_NOFILE),
    ("Max locked memory", Resource::RLIMIT_MEMLOCK),
    ("Max address space", Resource::RLIMIT_AS),
    ("Max file locks", Resource::RLIMIT_LOCKS),
    ("Max pending signals", Resource::RLIMIT_SIGPENDING),
    ("Max msgqueue size", Resource::RLIMIT_MSGQUEUE),
    ("Max nice priority", Resource::RLIMIT_NICE),
    ("Max realtime priority", Resource::RLIMIT_RTPRIO),
    ("Max realtime timeout", Resource::RLIMIT_RTTIME),
];

/// A running process.
#[derive(Debug)]
pub struct Running {
    /// it may gain no privileges
    pub no_new_privileges: bool,
    /// its bounding set, a bit for each capability
    pub bounding: u64,
    /// it is in another user namespace than we are
    pub other_users: bool,
    /// and in another time namespace
    pub other_time: bool,
    limits: Vec<(Resource, u64, u64)>,
    oom_score_adj: String,
    processors: CpuSet,
    nice: i32,
}

impl Running {
    /// The process behind a pidfd. Fails where it has ended.
    pub fn of(pidfd: &OwnedFd) -> Result<Self> {
        let pid = number(pidfd)?;
        let read = || -> Result<Self> {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let field = |name: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                value.map(str::trim).with_context(|| format!("/proc/{pid}/status has no {name}"))
            };
            let namespace = |process: &str, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}"));
            let time = (namespace(&pid, "time"), namespace("self", "time"));
            Ok(Self {
                no_new_privileges: field("NoNewPrivs")? == "1",
                bounding: u64::from_str_radix(field("CapBnd")?, 16)?,
                other_users: namespace(&pid, "user")? != namespace("self", "user")?,
                // Older kernels have none.
                other_time: matches!(time, (Ok(theirs), Ok(ours)) if theirs != ours),
                limits: limits(&fs::read_to_string(format!("/proc/{pid}/limits"))?),
                processors: sched_getaffinity(nix::unistd::Pid::from_raw(pid.parse()?))?,
                nice: getpriority_process(rustix::process::Pid::from_raw(pid.parse()?))?,
                oom_score_adj: fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?,
            })
        };
        let running = read();
        // Only now is it sure that all this was read of that process, and not of another that got its number.
        let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
        let ended = poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0;
        ensure!(!ended, "the container's main process has just ended");
        running.context("looking at the container's main process")
    }

    /// Runs on the same processors, and is as nice to others. Nicer than ourselves is always allowed; where the opposite is not, we
    /// stay as we are.
    pub fn share_schedule(&self) {
        let _ = sched_setaffinity(nix::unistd::Pid::from_raw(0), &self.processors);
        let _ = setpriority_process(None, self.nice);
    }

    /// Is as likely to be ended when memory runs out.
    pub fn share_oom_score(&self) {
        let path = "/proc/self/oom_score_adj";
        if fs::read_to_string(path).is_ok_and(|own| own != self.oom_score_adj) {
            // A lower one than our own takes CAP_SYS_RESOURCE, which a caller may lack: then we go first.
            let _ = fs::write(path, self.oom_score_adj.trim());
        }
    }

    /// Has the same resource limits, or lower ones where ours are lower and may not be raised.
    pub fn share_limits(&self) -> Result<()> {
        for (resource, soft, hard) in &self.limits {
            if setrlimit(*resource, *soft, *hard).is_err() {
                let (_, own) = nix::sys::resource::getrlimit(*resource)?;
                let hard = (*hard).min(own);
                setrlimit(*resource, (*soft).min(hard), hard).with_context(|| format!("setting {resource:?}"))?;
            }
        }
        Ok(())
    }
}

/// The number that the process behind a pidfd has in /proc.
pub fn number(pidfd: &OwnedFd) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    Ok(text.lines().find_map(|line| line.strip_prefix("Pid:")).context("this is no pidfd")?.trim().to_owned())
}

fn limits(text: &str) -> Vec<(Resource, u64, u64)> {
    let number = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let row = |(name, resource): &(&str, Resource)| {
        let mut words = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
        Some((*resource, number(words.next()?)?, number(words.next()?)?))
    };
    LIMITS.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_the_kernels_table_is_read() {
        let text = fs::read_to_string("/proc/self/limits").expect("read");
        let read = limits(&text);
        assert_eq!(read.len(), text.lines().count() - 1, "{text}");
        for (resource, soft, hard) in read {
            assert_eq!(nix::sys::resource::getrlimit(resource).expect("asked"), (soft, hard), "{resource:?}");
        }
    }
}
