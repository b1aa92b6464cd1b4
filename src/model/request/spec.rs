//! What a finished config.json asks of the host.

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{
    Hook, Hooks, IOPriorityClass, LinuxNamespaceType, LinuxSchedulerPolicy, Mount, PosixRlimitType, Spec,
};

use super::{Requests, is_below};
use crate::model::{
    host_lines, id_range, manifest, rules, seccomp,
    spec::{DEFAULT_CAPABILITIES, MASKED, NOFAIL, NOTIFY, READ_ONLY, SETUID},
};

/// What the configuration asks beyond the defaults. `own` are the host folders that are the container's own.
pub fn of_spec(spec: &Spec, own: &[String], state: &[String]) -> Result<Requests> {
    let mut requests = Requests::new();
    let process = spec.process().as_ref();
    if let Some(sets) = process.and_then(|process| process.capabilities().as_ref()) {
        let all = [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()];
        for capability in all.into_iter().flatten().flatten() {
            let name = format!("CAP_{}", capability.to_string().trim_start_matches("CAP_"));
            if !DEFAULT_CAPABILITIES.contains(&name.as_str()) {
                requests.insert(rules::CAPABILITY.ask(&[&name]));
            }
        }
    }
    if process.and_then(|process| process.no_new_privileges()) != Some(true) {
        requests.insert(rules::SETUID_GAIN.ask(&[]));
    }
    if let Some(hooks) = spec.hooks() {
        requests.extend(of_hooks(hooks));
    }
    if let Some(scheduler) = process.and_then(|process| process.scheduler().as_ref()) {
        use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedRr};
        let policy = *scheduler.policy();
        if matches!(policy, SchedFifo | SchedRr | SchedDeadline) {
            requests.insert(rules::REAL_TIME.ask(&[&policy]));
        }
        if let Some(nice) = scheduler.nice().filter(|nice| *nice < 0) {
            requests.insert(rules::NICE.ask(&[&nice]));
        }
    }
    let io = process.and_then(|process| process.io_priority().as_ref());
    if io.is_some_and(|io| io.class() == IOPriorityClass::IoprioClassRt) {
        requests.insert(rules::REAL_TIME_IO.ask(&[]));
    }
    if let Some(score) = process.and_then(|process| process.oom_score_adj()).filter(|score| *score < 0) {
        requests.insert(rules::SPARED.ask(&[&score]));
    }
    // What lets it run before others: real time, and a nice value below 0, which is a limit above 20 (setrlimit(2)).
    for limit in process.and_then(|process| process.rlimits().as_ref()).into_iter().flatten() {
        let (name, free) = match limit.typ() {
            PosixRlimitType::RlimitRtprio => ("RTPRIO", 0),
            PosixRlimitType::RlimitNice => ("NICE", 20),
            _ => continue,
        };
        if limit.hard() > free {
            requests.insert(rules::LIMIT.ask(&[&name, &limit.hard()]));
        }
    }
    let uid = process.map_or(0, |process| process.user().uid());
    let annotated = |key| spec.annotations().as_ref().and_then(|all| all.get(key)).is_some_and(|value| value == "true");
    // Who may become root is root here.
    let sets = process.and_then(|process| process.capabilities().as_ref());
    let held = sets.map(|sets| [sets.permitted(), sets.inheritable(), sets.ambient()]);
    let may_become_root = held.into_iter().flatten().flatten().flatten().any(|one| one.to_string().ends_with("SETUID"));
    // Nor is it where the container has users of its own: systemd believes no MAINPID from them.
    if (uid == 0 || may_become_root) && annotated(NOTIFY) && !id_range::is_apart(spec) {
        requests.insert(rules::READINESS.ask(&[]));
    }
    let map = id_range::map(spec);
    if map.as_ref().is_some_and(id_range::has_hosts_root) {
        requests.insert(rules::HOSTS_ROOT.ask(&[]));
    }
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    for mount in mounts {
        let numbers = mount.uid_mappings().iter().chain(mount.gid_mappings()).flatten().next().is_some();
        if numbers {
            bail!("mounts: {}: a map of its own is not supported", mount.destination().display());
        }
        requests.extend(of_mount(mount, own)?);
    }
    refuse_nested_sources(mounts, own, state)?;
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
    for (kind, words) in [
        (LinuxNamespaceType::Pid, "processes"),
        (LinuxNamespaceType::Ipc, "inter-process communication"),
        (LinuxNamespaceType::Uts, "host name"),
        (LinuxNamespaceType::Cgroup, "view of control groups"),
    ] {
        match namespaces.iter().find(|namespace| namespace.typ() == kind) {
            Some(namespace) if namespace.path().is_none() => {}
            _ => drop(requests.insert(rules::SHARE.ask(&[&words]))),
        }
    }
    if let Some(foreign) = namespaces.iter().find_map(|namespace| namespace.path().as_ref()) {
        requests.insert(rules::JOIN.ask(&[&foreign.display()]));
    }
    if !namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Mount) {
        bail!("linux.namespaces: a container without a mount namespace of its own is not supported");
    }
    for device in linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten() {
        // The name is the image's choice, the numbers say what it is.
        let (path, kind) = (device.path().display(), device.typ());
        requests.insert(rules::DEVICE.ask(&[&format!(
            "{path} ({} {}:{})",
            kind.as_str(),
            device.major(),
            device.minor()
        )]));
    }
    let covers = |given: Option<&Vec<String>>, usual: &[&str]| {
        given.is_some_and(|given| usual.iter().all(|path| given.iter().any(|it| it == path)))
    };
    let masked = linux.is_some_and(|linux| covers(linux.masked_paths().as_ref(), &MASKED));
    if !masked || !linux.is_some_and(|linux| covers(linux.readonly_paths().as_ref(), &READ_ONLY)) {
        requests.insert(rules::KERNEL.ask(&[]));
    }
    if annotated(SETUID) {
        requests.insert(rules::SETUID.ask(&[]));
    }
    if process.is_some_and(|process| process.apparmor_profile().is_some() || process.selinux_label().is_some()) {
        requests.insert(rules::PROFILE.ask(&[]));
    }
    let propagation = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    if !matches!(propagation, "" | "private" | "rprivate") {
        requests.insert(rules::PROPAGATION.ask(&[&propagation]));
    }
    requests.extend(seccomp::request(spec).context("linux.seccomp")?);
    if linux.is_some_and(|linux| linux.sysctl().as_ref().is_some_and(|all| !all.is_empty())) {
        requests.insert(rules::SYSCTL.ask(&[]));
    }
    Ok(requests)
}

