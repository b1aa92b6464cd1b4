//! Files of an image (`/exports/hostfs`) that lie on the host: what they are, and where they may be. Links and empty folders, too.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{host_lines, manifest::absolute, request::is_below, rules};

/// What the settings allow where they say nothing.
pub const PLACES: [&str; 4] = ["/etc", "/usr/local", "/var/lib", "/opt"];
/// A link leads to none of these: what lies there, containers change.
const CHANGEABLE: [&str; 7] = ["/var/lib", "/run", "/tmp", "/var/tmp", "/proc", "/dev", "/sys"];

/// An entry of `hostFiles` in the manifest.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// Where it goes: absolute, a template.
    pub path: String,
    /// Its place in `/exports/hostfs`; that of `path` where absent. A link or an empty folder becomes one.
    pub source: Option<String>,
    /// Whether it is filled in.
    #[serde(default)]
    pub template: bool,
    /// Octal; that of the file in the image where absent.
    pub mode: Option<String>,
}

/// What lies below `/exports/hostfs`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Source {
    /// Its bytes are among the exports.
    File {
        mode: u32,
    },
    Link {
        target: String,
    },
    /// A folder with nothing in it.
    Folder {
        mode: u32,
    },
}

/// All of it, by the path below `/exports`.
pub type Sources = BTreeMap<String, Source>;

/// What is to lie at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Content {
    File { bytes: Vec<u8>, mode: u32 },
    Link { target: String },
    Folder { mode: u32 },
}

/// One that is ready to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// On the host.
    pub path: String,
    /// What it is.
    pub content: Content,
    /// Left out where something is there already: so it was in the old format.
    pub optional: bool,
    /// An admin lets it take the place of a file that is not ours.
    pub replaces: bool,
}

/// One in a deployment's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// On the host.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// It took the place of a file that was not ours, of which there is a copy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces: bool,
}

/// How to know what was placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum What {
    /// A file.
    File {
        /// Of its content, in hexadecimal digits.
        sha256: String,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
    /// A folder. What else lies in it is not the image's.
    Folder {
        /// Permission bits that it was made with.
        #[serde(rename = "folderMode")]
        mode: u32,
    },
}

impl What {
    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        matches!(self, What::Link { .. })
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        matches!(self, What::Folder { .. })
    }

    /// What one calls it.
    pub fn word(&self) -> &'static str {
        match self {
            What::File { .. } => "regular file",
            What::Link { .. } => "link",
            What::Folder { .. } => "folder",
        }
    }
}

impl Placed {
    /// Whether one takes the place of the other; a file and a folder do not.
    pub fn is_same_place(&self, other: &Placed) -> bool {
        self.path == other.path && self.what.is_folder() == other.what.is_folder()
    }
}

impl HostFile {
    /// Where it lies below `/exports`.
    pub fn source(&self) -> String {
        let source = self.source.as_deref().unwrap_or(&self.path);
        format!("hostfs/{}", source.trim_start_matches('/'))
    }

    /// Its permission bits; `own` are those in the image.
    pub fn mode(&self, own: u32) -> Result<u32> {
        let Some(text) = &self.mode else { return Ok(plain(own)) };
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(mode),
            _ => bail!("hostFiles: {}: mode {text:?} is not octal, up to \"0777\"", self.path),
        }
    }

    /// A link or an empty folder of `/exports/hostfs`; none where it is a file.
    pub fn content(&self, source: Option<&Source>) -> Result<Option<Content>> {
        let refuse = |what: &str| -> Result<()> {
            ensure!(!self.template, "hostFiles: {}: {what} cannot be filled in", self.path);
            Ok(())
        };
        Ok(match source {
            Some(Source::Link { target }) => {
                refuse("a link")?;
                ensure!(self.mode.is_none(), "hostFiles: {}: a link has no mode", self.path);
                Some(Content::Link { target: target.clone() })
            }
            Some(Source::Folder { mode }) => {
                refuse("a folder")?;
                Some(Content::Folder { mode: self.mode(*mode)? })
            }
            Some(Source::File { .. }) | None => None,
        })
    }
}

