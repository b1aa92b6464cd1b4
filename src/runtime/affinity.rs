//! Which processors a program executed in a running container may run on: process.execCPUAffinity.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps this process to a list such as "0-3,7"; an empty one changes nothing.
pub fn keep_to(list: Option<&str>) -> Result<()> {
    let Some(list) = list.filter(|list| !list.trim().is_empty()) else { return Ok(()) };
    let keep = || sched_setaffinity(Pid::from_raw(0), &parse(list)?).context("setting it");
    keep().with_context(|| format!("the processors {list:?} of process.execCPUAffinity"))
}

fn parse(list: &str) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().with_context(|| format!("{text:?} is no number"));
        for one in number(first)?..=number(last)?.min(CpuSet::count()) {
            set.set(one).with_context(|| format!("there is no processor {one}"))?;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_single_ones_and_ranges() {
        let set = parse("0-2,5").expect("a list");
        let there: Vec<usize> = (0..8).filter(|one| set.is_set(*one).expect("a number")).collect();
        assert_eq!(there, [0, 1, 2, 5]);
        for bad in ["x", "1-", "0-99999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