/// What an image asks for: of what it says, that which still holds with what the admin gave and took. What the admin gave is no request.
pub fn of_both(by_image: &Spec, spec: &Spec, own: &[String], state: &[String]) -> Result<Requests> {
    let asked = of_spec(by_image, own, state).context("config.json")?;
    let there = of_spec(spec, own, state).context("config.json")?;
    Ok(asked.intersection(&there).cloned().collect())
}

/// Hooks are commands on the host, as root; but for startContainer, which runs what the image has, as the program does.
fn of_hooks(hooks: &Hooks) -> Requests {
    #[allow(deprecated)]
    let stages = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    let words = |(stage, hooks): (&str, &Option<Vec<Hook>>)| -> Vec<String> {
        let hooks = hooks.iter().flatten();
        let line = |hook: &Hook| {
            let args = hook.args().iter().flatten().skip(1).map(|arg| format!(" {arg:?}")).collect::<String>();
            let env = hook.env().iter().flatten().map(|variable| format!("{variable:?} ")).collect::<String>();
            rules::HOOK.ask(&[&format!("{env}{}{args}", hook.path().display().to_string().escape_debug()), &stage])
        };
        hooks.map(line).collect()
    };
    stages.into_iter().flat_map(words).collect()
}

/// A place of the container's own inside another one that it can write to is refused: a symbolic link put there would be followed, as
/// root and on the host, at the next start (a source) or boot (state).
fn refuse_nested_sources(mounts: &[Mount], own: &[String], state: &[String]) -> Result<()> {
    let source =
        |mount: &Mount| mount.source().as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let writable = |mount: &&Mount| is_bind(mount) && !is_read_only(mount);
    // Whoever may write what systemd or sysctr obeys needs no link for it.
    let is_hosts = |path: &String| host_lines::forbidden(path).is_some();
    let is_own = |path: &str| own.iter().any(|folder| is_below(path, folder));
    let sources = mounts.iter().filter(|mount| is_bind(mount)).map(source).filter(|path| is_own(path));
    let places: Vec<String> = sources.chain(state.iter().cloned()).collect();
    for outer in mounts.iter().filter(writable).map(source).filter(|outer| !is_hosts(outer)) {
        if let Some(inner) = places.iter().find(|inner| **inner != outer && is_below(inner, &outer)) {
            bail!("mounts: {inner} lies in {outer}, which the container can write to; mount only the outer one");
        }
    }
    Ok(())
}

fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind")
}

/// As mount(8) reads options: the last word counts. With everything below it (`rbind`) only if that is read-only too.
fn is_read_only(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    let last = options.iter().rev().map(String::as_str).find(|option| matches!(*option, "ro" | "rw"));
    let has = |name: &str| options.iter().any(|option| option == name);
    last == Some("ro") && (!has("rbind") || has("rro"))
}

/// What a bind mount may say, and what a file system of the kernel's own; nothing else is understood by both readers of the file.
const BIND_OPTIONS: &str = "bind rbind ro rw rro nosuid rnosuid nodev rnodev noexec rnoexec private rprivate slave rslave \
    shared rshared noatime relatime nodiratime nofail idmap ridmap";
const KERNEL_OPTIONS: &str = "nosuid nodev noexec ro rw relatime";

fn of_mount(mount: &Mount, own: &[String]) -> Result<Option<String>> {
    let destination = mount.destination().to_string_lossy();
    let source = mount.source().as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let options = mount.options().as_deref().unwrap_or_default();
    let only = |known: &str| -> Result<()> {
        match options.iter().find(|option| !known.split_whitespace().any(|word| word == option.as_str())) {
            Some(option) => bail!("mounts: {destination}: the option {option:?} is not supported"),
            None => Ok(()),
        }
    };
    manifest::absolute(&destination).context("mounts: destination")?;
    if is_bind(mount) {
        if source != "/" {
            manifest::absolute(&source).context("mounts")?;
        }
        only(BIND_OPTIONS)?;
        if source.starts_with("/dev/") {
            return Ok(Some(rules::DEVICE.ask(&[&source])));
        }
        // Our own: what a program on the host's network reads of the host.
        let name_files = is_read_only(mount)
            && options.iter().any(|option| option == NOFAIL)
            && matches!(source.as_str(), "/etc/hosts" | "/etc/resolv.conf");
        let is_own = own.iter().any(|folder| is_below(&source, folder));
        let is_shared = options.iter().any(|option| option == "shared" || option == "rshared");
        let how = if is_read_only(mount) { "read" } else { "read and write" };
        let how = if is_shared { format!("{how}, and mount on,") } else { how.to_owned() };
        let free = !is_shared && (name_files || is_own);
        return Ok((!free).then(|| rules::MOUNT.ask(&[&how, &source, &destination])));
    }
    // What is masked and read-only is so at these places: a second instance elsewhere would have none of it.
    let kind = mount.typ().as_deref().unwrap_or_default();
    let place = match kind {
        "tmpfs" | "devpts" | "mqueue" => return Ok(None),
        "proc" => "/proc",
        "sysfs" => "/sys",
        "cgroup" => "/sys/fs/cgroup",
        other => bail!("mounts: {destination}: the type {other:?} is not supported"),
    };
    if destination != place {
        bail!("mounts: {destination}: {kind} is mounted at {place} only");
    }
    only(KERNEL_OPTIONS)?;
    Ok((kind != "proc" && !is_read_only(mount)).then(|| rules::WRITE_KERNEL.ask(&[&destination])))
}
