//! The folders that systemd makes for a unit (systemd.exec(5), RuntimeDirectory= and its like): bound in, writable, at the
//! paths they have on the host, which their variables name.
//!
//! systemd gives them to the unit's `User=`, which here is root. One that it has just made, still empty and root's, goes to
//! the container's user; one that holds something is left to whom it belongs.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::runtime::{Mount, Spec};
use rustix::fs::{CWD, Dir, Gid, Mode, OFlags, ResolveFlags, Uid, fchown, fstat, openat, openat2};

/// Each variable, the directive that it comes of, and what systemd ends with where such a folder fails.
const KINDS: [(&str, &str, u8); 5] = [
    ("RUNTIME_DIRECTORY", "RuntimeDirectory=", 233),
    ("STATE_DIRECTORY", "StateDirectory=", 238),
    ("CACHE_DIRECTORY", "CacheDirectory=", 239),
    ("LOGS_DIRECTORY", "LogsDirectory=", 240),
    ("CONFIGURATION_DIRECTORY", "ConfigurationDirectory=", 241),
];

/// The folders, as systemd named them.
#[derive(Debug, Default)]
pub struct Directories(Vec<Kind>);

#[derive(Debug)]
struct Kind {
    variable: &'static str,
    directive: &'static str,
    code: u8,
    value: OsString,
}

impl Directories {
    /// Those in this process's environment.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let kind = |(variable, directive, code)| Some(Kind { variable, directive, code, value: set(variable)? });
        Self(KINDS.into_iter().filter_map(kind).collect())
    }

    /// Whether the unit has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their variables, for the program.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        self.0.iter().map(|kind| (kind.variable, kind.value.as_os_str()))
    }

    fn paths(&self) -> impl Iterator<Item = (&Kind, PathBuf)> {
        let of = |kind: &Kind| {
            let paths = kind.value.as_bytes().split(|byte| *byte == b':').filter(|path| !path.is_empty());
            paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(move |kind| of(kind).into_iter().map(move |path| (kind, path)))
    }

    /// Gives those that are new to the container's user. Runs as the host's root.
    pub fn give(&self, spec: &Spec) -> Result<()> {
        let Some(user) = spec.process().as_ref().map(|process| process.user()) else { return Ok(()) };
        if user.uid() == 0 || self.0.is_empty() {
            return Ok(());
        }
        for (kind, path) in self.paths().filter(|(kind, _)| kind.variable != "CONFIGURATION_DIRECTORY") {
            let give = || -> Result<()> {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = openat(CWD, &path, flags, Mode::empty())?;
                let stat = fstat(&folder)?;
                if (stat.st_uid, stat.st_gid) == (0, 0) && is_empty(&folder)? {
                    fchown(&folder, Some(Uid::from_raw(user.uid())), Some(Gid::from_raw(user.gid())))?;
                }
                Ok(())
            };
            let what = || format!("giving {} of {} to user {}", path.display(), kind.directive, user.uid());
            give().with_context(what)?;
        }
        Ok(())
    }

    /// The mounts of config.json, and among them these folders: one takes the place of a mount of config.json at the same
    /// path, and lies below those that go into it. `image` is the root file system; with `mapped` they belong to the container's own
    /// users. The exit code stands beside an error.
    pub fn among(&self, wanted: &[Mount], image: impl AsFd, mapped: bool) -> Result<Vec<Mount>, (u8, anyhow::Error)> {
        let mut all = wanted.to_vec();
        for (kind, path) in self.paths() {
            if all.iter().any(|mount| shows(mount, &path)) {
                continue;
            }
            if !has_place(&all, &path, &image) {
                return Err((kind.code, no_place(kind, &path)));
            }
            all.retain(|mount| *mount.destination() != path);
            let at = all.iter().position(|mount| mount.destination().starts_with(&path)).unwrap_or(all.len());
            all.insert(at, bind(path, mapped));
        }
        Ok(all)
    }
}

fn no_place(kind: &Kind, path: &Path) -> anyhow::Error {
    let (directive, path) = (kind.directive, path.display());
    anyhow::anyhow!(
        "{directive}: the image has no folder {path} to mount it on, and is read-only; name it after the container, which has \
         a folder for each kind, or put an empty folder there into the image"
    )
}

