//! What an image may do and what it has to ask for: the one table behind the requests of an install and docs/requests.md. The code that
//! looks at a configuration, a unit or a line names the rule; the words are here.

use std::fmt::Display;

use super::{host_lines, request, spec};

/// What an image asks for where it says this.
#[derive(Debug)]
pub struct Rule {
    /// Where it is said.
    of: &'static str,
    /// How the request is worded; `{}` stands for what is asked for.
    words: &'static str,
    /// What within the same is free.
    free: &'static str,
}

impl Rule {
    /// The request.
    pub fn ask(&self, parts: &[&dyn Display]) -> String {
        let mut literals = self.words.split("{}");
        let mut words = literals.next().unwrap_or_default().to_owned();
        for (part, literal) in parts.iter().zip(literals) {
            words += &part.to_string();
            words += literal;
        }
        words
    }

    /// Whether a request is one of this rule.
    fn has(&self, request: &str) -> bool {
        let mut rest = request;
        for (at, literal) in self.words.split("{}").enumerate() {
            match rest.find(literal) {
                Some(found) if at > 0 || found == 0 => rest = &rest[found + literal.len()..],
                _ => return false,
            }
        }
        rest.is_empty() || self.words.ends_with("{}")
    }
}

/// Which rule a request is of.
pub fn of(request: &str) -> Option<&'static Rule> {
    // What a unit asks names the unit at its end.
    TABLE.iter().flat_map(|(_, rules)| *rules).copied().find(|rule| rule.has(request))
}

