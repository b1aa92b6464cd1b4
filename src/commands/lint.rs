//! `sysctr lint DIR|IMAGE|NAME`: everything that is wrong with an image's `/exports`, or with the unit of an installed container.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use oci_spec::image::ImageConfiguration;

use super::{Context, image};
use crate::cli::LintArgs;
use sysctr::{
    host::{
        dropins,
        ostree::Store,
        policy, settings, state,
        units::{self, Reading},
        value_files,
    },
    model::{
        digest::Digest,
        fault::{Code, Fault},
        host_files::{Source, Sources},
        id_range,
        lint::{self, Level, Problem},
        manifest::Manifest,
        name::ContainerName,
        overrides::Overrides,
        reference::ImageSource,
        render::Inputs,
        values::Setting,
    },
};

/// Bytes of a passwd(5), a group(5) or a file of `/exports` that are still believed.
const FILE_LIMIT: u64 = 1 << 20;
/// What a folder is rendered as: it has no config, so the program is a stand-in.
const FOLDERS_CONFIG: &str = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
    "config": {"Entrypoint": ["/program"]}}"#;

/// What is looked at.
enum Subject {
    Folder(PathBuf),
    Container(ContainerName),
    Image(ImageSource),
}

/// What an image's exports are rendered with.
struct Parts {
    name: ContainerName,
    image: String,
    digest: Digest,
    config: ImageConfiguration,
    exports: BTreeMap<String, Vec<u8>>,
    hostfs: Sources,
    passwd: String,
    group: String,
}

/// Prints every problem.
pub fn run(context: &Context, args: &LintArgs) -> Result<()> {
    let settings = value_files::gather(&args.values.settings, &args.values.set_file, &args.values.values_files)?;
    let problems = match subject(context, &args.subject)? {
        Subject::Container(name) => lint::installed(
            &dropins::of_service(&context.folder()?, &name).with_context(|| format!("reading the unit of {name}"))?,
        ),
        Subject::Folder(path) => of_parts(&folder(&path, args.name.as_ref())?, &settings)?,
        Subject::Image(source) => of_parts(&stored(context, &source, args.name.as_ref())?, &settings)?,
    };
    let errors = problems.iter().filter(|problem| problem.level == Level::Error).count();
    let document = serde_json::json!({"ok": errors == 0, "problems": problems});
    context.output.result(&document, || text(&problems, context.output.quiet))?;
    match errors {
        0 => Ok(()),
        errors => bail!(Fault::new(Code::Failed, format!("lint found {}", image::count(errors, "error")))),
    }
}

fn of_parts(parts: &Parts, settings: &[Setting]) -> Result<Vec<Problem>> {
    let mut judgement = lint::image(&Inputs {
        name: &parts.name,
        id: 1,
        image: &parts.image,
        digest: &parts.digest,
        config: &parts.config,
        exports: &parts.exports,
        hostfs: &parts.hostfs,
        passwd: &parts.passwd,
        group: &parts.group,
        settings,
        overrides: &Overrides::default(),
        before: None,
        runtime: None,
        range: id_range::free(&[]),
        uuid: "00000000-0000-4000-8000-000000000000",
        is_there: &|_| true,
    });
    if !judgement.units.is_empty() {
        match units::verify_texts(&judgement.units)? {
            Reading::Said(lines) => judgement.add_systemds(&lines),
            Reading::Unread(why) => judgement.add_unread(&why),
        }
    }
    Ok(judgement.problems)
}

fn text(problems: &[Problem], quiet: bool) -> String {
    let shown = problems.iter().filter(|problem| !quiet || problem.level != Level::Note);
    let lines: String =
        shown.map(|problem| format!("{}: {}: {}\n", problem.level.word(), problem.file, problem.detail)).collect();
    let clean = problems.iter().all(|problem| problem.level == Level::Note) && !quiet;
    lines + if clean { "no problem found" } else { "" }
}

/// A path with a '/' or a leading '.' that is there is a folder; then come installed containers, other folders, and images.
fn subject(context: &Context, text: &str) -> Result<Subject> {
    let path = Path::new(text);
    if (text.contains('/') || text.starts_with('.')) && path.is_dir() {
        return Ok(Subject::Folder(path.to_owned()));
    }
    if let Ok(name) = text.parse::<ContainerName>() {
        if state::container(&context.folder()?, &name)?.is_some() {
            return Ok(Subject::Container(name));
        }
        if !path.is_dir() {
            let message = format!("{text} is no container that is installed, and no folder");
            bail!(Fault::new(Code::NotFound, message).hint("`sysctr list` shows what is installed"));
        }
    }
    if path.is_dir() {
        return Ok(Subject::Folder(path.to_owned()));
    }
    let image = text
        .parse()
        .map_err(|error| Fault::new(Code::NotFound, format!("{text} is no folder, and as an image: {error}")))?;
    Ok(Subject::Image(image))
}

