//! One verb a file: choose, apply, report.

pub mod auto;
pub mod candidate;
pub mod check;
pub mod diff;
mod diff_text;
pub mod exec;
pub mod image;
pub mod images;
pub mod init;
pub mod inspect;
pub mod install;
pub mod lint;
pub mod list;
pub mod man;
pub mod mount;
mod named;
pub mod order;
pub mod prepare;
pub mod probation;
pub mod prune;
pub mod pull;
pub mod recover;
pub mod remove;
pub mod replace;
pub mod rollback;
pub mod run;
pub mod settle;
pub mod show;
pub mod snapshot;
pub mod together;
pub mod uninstall;
pub mod unmount;
pub mod update;
pub mod verify;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;

use crate::output::Output;
use sysctr::host::{
    apply, clock,
    dir::Folder,
    events, instances,
    lock::StoreLock,
    recovery::{self, Recovered, Recovery},
    settings, start_limit, state,
    systemd::Manager,
    transaction, units,
};
use sysctr::model::{journal::Journal, layout, name::ContainerName};

/// What every verb needs to know about this run.
pub struct Context {
    /// `/`, or the folder given with `--root`.
    pub root: PathBuf,
    pub output: Output,
    /// How long to wait for another one that is at work, where that was said.
    pub wait: Option<Duration>,
}

/// How long one waits for another of whom nobody expects an answer at once.
const PATIENCE: Duration = Duration::from_secs(600);

impl Context {
    /// Whether we work on a tree that is not the running system.
    pub fn offline(&self) -> bool {
        self.root != Path::new("/")
    }

    /// The root as a folder.
    pub fn folder(&self) -> Result<Folder> {
        Folder::root(&self.root)
    }

    /// The service manager, where there is one and we work on its system.
    pub fn manager(&self) -> Result<Option<Manager>> {
        if self.offline() { Ok(None) } else { Manager::connect() }
    }

    /// What every changing verb begins with: the lock, then what was cut short before. Those that change nothing installed, or that
    /// nobody watches, take their turn.
    pub fn begin(&self, verb: &str) -> Result<(Folder, StoreLock)> {
        self.begin_within(verb, self.wait.unwrap_or(PATIENCE))
    }

    /// The same for what changes what is installed: what another one changes just now may not be what was meant, so unless `--wait` says
    /// so this one leaves.
    pub fn begin_now(&self, verb: &str) -> Result<(Folder, StoreLock)> {
        self.begin_within(verb, self.wait.unwrap_or(Duration::ZERO))
    }

    /// The same for what cannot be left to another time.
    pub fn begin_at_last(&self, verb: &str) -> Result<(Folder, StoreLock)> {
        self.begin_within(verb, self.wait.unwrap_or(Duration::MAX))
    }

    fn begin_within(&self, verb: &str, patience: Duration) -> Result<(Folder, StoreLock)> {
        // First, because the lock makes its folder, and that below a mistyped root is no help.
        let root = self.folder()?;
        let lock = StoreLock::acquire(&self.root, verb, patience)?;
        self.stop_those_with_state(&root)?;
        let recovery = self.recover(&root, &lock, &|_| false)?;
        for one in &recovery.done {
            if let Recovered::Back(name, ran) | Recovered::RolledBack(name, ran) = one {
                self.leave_staged(&root, &lock, name, *ran)?;
            }
        }
        self.start_again(&recovery.stopped)?;
        Ok((root, lock))
    }

    /// What an operation that was killed had stopped.
    fn start_again(&self, stopped: &[String]) -> Result<()> {
        let manager = if stopped.is_empty() { None } else { self.manager()? };
        for unit in stopped {
            if let Some(Err(error)) = manager.as_ref().map(|manager| manager.start(unit)) {
                self.output.warn(format!("{error:#}"));
            }
        }
        Ok(())
    }

