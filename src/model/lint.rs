//! What is wrong with an image's `/exports`, or with the unit of an installed container: every problem, not only the first one.
//!
//! It renders as an install does. Where that fails, the file at fault is reported and left out, and the rest is rendered again.

mod containment;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    directives::{self, Verdict},
    layout, legacy,
    manifest::{HostFile, Manifest, ValueKind, ValueSpec},
    render::{self, Inputs, Rendered},
    unit::UnitFile,
    values::Setting,
};

/// Something to say about a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// The file, and the line where it is known.
    pub file: String,
    /// What it is; what to do.
    pub detail: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It cannot be installed, or does not do what it says.
    Error,
    /// It may go wrong.
    Warning,
    /// Good to know: what it asks for.
    Note,
}

impl Level {
    /// The word that stands before the line.
    pub fn word(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        }
    }
}

/// The files of `/exports` that have a meaning.
const KNOWN: [&str; 13] = [
    "manifest.json",
    "service.hbs",
    "socket.hbs",
    "timer.hbs",
    "path.hbs",
    "target.hbs",
    "service@.hbs",
    "socket@.hbs",
    "timer@.hbs",
    "path@.hbs",
    "tmpfiles.hbs",
    "sysusers.hbs",
    "config.json.hbs",
];
const MANIFEST: &str = "/exports/manifest.json";

/// What came of judging an image.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Judgement {
    pub problems: Vec<Problem>,
    /// Its units as they would be placed; none where it could not be installed.
    pub units: BTreeMap<String, String>,
}

/// Judges an image. Values that have no default and are not among the settings get a stand-in.
pub fn image(inputs: &Inputs) -> Judgement {
    let mut problems = Vec::new();
    let rendered = match legacy::manifest(inputs) {
        Ok(Some(_)) => old_image(inputs, &mut problems),
        Ok(None) => new_image(inputs, &mut problems),
        Err(error) => {
            problems.push(error_in(MANIFEST, format!("{error:#}").replacen("/exports/manifest.json: ", "", 1)));
            None
        }
    };
    let files = rendered.filter(|_| !has_errors(&problems)).map(|rendered| rendered.files).unwrap_or_default();
    let units = files.into_iter().filter(|(file, _)| layout::is_unit(file)).collect();
    Judgement { problems, units }
}

fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.level == Level::Error)
}

impl Judgement {
    /// Adds what systemd itself says of the units: lines of `systemd-analyze verify`.
    pub fn add_systemds(&mut self, lines: &[String]) {
        for line in lines {
            let said = self.units.keys().find_map(|unit| {
                let place = line.split_once(&format!("/{unit}:")).map(|(_, rest)| rest);
                let (kind, place) = (unit.rsplit('.').next()?, place.or(line.strip_prefix(&format!("{unit}: ")))?);
                let at = if layout::is_template(unit) { "@" } else { "" };
                Some((format!("/exports/{kind}{at}.hbs"), place.trim_start()))
            });
            let Some((file, words)) = said else { continue };
            let words = match words.split_once(": ") {
                Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                    format!("line {number} once it is filled in: {rest}")
                }
                _ => words.to_owned(),
            };
            // Programs of the host: another one may have it.
            let level = if words.contains(" is not executable: ") { Level::Warning } else { Level::Error };
            self.problems.push(Problem { level, file, detail: format!("systemd says: {words}") });
        }
    }

    /// Adds that systemd did not read the units, and why.
    pub fn add_unread(&mut self, why: &str) {
        let detail = format!("systemd itself has not read the units, because {why}: an install may still refuse them");
        self.problems.push(Problem { level: Level::Note, file: "/exports".to_owned(), detail });
    }
}

fn new_image(inputs: &Inputs, problems: &mut Vec<Problem>) -> Option<Rendered> {
    let text = inputs.exports.get("manifest.json").map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let manifest = text.as_deref().map(Manifest::parse).transpose().map(Option::unwrap_or_default);
    let profile = manifest.as_ref().ok().and_then(|manifest| manifest.container.seccomp.as_ref());
    let files = inputs.exports.keys().filter(|file| Some(*file) != profile);
    problems.extend(files.filter_map(|file| unknown_file(file)));
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            problems.push(error_in(MANIFEST, format!("{error:#}")));
            return None;
        }
    };
    problems.extend(unplaced(&manifest, inputs));
    let mut settings = inputs.settings.to_vec();
    for (name, value) in manifest.values.iter().filter(|(_, value)| value.default.is_none() || value.required) {
        if settings.iter().any(|given| given.key == *name) {
            continue;
        }
        match stand_in(value, &PLAIN) {
            Some(text) => settings.push(Setting { key: name.clone(), value: text }),
            None => {
                let detail =
                    format!("values.{name}: none of the usual texts has its pattern; give one with --set {name}=...");
                problems.push(Problem { level: Level::Warning, file: MANIFEST.into(), detail });
                return None;
            }
        }
    }
    let inputs = Inputs { settings: &settings, ..*inputs };
    let rendered = whatever_renders(&inputs, problems)?;
    problems.extend(service(&rendered, &inputs));
    problems.extend(units::judge(&rendered.files, inputs.exports, inputs.name));
    // What cannot be installed asks for nothing.
    if !has_errors(problems) {
        problems.extend(containment::judge(&manifest, inputs.exports));
        problems.extend(awkward_values(&manifest, &inputs));
        problems.extend(rendered.requests.iter().map(|words| request(words, &inputs)));
    }
    Some(rendered)
}

