//! A tree to work on with `--root`, what the real program says and does there, and images made for it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use sysctr::host::source::this_architecture;
use tempfile::TempDir;

use super::{Entry, Layout, Packing, dir, file, link, sha256, tar_of};

/// What a run of the program came to.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    pub fn of(output: &Output) -> Outcome {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Every path with its type, mode, owner, mark and content.
pub type Tree = BTreeMap<String, String>;

/// An image: its config, and the files of its one layer.
pub struct Image {
    config: Value,
    architecture: String,
    files: Vec<(String, u32, Vec<u8>)>,
    links: Vec<(String, String)>,
    folders: Vec<(String, u32)>,
}

impl Image {
    /// A program and nothing else.
    pub fn new() -> Image {
        Image {
            config: json!({"Entrypoint": ["/bin/app"]}),
            architecture: this_architecture().to_owned(),
            files: vec![("bin/app".into(), 0o755, b"a program".to_vec())],
            links: Vec::new(),
            folders: Vec::new(),
        }
    }

    pub fn file(self, path: &str, text: &str) -> Image {
        self.bytes(path, text.as_bytes().to_vec())
    }

    pub fn bytes(mut self, path: &str, content: Vec<u8>) -> Image {
        self.files.push((path.to_owned(), 0o644, content));
        self
    }

    /// A symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Image {
        self.links.push((path.to_owned(), target.to_owned()));
        self
    }

    /// A folder with nothing in it.
    pub fn folder(mut self, path: &str, mode: u32) -> Image {
        self.folders.push((format!("{path}/"), mode));
        self
    }

    /// A file of `/exports`.
    pub fn export(self, name: &str, text: &str) -> Image {
        self.file(&format!("exports/{name}"), text)
    }

    pub fn manifest(self, manifest: Value) -> Image {
        self.export("manifest.json", &manifest.to_string())
    }

    pub fn config(mut self, key: &str, value: Value) -> Image {
        self.config[key] = value;
        self
    }

    pub fn architecture(mut self, name: &str) -> Image {
        self.architecture = name.to_owned();
        self
    }

    fn layer(&self) -> Vec<u8> {
        let mut folders: Vec<String> = Vec::new();
        let files = self.files.iter().map(|(path, ..)| path);
        let others = self.links.iter().map(|(path, _)| path).chain(self.folders.iter().map(|(path, _)| path));
        for path in files.chain(others) {
            for (at, _) in path.match_indices('/') {
                let folder = path[..=at].to_owned();
                if !folders.contains(&folder) && !self.folders.iter().any(|(own, _)| *own == folder) {
                    folders.push(folder);
                }
            }
        }
        let own = self.folders.iter().map(|(path, mode)| dir(path, *mode));
        let folders = folders.iter().map(|path| dir(path, 0o755)).chain(own);
        let files = self.files.iter().map(|(path, mode, content)| file(path, *mode, content));
        let links = self.links.iter().map(|(path, target)| link(path, target));
        tar_of(&folders.chain(files).chain(links).collect::<Vec<Entry<'_>>>())
    }

    /// Writes it as a layout; gives the layout and the image's descriptor.
    pub fn layout(&self, folder: &Path) -> (Layout, Value) {
        let layout = Layout::new(folder);
        let tar = self.layer();
        let config = json!({"architecture": self.architecture, "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": self.config, "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]}});
        let config = layout.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layer = layout.layer(&tar, Packing::Gzip);
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer]});
        let image = layout.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        layout.index(&[(Some("1"), &image)]);
        (layout, image)
    }
}

/// A host's tree, as a distribution leaves it.
pub struct Host {
    pub work: TempDir,
}

impl Host {
    pub fn new() -> Host {
        Host::below("/var/tmp".as_ref())
    }

    /// Made in a folder of this place.
    pub fn below(place: &Path) -> Host {
        let work = tempfile::tempdir_in(place).unwrap();
        for folder in ["etc/systemd/system/multi-user.target.wants", "etc/tmpfiles.d", "etc/sysusers.d", "var/lib"] {
            fs::create_dir_all(work.path().join("root").join(folder)).unwrap();
        }
        for file in ["etc/hosts", "etc/systemd/system/multi-user.target.wants/cron.service"] {
            fs::write(work.path().join("root").join(file), "the distribution's\n").unwrap();
        }
        Host { work }
    }

    pub fn root(&self) -> PathBuf {
        self.work.path().join("root")
    }

