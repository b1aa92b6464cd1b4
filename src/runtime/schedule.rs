//! How the kernel schedules the program: process.scheduler, process.ioPriority and linux.personality.

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, Scheduler,
};

use super::sys::{self, SchedAttr};

/// The highest of the eight levels of ioprio_set(2); 0 comes first.
const LAST_IO_LEVEL: i64 = 7;

/// The personas of linux/personality.h.
const PER_LINUX: libc::c_ulong = 0;
const PER_LINUX32: libc::c_ulong = 8;

/// Puts it in force for a process, 0 is the calling one; real-time needs the host's CAP_SYS_NICE, so before capabilities go.
pub fn apply(pid: i32, scheduler: Option<&Scheduler>, io: Option<&LinuxIOPriority>) -> Result<()> {
    if let Some(scheduler) = scheduler {
        sys::sched_setattr(pid, &attr(scheduler)?)
            .with_context(|| format!("setting the scheduler {} (process.scheduler)", scheduler.policy()))?;
    }
    if let Some(io) = io {
        let (class, level) = io_priority(io)?;
        sys::ioprio_set(pid, class, level)
            .with_context(|| format!("setting {} {level} (process.ioPriority)", io.class()))?;
    }
    Ok(())
}

/// Sets linux.personality of the calling process.
pub fn personality(personality: Option<&LinuxPersonality>) -> Result<()> {
    if let Some(personality) = personality {
        let domain = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => PER_LINUX,
            LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
        };
        sys::personality(domain).context("setting linux.personality")?;
    }
    Ok(())
}

/// Refuses what the kernel would refuse or, worse, take for something else.
pub fn check(
    scheduler: Option<&Scheduler>,
    io: Option<&LinuxIOPriority>,
    personality: Option<&LinuxPersonality>,
) -> Result<()> {
    scheduler.map(attr).transpose()?;
    io.map(io_priority).transpose()?;
    let flags = personality.and_then(|personality| personality.flags().as_deref()).unwrap_or_default();
    ensure!(flags.is_empty(), "linux.personality.flags {flags:?} are not known: the specification names none");
    Ok(())
}

fn attr(scheduler: &Scheduler) -> Result<SchedAttr> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIso => 4, // the kernel keeps the number and has no such policy
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
    };
    let real_time = [libc::SCHED_FIFO, libc::SCHED_RR].contains(&policy);
    let priority = scheduler.priority().unwrap_or_default();
    ensure!(
        priority == 0 || real_time,
        "process.scheduler.priority is for SCHED_FIFO and SCHED_RR, not for {}",
        scheduler.policy()
    );
    let nice = scheduler.nice().unwrap_or_default();
    ensure!((-20..=19).contains(&nice), "process.scheduler.nice {nice} is not within -20 and 19");
    let timed = [scheduler.runtime(), scheduler.deadline(), scheduler.period()];
    ensure!(
        policy == libc::SCHED_DEADLINE || timed.iter().all(|time| time.unwrap_or_default() == 0),
        "process.scheduler: runtime, deadline and period are for SCHED_DEADLINE, not for {}",
        scheduler.policy()
    );
    let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| flags | flag_bit(*flag));
    Ok(SchedAttr {
        size: 0,
        policy: policy as u32,
        flags,
        nice,
        priority: u32::try_from(priority).with_context(|| format!("process.scheduler.priority {priority}"))?,
        runtime: scheduler.runtime().unwrap_or_default(),
        deadline: scheduler.deadline().unwrap_or_default(),
        period: scheduler.period().unwrap_or_default(),
    })
}

/// SCHED_FLAG_* of linux/sched.h.
fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(io: &LinuxIOPriority) -> Result<(u32, u32)> {
    let class = match io.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = io.priority();
    ensure!(
        (0..=LAST_IO_LEVEL).contains(&level),
        "process.ioPriority.priority {level} is not within 0 and {LAST_IO_LEVEL}"
    );
    Ok((class, level as u32))
}