fn bind(path: PathBuf, mapped: bool) -> Mount {
    let options = ["rbind", "rw", "rnosuid", "rnodev"].into_iter().chain(mapped.then_some("ridmap"));
    let options = options.map(str::to_owned).collect();
    let mut mount = Mount::default();
    mount.set_destination(path.clone()).set_typ(Some("bind".into()));
    mount.set_source(Some(path)).set_options(Some(options));
    mount
}

/// Whether this mount has the host's folder there already, with whatever lies in it.
fn shows(mount: &Mount, path: &Path) -> bool {
    let source = mount.source().as_deref();
    let options = mount.options().as_deref().unwrap_or_default();
    let bound = mount.typ().as_deref() == Some("bind") || options.iter().any(|one| one == "bind" || one == "rbind");
    let writable = options.iter().rev().find(|one| matches!(&***one, "ro" | "rw")).is_none_or(|one| one == "rw");
    bound && writable && source == Some(mount.destination()) && path.starts_with(mount.destination())
}

/// Whether there is a folder to mount upon: the image's own, or one that can be made in a new file system.
fn has_place(mounts: &[Mount], path: &Path, image: impl AsFd) -> bool {
    let fresh = |mount: &Mount| {
        mount.typ().as_deref() == Some("tmpfs") && path.starts_with(mount.destination()) && path != mount.destination()
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    mounts.iter().any(fresh) || openat2(image, path, flags, Mode::empty(), resolve).is_ok()
}

fn is_empty(folder: impl AsFd) -> Result<bool> {
    for entry in Dir::read_from(folder)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &'static [(&str, &str)]) -> Directories {
        Directories::of(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    fn mount(kind: &str, source: &str, destination: &str) -> Mount {
        let mut mount = bind(source.into(), false);
        mount.set_typ(Some(kind.into())).set_destination(destination.into());
        if kind != "bind" {
            mount.set_options(None);
        }
        mount
    }

    fn places(all: &Directories, wanted: &[Mount]) -> Vec<String> {
        let image = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(image.path().join("var/lib/a")).unwrap();
        let image = std::fs::File::open(image.path()).unwrap();
        let all = all.among(wanted, image, false).map_err(|(code, error)| format!("{code} {error}")).unwrap();
        all.iter()
            .map(|mount| format!("{} {}", mount.typ().as_deref().unwrap(), mount.destination().display()))
            .collect()
    }

    #[test]
    fn they_lie_below_what_is_mounted_into_them_and_only_once() {
        let wanted = [
            mount("tmpfs", "tmpfs", "/run"),
            mount("tmpfs", "tmpfs", "/run/a/deep"),
            mount("bind", "/var/lib/a", "/var/lib/a"),
        ];
        let all = of(&[("RUNTIME_DIRECTORY", "/run/a:/run/a/b:/run/c"), ("STATE_DIRECTORY", "/var/lib/a/x")]);
        let expected = ["tmpfs /run", "bind /run/a", "tmpfs /run/a/deep", "bind /var/lib/a", "bind /run/c"];
        assert_eq!(places(&all, &wanted), expected);
    }

    #[test]
    fn what_the_unit_gives_takes_the_place_of_what_the_image_has() {
        let wanted = [mount("tmpfs", "tmpfs", "/var/lib/a"), mount("bind", "/elsewhere", "/var/lib/a")];
        assert_eq!(places(&of(&[("STATE_DIRECTORY", "/var/lib/a")]), &wanted), ["bind /var/lib/a"]);
    }

    #[test]
    fn one_that_has_no_place_names_the_way_out() {
        let image = tempfile::tempdir().unwrap();
        let image = std::fs::File::open(image.path()).unwrap();
        let (code, error) = of(&[("LOGS_DIRECTORY", "/var/log/other")]).among(&[], image, false).unwrap_err();
        assert_eq!(code, 240);
        assert!(error.to_string().starts_with("LogsDirectory=: the image has no folder /var/log/other"), "{error}");
    }
}
