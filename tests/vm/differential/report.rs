//! What came of a bundle, as fields that can be compared: without the numbers and names that differ from run to run.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::WORK;

/// Field and value.
pub type Fields = BTreeMap<String, String>;

/// What one runtime made of one bundle.
#[derive(Debug)]
pub struct Report {
    /// "ran", "ended with CODE", or "refused: ..."
    pub outcome: String,
    /// What the probe found; nothing where the bundle was refused.
    pub fields: Option<Fields>,
}

/// All that came back from the machine.
pub struct Results {
    files: BTreeMap<String, Vec<u8>>,
    /// the namespaces of the driver, and those that bundles join: link to word
    namespaces: BTreeMap<String, &'static str>,
    keyring: String,
}

impl Results {
    pub fn parse(files: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let text = |name: &str| -> Result<String> {
            let bytes = files.get(name).with_context(|| format!("the machine sent no {name}"))?;
            Ok(String::from_utf8_lossy(bytes).into_owned())
        };
        let host: Fields = serde_json::from_str(&text("host")?).context("reading the host's own report")?;
        let mut namespaces = BTreeMap::new();
        for line in text("given")?.lines() {
            let (kind, inode) = line.split_once(' ').context("a namespace without a number")?;
            namespaces.insert(format!("{kind}:[{inode}]"), "joined");
        }
        for (field, link) in host.iter().filter(|(field, _)| field.starts_with("namespace.")) {
            if namespaces.insert(link.clone(), "host").is_some_and(|other| other != "host") {
                bail!("{field} to join is the host's");
            }
        }
        let keyring = host.get("keyring").cloned().unwrap_or_default();
        Ok(Self { files, namespaces, keyring })
    }

    /// The report of one runtime on one bundle.
    pub fn report(&self, bundle: &str, runtime: &str) -> Result<Report> {
        let text = |kind: &str| {
            let bytes = self.files.get(&format!("{bundle}.{runtime}.{kind}"))?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        let code: i32 = text("code").with_context(|| format!("{runtime} left no exit code"))?.trim().parse()?;
        let out = text("out").unwrap_or_default();
        let json = out.find('{').map_or("", |start| &out[start..]);
        let mut reader = serde_json::Deserializer::from_str(json).into_iter::<Fields>();
        let said = text("err").unwrap_or_default();
        // What a failed poststart hook ended may have spoken before, or not.
        let failed =
            code != 0 && said.lines().any(|line| line.starts_with("error: ") || line.contains(" level=error "));
        let raw = match reader.next() {
            Some(Ok(raw)) if !failed => raw,
            _ => {
                let why = if failed { said } else { said + &out };
                return Ok(Report { outcome: outcome(code, &self.neutral(&why, bundle)), fields: None });
            }
        };
        let mut fields = Fields::new();
        for (field, value) in raw {
            self.take(&mut fields, &field, &self.neutral(&value, bundle))?;
        }
        // What was said beside the report: a warning.
        fields.insert("said".into(), self.neutral(text("err").unwrap_or_default().trim(), bundle));
        fields.insert("image.changed".into(), text("changed").unwrap_or_default().trim().replace('\t', " "));
        fields.insert("host.mounts.left".into(), self.neutral(&text("left").unwrap_or_default(), bundle));
        fields.insert("host.null".into(), text("null").unwrap_or_default().trim().to_owned());
        let markers = format!("{bundle}.{runtime}.marker.");
        for (name, bytes) in self.files.range(markers.clone()..).take_while(|(name, _)| name.starts_with(&markers)) {
            self.marker(&mut fields, &name[markers.len()..], &String::from_utf8_lossy(bytes), bundle)?;
        }
        let outcome = if code == 0 { "ran".to_owned() } else { format!("ran, ended with {code}") };
        Ok(Report { outcome, fields: Some(fields) })
    }

    fn neutral(&self, text: &str, bundle: &str) -> String {
        text.replace(&format!("{WORK}/run/{bundle}"), "BUNDLE").replace(&format!("d-{bundle}"), "ID")
    }

    fn take(&self, fields: &mut Fields, field: &str, value: &str) -> Result<()> {
        let mut put = |field: String, value: &str| fields.insert(field, value.trim().to_owned());
        match field {
            "mountinfo" => return mounts(fields, value),
            "environment" => {
                for line in value.lines() {
                    let (name, value) = line.split_once('=').unwrap_or((line, "(no equals sign)"));
                    let known = fields.entry(format!("environment.{name}")).or_default();
                    let between = if known.is_empty() { "=" } else { " =" };
                    known.push_str(between);
                    known.push_str(value);
                }
                return Ok(());
            }
            "keyring" => drop(put(field.into(), if value == self.keyring { "host" } else { "new" })),
            "process.pid" | "process.parent" => {
                drop(put(field.into(), if matches!(value, "0" | "1") { value } else { "some" }))
            }
            // Version 1 hierarchies, where the host has any, say nothing of interest.
            "cgroup" => drop(put(field.into(), value.lines().last().unwrap_or_default())),
            // Links by number are udev's; in a /dev that is the host's they come when a driver is loaded.
            _ if field.starts_with("device./dev/char/") => {}
            _ if field.starts_with("namespace.") => drop(put(field.into(), self.namespace(value))),
            _ => drop(put(field.into(), value)),
        }
        Ok(())
    }

    fn namespace<'a>(&self, link: &'a str) -> &'a str {
        match self.namespaces.get(link) {
            Some(known) => known,
            None if link.contains(":[") => "new",
            None => link,
        }
    }

    /// What a hook left: the state it got, and where it ran.
    fn marker(&self, fields: &mut Fields, name: &str, text: &str, bundle: &str) -> Result<()> {
        if name == "order" {
            // Whether poststart is before or after startContainer is a race in some of them.
            let order: Vec<&str> = text.split_whitespace().filter(|kind| *kind != "poststart").collect();
            fields.insert("hook.order".into(), order.join(" "));
            return Ok(());
        }
        let raw: Fields = serde_json::from_str(text).with_context(|| format!("reading the marker of {name}"))?;
        for (field, value) in raw {
            let mut value = self.neutral(&value, bundle);
            if field.starts_with("descriptor.") {
                // Pipes and sockets have a number of their own each time.
                value = value.split('[').next().unwrap_or_default().to_owned();
            }
            match field.as_str() {
                "state" => {
                    let state: Value = serde_json::from_str(&value).unwrap_or(Value::String(value));
                    for (key, value) in state.as_object().into_iter().flatten() {
                        let value = match key.as_str() {
                            "id" if value.as_str() == Some(bundle) => Value::from("ID"),
                            "pid" => {
                                Value::from(if value.as_u64().is_some_and(|pid| pid > 1) { "some" } else { "none" })
                            }
                            _ => value.clone(),
                        };
                        fields.insert(format!("hook.{name}.state.{key}"), value.to_string());
                    }
                }
                // Links by number are udev's; in a /dev that is the host's they come when a driver is loaded.
                _ if field.starts_with("device./dev/char/") => {}
                _ if field.starts_with("namespace.") => {
                    fields.insert(format!("hook.{name}.{field}"), self.namespace(&value).to_owned());
                }
                _ => drop(fields.insert(format!("hook.{name}.{field}"), value.trim().to_owned())),
            }
        }
        Ok(())
    }
}

