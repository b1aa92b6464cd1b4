//! The filter of linux.seccomp, built with libseccomp and loaded as the kernel's own BPF.
//!
//! Building the usual profile takes some 15 ms, several times as long as all the rest of a start. So `prepare` builds it once,
//! at install, into `seccomp.bpf` beside config.json, and a start takes it from there:
//!
//! ```text
//! sysctr-seccomp 1 LENGTH {linux.seccomp as JSON}\n
//! LENGTH bytes of struct sock_filter
//! ```
//!
//! A file that is missing, cut, or of another linux.seccomp than config.json's is passed over, and the filter built anew.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use rustix::fs::{MemfdFlags, memfd_create};

use super::sys;

const FILE: &str = "seccomp.bpf";
/// The size of a struct sock_filter, one instruction.
const INSTRUCTION: usize = 8;

/// A filter that is whole and not yet in force.
#[derive(Clone)]
pub struct Filter {
    program: Vec<u8>,
    flags: u64,
}

impl Filter {
    /// The filter of a deployment: as `prepare` left it, or built now.
    pub fn of(seccomp: &LinuxSeccomp, dir: &Path) -> Result<Self> {
        let flags = seccomp.flags().iter().flatten().fold(0, |flags, flag| flags | kernel_flag(*flag));
        let program = match prepared(seccomp, dir)? {
            Some(program) => program,
            None => build(seccomp, false)?,
        };
        Ok(Self { program, flags })
    }

    /// Puts the filter in force for this process and what it execs.
    pub fn load(&self) -> Result<()> {
        sys::load_seccomp(&self.program, self.flags).context("loading the seccomp filter")
    }
}

/// Refuses what nobody stays to answer, and what would end the container's first process before it could say why.
pub fn check(seccomp: &LinuxSeccomp) -> Result<()> {
    ensure!(seccomp.listener_path().is_none(), "linux.seccomp.listenerPath is not supported");
    let rules = || seccomp.syscalls().iter().flatten();
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    let any = notifies(seccomp.default_action()) || rules().any(|rule| notifies(rule.action()));
    ensure!(!any, "the seccomp action SCMP_ACT_NOTIFY is not supported");
    let mut named = rules().filter(|rule| rule.names().iter().any(|name| name == "execve")).peekable();
    let lets = |action| matches!(action, LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog);
    let begins = match named.peek() {
        None => lets(seccomp.default_action()),
        // One that looks at arguments leaves the other calls to the default.
        Some(_) => named.any(|rule| lets(rule.action()) || rule.args().iter().flatten().next().is_some()),
    };
    ensure!(begins, "linux.seccomp refuses execve: no program could begin under this filter");
    Ok(())
}

/// Builds the filter and leaves it in the deployment's folder for later starts.
pub fn prepare(seccomp: &LinuxSeccomp, dir: &Path) -> Result<()> {
    let program = build(seccomp, true)?;
    let path = dir.join(FILE);
    let write = || -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&header(seccomp, program.len())?)?;
        file.write_all(&program)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn header(seccomp: &LinuxSeccomp, length: usize) -> Result<Vec<u8>> {
    Ok(format!("sysctr-seccomp 1 {length} {}\n", serde_json::to_string(seccomp)?).into_bytes())
}

fn prepared(seccomp: &LinuxSeccomp, dir: &Path) -> Result<Option<Vec<u8>>> {
    let Ok(mut bytes) = fs::read(dir.join(FILE)) else { return Ok(None) };
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let program = bytes.split_off(end + 1);
    let whole = !program.is_empty() && program.len() % INSTRUCTION == 0;
    Ok((whole && bytes == header(seccomp, program.len())?).then_some(program))
}

fn kernel_flag(flag: LinuxSeccompFilterFlag) -> u64 {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        // There is one thread, and no listener: nothing to synchronise, nothing to wait for.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    }
}

/// System calls that this machine does not know are passed over: the default action is theirs.
fn build(seccomp: &LinuxSeccomp, optimize: bool) -> Result<Vec<u8>> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret());
    let mut filter = ScmpFilterContext::new(default)?;
    if optimize {
        // A tree of comparisons instead of a row: when it loads a filter, the kernel tries it with every call. libseccomp 2.5 can.
        let _ = filter.set_ctl_optimize(2);
    }
    for arch in seccomp.architectures().iter().flatten() {
        let name = serde_json::to_value(arch)?;
        let name = name.as_str().unwrap_or_default();
        let arch = ScmpArch::from_str(name).with_context(|| format!("the seccomp architecture {name}"))?;
        filter.add_arch(arch).with_context(|| format!("the seccomp architecture {name}"))?;
    }
    for rule in seccomp.syscalls().iter().flatten() {
        let what = action(rule.action(), rule.errno_ret());
        // libseccomp refuses a rule that says what the default says.
        if what != default {
            add(&mut filter, rule, what)?;
        }
    }
    let mut memory = File::from(memfd_create("seccomp", MemfdFlags::CLOEXEC)?);
    filter.export_bpf(&memory).context("building the seccomp filter")?;
    let mut program = Vec::new();
    memory.rewind()?;
    memory.read_to_end(&mut program)?;
    ensure!(!program.is_empty() && program.len() % INSTRUCTION == 0, "libseccomp built no filter");
    Ok(program)
}

fn add(filter: &mut ScmpFilterContext, rule: &LinuxSyscall, action: ScmpAction) -> Result<()> {
    let args = rule.args().as_deref().unwrap_or_default();
    let repeated = args.iter().enumerate().any(|(at, arg)| args[..at].iter().any(|other| other.index() == arg.index()));
    for name in rule.names() {
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        let add = |filter: &mut ScmpFilterContext| -> Result<()> {
            if args.is_empty() {
                filter.add_rule(action, call)?;
            } else if repeated {
                // libseccomp takes one condition per argument; several of one argument mean "any of them", as in runc.
                for arg in args {
                    filter.add_rule_conditional(action, call, &[compare(arg)])?;
                }
            } else {
                let all: Vec<ScmpArgCompare> = args.iter().map(compare).collect();
                filter.add_rule_conditional(action, call, &all)?;
            }
            Ok(())
        };
        add(filter).with_context(|| format!("the seccomp rule of {name}"))?;
    }
    Ok(())
}

fn compare(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (op, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or_default())
        }
    };
    ScmpArgCompare::new(arg.index() as u32, op, value)
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> ScmpAction {
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(number.map_or(libc::EPERM, |number| number as i32)),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(number.unwrap_or(libc::EPERM as u32) as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
    }
}

#[cfg(test)]
mod tests;