impl Ready {
    /// What an admin is asked. Nothing but the place and what it can do counts: an update with other content is not asked again.
    pub fn request(&self) -> String {
        match &self.content {
            Content::File { mode, .. } => {
                let what = if mode & 0o111 == 0 { "file" } else { "program" };
                rules::HOST_FILE.ask(&[&what, &self.path])
            }
            Content::Link { target } => rules::HOST_LINK.ask(&[&self.path, target]),
            Content::Folder { .. } => rules::HOST_FOLDER.ask(&[&self.path]),
        }
    }

    /// Refuses a place that no image ever gets, and a link to one.
    fn check(&self) -> Result<()> {
        absolute(&self.path)?;
        let file = self.path.rsplit('/').next().unwrap_or_default();
        ensure!(file.len() < 200, "{}: the name is too long", self.path);
        let is_reserved = file.starts_with(".sysctr-") || [newer(""), kept("")].iter().any(|end| file.ends_with(end));
        ensure!(!is_reserved, "{}: sysctr itself names files so", self.path);
        if let Some(place) = host_lines::forbidden(&self.path) {
            bail!("{}: nothing of an image is written below {place}", self.path);
        }
        let Content::Link { target } = &self.content else { return Ok(()) };
        let leads = leads_to(&self.path, target).with_context(|| format!("{}: its link to {target:?}", self.path))?;
        match host_lines::forbidden(&leads).or(CHANGEABLE.into_iter().find(|place| is_below(&leads, place))) {
            Some(place) => {
                bail!("{}: no link of an image leads to {leads}, which is or holds what lies below {place}", self.path)
            }
            None => Ok(()),
        }
    }
}

/// Puts them in an order in which they can be placed, a folder before what it holds. Refuses places that no image ever gets, two for one
/// place, and one in another that is no folder.
pub fn ordered(mut files: Vec<Ready>) -> Result<Vec<Ready>> {
    check(&files)?;
    let is_folder = |file: &Ready| matches!(file.content, Content::Folder { .. });
    files.sort_by_key(|file| if is_folder(file) { (0, file.path.clone()) } else { (1, String::new()) });
    Ok(files)
}

fn check(files: &[Ready]) -> Result<()> {
    let mut all: BTreeMap<&str, &Ready> = BTreeMap::new();
    for file in files {
        file.check()?;
        ensure!(all.insert(&file.path, file).is_none(), "{} is there twice", file.path);
    }
    for path in all.keys() {
        let above = path.match_indices('/').filter_map(|(at, _)| all.get(&path[..at]));
        for outer in above {
            let holds = matches!(outer.content, Content::Folder { .. });
            ensure!(holds, "{path} lies in {}, which is no folder", outer.path);
        }
    }
    Ok(())
}

/// Where a link at `path` leads, as text.
fn leads_to(path: &str, target: &str) -> Result<String> {
    ensure!(!target.is_empty(), "it leads nowhere");
    let mut parts: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => path.split('/').filter(|part| !part.is_empty()).collect(),
    };
    if !target.starts_with('/') {
        parts.pop();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let leads = format!("/{}", parts.join("/"));
    absolute(&leads)?;
    Ok(leads)
}

/// Mode bits without set-user-ID, set-group-ID and sticky: those are no image's to give.
pub fn plain(mode: u32) -> u32 {
    mode & 0o777
}

/// Whether a file may be there by the settings.
pub fn is_allowed(path: &str, places: &[String]) -> bool {
    places.iter().any(|place| path != place && is_below(path, place.trim_end_matches('/')))
}

/// Whether people edit it: what they changed is no fault then.
pub fn is_configuration(path: &str) -> bool {
    is_below(path, "/etc")
}

