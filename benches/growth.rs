//! `make bench`: what commands cost when much is installed. Images of one file each, beside a layer that all share, from OCI folders;
//! a container of each. Nothing runs: it is a tree below `--root`.
#![allow(dead_code, reason = "the tests use more of their harness than the benchmark does")]

mod common;
#[path = "../tests/common/mod.rs"]
mod parts;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{Cost, cost, median, rounds};
use parts::{Layout, Packing, file, tar_of};

const SIZES: [usize; 4] = [1, 10, 100, 300];

fn main() -> Result<()> {
    let rounds = rounds(7)?;
    common::warn_if_busy()?;
    let work = tempfile::tempdir_in("/var/tmp")?;
    let root = work.path().join("root");
    std::fs::create_dir(&root)?;
    let program = common::programs()?.join("sysctr");
    let log = std::fs::File::create(work.path().join("log"))?;
    let run = |words: &[&str]| -> Result<Cost> {
        let mut command = Command::new(&program);
        command.arg("--root").arg(&root).args(words);
        cost(&mut command, &log).with_context(|| std::fs::read_to_string(work.path().join("log")).unwrap_or_default())
    };
    println!(
        "milliseconds, medians of {rounds} (the first number after `pull` and `install`: the last ones that were needed)"
    );
    println!("  images and containers      list   show  images  update (none)  prune  |   pull  install");
    let mut there = 0;
    for size in SIZES {
        let mut last = [0.0; 2];
        while there < size {
            there += 1;
            let name = image(work.path(), there);
            last[0] = milliseconds(run(&["pull", &name])?);
            last[1] = milliseconds(run(&["install", &name, "--name", &format!("c{there}")])?);
        }
        let of = |words: &[&str]| -> Result<f64> {
            let runs = (0..rounds).map(|_| Ok(milliseconds(run(words)?))).collect::<Result<Vec<_>>>()?;
            Ok(median(runs))
        };
        let container = format!("c{size}");
        println!(
            "  {size:21}    {:7.1}{:7.1}{:8.1}{:15.1}{:7.1}  |{:7.1}{:9.1}",
            of(&["list"])?,
            of(&["show", &container])?,
            of(&["images"])?,
            of(&["update", &container])?,
            of(&["prune"])?,
            last[0],
            last[1],
        );
    }
    ensure!(there == SIZES[SIZES.len() - 1], "not all were installed");
    Ok(())
}

fn milliseconds(cost: Cost) -> f64 {
    cost.wall.as_secs_f64() * 1000.0
}

fn image(work: &Path, number: usize) -> String {
    let layout = Layout::new(&work.join(format!("image-{number}")));
    let own = format!("the file of image {number}");
    let shared: Vec<String> = (0..200).map(|at| format!("shared/{at}")).collect();
    let shared: Vec<_> = shared.iter().map(|name| file(name, 0o644, name.as_bytes())).collect();
    let layers = [(tar_of(&shared), Packing::Gzip), (tar_of(&[file("own", 0o644, own.as_bytes())]), Packing::Gzip)];
    layout.index(&[(None, &layout.image(sysctr::host::source::this_architecture(), &layers))]);
    format!("oci:{}", layout.folder.display())
}
