//! What `diff` says to people: what the program gained first, since that has to be judged.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::{
    diff::Shown,
    image::{self, bytes},
};
use sysctr::model::{
    diff::{
        GainedLost, Identity,
        files::FileChange,
        host_files::{HostFileDifference, Version},
        units::Change,
    },
    values::{Source, Value},
};

/// Longer values are cut.
const WIDTH: usize = 160;
/// Of a longer list only so many, the rest as a number; `--json` has all.
const NAMES: usize = 20;

/// The whole text.
pub fn of(shown: &Shown) -> String {
    let difference = &shown.difference;
    let mut text = format!("{}: {} -> {}\n", shown.name, identity(&difference.from), identity(&difference.to));
    let before = text.len();
    plus_minus(&mut text, "The image requests", &difference.requests);
    plus_minus(&mut text, "The program can", &difference.config.powers);
    let calls = &difference.config.system_calls;
    let calls = GainedLost { gained: names(&calls.gained), lost: names(&calls.lost) };
    plus_minus(&mut text, "System calls", &calls);
    let values = difference
        .values
        .iter()
        .map(|change| format!("{}: {} -> {}", change.name, value(change.from.as_ref()), value(change.to.as_ref())));
    section(&mut text, "Values", values);
    let settings = difference
        .config
        .changed
        .iter()
        .map(|change| format!("{}: {} -> {}", change.key, json(change.from.as_ref()), json(change.to.as_ref())));
    section(&mut text, "config.json", settings);
    for unit in &difference.units {
        let _ = write!(text, "\n{}", unit.diff);
    }
    section(&mut text, "Files on the host", difference.host_files.iter().map(host_file));
    packages(&mut text, shown);
    files(&mut text, shown);
    if text.len() == before {
        text.push_str("nothing differs\n");
    }
    text
}

fn identity(identity: &Identity) -> String {
    let which = identity.deployment.map_or_else(|| "an update".to_owned(), |id| format!("deployment {id}"));
    let version = identity.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    format!("{which} ({}{version}, {})", identity.image, identity.digest.short())
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: String = lines.map(|line| format!("  {}\n", line.replace('\n', " "))).collect();
    if !lines.is_empty() {
        let _ = write!(text, "\n{title}:\n{lines}");
    }
}

fn plus_minus(text: &mut String, title: &str, words: &GainedLost<String>) {
    let gained = words.gained.iter().map(|word| format!("+ {word}"));
    section(text, title, gained.chain(words.lost.iter().map(|word| format!("- {word}"))));
}

/// On one line, so that a profile with hundreds of them leaves the rest to be seen.
fn names(all: &[String]) -> Vec<String> {
    let mut line = all.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > NAMES {
        let _ = write!(line, " and {} more", all.len() - NAMES);
    }
    if all.is_empty() { Vec::new() } else { vec![line] }
}

fn value(value: Option<&Value>) -> String {
    match value {
        None => "none".to_owned(),
        Some(Value { secret: true, .. }) => "a secret".to_owned(),
        Some(Value { value, source: Source::Default | Source::Made, .. }) => json(Some(value)),
        Some(Value { value, source: Source::Admin, .. }) => format!("{} (given)", json(Some(value))),
    }
}

fn json(value: Option<&Json>) -> String {
    let text = value.map_or_else(|| "none".to_owned(), Json::to_string);
    if text.chars().count() <= WIDTH {
        return text;
    }
    text.chars().take(WIDTH).chain("...".chars()).collect()
}

fn packages(text: &mut String, shown: &Shown) {
    let packages = &shown.difference.packages;
    let databases = packages.databases.iter().copied().collect::<Vec<_>>().join(", ");
    let added = packages.added.iter().map(|one| format!("+ {} {}", one.name, one.version));
    let removed = packages.removed.iter().map(|one| format!("- {} {}", one.name, one.version));
    let changed = packages.changed.iter().map(|one| format!("  {} {} -> {}", one.name, one.from, one.to));
    section(text, &format!("Packages ({databases})"), added.chain(removed).chain(changed));
    section(text, "Packages that could not be read", packages.problems.iter().cloned());
}

fn files(text: &mut String, shown: &Shown) {
    let files = &shown.files;
    if files.is_empty() {
        return;
    }
    let size = bytes(files.grown.unsigned_abs());
    let more = if files.grown < 0 { format!("{size} less") } else { format!("{size} more") };
    let added = image::count(files.added, "file");
    let _ = write!(text, "\nFiles: {added} added, {} removed, {} changed; {more}\n", files.removed, files.changed);
    for file in files.list.iter().flatten() {
        let _ = writeln!(text, "  {}", line(file).replace('\n', " "));
    }
}

fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => ' ',
    }
}

fn host_file(file: &HostFileDifference) -> String {
    let mut line = format!("{} {}", sign(file.change), file.path);
    let target = |version: &Option<Version>| version.as_ref().and_then(|version| version.target.clone());
    let mode = |version: &Option<Version>| version.as_ref().and_then(|version| version.mode.clone());
    match (target(&file.from), target(&file.to)) {
        (Some(from), Some(to)) => line += &format!(", link to {from} -> {to}"),
        (None, Some(to)) => line += &format!(", link to {to}"),
        _ => {}
    }
    match (mode(&file.from), mode(&file.to)) {
        (Some(from), Some(to)) if from != to => line += &format!(", mode {from} -> {to}"),
        _ => {}
    }
    line
}

fn line(file: &FileChange) -> String {
    let mut line = format!("{} {}", sign(file.change), file.path);
    if let (Some(from), Some(to)) = (&file.from, &file.to) {
        let mut say = |what: &str, from: String, to: String| {
            if from != to {
                let _ = write!(line, ", {what} {from} -> {to}");
            }
        };
        say("mode", from.mode.clone(), to.mode.clone());
        say("owner", format!("{}:{}", from.uid, from.gid), format!("{}:{}", to.uid, to.gid));
        say("link to", from.target.clone().unwrap_or_default(), to.target.clone().unwrap_or_default());
        say("size", bytes(from.size), bytes(to.size));
    }
    line
}
