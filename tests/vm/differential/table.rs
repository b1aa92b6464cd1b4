//! The table of known differences, and what it says of those found.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Difference, RUNTIMES};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    difference: Vec<Row>,
}

/// One known difference. In names and values `*` stands for any text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    bundles: Vec<String>,
    fields: Vec<String>,
    ours: String,
    /// Left out where it is as ours.
    crun: Option<String>,
    runc: Option<String>,
    /// Where the row holds, if not everywhere: nspawn, qemu, trixie, bookworm.
    #[serde(default)]
    only: Vec<String>,
    /// What makes ours right.
    because: String,
}

/// All rows.
pub struct Table(Vec<Row>);

/// What is left to say after the known differences.
#[derive(Debug, Default)]
pub struct Judged {
    /// Differences that stand in no row.
    pub unlisted: Vec<Difference>,
    /// Rows, and parts of rows, that describe no difference.
    pub stale: Vec<String>,
    /// How many rows describe one.
    pub used: usize,
}

impl Table {
    pub fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text).context("reading differences.toml")?;
        for row in &file.difference {
            ensure!(row.crun.is_some() || row.runc.is_some(), "a row of {:?} names no difference", row.fields);
            ensure!(row.because.len() > 20, "a row of {:?} gives no reason", row.fields);
        }
        Ok(Self(file.difference))
    }

    /// Finds the row of each difference. Each bundle and each field of a row must be there in one at least.
    pub fn judge(&self, differences: &[Difference], place: &[String]) -> Judged {
        let rows: Vec<&Row> = self.0.iter().filter(|row| row.only.iter().all(|word| place.contains(word))).collect();
        let mut used: Vec<[Vec<bool>; 2]> =
            rows.iter().map(|row| [vec![false; row.bundles.len()], vec![false; row.fields.len()]]).collect();
        let mut judged = Judged::default();
        for difference in differences {
            let mut listed = false;
            for (row, used) in rows.iter().zip(&mut used) {
                let bundle = row.bundles.iter().position(|name| like(name, &difference.bundle));
                let field = row.fields.iter().position(|name| like(name, &difference.field));
                if let (Some(bundle), Some(field), true) = (bundle, field, row.says(difference)) {
                    (used[0][bundle], used[1][field], listed) = (true, true, true);
                    break;
                }
            }
            if !listed {
                judged.unlisted.push(difference.clone());
            }
        }
        for (row, used) in rows.iter().zip(&used) {
            let unused = |names: &[String], used: &[bool]| -> Vec<String> {
                names.iter().zip(used).filter(|(_, used)| !**used).map(|(name, _)| name.clone()).collect()
            };
            let names = [unused(&row.bundles, &used[0]), unused(&row.fields, &used[1])].concat();
            if names.is_empty() {
                judged.used += 1;
            } else {
                judged.stale.push(format!(
                    "{:?} {:?}, ours {:?}: {}",
                    row.bundles,
                    row.fields,
                    row.ours,
                    names.join(", ")
                ));
            }
        }
        judged
    }
}

impl Row {
    fn says(&self, difference: &Difference) -> bool {
        let wanted = [Some(&self.ours), self.crun.as_ref(), self.runc.as_ref()];
        let own = difference.values[0].as_ref();
        difference.values.iter().zip(wanted).all(|(found, wanted)| match (found, wanted) {
            (Some(found), Some(wanted)) => like(wanted, found),
            (Some(found), None) => Some(found) == own,
            (None, _) => true,
        })
    }
}

impl Judged {
    pub fn is_clean(&self) -> bool {
        self.unlisted.is_empty() && self.stale.is_empty()
    }
}

impl fmt::Display for Judged {
    /// Equal differences of several bundles together.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut grouped: BTreeMap<(&str, &[Option<String>; 3]), Vec<&str>> = BTreeMap::new();
        for one in &self.unlisted {
            grouped.entry((&one.field, &one.values)).or_default().push(&one.bundle);
        }
        writeln!(f, "{} differences stand in no row of differences.toml:", self.unlisted.len())?;
        for ((field, values), bundles) in grouped {
            writeln!(f, "\n{field} in {} bundles: {}", bundles.len(), bundles.join(" "))?;
            for (runtime, value) in RUNTIMES.iter().zip(values) {
                writeln!(f, "  {runtime:6} {}", value.as_deref().unwrap_or("(refused)"))?;
            }
        }
        writeln!(f, "\n{} rows say what is not so any more:", self.stale.len())?;
        self.stale.iter().try_for_each(|row| writeln!(f, "  {row}"))
    }
}

/// Compares with a pattern in which `*` stands for any text.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| like(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"
        [[difference]]
        bundles = ["plain", "env-*"]
        fields = ["environment.HOME"]
        ours = "-"
        runc = "=/root"
        because = "the environment is that of config.json"
    "#;

    fn difference(bundle: &str, field: &str, values: [&str; 3]) -> Difference {
        let values = values.map(|value| Some(value.to_owned()));
        Difference { bundle: bundle.into(), field: field.into(), values }
    }

    #[test]
    fn a_difference_is_known_only_with_its_values_and_each_part_of_a_row_must_be_needed() {
        let table = Table::parse(TABLE).unwrap();
        let known = ["plain", "env-none"].map(|name| difference(name, "environment.HOME", ["-", "-", "=/root"]));
        assert!(table.judge(&known, &[]).is_clean());
        assert_eq!(table.judge(&known[..1], &[]).stale.len(), 1);
        for (field, values) in [
            ("environment.PATH", ["-", "-", "=/root"]),
            ("environment.HOME", ["=/", "-", "=/root"]),
            ("environment.HOME", ["-", "=/root", "=/root"]),
            ("environment.HOME", ["-", "-", "=/"]),
        ] {
            let mut all = known.to_vec();
            all.push(difference("plain", field, values));
            assert_eq!(table.judge(&all, &[]).unlisted.len(), 1, "{field} {values:?}");
        }
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, matches) in
            [("*", "", true), ("a*c", "abc", true), ("a*", "ba", false), ("a*b*c", "a-c", false), ("ab", "abc", false)]
        {
            assert_eq!(like(pattern, text), matches, "{pattern} {text}");
        }
    }
}
