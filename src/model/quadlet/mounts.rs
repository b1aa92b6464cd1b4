//! `Volume=` and `Mount=`: folders of the host are mounts, named volumes are state of the container.

use super::*;

/// Where something is mounted from.
pub enum Origin {
    /// A path of the host.
    Host(String),
    /// The container's own state.
    Volume(String),
    /// Memory.
    Tmpfs,
}

/// A mount, read.
pub struct Given {
    pub from: Origin,
    pub target: String,
    pub options: Vec<String>,
}

/// `SOURCE:TARGET[:OPTIONS]`
pub fn volume(value: &str, beside: &BTreeMap<String, String>) -> Result<Given> {
    let parts: Vec<&str> = value.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => bail!("the anonymous volume {target} is not supported: give it a name"),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => bail!("{value:?} has more than two colons"),
    };
    let from = match source.starts_with(['/', '.']) {
        true => Origin::Host(source.to_owned()),
        false => Origin::Volume(volume_name(source, beside)?),
    };
    let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
    Ok(Given { from, target: target.to_owned(), options })
}

/// `type=...,source=...,target=...[,ro]`
pub fn mount(value: &str, beside: &BTreeMap<String, String>) -> Result<Given> {
    let (mut kind, mut source, mut target, mut options) = ("volume", None, None, Vec::new());
    for part in value.split(',') {
        let (key, text) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "type" => kind = text,
            "source" | "src" => source = Some(text),
            "target" | "destination" | "dst" => target = Some(text.to_owned()),
            "ro" | "readonly" if matches!(text, "" | "true") => options.push("ro".to_owned()),
            "ro" | "readonly" | "rw" if matches!(text, "" | "false") => options.push("rw".to_owned()),
            other => bail!("the option {other:?} is not supported"),
        }
    }
    let from = match (kind, source) {
        ("bind", Some(source)) => Origin::Host(source.to_owned()),
        ("volume", Some(source)) => Origin::Volume(volume_name(source, beside)?),
        ("tmpfs", None) => Origin::Tmpfs,
        (other, _) => bail!("the type {other:?} is not supported like this"),
    };
    Ok(Given { from, target: target.context("it names no target")?, options })
}

/// The name of a volume, by its file where it is one.
fn volume_name(source: &str, beside: &BTreeMap<String, String>) -> Result<String> {
    let Some(stem) = source.strip_suffix(".volume") else { return checked(source) };
    let text = beside.get(source).with_context(|| format!("there is no {source} beside it"))?;
    let mut name = stem.to_owned();
    for line in file::lines(source, text)? {
        match (line.section.as_str(), line.key.as_str()) {
            ("Volume", "VolumeName") => name = line.value,
            ("Volume", "Label" | "Copy" | "ServiceName") | ("Unit" | "Install" | "Service" | "Quadlet", _) => {}
            _ => bail!(
                "{source}, line {}: {}= is not supported: a volume is a folder of the container's state",
                line.number,
                line.key
            ),
        }
    }
    checked(&name)
}

fn checked(name: &str) -> Result<String> {
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !name.starts_with(['.', '-']);
    ensure!(good && !name.is_empty(), "{name:?} is no name of a volume");
    Ok(name.to_owned())
}
