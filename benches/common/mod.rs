//! What the benchmarks share: a program's cost, and medians.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The release programs, which `make bench` builds first: what users get, while the benchmark itself is a development build.
pub fn programs() -> Result<PathBuf> {
    let target = std::env::current_exe()?
        .ancestors()
        .nth(3)
        .context("this program lies outside a target folder")?
        .join("release");
    ensure!(target.join("sysctr").exists(), "no sysctr in {}: run `make bench`, which builds it", target.display());
    Ok(target)
}

/// How many rounds: `--rounds N`, or this many.
pub fn rounds(usual: usize) -> Result<usize> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--rounds").skip(1);
    arguments.next().map_or(Ok(usual), |number| number.parse().context("--rounds wants a number"))
}

/// What a program and the children that it waited for have cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// from its start to its end
    pub wall: Duration,
    /// user and system time together
    pub cpu: Duration,
    /// the largest process's resident memory, in bytes
    pub memory: u64,
}

/// Runs a program that must succeed, its outputs in a log.
#[allow(unsafe_code, reason = "no safe crate here wraps wait4(2), the only call that tells one child's usage")]
pub fn cost(command: &mut Command, log: &File) -> Result<Cost> {
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    let begin = Instant::now();
    let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let mut status = 0;
    // SAFETY: a rusage of zeros is a valid one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let id = libc::pid_t::try_from(child.id())?;
    // SAFETY: both pointers are to live, writable values; nobody else waits for this child.
    let waited = unsafe { libc::wait4(id, &raw mut status, 0, &raw mut usage) };
    let wall = begin.elapsed();
    if waited != id {
        bail!(std::io::Error::last_os_error());
    }
    ensure!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "{command:?} ended with wait status {status:#x}"
    );
    let time = |value: libc::timeval| Duration::from_micros((value.tv_sec * 1_000_000 + value.tv_usec) as u64);
    Ok(Cost { wall, cpu: time(usage.ru_utime) + time(usage.ru_stime), memory: usage.ru_maxrss as u64 * 1024 })
}

/// The middle one of these values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[half],
        _ => (values[half - 1] + values[half]) / 2.0,
    }
}

/// Says so where the machine has other work: its wall times are then worth little, its CPU times more.
pub fn warn_if_busy() -> Result<bool> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let load: f64 = text.split_whitespace().next().unwrap_or_default().parse()?;
    let busy = load > 1.0;
    if busy {
        println!("warning: the machine is busy (load {load}), wall times are worth little now");
    }
    Ok(busy)
}
