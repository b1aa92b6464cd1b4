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
mod tests {
    use super::*;

    fn conf(texts: &[&str]) -> RegistriesConf {
        let mut conf = RegistriesConf::default();
        texts.iter().for_each(|text| conf.extend(text).expect(text));
        conf
    }

    fn places(conf: &RegistriesConf, image: &str) -> String {
        let places = conf.places(&image.parse().expect(image)).expect(image);
        let Some(places) = places else { return "blocked".into() };
        let shown = places.iter().map(|at| format!("{}{}", at.reference, if at.insecure { "!" } else { "" }));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_longest_prefix_decides_where_an_image_is() {
        let conf = conf(&[r#"
            [[registry]]
            prefix = "example.com/foo"
            location = "internal.example.net/bar"
            [[registry.mirror]]
            location = "mirror-0.local/for-foo"
            [[registry.mirror]]
            location = "mirror-1.local:5000/foo/"
            insecure = true
            [[registry]]
            location = "registry.com"
            [[registry.mirror]]
            location = "mirror.registry.com"
            [[registry]]
            prefix = "example.com/foo/blocked"
            blocked = true
            [[registry]]
            prefix = "example.com/foo/image:2"
            location = "two.net/image:3"
            [[registry]]
            prefix = "*.wild.org"
            insecure = true
            [[registry]]
            prefix = "*.deep.wild.org"
            location = "other.net/wild"
            [[registry]]
            location = "port.com:5000"
            insecure = true
        "#]);
        let digest = format!("@sha256:{}", "a".repeat(64));
        for (image, expected) in [
            (
                "example.com/foo/image:1",
                "mirror-0.local/for-foo/image:1 mirror-1.local:5000/foo/image:1! internal.example.net/bar/image:1",
            ),
            ("example.com/foo/image:2", "two.net/image:3"),
            ("example.com/foo/blocked/x:1", "blocked"),
            (
                "example.com/foo/blockedly:1",
                "mirror-0.local/for-foo/blockedly:1 mirror-1.local:5000/foo/blockedly:1! internal.example.net/bar/blockedly:1",
            ),
            ("example.com/foobar:1", "example.com/foobar:1"),
            ("registry.com/image:1", "mirror.registry.com/image:1 registry.com/image:1"),
            ("registry.com:5000/image:1", "registry.com:5000/image:1"),
            ("port.com:5000/x:1", "port.com:5000/x:1!"),
            ("port.com/x:1", "port.com/x:1"),
            ("a.b.wild.org/x:1", "a.b.wild.org/x:1!"),
            ("wild.org/x:1", "wild.org/x:1"),
            ("notwild.org/x:1", "notwild.org/x:1"),
            ("a.wild.org.evil.com/x:1", "a.wild.org.evil.com/x:1"),
            ("evil.com/a.wild.org/x:1", "evil.com/a.wild.org/x:1"),
            ("x.deep.wild.org/y:1", "other.net/wild/y:1"),
            (
                &format!("registry.com/image{digest}"),
                &format!("mirror.registry.com/image{digest} registry.com/image{digest}"),
            ),
        ] {
            assert_eq!(places(&conf, image), expected, "{image}");
        }
    }

    #[test]
    fn a_mirror_is_asked_for_what_it_is_for() {
        let digest = format!("r.com/x@sha256:{}", "a".repeat(64));
        let hosts = |conf: &RegistriesConf, image: &str| {
            let places = conf.places(&image.parse().expect(image)).expect(image).expect("not blocked");
            places.iter().map(|place| place.reference.registry().to_owned()).collect::<Vec<_>>()
        };
        let all = conf(&[
            "[[registry]]\nlocation = 'r.com'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm.com'\n",
        ]);
        assert_eq!(hosts(&all, "r.com/x:1"), ["r.com"]);
        assert_eq!(hosts(&all, &digest), ["m.com", "r.com"]);
        let each = conf(&["[[registry]]\nlocation = 'r.com'\n\
            [[registry.mirror]]\nlocation = 'd.com'\npull-from-mirror = 'digest-only'\n\
            [[registry.mirror]]\nlocation = 't.com'\npull-from-mirror = 'tag-only'\n\
            [[registry.mirror]]\nlocation = 'a.com'\npull-from-mirror = 'all'\n"]);
        assert_eq!(hosts(&each, "r.com/x:1"), ["t.com", "a.com", "r.com"]);
        assert_eq!(hosts(&each, &digest), ["d.com", "a.com", "r.com"]);
    }

    #[test]
    fn later_files_replace_what_they_name() {
        let conf = conf(&[
            "unqualified-search-registries = ['a.io', 'b.io']\nshort-name-mode = 'enforcing'\n[[registry]]\nlocation = 'r.com'\nblocked = true\n[aliases]\n'x' = 'a.io/x'\n'y' = 'a.io/y'\n",
            "credential-helpers = ['secretservice']\n[[registry]]\nprefix = 'r.com'\nlocation = 'other.com'\n[aliases]\n'x' = ''\n'team/z' = 'z.io/z'\n",
        ]);
        assert_eq!(places(&conf, "r.com/i:1"), "other.com/i:1");
        assert_eq!(conf.mode(), Mode::Enforcing);
        assert_eq!(conf.credential_helpers(), ["secretservice"]);
        assert_eq!(conf.long_names("x:1"), ["a.io/x:1", "b.io/x:1"]);
        assert_eq!(conf.long_names("y:1"), ["a.io/y:1"]);
        assert_eq!(conf.long_names("team/z@sha256:00"), ["z.io/z@sha256:00"]);
        assert_eq!(RegistriesConf::default().credential_helpers(), ["containers-auth.json"]);
        assert!(RegistriesConf::default().long_names("x").is_empty());
    }

    #[test]
    fn the_first_version_is_read_too() {
        let conf = conf(&[
            "[registries.search]\nregistries = ['one.com', 'two.com']\n[registries.insecure]\nregistries = ['three.com']\n[registries.block]\nregistries = ['bad.com']\n",
        ]);
        assert_eq!(conf.long_names("x"), ["one.com/x", "two.com/x"]);
        assert_eq!(places(&conf, "three.com/x:1"), "three.com/x:1!");
        assert_eq!(places(&conf, "bad.com/x:1"), "blocked");
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (text, why) in [
            ("[[registry]]\nblocked = true\n", "neither prefix nor location"),
            ("[[registry]]\nprefix = 'a.*.com'\n", "a.*.com"),
            ("[[registry]]\nprefix = '*.a.com/x'\n", "*.a.com/x"),
            ("[[registry]]\nlocation = 'a.com'\n[[registry.mirror]]\ninsecure = true\n", "no location"),
            (
                "[[registry]]\nlocation = 'a.com'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm.com'\npull-from-mirror = 'tag-only'\n",
                "both",
            ),
            (
                "[[registry]]\nlocation = 'a.com'\n[[registry.mirror]]\nlocation = 'm.com'\npull-from-mirror = 'some'\n",
                "some",
            ),
            ("short-name-mode = 'maybe'\n", "maybe"),
            ("[aliases]\n'a.com/x' = 'b.com/x'\n", "a.com/x"),
            ("[aliases]\n'x:1' = 'b.com/x'\n", "x:1"),
            ("[aliases]\n'x' = 'y'\n", "does not name its registry"),
            ("[[registry]]\nblocked = 'yes'\n", "line 2"),
            ("unqualified-search-registries = []\n[registries.search]\nregistries = []\n", "mixes"),
        ] {
            let error = format!("{:#}", RegistriesConf::default().extend(text).expect_err(text));
            assert!(error.contains(why), "{text}: {error}");
        }
        let conf = conf(&["[[registry]]\nprefix = 'a.com'\nlocation = 'nohost'\n"]);
        let error = format!("{:#}", conf.places(&"a.com/x:1".parse().expect("a reference")).expect_err("no host"));
        assert!(error.contains("nohost/x:1"), "{error}");
    }
}
