//! A mount that a person asks for on the command line of `sysctr run`, in the words of podman and docker: `--mount` and `--volume`.

use std::{
    path::{Component, Path},
    str::FromStr,
};

use oci_spec::runtime::Mount as SpecMount;
use serde::{Deserialize, Serialize};

use super::request;

/// Bind mount options that stand for themselves in config.json.
const PLAIN: [&str; 6] = ["noexec", "exec", "nosuid", "suid", "nodev", "dev"];
const PROPAGATION: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// A folder or file of the host, or a new tmpfs, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenMount {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    target: String,
    options: Vec<String>,
}

/// `--mount type=bind,source=DIR,target=DIR[,ro]` and `--mount type=tmpfs,target=DIR`.
impl FromStr for GivenMount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut kind, mut source, mut target, mut options) = ("bind", None, None, Vec::new());
        for part in text.split(',') {
            let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
            match (key, value) {
                ("type", Some("bind" | "tmpfs")) => kind = value.unwrap_or_default(),
                ("type", _) => return Err(format!("{part:?}: the type is bind or tmpfs")),
                ("src" | "source", Some(value)) => source = Some(value),
                ("dst" | "dest" | "destination" | "target", Some(value)) => target = Some(value),
                ("ro" | "readonly", None | Some("true" | "1")) | ("rw", Some("false" | "0")) => options.push("ro"),
                ("rw", None | Some("true" | "1")) | ("ro" | "readonly", Some("false" | "0")) => options.push("rw"),
                ("bind-propagation", Some(value)) => options.push(value),
                ("bind-nonrecursive", None | Some("true" | "1")) => options.push("bind"),
                ("tmpfs-size" | "tmpfs-mode", Some(_)) => options.push(&part["tmpfs-".len()..]),
                (option, None) => options.push(option),
                _ => {
                    return Err(format!("{part:?} is not known here: type, source, target, ro, bind-propagation, ..."));
                }
            }
        }
        let target = target.ok_or("it lacks target=DIR")?;
        match (kind, source) {
            ("tmpfs", Some(_)) => Err("a tmpfs has no source".to_owned()),
            ("tmpfs", None) => Self::tmpfs(target, &options),
            (_, Some(source)) => Self::bind(source, target, &options),
            (_, None) => Err("it lacks source=PATH".to_owned()),
        }
        .map_err(|why| format!("mount {text:?}: {why}"))
    }
}

impl GivenMount {
    /// `--volume SOURCE:TARGET[:OPTION,...]`
    pub fn of_volume(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (Some(source), Some(target), options, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(format!("volume {text:?}: it is SOURCE:TARGET[:OPTIONS]"));
        };
        let options: Vec<&str> = options.iter().flat_map(|options| options.split(',')).collect();
        Self::bind(source, target, &options).map_err(|why| format!("volume {text:?}: {why}"))
    }

    fn bind(source: &str, target: &str, given: &[&str]) -> Result<Self, String> {
        if !source.contains('/') && source != "." {
            return Err(format!("{source:?} is no path, and there are no named volumes"));
        }
        // As podman: no devices and no set-user-ID programs, unless they are asked for.
        let mut options = vec!["rbind"];
        let usual = [("suid", "rnosuid"), ("dev", "rnodev")];
        options.extend(usual.iter().filter(|(other, _)| !given.contains(other)).map(|(_, option)| option));
        for &option in given {
            match option {
                "rbind" => {}
                "bind" => options[0] = "bind",
                "ro" => options.push("rro"), // with all that is mounted below
                "rw" => options.push("rw"),
                "idmap" => options.push("ridmap"),
                "z" | "Z" => return Err(format!("{option:?}: files are not labelled anew, chcon(1) does it")),
                "U" => return Err("\"U\": files are not given to another owner, chown(1) does it".to_owned()),
                _ if PLAIN.contains(&option) || PROPAGATION.contains(&option) => options.push(option),
                _ => return Err(format!("the option {option:?} is not known")),
            }
        }
        Ok(Self { source: Some(source.to_owned()), target: place(target)?, options: owned(&options) })
    }

    fn tmpfs(target: &str, given: &[&str]) -> Result<Self, String> {
        let mut options = vec!["nosuid", "nodev"];
        for &option in given {
            let parameter = option.starts_with("size=") || option.starts_with("mode=");
            if !(parameter || ["ro", "rw"].contains(&option) || PLAIN.contains(&option)) {
                return Err(format!("the option {option:?} is not one of a tmpfs"));
            }
            options.push(option);
        }
        Ok(Self { source: None, target: place(target)?, options: owned(&options) })
    }

    /// What it shows of the host, as it was given.
    pub fn source(&self) -> Option<&Path> {
        self.source.as_deref().map(Path::new)
    }

