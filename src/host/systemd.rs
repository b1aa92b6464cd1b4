//! The service manager over D-Bus (org.freedesktop.systemd1(5)).
//!
//! As root through the manager's private socket, which is there before any bus; else over the system bus.

use std::{collections::HashMap, path::Path, time::Duration};

use anyhow::{Context, Result};
use rustix::fs::stat;
use serde::Serialize;
use tokio::runtime::Runtime;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant, connection, zvariant::DynamicType};

use super::private_socket;
use crate::model::probation::Service;

mod job;

const PRIVATE_SOCKET: &str = "/run/systemd/private";
const BUS: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

const STOP: &str = "StopUnit";

/// What is shown of what a program says of itself.
const SAID: usize = 160;
const SCOPE_STOP: Duration = Duration::from_secs(10);

/// A unit as ListUnitsByPatterns tells it; the first is its name.
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// A connection to the running service manager.
pub struct Manager {
    /// Dropped before the runtime that drives it.
    connection: Connection,
    runtime: Runtime,
    /// The private socket has no bus and so no names on it.
    on_bus: bool,
}

/// What systemd says of a unit.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct UnitState {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, ...
    pub active: String,
    pub sub: String,
    /// Where its text is; empty where it has none.
    pub fragment: String,
    /// As `systemctl is-enabled` prints it.
    pub file_state: String,
}

