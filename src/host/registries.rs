//! The files that tell of registries: registries.conf with its drop-ins, and
//! [containers-certs.d(5)](https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md).
//!
//! A person's own come first, as the manual pages say, then those below the root.

use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use oci_spec::distribution::Reference;

use super::dir::Folder;
use crate::model::{
    fault::{Code, Fault},
    registries_conf::{Mode, Place, RegistriesConf},
};

/// The aliases that a person once chose, as containers-registries.conf(5) has them written down; they win over the files.
const CHOSEN: [&str; 2] = ["var/cache/containers", "short-name-aliases.conf"];

/// What the files say.
pub struct Registries {
    conf: RegistriesConf,
    /// Folders with a folder a registry.
    certificates: Vec<PathBuf>,
}

/// What vouches for a registry beside the system's authorities, and what we show it.
#[derive(Clone, Default)]
pub struct Certificates {
    /// in PEM, one or more each
    pub authorities: Vec<Vec<u8>>,
    /// our certificate and its key, in PEM
    pub identity: Option<Vec<u8>>,
    /// for messages
    pub folder: PathBuf,
}

impl Registries {
    /// Reads the files of this root and of the person who asks.
    pub fn load(root: &Folder) -> Result<Registries> {
        Registries::read(root, &own_folder(), std::env::var_os("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from))
    }

    fn read(root: &Folder, own: &Path, named: Option<PathBuf>) -> Result<Registries> {
        let mut conf = RegistriesConf::default();
        let mut add =
            |path: &Path, text: String| conf.extend(&text).with_context(|| format!("reading {}", path.display()));
        let main = named.clone().or(Some(own.join("registries.conf")).filter(|path| path.exists()));
        match main {
            Some(path) => {
                let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
                add(&path, text)?;
            }
            None => each(root, "etc/containers", &|name| name == "registries.conf", &mut add)?,
        }
        if named.is_none() {
            each(root, "etc/containers/registries.conf.d", &|name| name.ends_with(".conf"), &mut add)?;
            let folder = own.join("registries.conf.d");
            if folder.is_dir() {
                each(&Folder::root(&folder)?, ".", &|name| name.ends_with(".conf"), &mut add)?;
            }
        }
        let [folder, file] = CHOSEN;
        each(root, folder, &|name| name == file, &mut add)?;
        let below = |place: &str| root.path().join(place);
        let system = [below("etc/containers/certs.d"), below("etc/docker/certs.d")];
        let certificates = [own.join("certs.d")].into_iter().chain(system).collect();
        Ok(Registries { conf, certificates })
    }

    /// Where an image may be had from, in the order to try.
    pub fn places(&self, reference: &Reference) -> Result<Vec<Place>> {
        let places = self.conf.places(reference).context("reading registries.conf")?;
        places.ok_or_else(|| Fault::new(Code::Refused, format!("registries.conf blocks {reference}")).into())
    }

    /// What a short name may stand for.
    pub fn long_names(&self, short: &str) -> Vec<String> {
        self.conf.long_names(short)
    }

    /// What happens where a short name may stand for several.
    pub fn mode(&self) -> Mode {
        self.conf.mode()
    }

    /// Where logins are looked for.
    pub fn credential_helpers(&self) -> Vec<String> {
        self.conf.credential_helpers()
    }

    /// The certificates for a registry, from the first folder that has its name.
    pub fn certificates(&self, host: &str) -> Result<Certificates> {
        for folder in self.certificates.iter().map(|folder| folder.join(host)) {
            let reading = || format!("reading {}", folder.display());
            match fs::read_dir(&folder) {
                Ok(entries) => {
                    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>();
                    return paths.and_then(|paths| of_folder(&folder, paths)).with_context(reading);
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error).with_context(reading),
            }
        }
        Ok(Certificates::default())
    }
}

fn of_folder(folder: &Path, mut paths: Vec<PathBuf>) -> Result<Certificates> {
    paths.sort();
    let mut found = Certificates { folder: folder.to_owned(), ..Certificates::default() };
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    for path in &paths {
        match path.extension().and_then(OsStr::to_str) {
            Some("crt") => found.authorities.push(read(path)?),
            Some("cert") => {
                let key = path.with_extension("key");
                if !paths.contains(&key) {
                    bail!("{} has no key beside it: {} is missing", path.display(), key.display());
                }
                // one is shown, and the manual leaves open which
                if found.identity.is_none() {
                    found.identity = Some([read(path)?, b"\n".to_vec(), read(&key)?].concat());
                }
            }
            Some("key") if !paths.contains(&path.with_extension("cert")) => {
                bail!("{} has no certificate beside it", path.display());
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Hands on each file of a folder below the root whose name fits, in the order of the names.
fn each(
    root: &Folder,
    below: &str,
    fits: &dyn Fn(&str) -> bool,
    add: &mut dyn FnMut(&Path, String) -> Result<()>,
) -> Result<()> {
    let Some(folder) = root.open(below)? else { return Ok(()) };
    for name in folder.names()?.iter().filter(|name| fits(name)) {
        if let Some(text) = folder.read(name)? {
            add(&folder.path().join(name), text)?;
        }
    }
    Ok(())
}

/// `$XDG_CONFIG_HOME/containers`, or the same below the home; a timer, which has neither, reads what root does at a terminal.
fn own_folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").unwrap_or_else(|| "/root".into());
    variable("XDG_CONFIG_HOME").unwrap_or_else(|| home().join(".config")).join("containers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, below: &str, text: &str) {
        let path = root.join(below);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// As a person without files.
    fn load(root: &Path) -> Result<Registries> {
        Registries::read(&Folder::root(root).expect("a root"), &root.join("home"), None)
    }

    #[test]
    fn drop_ins_follow_in_the_order_of_their_names() {
        let work = tempfile::tempdir().expect("a folder");
        write(work.path(), "etc/containers/registries.conf", "unqualified-search-registries = ['a.io']\n");
        write(work.path(), "etc/containers/registries.conf.d/20.conf", "[aliases]\n'x' = 'second.io/x'\n");
        write(
            work.path(),
            "etc/containers/registries.conf.d/10.conf",
            "[aliases]\n'x' = 'first.io/x'\n'y' = 'first.io/y'\n",
        );
        write(work.path(), "etc/containers/registries.conf.d/30.txt", "nonsense");
        let known = load(work.path()).expect("sound files");
        assert_eq!(known.long_names("x:1"), ["second.io/x:1"]);
        assert_eq!(known.long_names("y"), ["first.io/y"]);
        assert_eq!(known.long_names("z"), ["a.io/z"]);
        write(work.path(), "var/cache/containers/short-name-aliases.conf", "[aliases]\n'x' = 'chosen.io/x'\n");
        assert_eq!(load(work.path()).expect("sound files").long_names("x"), ["chosen.io/x"]);
        write(work.path(), "etc/containers/registries.conf.d/15.conf", "[[registry]]\n");
        let error = format!("{:#}", load(work.path()).err().expect("broken"));
        assert!(error.contains("15.conf") && error.contains("neither"), "{error}");
    }

    #[test]
    fn a_certificate_has_its_key_beside_it() {
        let work = tempfile::tempdir().expect("a folder");
        let known = |host: &str| load(work.path()).expect("no files").certificates(host);
        assert!(known("reg.io:5000").expect("none").identity.is_none());
        write(work.path(), "etc/docker/certs.d/reg.io:5000/ca.crt", "CA");
        write(work.path(), "etc/docker/certs.d/reg.io:5000/me.cert", "CERT");
        let error = format!("{:#}", known("reg.io:5000").err().expect("no key"));
        assert!(error.contains("me.key is missing"), "{error}");
        write(work.path(), "etc/docker/certs.d/reg.io:5000/me.key", "KEY");
        let found = known("reg.io:5000").expect("a pair");
        assert_eq!((found.authorities, found.identity), (vec![b"CA".to_vec()], Some(b"CERT\nKEY".to_vec())));
        assert!(known("reg.io").expect("another registry").authorities.is_empty());
        write(work.path(), "etc/containers/certs.d/reg.io:5000/lonely.key", "KEY");
        let error = format!("{:#}", known("reg.io:5000").err().expect("the first folder counts"));
        assert!(error.contains("lonely.key has no certificate"), "{error}");
    }
}