    /// Where it goes.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// As one reads it: `SOURCE at TARGET (OPTIONS)`.
    pub fn words(&self) -> String {
        let source = self.source.as_deref().unwrap_or("tmpfs");
        format!("{source} at {} ({})", self.target, self.options.join(","))
    }

    /// The same with another name for its source.
    pub fn with_source(self, source: String) -> Self {
        Self { source: Some(source), ..self }
    }

    fn to_spec(&self) -> SpecMount {
        let (kind, source) = self.source.as_deref().map_or(("tmpfs", "tmpfs"), |source| ("bind", source));
        let mut mount = SpecMount::default();
        mount.set_typ(Some(kind.to_owned())).set_source(Some(source.into())).set_destination((&self.target).into());
        mount.set_options(Some(self.options.clone()));
        mount
    }
}

/// Adds them to those of a config.json: in the place of one with the same target, and before those that lie below it.
pub fn add(mounts: &mut Vec<SpecMount>, given: &[GivenMount]) {
    for mount in given {
        let target = Path::new(&mount.target);
        mounts.retain(|other| other.destination() != target);
        let below = |other: &SpecMount| request::is_below(&other.destination().to_string_lossy(), &mount.target);
        let at = mounts.iter().position(below).unwrap_or(mounts.len());
        mounts.insert(at, mount.to_spec());
    }
}

/// A place in the container, without what would only seem to be another one.
fn place(target: &str) -> Result<String, String> {
    let path = Path::new(target);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        return Err(format!("{target:?} is no absolute path in the container"));
    }
    let place = path.components().collect::<std::path::PathBuf>().to_string_lossy().into_owned();
    if place == "/" { Err("the container's root is the image's".to_owned()) } else { Ok(place) }
}

fn owned(options: &[&str]) -> Vec<String> {
    options.iter().map(|&option| option.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(mount: Result<GivenMount, String>) -> String {
        mount.map_or_else(
            |why| why,
            |mount| format!("{} {} {}", mount.source.unwrap_or_default(), mount.target, mount.options.join(",")),
        )
    }

    #[test]
    fn both_ways_of_saying_it_mean_the_same() {
        for (mount, volume, meaning) in [
            ("type=bind,source=/a,target=/b", "/a:/b", "/a /b rbind,rnosuid,rnodev"),
            ("src=./a,dst=/b/,ro", "./a:/b/:ro", "./a /b rbind,rnosuid,rnodev,rro"),
            ("source=/a,destination=/b,readonly=false,exec", "/a:/b:rw,exec", "/a /b rbind,rnosuid,rnodev,rw,exec"),
            ("src=/dev/x,dst=/b,dev", "/dev/x:/b:dev", "/dev/x /b rbind,rnosuid,dev"),
            (
                "type=bind,src=/a,dst=/b,bind-propagation=rslave,bind-nonrecursive",
                "/a:/b:rslave,bind",
                "/a /b bind,rnosuid,rnodev,rslave",
            ),
        ] {
            assert_eq!((made(mount.parse()), made(GivenMount::of_volume(volume))), (meaning.into(), meaning.into()));
        }
        let tmpfs = made("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700".parse());
        assert_eq!(tmpfs, " /t nosuid,nodev,size=1m,mode=700");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (mount, part) in [
            ("type=volume,src=a,dst=/b", "bind or tmpfs"),
            ("type=bind,src=/a", "target=DIR"),
            ("type=bind,dst=/a", "source=PATH"),
            ("type=bind,src=/a,dst=b", "\"b\" is no absolute path"),
            ("type=bind,src=/a,dst=/b/../c", "no absolute path"),
            ("type=bind,src=/a,dst=/", "the image's"),
            ("type=bind,src=/a,dst=/b,fast", "\"fast\""),
            ("type=tmpfs,src=/a,dst=/b", "no source"),
            ("type=tmpfs,dst=/b,idmap", "\"idmap\""),
        ] {
            assert!(made(mount.parse()).contains(part), "{mount}: {}", made(mount.parse()));
        }
        for (volume, part) in [
            ("/a", "SOURCE:TARGET"),
            ("data:/b", "no named volumes"),
            ("/a:/b:z", "chcon"),
            ("/a:/b:U", "chown"),
            ("/a:/b:ro:x", "SOURCE:TARGET"),
        ] {
            assert!(made(GivenMount::of_volume(volume)).contains(part), "{volume}");
        }
    }

    #[test]
    fn one_takes_the_place_of_the_images_own_and_hides_none_below() {
        let of = |place: &str| GivenMount::of_volume(&format!("/host:{place}")).expect("a mount");
        let mut mounts: Vec<SpecMount> = ["/proc", "/data/below", "/data"].map(|place| of(place).to_spec()).into();
        add(&mut mounts, &[of("/data"), of("/new")]);
        let order: Vec<_> = mounts.iter().map(|mount| mount.destination().display().to_string()).collect();
        assert_eq!(order, ["/proc", "/data", "/data/below", "/new"]);
    }
}
