//! What a config.json lets the program do, in plain words: the same as in its requests, and also for what it may do unasked.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::GainedLost;

/// The list at a JSON pointer; empty where there is none.
pub fn list<'a>(config: &'a Json, pointer: &str) -> &'a [Json] {
    config.pointer(pointer).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

/// The texts of a list.
pub fn texts<'a>(config: &'a Json, pointer: &str) -> BTreeSet<&'a str> {
    list(config, pointer).iter().filter_map(Json::as_str).collect()
}

/// What the new configuration lets the program do and the old one does not, and the other way round.
pub fn compare(old: &Json, new: &Json) -> GainedLost<String> {
    let mut words = GainedLost::of(&powers(old), &powers(new));
    // These are said by what is not there any more.
    for (pointer, what) in [("/linux/maskedPaths", "see"), ("/linux/readonlyPaths", "write to")] {
        let paths = GainedLost::of(&texts(old, pointer), &texts(new, pointer));
        words.gained.extend(paths.lost.iter().map(|path| format!("{what} {path}")));
        words.lost.extend(paths.gained.iter().map(|path| format!("{what} {path}")));
    }
    words.gained.sort();
    words.lost.sort();
    words
}

fn powers(config: &Json) -> BTreeSet<String> {
    let mut powers: BTreeSet<String> =
        capabilities(config).into_iter().map(|name| format!("capability {name}")).collect();
    let has_users_of_its_own = list(config, "/linux/namespaces").iter().any(|one| text(one, "type") == "user");
    if config.pointer("/process/user/uid").and_then(Json::as_u64).unwrap_or_default() == 0 && !has_users_of_its_own {
        powers.insert("run as root".to_owned());
    }
    if config.pointer("/process/noNewPrivileges") != Some(&Json::Bool(true)) {
        powers.insert("gain privileges through setuid programs".to_owned());
    }
    if config.pointer("/root/readonly") != Some(&Json::Bool(true)) {
        powers.insert("write to its root file system".to_owned());
    }
    powers.extend(list(config, "/mounts").iter().filter_map(mount));
    powers.extend(list(config, "/linux/devices").iter().map(device));
    powers.extend(namespaces(config));
    powers.extend(hooks(config));
    match filter(config) {
        Filter::None => drop(powers.insert("use every system call".to_owned())),
        Filter::AllBut(_) => drop(powers.insert("use every system call but those listed".to_owned())),
        Filter::Only(_) => {}
    }
    powers
}

/// All that the program can hold or come to hold.
pub fn capabilities(config: &Json) -> BTreeSet<&str> {
    let sets = ["bounding", "effective", "permitted", "inheritable", "ambient"];
    sets.iter().flat_map(|set| texts(config, &format!("/process/capabilities/{set}"))).collect()
}

fn text<'a>(value: &'a Json, key: &str) -> &'a str {
    value.get(key).and_then(Json::as_str).unwrap_or_default()
}

/// A mount of the host's files, or of a file system of the kernel's that can be written to.
fn mount(mount: &Json) -> Option<String> {
    let (source, destination, kind) = (text(mount, "source"), text(mount, "destination"), text(mount, "type"));
    let options = texts(mount, "/options");
    let read_only = options.contains("ro") && !options.contains("rw");
    if kind == "bind" || options.contains("bind") || options.contains("rbind") {
        let read_only = read_only && (!options.contains("rbind") || options.contains("rro"));
        let how = if read_only { "read" } else { "read and write" };
        return Some(format!("{how} {source} of the host (as {destination})"));
    }
    match kind {
        "tmpfs" => Some(format!("a file system in memory at {destination}")),
        _ => Some(format!("{} {kind} at {destination}", if read_only { "read" } else { "read and write" })),
    }
}

fn device(device: &Json) -> String {
    let number = |key| device.get(key).and_then(Json::as_i64).unwrap_or_default();
    format!("device {} ({} {}:{})", text(device, "path"), text(device, "type"), number("major"), number("minor"))
}

/// A namespace that it does not have is one that it shares.
fn namespaces(config: &Json) -> Vec<String> {
    let all = list(config, "/linux/namespaces");
    let kinds = [
        ("network", "network"),
        ("pid", "processes"),
        ("ipc", "inter-process communication"),
        ("uts", "host name"),
        ("cgroup", "view of control groups"),
        ("user", "user and group numbers"),
        ("mount", "mounts"),
    ];
    let words = |(kind, what): (&str, &str)| match all.iter().find(|one| text(one, "type") == kind) {
        None => Some(format!("share the host's {what}")),
        Some(one) => one.get("path").map(|path| format!("join the namespace {}", path.as_str().unwrap_or_default())),
    };
    kinds.into_iter().filter_map(words).collect()
}

fn hooks(config: &Json) -> Vec<String> {
    let stages = config.get("hooks").and_then(Json::as_object);
    let mut words = Vec::new();
    for (stage, hooks) in stages.into_iter().flatten() {
        let place = if stage == "startContainer" { "inside" } else { "on the host" };
        for hook in hooks.as_array().into_iter().flatten() {
            let args: String = list(hook, "/args").iter().skip(1).map(|arg| format!(" {arg}")).collect();
            words.push(format!("run {place}: {}{args} ({stage} hook)", text(hook, "path")));
        }
    }
    words
}

enum Filter<'a> {
    None,
    /// These are allowed, some perhaps with certain arguments only.
    Only(BTreeSet<&'a str>),
    /// All but these are allowed.
    AllBut(BTreeSet<&'a str>),
}

fn filter(config: &Json) -> Filter<'_> {
    let Some(seccomp) = config.pointer("/linux/seccomp").filter(|filter| filter.is_object()) else {
        return Filter::None;
    };
    let allows = |action: &str| matches!(action, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG");
    let by_default = allows(text(seccomp, "defaultAction"));
    // The rules that say something else than the default.
    let others = list(seccomp, "/syscalls").iter().filter(|rule| allows(text(rule, "action")) != by_default);
    let names = others.flat_map(|rule| texts(rule, "/names")).collect();
    if by_default { Filter::AllBut(names) } else { Filter::Only(names) }
}

/// The system calls that became possible or impossible, where both have a filter of the same kind.
pub fn system_calls(old: &Json, new: &Json) -> GainedLost<String> {
    let calls = match (filter(old), filter(new)) {
        (Filter::Only(old), Filter::Only(new)) => GainedLost::of(&old, &new),
        (Filter::AllBut(old), Filter::AllBut(new)) => GainedLost::of(&new, &old),
        _ => GainedLost { gained: Vec::new(), lost: Vec::new() },
    };
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    GainedLost { gained: owned(calls.gained), lost: owned(calls.lost) }
}