/// Beside a file that was edited: what the deployment in force has there.
pub fn newer(name: &str) -> String {
    format!("{name}.sysctr-new")
}

/// Beside a file that took the place of one that was not ours: that one.
pub fn kept(name: &str) -> String {
    format!("{name}.sysctr-old")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(path: &str, content: Content) -> Ready {
        Ready { path: path.into(), content, optional: false, replaces: false }
    }

    fn file(path: &str) -> Ready {
        ready(path, Content::File { bytes: vec![], mode: 0o644 })
    }

    fn link(path: &str, target: &str) -> Ready {
        ready(path, Content::Link { target: target.into() })
    }

    #[test]
    fn a_place_has_to_be_one_that_images_get() {
        check(&[file("/etc/relay/relay.conf")]).expect("a plain place");
        for path in [
            "/etc/cron.d/x",
            "/etc/systemd/system/x.service",
            "/etc/sudoers",
            "/etc/../etc/x",
            "etc/x",
            "/etc/ld.so.preload",
            "/etc/x.sysctr-old",
            "/etc/x.sysctr-new",
            "/etc/.sysctr-x.1",
        ] {
            assert!(check(&[file(path)]).is_err(), "{path} was taken");
        }
        let places = PLACES.map(str::to_owned);
        for (path, allowed) in [
            ("/etc/x", true),
            ("/etc", false),
            ("/etcx/y", false),
            ("/usr/local/bin/x", true),
            ("/usr/bin/x", false),
            ("/root/.bashrc", false),
        ] {
            assert_eq!(is_allowed(path, &places), allowed, "{path}");
        }
    }

    #[test]
    fn no_image_gives_a_setuid_program() {
        assert_eq!(plain(0o6755), 0o755);
        let file = HostFile { path: "/etc/a".into(), source: None, template: false, mode: Some("4755".into()) };
        assert!(file.mode(0o644).is_err());
        assert_eq!(file.source(), "hostfs/etc/a");
    }

    #[test]
    fn a_link_leads_nowhere_that_is_forbidden_or_containers_change() {
        for target in ["/usr/bin/x", "x", "./x/y", "../relay.conf", "/opt/x", "/usr/local/bin/../lib/x"] {
            check(&[link("/etc/relay/x", target)]).expect(target);
        }
        for target in [
            "",
            "/",
            "..",
            "../..",
            "/etc",
            "/etc/systemd",
            "../systemd/system",
            "/etc/sudoers",
            "/var/lib/relay/x",
            "/run/x",
            "../../tmp/x",
            "/var/run/x",
            "/etc/cron.d/x",
            "a\nb",
            "../../../../../etc/pam.d/x",
        ] {
            assert!(check(&[link("/etc/relay/x", target)]).is_err(), "{target:?} was taken");
        }
    }

    #[test]
    fn nothing_lies_twice_at_a_place_or_in_what_is_no_folder() {
        let folder = |path: &str| ready(path, Content::Folder { mode: 0o755 });
        check(&[folder("/etc/a"), file("/etc/a/b"), file("/etc/ab"), link("/etc/a/c", "b")]).expect("in a folder");
        for two in [
            [file("/etc/a"), file("/etc/a")],
            [folder("/etc/a"), link("/etc/a", "b")],
            [file("/etc/a"), file("/etc/a/b")],
            [file("/etc/a/b/c"), link("/etc/a", "/usr/share/x")],
        ] {
            assert!(check(&two).is_err(), "{two:?} were taken");
        }
    }

    #[test]
    fn a_record_says_what_it_was() {
        for text in [
            r#"{"path":"/etc/a","sha256":"00","mode":420}"#,
            r#"{"path":"/etc/a","target":"b","replaces":true}"#,
            r#"{"path":"/etc/a","folderMode":493}"#,
        ] {
            let placed: Placed = serde_json::from_str(text).expect(text);
            assert_eq!(serde_json::to_string(&placed).expect("JSON"), text);
        }
    }
}
