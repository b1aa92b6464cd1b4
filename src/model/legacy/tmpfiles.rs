//! The tmpfiles.d(5) lines of an old image: /var/run is /run, and the system's own folders are nobody's to make.

use crate::model::{render::tmpfiles_path, request::is_below};

/// Folders that every system has.
const SYSTEM: [&str; 16] = [
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

/// Brings the finished text of `file` up to date; gives notes with it.
pub fn mend(file: &str, text: &str) -> (String, Vec<String>) {
    let (mut lines, mut notes) = (String::new(), Vec::new());
    for line in text.lines() {
        let mut fields: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        if fields.first().is_none_or(|kind| kind.starts_with('#')) {
            continue;
        }
        if let Some(path) = fields.get_mut(1) {
            if path.len() > 1 && path.ends_with('/') {
                *path = path.trim_end_matches('/').to_owned();
            }
            if is_below(path, "/var/run") {
                let new = path["/var".len()..].to_owned();
                let words = format!("{file}: {path} is {new}");
                notes.push(words);
                *path = new;
            }
            let is_there = fields[0].starts_with('d') && SYSTEM.contains(&fields[1].as_str());
            if is_there && fields[2..].iter().all(|field| field == "-") {
                notes.push(format!("{file}: {} is left out: every system has it", fields[1]));
                continue;
            }
        }
        // A command's argument keeps its blanks.
        let has_argument = fields.len() > 6;
        let line = if has_argument && !line.contains("/var/run") { line.trim().to_owned() } else { fields.join(" ") };
        lines.push_str(&line);
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
            f /var/lib/a/x 0644 0 0 - two  blanks\nd /var/runner\n";
        let (text, notes) = mend("t", text);
        let expected = "d /run/docker - - - - -\nd /var/lib/a 0700 0 0 - -\nf /var/lib/a/x 0644 0 0 - two  blanks\nd /var/runner\n";
        assert_eq!(text, expected);
        assert_eq!(notes.len(), 3, "{notes:?}");
    }
}
