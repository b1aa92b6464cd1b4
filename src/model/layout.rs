//! Where everything lies on disk. Paths are relative to the root, which is `/` or the folder given with `--root`.
//!
//! ```text
//! etc/sysctr/containers/NAME/active          number of the deployment in force; its rename is the commit point
//! etc/sysctr/containers/NAME/N/              the rendered files of deployment N
//! etc/sysctr/containers/NAME/journal.json    only while an operation is under way
//! etc/sysctr/containers/NAME/probation.json  after an update, until it is over
//! etc/sysctr/group.json                      only while several containers are updated as one; its removal is their commit point
//! etc/systemd/system.attached/               units, from the set in force
//! var/lib/sysctr/containers/NAME/deployments/N/   deployment.json config.json rootfs/ state/
//! var/lib/sysctr/run/ID/                     lock config.json rootfs/, while `sysctr run` runs
//! ```

pub use super::links::{Link, links};
use super::{name::ContainerName, other_runtime::RuntimePath};

/// One folder for each container.
pub const CONTAINERS: &str = "etc/sysctr/containers";
/// Units that we place; not in `system`, so that `mask`, `edit --full` and drop-ins stay the admin's.
pub const UNITS: &str = "etc/systemd/system.attached";
/// Where enablement links lie.
pub const LINKS: &str = "etc/systemd/system";
/// The number of the deployment in force.
pub const ACTIVE: &str = "active";
/// The operation under way.
pub const JOURNAL: &str = "journal.json";
/// The update that may still be taken back by itself.
pub const PROBATION: &str = "probation.json";
/// That of the deployment before, until an update is done: it goes on if the update comes to nothing.
pub const PROBATION_BEFORE: &str = "probation.before.json";
/// Below the root: what is updated as one.
pub const GROUP: (&str, &str) = ("etc/sysctr", "group.json");
/// In a deployment's folder, empty: it is not in force yet, or not any more, and what is left of it is thrown away.
pub const STAGED: &str = "staged";
/// In a deployment's folder: the state as it was when that one was last in force, where a later one has it in another format.
pub const KEPT_STATE: &str = "state";
/// In the container's own folder: the images that failed.
pub const QUARANTINE: &str = "quarantine.json";
/// In the rendered set: becomes a file of tmpfiles.d(5).
pub const TMPFILES: &str = "tmpfiles.conf";
/// In the rendered set: becomes a file of sysusers.d(5).
pub const SYSUSERS: &str = "sysusers.conf";
/// A line for each container, so that presets do not enable what `--no-enable` left off.
pub const PRESET_FOLDER: &str = "etc/systemd/system-preset";
/// The file in [`PRESET_FOLDER`].
pub const PRESET: &str = "50-sysctr.preset";
/// Everything of ours that is not configuration.
pub const STATE: &str = "var/lib/sysctr";
/// A folder for each container that `sysctr run` throws away.
pub const RUNS: &str = "var/lib/sysctr/run";
/// What `sysctr mount` shows: a checkout each.
pub const MOUNTS: &str = "var/lib/sysctr/mounts";

/// The configuration folder of a container.
pub fn settings(name: &ContainerName) -> String {
    format!("{CONTAINERS}/{name}")
}

/// The rendered set of a deployment.
pub fn unit_set(name: &ContainerName, id: u32) -> String {
    format!("{CONTAINERS}/{name}/{id}")
}

/// What sysctr keeps for a container beside its configuration.
pub fn container(name: &ContainerName) -> String {
    format!("{STATE}/containers/{name}")
}

/// The folder of all deployments of a container.
pub fn deployments(name: &ContainerName) -> String {
    format!("{STATE}/containers/{name}/deployments")
}

/// One deployment's folder.
pub fn deployment(name: &ContainerName, id: u32) -> String {
    format!("{}/{id}", deployments(name))
}

/// In a deployment: its secret settings, a file each.
pub const SECRETS: &str = "secrets";

/// The secret settings of a deployment.
pub fn secrets(name: &ContainerName, id: u32) -> String {
    format!("{}/{SECRETS}", deployment(name, id))
}

/// A secret as LoadCredential= names it.
pub fn credential(name: &ContainerName, id: u32, secret: &str) -> String {
    format!("{secret}:/{}/{secret}", secrets(name, id))
}

/// Where the program finds a secret.
pub fn handed_over(name: &ContainerName, secret: &str) -> String {
    format!("/run/credentials/{}/{secret}", name.service_unit())
}

/// The bundled runtime.
pub const RUNTIME: &str = "/usr/libexec/sysctr/sysctr-runtime";

/// The command that starts a deployment, by another runtime where one was chosen.
pub fn launch(name: &ContainerName, id: u32, other: Option<&RuntimePath>) -> String {
    match other {
        None => format!("{RUNTIME} run /{}", deployment(name, id)),
        Some(other) => format!("{RUNTIME} run-with {other} /{}", deployment(name, id)),
    }
}

/// What is added to the launcher's command in a template unit.
pub const INSTANCE: &str = " --instance %i";

/// Whether a unit is one of which only instances can be started: `NAME@.service`.
pub fn is_template(unit: &str) -> bool {
    unit.contains("@.")
}

/// Whether a unit bears the container's name.
pub fn is_of(unit: &str, name: &ContainerName) -> bool {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    stem.split_once('@').map_or(stem, |(stem, _)| stem) == name.as_str()
}

/// The template that a unit is an instance of: `NAME@.service` of `NAME@x.service`.
pub fn template_of(unit: &str) -> String {
    let (stem, rest) = unit.split_once('@').unwrap_or((unit, unit));
    let kind = rest.rsplit_once('.').map_or("", |(_, kind)| kind);
    format!("{stem}@.{kind}")
}

/// What the unit runs after a stop: another runtime keeps files of its own, and does not see systemd end its container.
pub fn clean_up(name: &ContainerName, id: u32, other: &RuntimePath) -> String {
    format!("-{RUNTIME} delete-with {other} /{}", deployment(name, id))
}

/// The command that runs what a deployment wants run after a stop.
pub fn poststop(name: &ContainerName, id: u32) -> String {
    format!("{RUNTIME} poststop /{}", deployment(name, id))
}

/// Folder and file name where a file of the rendered set is placed.
pub fn place(name: &ContainerName, file: &str) -> (&'static str, String) {
    match file {
        TMPFILES => ("etc/tmpfiles.d", name.tmpfiles_conf()),
        SYSUSERS => ("etc/sysusers.d", name.sysusers_conf()),
        unit => (UNITS, unit.to_owned()),
    }
}

/// Units in the order in which they can be started, and stopped: what could start a service goes before it.
pub fn starters_first<'a>(units: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
    let (services, mut order): (Vec<_>, Vec<_>) = units.into_iter().partition(|unit| unit.ends_with(".service"));
    order.extend(services);
    order
}

/// Whether a file of the rendered set is a unit.
pub fn is_unit(file: &str) -> bool {
    !matches!(file, TMPFILES | SYSUSERS)
}