/// A folder with `exports` in it, or one that is the exports itself.
fn folder(path: &Path, name: Option<&ContainerName>) -> Result<Parts> {
    let reading = || format!("reading {}", path.display());
    let real = path.canonicalize().with_context(reading)?;
    let (exports_dir, own) = match real.join("exports") {
        inner if inner.is_dir() => (inner, real.as_path()),
        _ if real.ends_with("exports") => (real.clone(), real.parent().unwrap_or(&real)),
        _ => (real.clone(), real.as_path()),
    };
    let (exports, hostfs) = files(&exports_dir).with_context(reading)?;
    if exports.is_empty() && hostfs.is_empty() {
        bail!(
            Fault::new(Code::NotFound, format!("{} has no file of an image's /exports", path.display()))
                .hint("give the folder with `exports` in it")
        );
    }
    let called = own.file_name().and_then(|name| name.to_str()).and_then(|name| name.to_lowercase().parse().ok());
    let fallback = || "image".parse().context("naming the container");
    let name = name.cloned().or(called).map_or_else(fallback, Ok)?;
    // Its passwd(5) is made with the image: whoever it names is taken to be there.
    let user = exports.get("manifest.json").and_then(|bytes| std::str::from_utf8(bytes).ok());
    let user = user.and_then(|text| Manifest::parse(text).ok()).and_then(|manifest| manifest.container.user);
    let (user, group) = user.as_deref().map_or(("", ""), |user| user.split_once(':').unwrap_or((user, "")));
    Ok(Parts {
        image: format!("{name}:lint"),
        name,
        digest: Digest::from_sha256([0; 32]),
        config: serde_json::from_str(FOLDERS_CONFIG).context("making a config")?,
        exports,
        hostfs,
        passwd: format!("{user}:x:1000:1000::/:/bin/false\n"),
        group: format!("{group}:x:1000:\n"),
    })
}

/// The files below a folder, by their path in there, and what lies below its `hostfs`. Links are none, and not followed.
fn files(top: &Path) -> Result<(BTreeMap<String, Vec<u8>>, Sources)> {
    let (mut files, mut hostfs) = (BTreeMap::new(), Sources::new());
    let mut todo = vec![top.to_owned()];
    while let Some(folder) = todo.pop() {
        let mut is_empty = true;
        for entry in std::fs::read_dir(&folder)? {
            is_empty = false;
            let entry = entry?;
            let path = entry.path();
            let below = below(top, &path);
            let (kind, about) = (entry.file_type()?, entry.metadata()?);
            let is_hosts = below.starts_with(HOSTFS);
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() && (is_hosts || about.len() <= FILE_LIMIT) {
                if is_hosts {
                    hostfs.insert(below.clone(), Source::File { mode: about.mode() & 0o7777 });
                }
                files.insert(below, std::fs::read(&path)?);
            } else if kind.is_symlink() && is_hosts {
                let target = std::fs::read_link(&path)?.to_string_lossy().into_owned();
                hostfs.insert(below, Source::Link { target });
            }
        }
        let below = below(top, &folder);
        if is_empty && below.starts_with(HOSTFS) {
            hostfs.insert(below, Source::Folder { mode: folder.metadata()?.mode() & 0o7777 });
        }
    }
    Ok((files, hostfs))
}

const HOSTFS: &str = "hostfs/";

fn below(top: &Path, path: &Path) -> String {
    path.strip_prefix(top).unwrap_or(path).to_string_lossy().into_owned()
}

/// An image of the store; one that is not there is pulled, as by `install --dry-run`.
fn stored(context: &Context, source: &ImageSource, name: Option<&ContainerName>) -> Result<Parts> {
    let found = match Store::open(&context.root)? {
        Some(store) => store.find(source)?.map(|image| (store, image)),
        None => None,
    };
    let (store, image) = match found {
        Some(found) => found,
        None => {
            policy::check(&context.root, source)?;
            let (root, lock) = context.begin("lint")?;
            let store = Store::open_or_create(&lock)?;
            let image = image::pull(context, &lock, &store, source, &settings::load(&root)?)?;
            (store, image)
        }
    };
    let exports = store.read_exports(&image)?;
    let account = |path| -> Result<String> {
        let bytes = store.read_file(&image, Path::new(path), FILE_LIMIT)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let called = || source.repository_name().parse().context("naming the container after the image");
    Ok(Parts {
        name: name.cloned().map_or_else(called, Ok)?,
        image: source.to_string(),
        digest: image.digest.clone(),
        exports: exports.into_iter().map(|(path, bytes)| (path.to_string_lossy().into_owned(), bytes)).collect(),
        hostfs: store.read_hostfs(&image)?,
        passwd: account("etc/passwd")?,
        group: account("etc/group")?,
        config: image.config,
    })
}
