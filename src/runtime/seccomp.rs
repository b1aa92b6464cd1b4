//! The filter of linux.seccomp, built with libseccomp.

use std::str::FromStr;

use anyhow::{Context, Result};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

/// A filter that is whole and not yet in force.
pub struct Filter(ScmpFilterContext);

impl Filter {
    /// Puts the filter in force for this process and what it execs.
    pub fn load(&self) -> Result<()> {
        self.0.load().context("loading the seccomp filter")
    }
}

/// Builds the filter. System calls that this machine does not know are passed over: the default action is theirs.
pub fn build(seccomp: &LinuxSeccomp) -> Result<Filter> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret());
    let mut filter = ScmpFilterContext::new(default)?;
    // libseccomp would set no_new_privs itself, also where config.json says not to.
    filter.set_ctl_nnp(false)?;
    for arch in seccomp.architectures().iter().flatten() {
        let name = serde_json::to_value(arch)?;
        let name = name.as_str().unwrap_or_default();
        let arch = ScmpArch::from_str(name).with_context(|| format!("the seccomp architecture {name}"))?;
        filter.add_arch(arch).with_context(|| format!("the seccomp architecture {name}"))?;
    }
    for flag in seccomp.flags().iter().flatten() {
        match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => filter.set_ctl_log(true)?,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => filter.set_ctl_ssb(true)?,
            // There is one thread, and no listener: nothing to synchronise, nothing to wait for.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync
            | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => &mut filter,
        };
    }
    for rule in seccomp.syscalls().iter().flatten() {
        let what = action(rule.action(), rule.errno_ret());
        // libseccomp refuses a rule that says what the default says.
        if what != default {
            add(&mut filter, rule, what)?;
        }
    }
    Ok(Filter(filter))
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