    /// What was taken back, `ran`, may still run: the deployment in force takes its place before its files go.
    fn leave_staged(&self, root: &Folder, lock: &StoreLock, name: &ContainerName, ran: Option<u32>) -> Result<()> {
        if let (Some(manager), Some(ran)) = (&self.manager()?, ran) {
            if let Err(error) = become_what_is_in_force(root, lock, manager, name, ran) {
                self.output.warn(format!("recovering {name}: {error:#}"));
            }
            let mut running = instances::deployments(manager, name)?;
            running.extend(replace::running(Some(manager), name)?);
            if running.contains(&ran) {
                self.output.warn(format!("{name} still runs deployment {ran}, which is not in force"));
                return Ok(());
            }
        }
        transaction::discard_staged(root, lock, name).map(drop)
    }

    /// What was killed while it changed a container with its state left a program that may still write there.
    fn stop_those_with_state(&self, root: &Folder) -> Result<()> {
        for name in state::names(root)? {
            // One that cannot be read is told of by the recovery, and holds up no other.
            let journal = state::container(root, &name).ok().flatten().and_then(|container| container.journal);
            let Some(journal) = journal.filter(|journal| journal.state && journal.boot == clock::boot()) else {
                continue;
            };
            let Some(manager) = self.manager()? else { return Ok(()) };
            for id in [journal.from, journal.to].into_iter().flatten() {
                let units = units::set_files(root, &name, id)?;
                let units = layout::starters_first(units.iter().filter(|file| layout::is_unit(file)));
                units.into_iter().try_for_each(|unit| manager.stop(unit))?;
            }
        }
        Ok(())
    }

    /// Finishes or undoes what was cut short, but what is to be left; says what could not be.
    pub fn recover(&self, root: &Folder, lock: &StoreLock, leave: &dyn Fn(&Journal) -> bool) -> Result<Recovery> {
        let recovery = recovery::recover(root, lock, leave)?;
        for (name, error) in &recovery.failed {
            self.output.warn(format!("recovering {name}: {error:#}"));
        }
        let manager = if recovery.done.is_empty() { None } else { self.manager()? };
        for one in &recovery.done {
            self.output.detail(match one {
                Recovered::Finished(name) => format!("finished what was cut short for {name}"),
                Recovered::Removed(name) => format!("finished the uninstall of {name} that was cut short"),
                Recovered::Undone(name) => format!("undid what was cut short for {name}"),
                Recovered::Back(name, _) => format!("took back the update of {name} that was cut short"),
                Recovered::RolledBack(name, _) => format!("finished the rollback of {name} that was cut short"),
            });
            events::tell_recovered(root, &self.root, one);
            if let Recovered::Finished(name) = one {
                // The boot makes them too: no reason to fail whoever happens to recover, nor to leave out the reload.
                let running = manager.is_some();
                let made = apply::sysusers(running, name, root).and_then(|()| apply::tmpfiles(running, name, root));
                if let Err(error) = made {
                    self.output.warn(format!("recovering {name}: {error:#}"));
                }
            }
        }
        if let Some(manager) = &manager {
            for one in &recovery.done {
                if let Recovered::Back(name, _) | Recovered::RolledBack(name, _) | Recovered::Finished(name) = one {
                    start_limit::restore(name)?;
                }
            }
            manager.reload()?;
        }
        Ok(recovery)
    }
}

/// The units, sockets and instances that run as `ran` has them become those of the deployment in force.
fn become_what_is_in_force(
    root: &Folder,
    lock: &StoreLock,
    manager: &Manager,
    name: &ContainerName,
    ran: u32,
) -> Result<()> {
    let (ran, (_, now)) = (state::deployment(root, name, ran)?, state::installed(root, name)?);
    let settle = settings::load(root).map(|settings| settings.update.settle()).unwrap_or_default();
    replace::Running::look(root, lock, Some(manager), &ran, settle, true)?.become_new(&ran, &now)
}
