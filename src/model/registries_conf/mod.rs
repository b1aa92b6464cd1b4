//! Where images really are: mirrors, other locations, blocked and insecure registries, short names, as
//! [containers-registries.conf(5)](https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md) has them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::distribution::Reference;
use serde::Deserialize;

use super::reference::parse_registry;

/// All files, each put over those before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegistriesConf {
    search: Vec<String>,
    helpers: Option<Vec<String>>,
    mode: Mode,
    tables: Vec<Table>,
    aliases: BTreeMap<String, String>,
}

/// What a short name that is no alias comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// With several registries a person chooses; without a person it is refused.
    Enforcing,
    /// With several registries a person chooses; without a person all are tried.
    #[default]
    Permissive,
    /// All are tried.
    Disabled,
}

/// One place that an image may be had from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// as it is called there
    pub reference: Reference,
    /// It may do without TLS, or show a certificate that nobody vouches for.
    pub insecure: bool,
}

/// A file as it is written.
#[derive(Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[derive(Default)]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    credential_helpers: Option<Vec<String>>,
    short_name_mode: Option<String>,
    registry: Vec<Table>,
    aliases: BTreeMap<String, String>,
    registries: Option<First>,
}

/// A namespace: what `prefix` says of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Mirror>,
    mirror_by_digest_only: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: Pulls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pulls {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

/// The deprecated first version of the format.
#[derive(Default, Deserialize)]
#[serde(default)]
struct First {
    search: List,
    insecure: List,
    block: List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Vec<String>,
}

impl RegistriesConf {
    /// Puts a file over what is known.
    pub fn extend(&mut self, text: &str) -> Result<()> {
        let file: File = toml::from_str(text)?;
        let second = file.unqualified_search_registries.is_some() || !file.registry.is_empty();
        if let Some(first) = file.registries {
            ensure!(!second, "it mixes the first and the second version of the format");
            self.search = first.search.registries;
            for location in first.insecure.registries {
                self.put(Table { location, insecure: true, ..Table::default() })?;
            }
            for location in first.block.registries {
                self.put(Table { location, blocked: true, ..Table::default() })?;
            }
        }
        for table in file.registry {
            self.put(table)?;
        }
        if let Some(search) = file.unqualified_search_registries {
            self.search = search;
        }
        self.helpers = file.credential_helpers.or(self.helpers.take());
        match file.short_name_mode.as_deref().unwrap_or_default() {
            "" => {}
            "enforcing" => self.mode = Mode::Enforcing,
            "permissive" => self.mode = Mode::Permissive,
            "disabled" => self.mode = Mode::Disabled,
            other => bail!("short-name-mode is {other:?}: expected enforcing, permissive or disabled"),
        }
        for (name, target) in file.aliases {
            ensure!(is_short(&name) && !name.contains([':', '@']), "the alias {name:?} is no short name without a tag");
            if target.is_empty() {
                self.aliases.remove(&name);
            } else {
                let named = parse_registry(&target).map_err(anyhow::Error::msg);
                named.with_context(|| format!("the alias {name:?} stands for {target:?}"))?;
                self.aliases.insert(name, target);
            }
        }
        Ok(())
    }

    /// A table takes the place of the one with its prefix.
    fn put(&mut self, mut table: Table) -> Result<()> {
        for text in [&mut table.prefix, &mut table.location] {
            text.truncate(text.trim_end_matches('/').len());
        }
        if table.prefix.is_empty() {
            ensure!(!table.location.is_empty(), "a [[registry]] has neither prefix nor location");
            table.prefix = table.location.clone();
        }
        let prefix = table.prefix.clone();
        let wild = prefix.strip_prefix("*.");
        ensure!(
            !wild.unwrap_or(&prefix).contains('*') && wild.is_none_or(|host| !host.contains(['/', ':'])),
            "the prefix {prefix:?} may have no '*' but in \"*.HOST\""
        );
        // a wildcard without a location leaves names as they are
        if wild.is_none() && table.location.is_empty() {
            table.location = prefix.clone();
        }
        ensure!(!table.location.contains('*'), "the location {:?} of {prefix:?} may have no '*'", table.location);
        for mirror in &mut table.mirror {
            mirror.location.truncate(mirror.location.trim_end_matches('/').len());
            ensure!(!mirror.location.is_empty(), "a mirror of {prefix:?} has no location");
            ensure!(
                !table.mirror_by_digest_only || mirror.pull_from_mirror == Pulls::All,
                "{prefix:?} has both mirror-by-digest-only and pull-from-mirror"
            );
        }
        match self.tables.iter_mut().find(|known| known.prefix == prefix) {
            Some(known) => *known = table,
            None => self.tables.push(table),
        }
        Ok(())
    }

    /// The places that an image may be had from, in their order; none where it is blocked.
    pub fn places(&self, reference: &Reference) -> Result<Option<Vec<Place>>> {
        let name = reference.whole();
        let matching = self.tables.iter().filter_map(|table| Some((matched(&name, &table.prefix)?, table)));
        let Some((length, table)) = matching.max_by_key(|(length, table)| (*length, table.prefix.len())) else {
            return Ok(Some(vec![Place { reference: reference.clone(), insecure: false }]));
        };
        if table.blocked {
            return Ok(None);
        }
        let by_digest = reference.digest().is_some();
        let serves = |mirror: &&Mirror| match mirror.pull_from_mirror {
            Pulls::All => by_digest || !table.mirror_by_digest_only,
            Pulls::DigestOnly => by_digest,
            Pulls::TagOnly => !by_digest,
        };
        let mirrors = table.mirror.iter().filter(serves).map(|mirror| (mirror.location.as_str(), mirror.insecure));
        let own = (table.location.as_str(), table.insecure);
        let rewritten = mirrors.chain([own]).map(|(location, insecure)| {
            if location.is_empty() {
                return Ok(Place { reference: reference.clone(), insecure });
            }
            let moved = format!("{location}{}", &name[length..]);
            let reference = parse_registry(&moved).map_err(anyhow::Error::msg);
            Ok(Place { reference: reference.with_context(|| format!("{name} is at {moved:?}"))?, insecure })
        });
        rewritten.collect::<Result<_>>().map(Some)
    }

    /// What a short name may stand for: its alias, or what each of the registries that are searched would call it.
    pub fn long_names(&self, short: &str) -> Vec<String> {
        let (name, rest) = short.split_at(short.find([':', '@']).unwrap_or(short.len()));
        match self.aliases.get(name) {
            Some(target) => vec![format!("{target}{rest}")],
            None => self.search.iter().map(|registry| format!("{registry}/{short}")).collect(),
        }
    }

    /// What happens where there are several.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Where logins are looked for.
    pub fn credential_helpers(&self) -> Vec<String> {
        let files = || vec!["containers-auth.json".to_owned()];
        self.helpers.clone().filter(|helpers| !helpers.is_empty()).unwrap_or_else(files)
    }
}

/// Whether an image's name leaves out its registry.
pub fn is_short(name: &str) -> bool {
    let first = name.split_once('/').map(|(first, _)| first);
    first.is_none_or(|first| first != "localhost" && !first.contains(['.', ':']))
}

/// How much of a name a prefix covers.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = &name[..name.find(['/', ':'])?];
        return (host.len() > domain.len() && host.ends_with(domain)).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    // behind a host a ':' begins a port, and that is another registry
    let ends: &[char] = if prefix.contains('/') { &['/', ':', '@'] } else { &['/'] };
    (rest.is_empty() || rest.starts_with(ends)).then_some(prefix.len())
}

#[cfg(test)]
mod tests;
