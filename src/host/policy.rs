//! What may be installed, as
//! [containers-policy.json(5)](https://github.com/containers/image/blob/main/docs/containers-policy.json.5.md) says.
//!
//! A rule that cannot be checked refuses: an image is never taken for verified because nobody looked.

use std::{collections::BTreeMap, io::Read, path::Path};

use anyhow::Result;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use crate::model::{
    fault::{Code, Fault},
    reference::{Archived, ImageSource},
};

const PLACES: [&str; 2] = ["etc/containers/policy.json", "usr/share/containers/policy.json"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    default: Vec<Rule>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Rule>>>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    #[serde(rename = "type")]
    kind: String,
}

/// Refuses what the policy below this root does not allow. Without a policy file everything is allowed.
pub fn check(root: &Path, source: &ImageSource) -> Result<()> {
    for place in PLACES {
        let path = root.join(place);
        let text = match read(root, place) {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            Err(error) => return Err(refused(source, format!("{}: {error}", path.display())).into()),
        };
        let verdict =
            serde_json::from_slice(&text).map_err(|error| error.to_string()).and_then(|policy| judge(&policy, source));
        return verdict.map_err(|why| refused(source, format!("{}: {why}", path.display())).into());
    }
    Ok(())
}

/// The file with its links followed inside the root: below `--root` an absolute one means that tree.
fn read(root: &Path, place: &str) -> std::io::Result<Option<Vec<u8>>> {
    let (read_only, here) = (OFlags::RDONLY | OFlags::CLOEXEC, OFlags::DIRECTORY | OFlags::CLOEXEC);
    let root = rustix::fs::open(root, here, Mode::empty())?;
    let file = match rustix::fs::openat2(&root, place, read_only, Mode::empty(), ResolveFlags::IN_ROOT) {
        // A link to nothing is a policy that went away, not none.
        Err(rustix::io::Errno::NOENT) if rustix::fs::statat(&root, place, AtFlags::SYMLINK_NOFOLLOW).is_err() => {
            return Ok(None);
        }
        file => file?,
    };
    let mut text = Vec::new();
    std::fs::File::from(file).take(1 << 20).read_to_end(&mut text)?;
    Ok(Some(text))
}

fn refused(source: &ImageSource, why: String) -> Fault {
    Fault::new(Code::Refused, format!("policy refuses {source}: {why}"))
}

fn judge(policy: &Policy, source: &ImageSource) -> Result<(), String> {
    let scopes = policy.transports.get(source.transport());
    let of_engine = matches!(source, ImageSource::DockerDaemon(_) | ImageSource::ContainersStorage(_));
    if of_engine && let Some(scope) = scopes.into_iter().flatten().map(|(scope, _)| scope).find(|one| !one.is_empty()) {
        return Err(format!(
            "transport {} has the scope {scope:?}, which this version cannot check",
            source.transport()
        ));
    }
    let found = scopes.and_then(|scopes| {
        scopes_of(source).into_iter().find_map(|scope| scopes.get(&scope).map(|rules| (scope, rules)))
    });
    let (scope, rules) = match &found {
        Some((scope, rules)) if scope.is_empty() => (format!("transport {}", source.transport()), *rules),
        Some((scope, rules)) => (format!("scope {scope}"), *rules),
        None => ("default".to_owned(), &policy.default),
    };
    if rules.is_empty() {
        return Err(format!("no rule for {scope}"));
    }
    for rule in rules {
        match rule.kind.as_str() {
            "insecureAcceptAnything" => {}
            "reject" => return Err(format!("{scope} is rejected")),
            other => return Err(format!("{scope} asks for {other:?}, which this version cannot check")),
        }
    }
    Ok(())
}