    /// A path below the root.
    pub fn at(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    pub fn write(&self, below: &str, text: &str) {
        fs::create_dir_all(self.at(below).parent().unwrap()).unwrap();
        fs::write(self.at(below), text).unwrap();
    }

    pub fn read(&self, below: &str) -> String {
        fs::read_to_string(self.at(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// Makes an image beside the tree and gives its reference.
    pub fn image(&self, name: &str, image: &Image) -> String {
        let folder = self.work.path().join(name);
        fs::remove_dir_all(&folder).ok();
        image.layout(&folder);
        format!("oci:{}:1", folder.display())
    }

    pub fn sysctr(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sysctr"));
        Outcome::of(&command.arg("--root").arg(self.root()).args(arguments).output().unwrap())
    }

    /// Succeeds; gives the standard output.
    pub fn does(&self, arguments: &[&str]) -> String {
        let Outcome { code, out, err } = self.sysctr(arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let out = self.does(&[&["--json"], arguments].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
    }

    /// Fails with this code, in one line that says each of these words, and leaves everything but the store as it was. With `--json` the
    /// same is one document. Gives what was said.
    pub fn refuses(&self, code: i32, words: &[&str], arguments: &[&str]) -> String {
        let before = self.tree();
        let outcome = self.sysctr(arguments);
        assert_eq!(outcome.code, code, "{arguments:?}: {}{}", outcome.out, outcome.err);
        assert_eq!(outcome.out, "", "{arguments:?} printed a result");
        let errors: Vec<&str> = outcome.err.lines().filter(|line| line.starts_with("error: ")).collect();
        let others = outcome.err.lines().filter(|line| !line.starts_with("error: ") && !line.starts_with("hint: "));
        assert_eq!((errors.len(), others.count()), (1, 0), "{arguments:?}: {}", outcome.err);
        for word in words {
            assert!(errors[0].contains(word), "{arguments:?}: no {word:?} in {}", errors[0]);
        }
        assert_same(&before, &self.tree(), &format!("{arguments:?} was refused"));

        let json = self.sysctr(&[&["--json"], arguments].concat());
        let said: Value = serde_json::from_str(&json.err).unwrap_or_else(|error| panic!("{error}: {}", json.err));
        let hint = outcome.err.lines().find_map(|line| line.strip_prefix("hint: "));
        assert_eq!((json.code, json.out.as_str()), (code, ""), "{arguments:?}");
        assert_eq!(said, json!({"error": errors[0]["error: ".len()..], "hint": hint, "code": code}), "{arguments:?}");
        assert_same(&before, &self.tree(), &format!("--json {arguments:?} was refused"));
        outcome.err
    }

    /// The tree without the store and its lock. When a deployment was made does not count, nor what is allocated.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut todo = vec![self.root()];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let below = path.strip_prefix(self.root()).unwrap().to_str().unwrap().to_owned();
                if ["var/lib/sysctr/repo", "var/lib/sysctr/layers", "var/lib/sysctr/lock"].contains(&below.as_str()) {
                    continue;
                }
                let meta = path.symlink_metadata().unwrap();
                let content = if meta.is_dir() {
                    todo.push(path.clone());
                    mark(&path)
                } else if meta.is_symlink() {
                    fs::read_link(&path).unwrap().display().to_string()
                } else {
                    timeless(&fs::read(&path).unwrap())
                };
                tree.insert(below, format!("{:o} {}:{} {content}", meta.mode(), meta.uid(), meta.gid()));
            }
        }
        // made with the first lock
        if tree.keys().all(|path| !path.starts_with("var/lib/sysctr/")) {
            tree.remove("var/lib/sysctr");
        }
        tree
    }
}

/// Whose state a folder is.
fn mark(folder: &Path) -> String {
    let mut buffer = [0; 128];
    let length = rustix::fs::getxattr(folder, "trusted.sysctr", &mut buffer).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn timeless(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    // what a copy of the same takes depends on the file system
    let counts = |line: &&str| !["\"created\":", "\"bytes\":"].iter().any(|key| line.trim_start().starts_with(key));
    text.lines().filter(counts).collect::<Vec<_>>().join("\n")
}

/// What is in one tree and not in the other, in words.
pub fn difference(one: &Tree, other: &Tree) -> Vec<String> {
    let paths = one.keys().chain(other.keys());
    let mut lines: Vec<String> = paths
        .filter(|path| one.get(*path) != other.get(*path))
        .map(|path| {
            let [one, other] =
                [one, other].map(|tree| tree.get(path).map(|text| text.chars().take(60).collect::<String>()));
            format!("{path}: {one:?} != {other:?}")
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

#[track_caller]
pub fn assert_same(one: &Tree, other: &Tree, when: &str) {
    let lines = difference(one, other);
    assert!(lines.is_empty(), "{when}, and the trees differ:\n{}", lines.join("\n"));
}