impl Manager {
    /// Connects, or none where systemd does not run this system (sd_booted(3)).
    pub fn connect() -> Result<Option<Manager>> {
        if !Path::new("/run/systemd/system").is_dir() || in_chroot() {
            return Ok(None);
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("talking to systemd")?;
        // The connection's own tasks want the runtime even where nothing is awaited.
        let entered = runtime.enter();
        let as_root = rustix::process::geteuid().is_root();
        let (connection, on_bus) = runtime.block_on(async {
            if as_root && let Ok(socket) = private_socket::connect(Path::new(PRIVATE_SOCKET)).await {
                return (connection::Builder::socket(socket).p2p().build().await, false);
            }
            (connection::Builder::system().build().await, true)
        });
        let connection = connection.context("talking to systemd")?;
        drop(entered);
        let manager = Manager { runtime, connection, on_bus };
        if manager.on_bus {
            manager.call("Subscribe", &()).context("talking to systemd")?;
        }
        Ok(Some(manager))
    }

    /// Loads changed units (`systemctl daemon-reload`).
    pub fn reload(&self) -> Result<()> {
        self.call("Reload", &()).map(drop).context("reloading systemd")
    }

    /// Starts a unit and waits until the job is done.
    pub fn start(&self, unit: &str) -> Result<()> {
        self.job("StartUnit", unit, &(unit, "replace")).with_context(|| format!("starting {unit}"))
    }

    /// Asks for a unit to be started, and does not wait.
    pub fn queue_start(&self, unit: &str) -> Result<()> {
        self.call("StartUnit", &(unit, "replace")).map(drop).with_context(|| format!("starting {unit}"))
    }

    /// Stops and starts a unit in one job, and waits until it is done; what is not running is started.
    pub fn restart(&self, unit: &str) -> Result<()> {
        self.job("RestartUnit", unit, &(unit, "replace")).with_context(|| format!("restarting {unit}"))
    }

    /// The same of a unit that is running.
    pub fn try_restart(&self, unit: &str) -> Result<()> {
        self.job("TryRestartUnit", unit, &(unit, "replace")).with_context(|| format!("restarting {unit}"))
    }

    /// Asks for a unit that is running to be restarted, and does not wait.
    pub fn queue_try_restart(&self, unit: &str) -> Result<()> {
        self.call("TryRestartUnit", &(unit, "replace")).map(drop).with_context(|| format!("restarting {unit}"))
    }

    /// Stops a unit and waits until the job is done.
    pub fn stop(&self, unit: &str) -> Result<()> {
        self.job(STOP, unit, &(unit, "replace")).with_context(|| format!("stopping {unit}"))
    }

    /// Forgets that a unit failed; one that is not loaded has nothing to forget.
    pub fn reset_failed(&self, unit: &str) {
        let _ = self.call("ResetFailedUnit", &(unit,));
    }

    /// What systemd knows of a unit; loads it if need be.
    pub fn state(&self, unit: &str) -> Result<UnitState> {
        let property = |name| self.property::<String>(unit, UNIT, name);
        Ok(UnitState {
            load: property("LoadState")?,
            active: property("ActiveState")?,
            sub: property("SubState")?,
            fragment: property("FragmentPath")?,
            file_state: property("UnitFileState")?,
        })
    }

    /// Which run of a service this is: it changes with each start.
    pub fn invocation(&self, unit: &str) -> Result<Vec<u8>> {
        self.property(unit, UNIT, "InvocationID")
    }

    /// Whether a service is a job that runs to its end: nothing of it stays to be restarted.
    pub fn is_oneshot(&self, unit: &str) -> Result<bool> {
        Ok(self.property::<String>(unit, SERVICE, "Type")? == "oneshot")
    }

    /// Whether it is such a job, and nothing of it counts as running afterwards.
    pub fn ends_by_itself(&self, unit: &str) -> Result<bool> {
        Ok(self.is_oneshot(unit)? && !self.property::<bool>(unit, SERVICE, "RemainAfterExit")?)
    }

    /// How the last run of a service went wrong, in words, with what it last said of itself; none where it did not.
    pub fn why(&self, unit: &str) -> Option<String> {
        let result: String = self.property(unit, SERVICE, "Result").ok()?;
        let status: i32 = self.property(unit, SERVICE, "ExecMainStatus").ok()?;
        let text: String = self.property(unit, SERVICE, "StatusText").ok()?;
        let how = match result.as_str() {
            "success" => return None,
            "exit-code" => format!("it ended with {status}"),
            "signal" | "core-dump" => match nix::sys::signal::Signal::try_from(status) {
                Ok(signal) => format!("{signal} ended it"),
                Err(_) => format!("signal {status} ended it"),
            },
            "protocol" => "it ended before it was ready".to_owned(),
            other => format!("{other}, as systemd says"),
        };
        let said: String = text.trim().chars().take(SAID).collect();
        Some(if said.is_empty() { how } else { format!("{how}: {said}") })
    }

    /// The units that are stopped or restarted with this one.
    pub fn required_by(&self, unit: &str) -> Result<Vec<String>> {
        let inverse = ["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo"];
        let lists = inverse.map(|name| self.property::<Vec<String>>(unit, UNIT, name));
        Ok(lists.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    /// The units with names like these that are up, or on their way.
    pub fn running(&self, patterns: &[String]) -> Result<Vec<String>> {
        let context = || format!("asking systemd for {}", patterns.join(", "));
        let states = ["active", "activating", "reloading"];
        let reply = self.call("ListUnitsByPatterns", &(&states[..], patterns)).with_context(context)?;
        let units: Vec<Listed> = reply.body().deserialize().with_context(context)?;
        Ok(units.into_iter().map(|unit| unit.0).collect())
    }

    /// Whether a service was started for one connection of a socket (`Accept=yes`).
    pub fn answers_a_connection(&self, unit: &str) -> Result<bool> {
        let starters: Vec<String> = self.property(unit, UNIT, "TriggeredBy")?;
        let accepts = |socket: &String| self.property(socket, "org.freedesktop.systemd1.Socket", "Accept");
        let sockets = starters.iter().filter(|unit| unit.ends_with(".socket"));
        Ok(sockets.map(accepts).collect::<Result<Vec<bool>>>()?.contains(&true))
    }

    /// Whether the system is shutting down, or systemd does not answer any more.
    pub fn goes_down(&self) -> bool {
        let reply = self.raw(PATH, "org.freedesktop.DBus.Properties", "Get", &(MANAGER, "SystemState"));
        let state = reply.ok().and_then(|reply| reply.body().deserialize::<OwnedVariant>().ok());
        state.and_then(|state| String::try_from(state).ok()).is_none_or(|state| state == "stopping")
    }

    /// A property of a unit, which is loaded if need be.
    fn property<T>(&self, unit: &str, interface: &str, name: &str) -> Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: std::error::Error + Send + Sync + 'static,
    {
        let context = || format!("asking systemd about {unit}");
        let reply = self.call("LoadUnit", &(unit,)).with_context(context)?;
        let path: OwnedObjectPath = reply.body().deserialize().with_context(context)?;
        let reply = self
            .raw(path.as_str(), "org.freedesktop.DBus.Properties", "Get", &(interface, name))
            .with_context(context)?;
        let value: OwnedVariant = reply.body().deserialize().with_context(context)?;
        T::try_from(value).with_context(context)
    }

    /// All properties that every unit has; the unit is loaded if need be.
    pub(super) fn properties(&self, unit: &str) -> Result<HashMap<String, OwnedVariant>> {
        let context = || format!("asking systemd about {unit}");
        let reply = self.call("LoadUnit", &(unit,)).with_context(context)?;
        let path: OwnedObjectPath = reply.body().deserialize().with_context(context)?;
        let reply =
            self.raw(path.as_str(), "org.freedesktop.DBus.Properties", "GetAll", &(UNIT,)).with_context(context)?;
        reply.body().deserialize().with_context(context)
    }

    /// The number of a service's main process and its control group; none where it does not run.
    pub fn main_process(&self, unit: &str) -> Result<Option<(u32, String)>> {
        let pid = self.property::<u32>(unit, SERVICE, "MainPID")?;
        let group = self.property::<String>(unit, SERVICE, "ControlGroup")?;
        Ok((pid != 0 && !group.is_empty()).then_some((pid, group)))
    }

    /// Moves this process into a scope of its own, which goes when the last process in it ends. A stop waits for it as long as
    /// `podman stop` does, since a first process that handles no SIGTERM does not get it (pid_namespaces(7)).
    pub fn start_scope(&self, unit: &str, description: &str) -> Result<()> {
        let properties = vec![
            ("Description", Variant::from(description)),
            ("PIDs", Variant::from(vec![std::process::id()])),
            ("Delegate", Variant::from(true)),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("TimeoutStopUSec", Variant::from(SCOPE_STOP.as_secs() * 1_000_000)),
        ];
        let none: Vec<(String, Vec<(String, Variant)>)> = Vec::new();
        self.job("StartTransientUnit", unit, &(unit, "fail", properties, none))
            .with_context(|| format!("starting {unit}"))
    }

    /// Starts the service of the timer's own name once, in so many seconds. The timer is gone when it has elapsed, and with the boot.
    pub fn start_timer(&self, timer: &str, description: &str, seconds: u64) -> Result<()> {
        let properties = vec![
            ("Description", Variant::from(description)),
            ("TimersMonotonic", Variant::from(vec![("OnActiveSec", seconds * 1_000_000)])),
            ("AccuracyUSec", Variant::from(1_000_000_u64)),
            ("RemainAfterElapse", Variant::from(false)),
            ("CollectMode", Variant::from("inactive-or-failed")),
        ];
        let none: Vec<(String, Vec<(String, Variant)>)> = Vec::new();
        self.job("StartTransientUnit", timer, &(timer, "fail", properties, none))
            .with_context(|| format!("starting {timer}"))
    }

    /// What systemd knows of a service's failures.
    pub fn failures(&self, unit: &str) -> Result<Service> {
        let text = |interface, name| self.property::<String>(unit, interface, name);
        let time = |interface, name| self.property::<u64>(unit, interface, name);
        Ok(Service {
            state: text(UNIT, "ActiveState")?,
            sub: text(UNIT, "SubState")?,
            result: text(SERVICE, "Result")?,
            restarts: self.property(unit, SERVICE, "NRestarts")?,
            started: time(UNIT, "InactiveExitTimestampMonotonic")?,
            left_active: time(UNIT, "ActiveExitTimestampMonotonic")?,
            program_ended: time(SERVICE, "ExecMainExitTimestampMonotonic")?,
        })
    }

    fn call<B: Serialize + DynamicType>(&self, method: &str, body: &B) -> Result<zbus::Message> {
        self.raw(PATH, MANAGER, method, body)
    }

    fn raw<B: Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<zbus::Message> {
        let _entered = self.runtime.enter();
        let destination = self.on_bus.then_some(BUS);
        let call = self.connection.call_method(destination, path, Some(interface), method, body);
        self.runtime.block_on(call).map_err(plain)
    }
}

/// Whether we see another root than the service manager, which then runs another system, though its /run may be seen here.
fn in_chroot() -> bool {
    let id = |path| stat(path).map(|root| (root.st_dev, root.st_ino));
    matches!((id("/"), id("/proc/1/root")), (Ok(ours), Ok(its)) if ours != its)
}

/// systemd's own words, without the error's D-Bus name in front.
fn plain(error: zbus::Error) -> anyhow::Error {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => anyhow::anyhow!(text),
        other => other.into(),
    }
}
