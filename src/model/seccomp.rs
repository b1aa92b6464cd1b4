//! The filter of system calls (`linux.seccomp`) of a container: the default profile, or one that its image ships.
//!
//! A profile is written as for podman and docker
//! ([seccomp.json](https://github.com/containers/common/blob/main/docs/seccomp.json.5.md)): rules that hold for some capabilities and
//! architectures only. [`Profile::resolve`] makes of it what the
//! [specification](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp) knows, where each rule holds.

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::rules;

/// What containers get that ask for nothing else. By effect that of containers-common 0.50; a test compares.
const DEFAULT: &str = include_str!("seccomp/default.json");

/// GOARCH, by which images and profiles name an architecture, and libseccomp's name of it. Of others the machine's own alone is let in.
const ARCHITECTURES: [(&str, &str); 7] = [
    ("amd64", "SCMP_ARCH_X86_64"),
    ("arm64", "SCMP_ARCH_AARCH64"),
    ("mips64", "SCMP_ARCH_MIPS64"),
    ("mips64n32", "SCMP_ARCH_MIPS64N32"),
    ("mips64le", "SCMP_ARCH_MIPSEL64"),
    ("mips64len32", "SCMP_ARCH_MIPSEL64N32"),
    ("s390x", "SCMP_ARCH_S390X"),
];

/// Linux that every start needs anyhow (mount_setattr(2)): rules for an older one hold always.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// What a container's manifest chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The default profile.
    Default,
    /// No filter.
    Unconfined,
    /// The profile in this file of `/exports`.
    File(String),
}

impl Choice {
    /// Reads `container.seccomp`.
    pub fn of(text: Option<&str>) -> Choice {
        match text {
            None | Some("default") => Choice::Default,
            Some("unconfined") => Choice::Unconfined,
            Some(file) => Choice::File(file.to_owned()),
        }
    }
}

/// A profile as podman and docker read it; `linux.seccomp` of the specification is one without conditions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    flags: Option<Vec<String>>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<Json>>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

impl Profile {
    /// Reads a profile's text. The error names the line, or the key that is wrong.
    pub fn parse(text: &str) -> Result<Profile> {
        Ok(serde_json::from_str(text)?)
    }

    /// The filter for an architecture (GOARCH) and the capabilities that the container can ever hold (`CAP_...`).
    pub fn resolve(&self, architecture: &str, capabilities: &[String]) -> Result<LinuxSeccomp> {
        // A 32 bit image runs on a 64 bit kernel.
        let architecture = match architecture {
            "386" => "amd64",
            "arm" => "arm64",
            other => other,
        };
        let errno = |name: &Option<String>, number: Option<u32>| {
            ensure!(name.is_none() || number.is_some(), "an errno by its name alone is not supported: give errnoRet");
            Ok(())
        };
        errno(&self.default_errno, self.default_errno_ret)?;
        let mut syscalls = Vec::new();
        for rule in &self.syscalls {
            errno(&rule.errno, rule.errno_ret)?;
            if rule.holds(architecture, capabilities)? {
                let names: Vec<&String> = rule.names.iter().chain(&rule.name).collect();
                let args = rule.args.as_ref().filter(|args| !args.is_empty()).cloned();
                let mut call = json!({"names": names, "action": rule.action});
                set(&mut call, "errnoRet", rule.errno_ret);
                set(&mut call, "args", args);
                syscalls.push(call);
            }
        }
        let mut filter = json!({"defaultAction": self.default_action, "syscalls": syscalls});
        set(&mut filter, "defaultErrnoRet", self.default_errno_ret);
        set(&mut filter, "architectures", self.architectures(architecture)?);
        set(&mut filter, "flags", self.flags.clone());
        Ok(serde_json::from_value(filter)?)
    }

    fn architectures(&self, architecture: &str) -> Result<Option<Vec<String>>> {
        ensure!(self.architectures.is_none() || self.arch_map.is_empty(), "both architectures and archMap are given");
        let own = ARCHITECTURES.iter().find(|(name, _)| *name == architecture).map(|(_, own)| *own);
        let mapped = self.arch_map.iter().find(|map| Some(map.architecture.as_str()) == own);
        let mapped = mapped.map(|map| [&map.architecture].into_iter().chain(&map.sub_architectures).cloned().collect());
        Ok(self.architectures.clone().or(mapped))
    }
}

impl Rule {
    fn holds(&self, architecture: &str, capabilities: &[String]) -> Result<bool> {
        let (includes, excludes) = (&self.includes, &self.excludes);
        let included = (includes.arches.is_empty() || includes.arches.iter().any(|one| one == architecture))
            && includes.caps.iter().all(|one| capabilities.contains(one));
        let excluded = excludes.arches.iter().any(|one| one == architecture)
            || excludes.caps.iter().any(|one| capabilities.contains(one))
            || excludes.old_kernel()?;
        // Reads both in any case: a condition that is not understood is refused whatever the others say.
        Ok((includes.min_kernel.is_none() || includes.old_kernel()?) && included && !excluded)
    }
}

impl Condition {
    /// Whether it names a kernel that every start has; one that some have is refused: a deployment outlives a kernel.
    fn old_kernel(&self) -> Result<bool> {
        let Some(text) = &self.min_kernel else { return Ok(false) };
        let (major, minor) = text.split_once('.').with_context(|| format!("minKernel {text:?} is no version"))?;
        let number = |part: &str| part.parse::<u32>().with_context(|| format!("minKernel {text:?} is no version"));
        if (number(major)?, number(minor)?) > OLDEST_KERNEL {
            let (major, minor) = OLDEST_KERNEL;
            bail!("minKernel {text} is not supported, only up to {major}.{minor}: the next kernel may be another one");
        }
        Ok(true)
    }
}

fn set(object: &mut Json, key: &str, value: Option<impl Into<Json>>) {
    if let Some(value) = value {
        object[key] = value.into();
    }
}

/// The default filter.
pub fn default(architecture: &str, capabilities: &[String]) -> Result<LinuxSeccomp> {
    Profile::parse(DEFAULT)
        .and_then(|profile| profile.resolve(architecture, capabilities))
        .context("the default profile")
}

/// What a finished configuration asks by its filter, or by having none.
pub fn request(spec: &Spec) -> Result<Option<String>> {
    let Some(own) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else {
        return Ok(Some(rules::NO_FILTER.ask(&[])));
    };
    let held = bounding(spec);
    // The image's architecture is not written in its configuration.
    let profile = Profile::parse(DEFAULT)?;
    for architecture in ARCHITECTURES.iter().map(|(name, _)| *name).chain(["ppc64le", "riscv64"]) {
        if *own == profile.resolve(architecture, &held)? {
            return Ok(None);
        }
    }
    // By its content: an update with another one asks again.
    let text = serde_json::to_vec(own).context("writing linux.seccomp")?;
    let hash: String = Sha256::digest(&text)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(rules::OWN_FILTER.ask(&[&hash])))
}

/// The capabilities of the bounding set, as `CAP_...`.
fn bounding(spec: &Spec) -> Vec<String> {
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let names = sets.and_then(|sets| sets.bounding().as_ref()).into_iter().flatten();
    names.map(|one| format!("CAP_{}", one.to_string().trim_start_matches("CAP_"))).collect()
}

#[cfg(test)]
mod tests;
