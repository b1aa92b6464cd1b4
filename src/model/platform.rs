//! Which image of an index fits a machine, by the
//! [image specification's platforms](https://github.com/opencontainers/image-spec/blob/main/image-index.md).

use anyhow::{Result, bail};
use oci_spec::image::{Descriptor, ImageIndex};

/// A machine in the specification's words (Go's).
#[derive(Clone, Copy, Debug)]
pub struct Platform<'a> {
    /// such as amd64
    pub architecture: &'a str,
    /// The variants that its processor can run, the best first. An image without one runs on all.
    pub variants: &'a [&'a str],
}

impl Platform<'_> {
    /// The image for this machine: of several, the one for the best variant, then the first.
    pub fn choose<'i>(&self, index: &'i ImageIndex) -> Result<&'i Descriptor> {
        // a single entry needs no platform: an index may simply wrap one image
        if let [only] = index.manifests().as_slice()
            && only.platform().is_none()
        {
            return Ok(only);
        }
        let fitting = index.manifests().iter().filter_map(|entry| Some((self.rank(entry)?, entry)));
        if let Some((_, entry)) = fitting.min_by_key(|(rank, _)| *rank) {
            return Ok(entry);
        }
        let mut others: Vec<String> = index.manifests().iter().filter_map(shown).collect();
        others.sort();
        others.dedup();
        match others.as_slice() {
            [] => bail!("no image for {}: the index names no platform", self.architecture),
            others => bail!("no image for {}: it has {}", self.architecture, others.join(", ")),
        }
    }

    fn rank(&self, entry: &Descriptor) -> Option<usize> {
        let platform = entry.platform().as_ref()?;
        if platform.os().to_string() != "linux" || platform.architecture().to_string() != self.architecture {
            return None;
        }
        match platform.variant().as_deref().filter(|variant| !variant.is_empty()) {
            Some(variant) => self.variants.iter().position(|known| *known == variant),
            None => Some(self.variants.len()),
        }
    }
}

/// A platform for a message; attestations call theirs unknown.
fn shown(entry: &Descriptor) -> Option<String> {
    let platform = entry.platform().as_ref()?;
    let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
    let variant = platform.variant().as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
    match os.as_str() {
        "unknown" => None,
        "linux" => Some(format!("{architecture}{variant}")),
        _ => Some(format!("{os}/{architecture}{variant}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> ImageIndex {
        let entries = platforms.iter().enumerate().map(|(number, platform)| {
            let mut parts = platform.split('/');
            let mut entry = serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": number,
                "digest": format!("sha256:{}", "a".repeat(64))});
            if !platform.is_empty() {
                entry["platform"] = serde_json::json!({"os": parts.next(), "architecture": parts.next()});
                if let Some(variant) = parts.next() {
                    entry["platform"]["variant"] = variant.into();
                }
            }
            entry
        });
        let entries: Vec<serde_json::Value> = entries.collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": entries})).expect("an index")
    }

    #[test]
    fn the_best_that_the_processor_can_run_is_taken() {
        let v7 = Platform { architecture: "arm", variants: &["v7", "v6", "v5"] };
        let v6 = Platform { architecture: "arm", variants: &["v6", "v5"] };
        let new = Platform { architecture: "amd64", variants: &["v3", "v2", "v1"] };
        let old = Platform { architecture: "amd64", variants: &["v1"] };
        let arm64 = Platform { architecture: "arm64", variants: &["v8"] };
        let arms = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64/v8"];
        let levels = ["linux/amd64/v4", "linux/amd64/v3", "linux/amd64", "windows/amd64", "linux/amd64"];
        for (machine, platforms, chosen) in [
            (v7, &arms[..], Some(1)),
            (v6, &arms, Some(2)),
            (arm64, &arms, Some(3)),
            (arm64, &["linux/arm64", "linux/arm64/v9"], Some(0)),
            (new, &levels, Some(1)),
            (old, &levels, Some(2)),
            (old, &["linux/amd64/v2"], None),
            (old, &[""], Some(0)),
            (old, &["", ""], None),
            (old, &["unknown/unknown", "linux/amd64"], Some(1)),
        ] {
            let index = index(platforms);
            let found = machine.choose(&index).ok().map(|entry| entry.size());
            assert_eq!(found, chosen, "{machine:?} {platforms:?}");
        }
        let error = old.choose(&index(&["linux/arm/v7", "windows/amd64", "unknown/unknown"])).expect_err("none fits");
        assert_eq!(error.to_string(), "no image for amd64: it has arm/v7, windows/amd64");
    }
}