/// A bundle without a report: refused, or a program that ended before it could speak.
fn outcome(code: i32, said: &str) -> String {
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    match code {
        // crun's own failures are 1 or 255.
        129..255 => format!("ended with {code}"),
        124 => "hung".into(),
        _ => format!("refused: {last}"),
    }
}

/// What the host's kernel numbers the files of a tmpfs by (tmpfs(5)), and what its one hierarchy of control groups is mounted with, which
/// the others change for all when they mount it without a namespace (cgroups(7)).
const OF_THE_HOST: [&str; 4] = ["inode32", "inode64", "nsdelegate", "memory_recursiveprot"];

/// proc_pid_mountinfo(5), a few fields for each mount.
fn mounts(fields: &mut Fields, text: &str) -> Result<()> {
    if !text.contains(" - ") {
        fields.insert("mounts".into(), text.into()); // no /proc to read them in
        return Ok(());
    }
    for line in text.lines() {
        let (own, file_system) = line.split_once(" - ").with_context(|| format!("no mount: {line}"))?;
        let own: Vec<&str> = own.split(' ').collect();
        let [kind, source, parameters] = file_system.split(' ').collect::<Vec<_>>()[..] else {
            bail!("no mount: {line}")
        };
        let [_, _, _, root, point, options, propagation @ ..] = own.as_slice() else { bail!("no mount: {line}") };
        let mut name = format!("mount.{point}");
        while fields.contains_key(&name) {
            name.push('+'); // another one on top
        }
        let sorted = |text: &str| {
            let mut words: Vec<&str> = text.split(',').filter(|word| !OF_THE_HOST.contains(word)).collect();
            words.sort_unstable();
            words.join(",")
        };
        let kinds: Vec<&str> = propagation.iter().map(|word| word.split(':').next().unwrap_or_default()).collect();
        fields.insert(format!("{name} options"), sorted(options));
        fields.insert(format!("{name} propagation"), if kinds.is_empty() { "private".into() } else { kinds.join(",") });
        fields.insert(format!("{name} source"), source.into());
        // Where the bundle's own files lie on their file system depends on the machine.
        let root = root.find("BUNDLE").map_or(*root, |start| &root[start..]);
        fields.insert(format!("{name} root"), root.into());
        fields.insert(format!("{name} parameters"), sorted(parameters));
        fields.insert(name, kind.into());
    }
    Ok(())
}
