//! The tmpfiles.d(5) lines of an old image: /var/run is /run, and the system's own folders are nobody's to make.

use crate::model::{render::tmpfiles_path, request::is_below};

/// Folders that every system has.
pub const SYSTEM: [&str; 16] = [
    "/run",
    "/var",
    "/var/lib",
    "/var/log",
    "/var/cache",
    "/var/spool",
    "/var/tmp",
    "/etc",
    "/usr",
    "/tmp",
    "/opt",
    "/srv",
    "/home",
    "/root",
    "/mnt",
    "/dev",
];

/// The first word of a text, and what stands behind it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len()))
}

/// Brings the finished text of `file` up to date; gives notes with it.
pub fn mend(file: &str, text: &str) -> (String, Vec<String>) {
    let (mut lines, mut notes) = (String::new(), Vec::new());
    for line in text.lines() {
        // What stands behind the path stays as it is: a command's argument keeps its blanks.
        let (kind, rest) = word(line);
        let (path, rest) = word(rest);
        if kind.is_empty() || kind.starts_with('#') {
            continue;
        }
        let mut path = if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path.to_owned() };
        if is_below(&path, "/var/run") {
            let new = path["/var".len()..].to_owned();
            notes.push(format!("{file}: {path} is {new}"));
            path = new;
        }
        let says_nothing = rest.split_ascii_whitespace().all(|field| field == "-");
        if kind.starts_with('d') && SYSTEM.contains(&path.as_str()) && says_nothing {
            notes.push(format!("{file}: {path} is left out: every system has it"));
            continue;
        }
        lines.push_str(format!("{kind} {path} {}", rest.trim()).trim_end());
        lines.push('\n');
    }
    (lines, notes)
}

/// Folders of the host that it mounts and that are not there: what the old tool made for an image that says nothing of them. What is
/// there when the line is read keeps its owner and mode.
pub fn for_missing<'a>(sources: impl Iterator<Item = &'a str>) -> String {
    sources.map(|path| format!("d {} :0700 :0 :0 -\n", tmpfiles_path(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_run_and_the_systems_folders_stay_its_own() {
        let text = "# why\n\nd   /var/run/docker/  - - - - -\nd /var/run - - - - -\nd /var/lib/a 0700 0 0 - -\n\
            f /var/lib/a/x/ 0644 0 0 - two  blanks\nd /var/runner\nd\t/var/lib/b/ 0700 0 0 - -\n";
        let (text, notes) = mend("t", text);
        let expected = "d /run/docker - - - - -\nd /var/lib/a 0700 0 0 - -\nf /var/lib/a/x 0644 0 0 - two  blanks\nd /var/runner\nd /var/lib/b 0700 0 0 - -\n";
        assert_eq!(text, expected);
        assert_eq!(notes.len(), 3, "{notes:?}");
    }
}
