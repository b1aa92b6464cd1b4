//! The bundled runtime: makes a container of a deployment in the unit's own cgroup, hands it over to systemd, and ends.
//!
//! ```text
//! systemd ── execs ──▶ launcher                                 init (child of systemd: CLONE_PARENT)
//!                       │ deployment, check: config.json         ·
//!                       │ clone ───────────────────────────────▶ │ mounts, rootfs, dev, protect: the new root
//!                       │                                        │ process: user, capabilities, limits; finds the program
//!                       │ ◀──────────── ready or the error ───── │
//!  MAINPID=, barrier ◀──│                                        │ held
//!                       │ go ──────────────────────────────────▶ │ seccomp, execve
//!                       │ ◀──────────── pipe closed by exec ──── the program
//!    READY=, barrier ◀──│ exit
//! ```
//!
//! With a user namespace a second process puts the root together: see `builder`.
//!
//! The image is hostile input: every path of it is resolved by openat2(2) inside the new root, and mounts are attached by
//! descriptor, so that no symbolic link of the image reaches the host.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use deployment::Deployment;

mod affinity;
mod builder;
mod bundle;
mod cgroup;
mod check;
mod console;
mod controls;
mod copyup;
mod credentials;
mod deployment;
mod dev;
mod directories;
mod environment;
mod exec;
mod exit;
mod foreign;
mod given;
mod handover;
mod hooks;
mod init;
mod labels;
mod launch;
mod lenient;
mod lost;
mod mounts;
mod namespaces;
mod options;
mod passing;
mod pressure;
mod process;
mod protect;
mod relay;
mod rootfs;
mod running;
mod schedule;
mod seal;
mod seccomp;
mod session;
mod streams;
mod sys;
mod sysctl;
mod time;
mod unfit;
mod users;
mod writable;

const USAGE: &str = "usage: sysctr-runtime run DEPLOYMENT_DIR [--instance NAME] [--wait]\n       sysctr-runtime poststop DEPLOYMENT_DIR [--instance NAME]\n       sysctr-runtime --version";

/// Open files that `sysctr exec` passes by their numbers.
#[derive(Debug)]
struct Asked {
    pidfd: i32,
    request: i32,
}

/// What the command line asks for.
enum Request {
    Run(launch::Run),
    Exec(Asked),
    Prepare(PathBuf),
    Poststop(launch::Run),
    Version,
    Help,
}

/// Runs the program with the process's own arguments. Exit codes: the container's own where it waits for it, else 0 done,
/// 1 failed, 2 usage.
pub fn main() -> ExitCode {
    if let Some(code) = foreign::command(std::env::args_os().skip(1)) {
        return ExitCode::from(code);
    }
    let run = match parse(std::env::args_os().skip(1)) {
        Some(Request::Run(run)) => run,
        Some(Request::Exec(Asked { pidfd, request })) => return ExitCode::from(exec::exec(pidfd, request)),
        Some(Request::Prepare(dir)) => {
            return match prepare(&dir) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("error: {}", one_line(&error));
                    ExitCode::FAILURE
                }
            };
        }
        Some(Request::Poststop(run)) => return after_stop(&run),
        Some(Request::Version) => {
            println!("sysctr-runtime {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(Request::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        None => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    ExitCode::from(launch::run(&run))
}

/// At install: says whether a start could carry out config.json, and does once what would otherwise be done at each start.
fn prepare(dir: &Path) -> Result<()> {
    let deployment = Deployment::load(dir)?;
    let terminal = deployment.spec.process().as_ref().and_then(|process| process.terminal());
    anyhow::ensure!(terminal != Some(true), "process.terminal must be false: a service has no terminal");
    match deployment.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
        Some(seccomp) => seccomp::prepare(seccomp, &deployment.dir),
        None => Ok(()),
    }
}

/// After the unit has stopped: runs hooks.poststop, each of them whatever becomes of the others.
fn after_stop(run: &launch::Run) -> ExitCode {
    let failed = launch::after_stop(run).unwrap_or_else(|error| vec![error]);
    for error in &failed {
        eprintln!("error: {}", one_line(error));
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An error and its causes on one line, `a: b: c`.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', "; ")
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Request> {
    let verb = args.next()?;
    match verb.to_str()? {
        "--version" => return Some(Request::Version),
        "--help" | "-h" => return Some(Request::Help),
        "prepare" => {
            let dir = args.next()?.into();
            return args.next().is_none().then_some(Request::Prepare(dir));
        }
        "exec" => {
            let mut number = || args.next()?.to_str()?.parse().ok();
            return Some(Request::Exec(Asked { pidfd: number()?, request: number()? }));
        }
        "run" | "poststop" => {}
        _ => return None,
    }
    let (mut dir, mut instance, mut wait) = (None, None, false);
    let (mut session, mut interactive, mut remove) = (false, false, false);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--instance") => instance = Some(args.next()?.into_string().ok()?),
            Some("--wait") => wait = true,
            Some("--session") => session = true,
            Some("--interactive") => interactive = true,
            Some("--remove") => remove = true,
            Some(option) if option.starts_with('-') => return None,
            _ if dir.is_none() => dir = Some(arg.into()),
            _ => return None,
        }
    }
    let session = session.then_some(launch::Session { interactive, remove });
    let run = launch::Run { dir: dir?, instance, wait, session };
    Some(if verb == "poststop" { Request::Poststop(run) } else { Request::Run(run) })
}
