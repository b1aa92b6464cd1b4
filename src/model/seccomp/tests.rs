use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What podman installs with itself.
const PODMANS: &str = "/usr/share/containers/seccomp.json";

fn caps(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("CAP_{name}")).collect()
}

/// What a rule does, and on which conditions of the arguments.
type Effect = BTreeSet<(String, String)>;

/// Each call's effect by rules that hold: the first without conditions counts alone, as libseccomp reads them.
fn effects<'a>(rules: impl Iterator<Item = &'a Json>) -> BTreeMap<String, Effect> {
    let mut all: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for rule in rules {
        let action = format!("{} {}", rule["action"], rule["errnoRet"]);
        let args = rule["args"].as_array().cloned().unwrap_or_default();
        let conditions: BTreeSet<String> =
            args.iter().map(|arg| format!("{} {} {}", arg["index"], arg["op"], arg["value"])).collect();
        let conditions = conditions.into_iter().collect::<Vec<_>>().join(" and ");
        for name in rule["names"].as_array().unwrap() {
            all.entry(name.as_str().unwrap().to_owned()).or_default().push((action.clone(), conditions.clone()));
        }
    }
    let sum = |rules: Vec<(String, String)>| match rules.iter().find(|(_, conditions)| conditions.is_empty()) {
        Some(plain) => Effect::from([plain.clone()]),
        None => rules.into_iter().collect(),
    };
    all.into_iter().map(|(name, rules)| (name, sum(rules))).collect()
}

/// Read anew from the words of seccomp.json(5), so as not to test the reader by itself.
fn holds(rule: &Json, architecture: &str, held: &[String]) -> bool {
    let list = |pointer: &str| -> Vec<String> {
        let list = rule.pointer(pointer).and_then(Json::as_array).cloned().unwrap_or_default();
        list.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let arches = list("/includes/arches");
    (arches.is_empty() || arches.contains(&architecture.to_owned()))
        && list("/includes/caps").iter().all(|one| held.contains(one))
        && !list("/excludes/arches").contains(&architecture.to_owned())
        && !list("/excludes/caps").iter().any(|one| held.contains(one))
}

#[test]
fn the_default_does_to_each_call_what_podmans_profile_does() {
    let Ok(text) = std::fs::read_to_string(PODMANS) else {
        panic!(
            "this test needs {PODMANS}: apt-get install golang-github-containers-common, dnf install containers-common"
        )
    };
    let theirs: Json = serde_json::from_str(&text).unwrap();
    let every: Vec<String> = theirs["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| {
            let both = [&rule["includes"]["caps"], &rule["excludes"]["caps"]];
            both.into_iter()
                .filter_map(Json::as_array)
                .flatten()
                .map(|one| one.as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(every.len() > 15, "{every:?}");
    let mut sets = vec![vec![], super::super::spec::DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(), every.clone()];
    sets.extend(every.into_iter().map(|one| vec![one]));
    sets.push(caps(&["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]));
    let own: Json = serde_json::from_str(DEFAULT).unwrap();
    let named: BTreeSet<String> = effects(own["syscalls"].as_array().unwrap().iter()).into_keys().collect();
    assert_eq!(named.len(), 438, "the calls that containers-common 0.50 names");
    for architecture in ["amd64", "arm64", "s390x", "ppc64le", "riscv64"] {
        for held in &sets {
            let ours = serde_json::to_value(default(architecture, held).unwrap()).unwrap();
            assert_eq!(ours["defaultAction"], theirs["defaultAction"]);
            assert_eq!(ours["defaultErrnoRet"], theirs["defaultErrnoRet"]);
            let rules = theirs["syscalls"].as_array().unwrap().iter().filter(|rule| holds(rule, architecture, held));
            let expected = effects(rules);
            let found = effects(ours["syscalls"].as_array().unwrap().iter());
            // A later version may name calls that ours leaves at ENOSYS; never the other way round.
            let known = expected.keys().filter(|name| named.contains(*name));
            for name in known.chain(found.keys()) {
                assert_eq!(found.get(name), expected.get(name), "{name} on {architecture} with {held:?}");
            }
            let own = ARCHITECTURES.iter().find(|(name, _)| *name == architecture).map(|(_, own)| *own);
            let map = theirs["archMap"].as_array().unwrap().iter().find(|map| map["architecture"].as_str() == own);
            let map = map
                .map(|map| [&[map["architecture"].clone()], &map["subArchitectures"].as_array().unwrap()[..]].concat());
            assert_eq!(ours["architectures"].as_array(), map.as_ref());
        }
    }
}

#[test]
fn a_capability_opens_its_calls_and_no_other() {
    let allowed = |held: &[String]| -> BTreeSet<String> {
        let filter = default("amd64", held).unwrap();
        let allows = |rule: &&oci_spec::runtime::LinuxSyscall| rule.action().to_string() == "SCMP_ACT_ALLOW";
        filter.syscalls().iter().flatten().filter(allows).flat_map(|rule| rule.names().clone()).collect()
    };
    let more: Vec<String> = allowed(&caps(&["SYS_MODULE"])).difference(&allowed(&[])).cloned().collect();
    assert_eq!(more, ["delete_module", "finit_module", "init_module", "query_module"]);
}

#[test]
fn conditions_hold_as_written_and_what_is_not_understood_is_refused() {
    let filter = |condition: &str| {
        let rule = format!(r#"{{"names": ["bpf"], "action": "SCMP_ACT_ALLOW", {condition}}}"#);
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rule}]}}"#);
        let filter = Profile::parse(&text)?.resolve("amd64", &caps(&["KILL"]))?;
        Ok::<bool, anyhow::Error>(filter.syscalls().as_ref().is_some_and(|rules| !rules.is_empty()))
    };
    for (condition, expected) in [
        (r#""includes": {}"#, true),
        (r#""includes": {"caps": ["CAP_KILL"]}"#, true),
        (r#""includes": {"caps": ["CAP_KILL", "CAP_BPF"]}"#, false),
        (r#""includes": {"arches": ["arm64"]}"#, false),
        (r#""includes": {"minKernel": "4.8"}"#, true),
        (r#""excludes": {"minKernel": "4.8"}"#, false),
        (r#""excludes": {"caps": ["CAP_KILL"]}"#, false),
        (r#""excludes": {"caps": ["CAP_BPF"], "arches": ["arm64"]}"#, true),
    ] {
        assert_eq!(filter(condition).unwrap(), expected, "{condition}");
    }
    for (condition, words) in [
        (r#""includes": {"minKernel": "6.1"}"#, "minKernel 6.1"),
        (r#""excludes": {"minKernel": "x"}"#, "minKernel \"x\""),
        (r#""includes": {"kernel": "5.1"}"#, "`kernel`"),
        (r#""errno": "EIO""#, "errnoRet"),
        (r#""args": [{"index": 0, "value": 1, "op": "SCMP_CMP_ODD"}]"#, "SCMP_CMP_ODD"),
    ] {
        let error = format!("{:#}", filter(condition).expect_err(condition));
        assert!(error.contains(words), "{error} does not say {words}");
    }
}