/// The scopes that a source falls under, the most specific first; the last, empty one is the transport's own default.
fn scopes_of(source: &ImageSource) -> Vec<String> {
    let mut scopes = Vec::new();
    match source {
        ImageSource::Registry(reference) => {
            let name = format!("{}/{}", reference.registry(), reference.repository());
            // the manual knows a reference by its tag or by its digest; with both, each is looked for
            if let Some(digest) = reference.digest() {
                scopes.push(format!("{name}@{digest}"));
            }
            if let Some(tag) = reference.tag() {
                scopes.push(format!("{name}:{tag}"));
            }
            let mut prefix = name.as_str();
            scopes.push(prefix.to_owned());
            while let Some((shorter, _)) = prefix.rsplit_once('/') {
                scopes.push(shorter.to_owned());
                prefix = shorter;
            }
            let host = reference.registry().split(':').next().unwrap_or_default();
            scopes.extend(host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..])));
        }
        ImageSource::OciDir(at) => {
            let path = at.path.display().to_string();
            if let Some(image) = &at.image {
                scopes.push(format!("{path}:{image}"));
            }
            scopes.extend(
                at.path.ancestors().take_while(|path| path.parent().is_some()).map(|path| path.display().to_string()),
            );
        }
        // by path, though a policy can hardly know a file that anyone may bring
        ImageSource::OciArchive(Archived { path, .. }) | ImageSource::Rootfs(path) => {
            scopes.extend(
                path.ancestors().take_while(|path| path.parent().is_some()).map(|path| path.display().to_string()),
            );
        }
        // the manual gives this transport no scope but the empty one
        ImageSource::DockerArchive(_) => {}
        // their names are the engine's, and only the empty one is sure
        ImageSource::DockerDaemon(_) | ImageSource::ContainersStorage(_) => {}
    }
    scopes.push(String::new());
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(policy: &str, image: &str) -> Result<(), String> {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join(PLACES[0]);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, policy).expect("written");
        check(root.path(), &image.parse().expect(image)).map_err(|error| {
            assert_eq!(error.downcast_ref().map(Fault::code), Some(Code::Refused), "{error:#}");
            format!("{error:#}")
        })
    }

    #[test]
    fn the_most_specific_scope_decides() {
        let policy = r#"{"default": [{"type": "reject"}], "transports": {
            "docker": {
                "reg.io": [{"type": "insecureAcceptAnything"}],
                "reg.io/bad": [{"type": "reject"}],
                "reg.io/bad/good:1": [{"type": "insecureAcceptAnything"}],
                "*.example.org": [{"type": "insecureAcceptAnything"}],
                "localhost:5000/x": [{"type": "insecureAcceptAnything"}]},
            "oci": {"": [{"type": "insecureAcceptAnything"}], "/srv/no": [{"type": "reject"}]},
            "docker-archive": {"": [{"type": "insecureAcceptAnything"}]}}}"#;
        for (image, allowed) in [
            ("reg.io/x/y", true),
            ("reg.io/bad/x", false),
            ("reg.io/badly", true),
            ("reg.io/bad/good:1", true),
            ("reg.io/bad/good:2", false),
            ("a.b.example.org/x", true),
            ("example.org/x", false),
            ("localhost:5000/x:7", true),
            ("localhost:5000/xy", false),
            ("localhost:5001/x", false),
            ("oci:/srv/yes:1", true),
            ("oci:/srv/no/image:1", false),
            ("oci-archive:/srv/yes", false),
            ("docker-archive:/x.tar", true),
        ] {
            assert_eq!(verdict(policy, image).is_ok(), allowed, "{image}");
        }
    }

    #[test]
    fn what_cannot_be_checked_or_read_refuses() {
        for (policy, why) in [
            (r#"{"default": [{"type": "signedBy", "keyType": "GPGKeys"}]}"#, "signedBy"),
            (r#"{"default": [{"type": "sigstoreSigned"}]}"#, "sigstoreSigned"),
            (r#"{"default": [{"type": "insecureAcceptAnything"}, {"type": "new"}]}"#, "new"),
            (r#"{"default": []}"#, "no rule"),
            (r#"{"default": [{"type": "insecureAcceptAnything"}]"#, "EOF"),
            (r#"{"transports": {}}"#, "default"),
            (r#"{"default": [{"type": "insecureAcceptAnything"}], "transprots": {}}"#, "transprots"),
            ("", "EOF"),
        ] {
            let error = verdict(policy, "reg.io/x").expect_err(policy);
            assert!(error.contains(why), "{policy}: {error}");
        }
    }

    #[test]
    fn an_engines_images_fall_under_their_transport_alone() {
        let whole = r#"{"default": [{"type": "reject"}], "transports": {"docker-daemon": {"": [{"type": "insecureAcceptAnything"}]}}}"#;
        assert!(verdict(whole, "docker-daemon:x:1").is_ok());
        assert!(verdict(whole, "containers-storage:x:1").is_err());
        let scoped = whole.replace(r#"{"": "#, r#"{"x": [{"type": "reject"}], "": "#);
        assert!(verdict(&scoped, "docker-daemon:y:1").expect_err("unknown").contains("scope \"x\""));
    }

    #[test]
    fn without_a_policy_everything_goes() {
        let root = tempfile::tempdir().expect("a folder");
        check(root.path(), &"reg.io/x".parse().expect("a source")).expect("allowed");
    }
}