/// Judges the unit of an installed container: its own file first, then its drop-ins, each with its path, as systemd reads them.
pub fn installed(files: &[(String, UnitFile)]) -> Vec<Problem> {
    let findings = directives::judge(files.iter().map(|(_, unit)| unit)).into_iter().map(|(number, finding)| {
        let level = match finding.verdict {
            Verdict::Refused => Level::Error,
            Verdict::Caution | Verdict::Unknown => Level::Warning,
        };
        Problem { level, file: files[number].0.clone(), detail: finding.line() }
    });
    let foreign = |(file, unit): &(String, UnitFile)| {
        let other =
            unit.values("Service", "ExecStart").find(|line| !line.is_empty() && !line.contains(layout::RUNTIME))?;
        let detail = format!("ExecStart={other} runs on the host, not in the container; leave it out");
        Some(Problem { level: Level::Warning, file: file.clone(), detail })
    };
    findings.chain(files.iter().filter_map(foreign)).collect()
}

/// Judges an image of atomic's format: what it would be refused for, what was changed in it, what it asks for. A value that has no
/// default gets a stand-in.
fn old_image(inputs: &Inputs, problems: &mut Vec<Problem>) -> Option<Rendered> {
    let wanted = legacy::wanted(inputs).unwrap_or_default();
    let missing = wanted.into_iter().filter(|name| !inputs.settings.iter().any(|setting| setting.key == *name));
    let stand_ins = missing.map(|key| Setting { key, value: "value".to_owned() });
    let settings: Vec<Setting> = inputs.settings.iter().cloned().chain(stand_ins).collect();
    let split = |line: &str| match line.split_once(": ") {
        Some((file, detail)) if file.starts_with("/exports/") => (file.to_owned(), detail.to_owned()),
        _ => (MANIFEST.to_owned(), line.to_owned()),
    };
    let note = |(file, detail)| Problem { level: Level::Note, file, detail };
    match render::compose(&Inputs { settings: &settings, ..*inputs }) {
        Err(error) => {
            let (file, detail) = split(&format!("{error:#}"));
            problems.push(error_in(file, detail));
            None
        }
        Ok(rendered) => {
            let notes = rendered.notes.iter().map(|words| note(split(words)));
            let asked = rendered
                .requests
                .iter()
                .map(|words| note(("/exports".to_owned(), format!("asks: {words}; an admin has to accept it"))));
            problems.extend(notes.chain(asked));
            Some(rendered)
        }
    }
}

fn error_in(file: impl Into<String>, detail: impl Into<String>) -> Problem {
    Problem { level: Level::Error, file: file.into(), detail: detail.into() }
}

fn unknown_file(file: &str) -> Option<Problem> {
    let known =
        KNOWN.contains(&file) || file.starts_with("hostfs/") || file == "README.md" || file.ends_with(".template");
    let detail = format!("sysctr reads no such file; it reads {}", KNOWN.join(", "));
    (!known).then(|| Problem { level: Level::Warning, file: format!("/exports/{file}"), detail })
}

/// What lies in `hostfs/` and is placed nowhere.
fn unplaced(manifest: &Manifest, inputs: &Inputs) -> Vec<Problem> {
    let sources: Vec<String> = manifest.host_files.iter().map(HostFile::source).collect();
    let all: BTreeSet<&String> = inputs.exports.keys().chain(inputs.hostfs.keys()).collect();
    let left = all.into_iter().filter(|file| file.starts_with("hostfs/") && !sources.contains(file));
    let detail = "no entry of hostFiles places it".to_owned();
    left.map(|file| Problem { level: Level::Warning, file: format!("/exports/{file}"), detail: detail.clone() })
        .collect()
}

/// What renders, without the files that do not; those are reported.
fn whatever_renders(inputs: &Inputs, problems: &mut Vec<Problem>) -> Option<Rendered> {
    let mut exports = inputs.exports.clone();
    loop {
        let error = match render::compose(&Inputs { exports: &exports, ..*inputs }) {
            Ok(rendered) => return Some(rendered),
            Err(error) => format!("{error:#}"),
        };
        let (file, place, detail) = at_fault(&error, &exports, inputs.name.as_str());
        problems.push(error_in(format!("/exports/{file}{place}"), detail));
        // Without its manifest nothing else of an image means what it did, nor does the manifest without a file that it names.
        if file == "manifest.json" || !KNOWN.contains(&file.as_str()) || exports.remove(&file).is_none() {
            return None;
        }
    }
}

