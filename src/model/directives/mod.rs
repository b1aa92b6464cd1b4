//! What each directive of `[Service]` comes to in a container: supported or refused, never ignored. The one table behind an
//! install's refusals and requests, `sysctr lint` and docs/directives.md.
//!
//! systemd carries a directive out for the process that it starts, and that is the launcher. Some of it the program inherits or the
//! control group holds, some the launcher does anew, some is lost with the launcher, and some would keep it from its work.

use super::unit::UnitFile;

mod table;
mod words;

pub use words::markdown;

/// What becomes of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Works as on a plain unit.
    Plain,
    /// Works because sysctr does it.
    Sysctr,
    /// Works, but holds for the launcher too: the admin's to use in a drop-in, refused in an image's unit.
    Launcher,
    /// Would be lost, or the container could not be made.
    Refused,
}

/// Directives of which the same is to be said.
#[derive(Clone, Copy, Debug)]
struct Group {
    title: &'static str,
    class: Class,
    free: bool,
    names: &'static str,
    why: &'static str,
    instead: &'static str,
    values: &'static str,
}

/// One directive and all there is to say of it.
#[derive(Clone, Copy, Debug)]
pub struct Directive {
    /// As systemd spells it.
    pub name: &'static str,
    /// What becomes of it.
    pub class: Class,
    /// Whether an image's unit may have it unasked.
    pub free: bool,
    /// Refused: why. Done by sysctr: how. For the launcher too: what that one needs.
    pub why: &'static str,
    /// What to use in its place.
    pub instead: &'static str,
    values: &'static str,
}

/// Something to say about a line of `[Service]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The directive.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub instead: String,
    /// How bad it is.
    pub verdict: Verdict,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would not reach the program.
    Refused,
    /// It works if the launcher can live with it.
    Caution,
    /// No directive that systemd is known to have.
    Unknown,
}

/// All of them, in the order of the table.
pub fn all() -> impl Iterator<Item = Directive> {
    table::TABLE.iter().flat_map(|group| {
        let Group { class, free, why, instead, values, names, .. } = *group;
        names.split_whitespace().map(move |name| Directive { name, class, free, why, instead, values })
    })
}

/// The directive of this name.
pub fn find(name: &str) -> Option<Directive> {
    all().find(|directive| directive.name == name)
}

/// Whether a unit may have this key of `[Service]` unasked. Keys for other programs (`X-...`) mean nothing to systemd.
pub fn is_free(key: &str) -> bool {
    key.starts_with("X-") || find(key).is_some_and(|directive| directive.free)
}

impl Directive {
    /// Whether this value is refused.
    fn refuses(&self, value: &str) -> bool {
        let listed = self.values.split_whitespace().any(|one| one == value);
        match self.class {
            Class::Refused => !(listed || is_off(value)),
            _ => listed,
        }
    }

    fn finding(&self, value: &str) -> Option<Finding> {
        let verdict = match self.class {
            _ if self.refuses(value) => Verdict::Refused,
            Class::Launcher if !value.is_empty() => Verdict::Caution,
            _ => return None,
        };
        let what = match (verdict, self.class) {
            (Verdict::Caution, _) => format!("{}= holds for the launcher too: {}", self.name, self.why),
            (_, Class::Refused) => format!("{}= does not work for a container: {}", self.name, self.why),
            _ => format!("{}={value} does not work for a container: {}", self.name, self.why),
        };
        let instead = match self.instead {
            // A drop-in is not in the manifest, and what holds for the launcher does work.
            "" => "leave it out".to_owned(),
            text => match text.strip_prefix("nothing") {
                Some(rest) => format!("leave it out{rest}"),
                None => format!("use {text}"),
            },
        };
        Some(Finding { key: self.name.to_owned(), what, instead, verdict })
    }
}

/// An empty value takes back what was said before, and systemd reads these as "no".
fn is_off(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "" | "no" | "n" | "false" | "f" | "off" | "0")
}

/// What is to be said about the `[Service]` of these unit files, in the order in which systemd reads them; each finding with the number of
/// the file that has the line. A value that a later line takes back is none.
pub fn judge<'a>(files: impl IntoIterator<Item = &'a UnitFile>) -> Vec<(usize, Finding)> {
    let mut found: Vec<(usize, Finding)> = Vec::new();
    for (number, unit) in files.into_iter().enumerate() {
        for entry in unit.entries().filter(|entry| entry.section == "Service" && !entry.key.starts_with("X-")) {
            let finding = match find(entry.key) {
                Some(directive) => directive.finding(entry.value),
                None => Some(Finding {
                    key: entry.key.to_owned(),
                    what: format!("{}= is no directive that is known", entry.key),
                    instead: "look for a typing error; systemd would ignore it".to_owned(),
                    verdict: Verdict::Unknown,
                }),
            };
            found.retain(|(_, earlier)| earlier.key != entry.key);
            found.extend(finding.map(|finding| (number, finding)));
        }
    }
    found
}

impl Finding {
    /// What is wrong and what to do, on one line.
    pub fn line(&self) -> String {
        format!("{}; {}", self.what, self.instead)
    }
}

#[cfg(test)]
mod tests;
