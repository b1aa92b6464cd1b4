//! docs/directives.md, made from the table.

use super::{Class, Group, table::TABLE};

const BEGIN: &str = "# Directives of a container's service

<!-- Made from the code: `UPDATE_DOCS=1 cargo test --lib directives` writes it anew. -->

A container's unit is a unit: `systemctl edit NAME` puts any directive into it. systemd carries it out for the process that it starts,
and that is the launcher, which makes the container and goes. So each directive of `[Service]` (systemd 252 to 257) is one of these:

- it **works as on a plain unit**, because the program inherits it or the control group holds it;
- it is **done by sysctr**, because the launcher has to do something for it;
- it **holds for the launcher too**: it works as long as the launcher can do its own work under it, and otherwise the start fails and says so;
- it is **refused**, because it would be lost with the launcher or keep the container from being made.

An image whose unit has one of the latter two cannot be installed. In a drop-in, `sysctr lint NAME` tells them. What the launcher itself can see
at no cost it tells at the start, which then fails: User=, Group=, SupplementaryGroups=, DynamicUser= and AmbientCapabilities=.

A refused directive that is switched off (empty, or `no`) is none. Directives of `[Unit]`, `[Socket]`, `[Timer]`, `[Path]` and `[Install]` are systemd's own
and work as ever.

One thing is the kernel's, and the same for every container: the program is the first process of its own process IDs. A signal that it does not
handle does not end it, SIGKILL excepted, so that one of `KillSignal=`, `WatchdogSignal=` and their like which it leaves to the default is
followed by SIGKILL when the time is over (`TimeoutStopFailureMode=abort` too). And with it end all its processes: it must not go into
the background, and `ExitType=cgroup` is as `main`. Neither is so where config.json leaves out the `pid` namespace.

\"Asked\" marks what an image's own unit may not have unasked; the admin's drop-ins may.
";

/// The whole text.
pub fn markdown() -> String {
    let mut text = BEGIN.to_owned();
    text.push_str("\n## Works as on a plain unit\n\n| | directives |\n| --- | --- |\n");
    for group in of(Class::Plain) {
        let asked = if group.free { "" } else { " (asked)" };
        let except = match group.values {
            "" => String::new(),
            values => format!("; not with {}: {}. Use {}", list(values), group.why, group.instead),
        };
        text.push_str(&format!("| {}{asked} | {}{except} |\n", group.title, directives(group)));
    }
    text.push_str("\n## Done by sysctr\n\n| directives | how |\n| --- | --- |\n");
    for group in of(Class::Sysctr) {
        let asked = if group.free { "" } else { " (asked)" };
        let except = match group.values {
            "" => String::new(),
            values => format!("; not with {}. Use {}", list(values), group.instead),
        };
        text.push_str(&format!("| {}{asked} | {}{except} |\n", directives(group), group.why));
    }
    for (class, title) in [(Class::Launcher, "Holds for the launcher too"), (Class::Refused, "Refused")] {
        text.push_str(&format!("\n## {title}\n\n| directives | why | use instead |\n| --- | --- | --- |\n"));
        for group in of(class) {
            let except = match group.values {
                "" => String::new(),
                values => format!(" (but not {})", list(values)),
            };
            text.push_str(&format!("| {}{except} | {} | {} |\n", directives(group), group.why, group.instead));
        }
    }
    text
}

fn of(class: Class) -> impl Iterator<Item = &'static Group> {
    TABLE.iter().filter(move |group| group.class == class)
}

fn directives(group: &Group) -> String {
    group.names.split_whitespace().map(|name| format!("{name}=")).collect::<Vec<_>>().join(" ")
}

fn list(values: &str) -> String {
    values.split_whitespace().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
}