macro_rules! rules {
    ($($name:ident: $of:literal, $words:literal, $free:literal;)*) => {
        $(#[doc = concat!("A request of: ", $of, ".")] pub const $name: &Rule = &Rule { of: $of, words: $words, free: $free };)*
    };
}

rules! {
    CAPABILITY: "`container.capabilities`, process.capabilities", "capability {}", "the default set, below";
    SETUID_GAIN: "process.noNewPrivileges", "gain privileges through setuid programs", "true";
    SETUID: "the annotation org.sysctr.setuid", "let setuid programs of the image gain privileges", "";
    REAL_TIME: "process.scheduler", "run before everything else on its processor ({})", "policies that are not real-time";
    REAL_TIME_IO: "process.ioPriority", "read and write disks before everything else (IOPRIO_CLASS_RT)", "the other classes";
    NICE: "process.scheduler.nice", "Nice={}", "0 or more";
    SPARED: "process.oomScoreAdj", "OOMScoreAdjust={}", "0 or more";
    LIMIT: "process.rlimits", "Limit{}={}", "all but RLIMIT_RTPRIO and RLIMIT_NICE; RLIMIT_NICE up to 20";
    READINESS: "`container.notify`", "report readiness as root (it could name any process of the host as the service's main one)", "not as root, or with users of its own";
    HOSTS_ROOT: "linux.uidMappings", "map the host's root into its user namespace", "numbers of its own";
    SHARE: "`container.share`, linux.namespaces", "share the host's {}", "the host's network; its own mount, pid, ipc, uts and cgroup namespaces";
    JOIN: "linux.namespaces with a path", "join the namespace {}", "";
    DEVICE: "`container.devices`, linux.devices, mounts of /dev", "device {}", "what every container has: null, zero, full, random, urandom, tty";
    KERNEL: "`container.unmasked`, linux.maskedPaths, linux.readonlyPaths", "see and write the kernel's settings below /proc and /sys", "the usual ones, or more";
    PROFILE: "process.apparmorProfile, process.selinuxLabel", "choose its own security profile (AppArmor, SELinux)", "";
    PROPAGATION: "linux.rootfsPropagation", "choose how mounts of its root spread ({})", "private";
    SYSCTL: "linux.sysctl", "set kernel parameters (sysctl)", "";
    NO_FILTER: "`container.seccomp`, linux.seccomp", "run without a filter of system calls (seccomp)", "the default filter";
    OWN_FILTER: "`container.seccomp`, linux.seccomp", "use a filter of system calls of its own (seccomp, {})", "the default filter";
    MOUNT: "`container.mounts`, mounts", "{} {} of the host (as {})", "/var/lib/NAME and /run/NAME; /etc/hosts and /etc/resolv.conf to read; tmpfs, proc and the like";
    WRITE_KERNEL: "mounts of sysfs and cgroup", "write to {}", "read-only";
    STATE: "`state.folders`", "keep state in {} of the host", "below /var/lib/NAME and /run/NAME";
    FOREIGN: "its own folders on this host", "take over {} of the host, which is there already", "absent, or the container's already";
    HOOK: "hooks", "run on the host: {} ({} hook)", "startContainer, which runs in the container";
    COMMAND: "Exec lines of units", "run on the host: {}={}", "the launcher's own lines, as `{{exec_start}}` is";
    ESSENTIAL: "`essential`", "keep the machine from booting while it fails (essential)", "false";
    HOLD_UP: "[Service] of what the boot waits for", "hold up the boot for as long as it takes: {}={} ({})", "time-outs of an hour or less";
    START: "`requires`, `wants`, and their like in [Unit]", "start along: {}", "the container's own units; targets that only order";
    LINE: "any other directive of a unit", "{}={}", "those below; those of [Service] in directives.md";
    TMPFILES: "tmpfiles.hbs", "make or change on the host: {} ({})", "folders and files right in /var/lib/NAME and /run/NAME";
    HOST_FILE: "`hostFiles`, hostfs/", "put the {} {} on the host", "";
    HOST_LINK: "links of hostfs/", "put the link {} on the host, which leads to {}", "";
    HOST_FOLDER: "empty folders of hostfs/", "make the folder {} on the host", "";
    SYSUSERS: "sysusers.hbs", "make the system user or group: {} ({})", "one called NAME, with any free number";
}

/// All of them.
const TABLE: &[(&str, &[&Rule])] = &[
    (
        "What the program may do",
        &[
            CAPABILITY,
            SETUID_GAIN,
            SETUID,
            REAL_TIME,
            REAL_TIME_IO,
            NICE,
            SPARED,
            LIMIT,
            READINESS,
            HOSTS_ROOT,
            SHARE,
            JOIN,
            DEVICE,
            KERNEL,
            PROFILE,
            PROPAGATION,
            SYSCTL,
            NO_FILTER,
            OWN_FILTER,
            WRITE_KERNEL,
        ],
    ),
    ("What of the host it has", &[STATE, FOREIGN, HOST_FILE, HOST_LINK, HOST_FOLDER, TMPFILES, SYSUSERS, MOUNT]),
    ("What its units do", &[HOOK, COMMAND, ESSENTIAL, HOLD_UP, START, LINE]),
];

/// docs/requests.md.
pub fn markdown() -> String {
    let mut text = "# What an image may do, and what it has to ask for

<!-- Made from the code: `UPDATE_DOCS=1 cargo test --lib rules` writes it anew. -->

What an image says is looked at when everything is filled in: config.json, the units, the lines for tmpfiles.d and sysusers.d, the files for the host. What is not
free is a *request*, in the words of the second column. `install` shows them and asks; `--yes` accepts, and so does `requests.accept` in sysctr.toml,
word for word. What was accepted is kept with the deployment, and an update asks only for what is new. What an admin gives with `--mount` and
the like is no request.
"
    .to_owned();
    for (title, rules) in TABLE {
        text += &format!("\n## {title}\n\n| where it is said | is asked for as | free |\n| --- | --- | --- |\n");
        for rule in *rules {
            text += &format!("| {} | {} | {} |\n", rule.of, rule.words.replace("{}", "…"), rule.free);
        }
    }
    let list =
        |names: &mut dyn Iterator<Item = &str>| names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
    text += "\n## Free\n\n| | |\n| --- | --- |\n";
    text += &format!("| capabilities | {} |\n", list(&mut spec::DEFAULT_CAPABILITIES.into_iter()));
    for (section, keys) in request::FREE.iter().filter(|(_, keys)| !keys.is_empty()) {
        text += &format!("| [{section}] | {} |\n", list(&mut keys.split_whitespace()));
    }
    text +=
        &format!("| wanted and required by anyone | {} |\n", list(&mut request::PASSIVE_TARGETS.split_whitespace()));
    text += &format!("| WantedBy= | {} |\n", list(&mut request::INSTALL_TARGETS.split_whitespace()));
    text += "\n## Never, whoever accepts\n\n";
    text += &format!("Nothing of an image is written at or below {}.\n", list(&mut host_lines::NEVER.into_iter()));
    text += "\nsysusers.d: uid or gid 0, a number that a path or a group of the host gives, membership of a group, ranges. tmpfiles.d: paths with quotes,
specifiers, escapes or patterns. Links of hostfs/ to such places, or to what containers change (/var/lib, /run, /tmp). config.json: a container without a mount namespace of its own, mounts of other kinds than bind, tmpfs, proc,
sysfs, cgroup, devpts and mqueue, and a folder of the container's own within one that it can write to.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/requests.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, markdown()).expect("writing the document");
        }
        let stale = std::fs::read_to_string(path).expect("the document") != markdown();
        assert!(!stale, "docs/requests.md is not what the table says: UPDATE_DOCS=1 cargo test --lib rules");
    }

    #[test]
    fn a_request_is_of_one_rule() {
        for (title, rules) in TABLE {
            for rule in *rules {
                let words = rule.ask(&[&"A", &"B", &"C"]);
                let found = of(&words).unwrap_or_else(|| panic!("{words} of {title:?} is of no rule"));
                let more_exact = [HOOK.words, COMMAND.words].contains(&found.words);
                assert!(found.words == rule.words || more_exact, "{words} is of {found:?}");
            }
        }
        assert!(of("fly").is_none());
    }
}
