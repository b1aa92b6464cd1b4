//! A root folder of its own, and the real program upon it.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;
use sysctr::host::source::this_architecture;
use tempfile::TempDir;

use super::{Layout, Packing, dir, file, link, tar_of};

pub struct Bench {
    pub work: TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(work.path().join("root")).unwrap();
        Bench { work }
    }

    pub fn root(&self) -> PathBuf {
        self.work.path().join("root")
    }

    /// Exit code, standard output, standard error.
    pub fn sysctr(&self, arguments: &[&str]) -> (i32, String, String) {
        let program = env!("CARGO_BIN_EXE_sysctr");
        let output = Command::new(program).arg("--root").arg(self.root()).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    pub fn does(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.sysctr(arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.does(&[&["--json"], arguments].concat())).unwrap()
    }

    /// An image with a file of its own and one that all have.
    pub fn image(&self, name: &str) -> String {
        let shared = vec![b's'; 300_000];
        let own = vec![name.as_bytes()[0]; 100_000];
        let tar = tar_of(&[
            dir("data/", 0o755),
            file("data/shared", 0o644, &shared),
            file("data/own", 0o644, &own),
            link("data/link", "/data/own"),
            dir("exports/", 0o755),
            file("exports/manifest.json", 0o644, br#"{"version": "2.0"}"#),
            dir("exports/hostfs/", 0o755),
            file("exports/hostfs/tool", 0o755, b"\xff\x00"),
        ]);
        let layout = Layout::new(&self.work.path().join(name));
        layout.index(&[(None, &layout.image(this_architecture(), &[(tar, Packing::Zstd)]))]);
        format!("oci:{}", layout.folder.display())
    }

    pub fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for folder in fs::read_dir(self.root().join("var/lib/sysctr/repo/objects")).unwrap() {
            found.extend(fs::read_dir(folder.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.sort();
        found
    }
}