/// The file that an error names, the line where it does, and the rest of the message.
fn at_fault(error: &str, exports: &BTreeMap<String, Vec<u8>>, name: &str) -> (String, String, String) {
    let own = |file: &&String| {
        let unit = file.strip_suffix(".hbs").map(|kind| match kind.strip_suffix('@') {
            Some(kind) => format!("{name}@.{kind}"),
            None => format!("{name}.{kind}"),
        });
        [Some(format!("/exports/{file}")), unit].into_iter().flatten().find_map(|start| error.strip_prefix(&start))
    };
    // "config.json: ..." is what all checks of a finished one begin with.
    let made = error.strip_prefix("config.json: ").filter(|_| exports.contains_key("config.json.hbs"));
    let named = exports.keys().find_map(|file| own(&file).map(|rest| (file.clone(), rest)));
    match named.or(made.map(|rest| ("config.json.hbs".to_owned(), rest))) {
        Some((file, rest)) => {
            let (place, detail) = rest.split_once(": ").unwrap_or(("", rest));
            (file, place.to_owned(), detail.to_owned())
        }
        None => ("manifest.json".to_owned(), String::new(), error.to_owned()),
    }
}

/// The directives of the service. In an image's own unit an unknown one is a typing error, not something newer.
fn service(rendered: &Rendered, inputs: &Inputs) -> Vec<Problem> {
    match rendered.findings(inputs) {
        Ok(found) => found.into_iter().map(|(place, finding)| error_in(place, finding.line())).collect(),
        Err(error) => vec![error_in("/exports/service.hbs", format!("{error:#}"))],
    }
}

/// Does a value that means something to a shell, a unit or a path still make whole files? One at a time.
fn awkward_values(manifest: &Manifest, inputs: &Inputs) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in &manifest.values {
        let Some(text) = stand_in(value, &AWKWARD) else { continue };
        let others = inputs.settings.iter().filter(|given| given.key != *name).cloned();
        let settings: Vec<Setting> = others.chain([Setting { key: name.clone(), value: text.clone() }]).collect();
        if let Err(error) = render::compose(&Inputs { settings: &settings, ..*inputs }) {
            let detail = format!(
                "values.{name}: with {text:?}, which it allows: {error:#}; narrow it with a \"pattern\", or use it elsewhere"
            );
            problems.push(Problem { level: Level::Warning, file: MANIFEST.into(), detail });
        }
    }
    problems
}

/// A request, at the file that makes it.
fn request(words: &str, inputs: &Inputs) -> Problem {
    let in_unit = words.strip_suffix(')').and_then(|words| words.rsplit_once(" ("));
    let file = match in_unit {
        Some((_, file)) if file.starts_with("/exports/") => file.to_owned(),
        Some((_, unit)) if unit.starts_with(&format!("{}.", inputs.name)) => {
            format!("/exports/{}.hbs", &unit[inputs.name.as_str().len() + 1..])
        }
        _ if inputs.exports.contains_key("config.json.hbs") => "/exports/config.json.hbs".to_owned(),
        _ => MANIFEST.to_owned(),
    };
    let file = if inputs.exports.contains_key(&file["/exports/".len()..]) { file } else { MANIFEST.to_owned() };
    let words =
        in_unit.filter(|(_, place)| place.contains('.') && !place.contains(' ')).map_or(words, |(words, _)| words);
    Problem { level: Level::Note, file, detail: format!("asks: {words}; an admin has to accept it") }
}

/// Texts to try for a kind of value, the best first.
type Texts = fn(ValueKind) -> &'static [&'static str];

const PLAIN: Texts = |kind| match kind {
    ValueKind::String => &["value", "a", "1", "A", "a.b", "127.0.0.1", "127.0.0.1:80", "/value", "value=1"],
    ValueKind::Integer => &["1", "8080", "0", "100", "1000000"],
    ValueKind::Boolean => &["true", "false"],
    ValueKind::Enum => &[],
    ValueKind::Url => &["https://host.example", "https://host.example:443/path", "unix:///run/x"],
    ValueKind::Path => &["/srv/value", "/value", "/var/lib/value", "/etc/value"],
    ValueKind::Duration => &["5min", "90s", "90"],
};

const AWKWARD: Texts = |kind| match kind {
    ValueKind::String => &["a b%n\"'\\;$x#", "a b", "a%n", "-a"],
    ValueKind::Integer => &["-9223372036854775808", "0"],
    ValueKind::Url => &["https://[::1]:1/a%20b?c=$d&e='f'#g", "https://h:1/%20"],
    ValueKind::Path => &["/srv/a b%n\"c", "/srv/a b", "/a"],
    ValueKind::Duration => &["0", "1d"],
    ValueKind::Boolean | ValueKind::Enum => &[],
};

fn stand_in(value: &ValueSpec, texts: &Texts) -> Option<String> {
    let choices = value.choices.iter().map(String::as_str);
    texts(value.kind).iter().copied().chain(choices).find(|text| value.read(text).is_ok()).map(str::to_owned)
}

#[cfg(test)]
mod planted;
#[cfg(test)]
pub(super) mod tests;
