//! The commands of `hooks`, each with the container's state as JSON on standard input.
//!
//! ```text
//! prestart, createRuntime   the launcher, on the host        init has put the new root together and waits
//! createContainer           init, in the new namespaces      the host's files are still there: the path is the host's
//! startContainer            init, as the program's user      in the container, just before the program
//! poststart                 the launcher, on the host        the program runs, systemd is not told yet
//! poststop                  `sysctr-runtime poststop`        the unit's ExecStopPost=, as no launcher is left by then
//! ```
//!
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{Hook, Hooks, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde_json::json;

use super::seccomp::Filter;
use super::sys;

/// When a hook runs; the names are those of config.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// `status` of the state that its hooks read.
    fn status(self) -> &'static str {
        match self {
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer => "creating",
            Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }

    fn of(self, hooks: &Hooks) -> &[Hook] {
        #[allow(deprecated)] // podman and others still write prestart
        let hooks = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        hooks.as_deref().unwrap_or_default()
    }
}

/// The hooks of a deployment, and what they are told of it.
#[derive(Debug, Clone)]
pub struct Runner {
    hooks: Hooks,
    state: serde_json::Value,
    dir: PathBuf,
}

impl Runner {
    /// Those of `spec`, for the container `id`; `dir` is the deployment's folder.
    pub fn of(spec: &Spec, id: &str, dir: &Path) -> Option<Self> {
        let hooks = spec.hooks().clone()?;
        let state = json!({
            "ociVersion": spec.version(),
            "id": id,
            "bundle": dir,
            "annotations": spec.annotations().clone().unwrap_or_default(),
        });
        Some(Self { hooks, state, dir: dir.to_owned() })
    }

    /// True where the launcher has something to do between the new root and its entry.
    pub fn any_before_entry(&self) -> bool {
        [Stage::Prestart, Stage::CreateRuntime].iter().any(|stage| !stage.of(&self.hooks).is_empty())
    }

    /// Runs the hooks of a stage one after the other; the first that fails ends it.
    pub fn run(&self, stage: Stage, pid: u32, filter: Option<&Filter>) -> Result<()> {
        stage.of(&self.hooks).iter().try_for_each(|hook| self.run_one(stage, hook, Some(pid), filter))
    }

    /// Runs all of poststop, whatever becomes of the others, and gives what failed.
    pub fn after_stop(&self) -> Vec<anyhow::Error> {
        let all = Stage::Poststop.of(&self.hooks).iter();
        all.filter_map(|hook| self.run_one(Stage::Poststop, hook, None, None).err()).collect()
    }

    fn run_one(&self, stage: Stage, hook: &Hook, pid: Option<u32>, filter: Option<&Filter>) -> Result<()> {
        let failed = || format!("the {} hook {}", stage.name(), hook.path().display());
        let mut command = Command::new(hook.path());
        if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
            command.arg0(name).args(rest);
        }
        command.env_clear().process_group(0);
        for variable in hook.env().iter().flatten() {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            command.env(name, value);
        }
        // As other runtimes do, those of the host start in the bundle; those of the container where its program will.
        if stage != Stage::StartContainer {
            command.current_dir(&self.dir);
        }
        command.stdin(self.state(stage, pid).with_context(failed)?);
        let filter = filter.cloned();
        sys::before_exec(&mut command, move || {
            filter.as_ref().map_or(Ok(()), |filter| filter.load().map_err(io::Error::other))
        });
        let mut child = command.spawn().with_context(failed)?;
        let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let status = wait(&mut child, limit).with_context(failed)?;
        ensure!(status.success(), "{} ended with {status}", failed());
        Ok(())
    }

    /// The state as a file in memory: a hook that does not read it blocks nobody, however long it is.
    fn state(&self, stage: Stage, pid: Option<u32>) -> Result<Stdio> {
        let mut state = self.state.clone();
        state["status"] = stage.status().into();
        if let Some(pid) = pid {
            state["pid"] = pid.into();
        }
        let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
        file.write_all(state.to_string().as_bytes())?;
        file.rewind()?;
        Ok(file.into())
    }
}

/// Waits for its end, at most `limit`; then it is killed, with what it started.
fn wait(child: &mut Child, limit: Option<Duration>) -> Result<ExitStatus> {
    let Some(limit) = limit else { return Ok(child.wait()?) };
    let pid = Pid::from_raw(child.id() as i32).context("it has no number")?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => continue,
            Ok(0) => {
                kill_process_group(pid, Signal::KILL)?;
                child.wait()?;
                bail!("did not end within {} seconds, its timeout", limit.as_secs());
            }
            result => {
                result?;
                return Ok(child.wait()?);
            }
        }
    }
}

/// What a start would trip over.
pub fn check(hooks: &Hooks) -> Result<()> {
    for stage in Stage::ALL {
        for hook in stage.of(hooks) {
            let (name, path) = (stage.name(), hook.path());
            ensure!(path.is_absolute(), "the {name} hook {path:?} is not absolute");
            ensure!(
                hook.timeout().is_none_or(|seconds| seconds > 0),
                "the {name} hook {path:?} has no positive timeout"
            );
        }
    }
    Ok(())
}
