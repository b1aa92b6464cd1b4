//! Which range of the host's user numbers a container gets, where it has users of its own.

use anyhow::Result;

use super::{dir::Folder, state};
use crate::model::{
    id_range::{self, Range, WIDTH},
    layout,
    name::ContainerName,
};

/// The first number of its range: the one that it has already, else of a free one, which others that are on their way were not `given`.
/// None where none is free.
pub fn of(root: &Folder, name: &ContainerName, given: &[u32]) -> Result<Option<u32>> {
    let own = state::deployments(root, name)?.iter().rev().find_map(|deployment| deployment.range);
    match own {
        Some(first) => Ok(Some(first)),
        None => free(root, given),
    }
}

/// A range for one that is thrown away.
pub fn another(root: &Folder) -> Result<Option<u32>> {
    free(root, &[])
}

fn free(root: &Folder, given: &[u32]) -> Result<Option<u32>> {
    let mut taken = taken(root)?;
    taken.extend(given.iter().map(|first| (*first, WIDTH)));
    Ok(id_range::free(&taken))
}

/// What administrators have granted, users have, and containers have.
fn taken(root: &Folder) -> Result<Vec<Range>> {
    let mut taken = Vec::new();
    if let Some(etc) = root.open("etc")? {
        for (file, read) in [
            ("subuid", id_range::granted as fn(&str) -> Vec<Range>),
            ("subgid", id_range::granted),
            ("passwd", id_range::accounts),
            ("group", id_range::accounts),
        ] {
            // Names in them need not be UTF-8.
            let bytes = etc.read_bytes(file)?.unwrap_or_default();
            taken.extend(read(&String::from_utf8_lossy(&bytes)));
        }
    }
    // Whatever may be wrong with one, another one can be installed.
    for name in state::names(root)? {
        let deployments = state::deployments(root, &name)?;
        taken.extend(deployments.iter().filter_map(|deployment| Some((deployment.range?, WIDTH))));
    }
    if let Some(runs) = root.open(layout::RUNS)? {
        for id in runs.names()? {
            let config = runs.open(&id)?.map(|folder| folder.read_bytes("config.json")).transpose()?.flatten();
            let spec = config.and_then(|text| serde_json::from_slice(&text).ok());
            let map = spec.as_ref().and_then(id_range::map);
            taken.extend(map.iter().flat_map(|map| &map.users).map(|range| (range.host_id(), range.size())));
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_range_is_free_of_what_others_have_and_stays_the_containers() {
        let place = tempfile::tempdir().expect("a folder");
        let write = |file: &str, text: &str| {
            let path = place.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        let root = Folder::root(place.path()).expect("a root");
        let name: ContainerName = "a".parse().expect("a name");
        assert_eq!(of(&root, &name, &[]).expect("read"), Some(524_288));
        write("etc/subuid", "alice:524288:65536\n");
        write("etc/passwd", "root:x:0:0::/root:/bin/sh\nb\u{e9}:x:589900:5::/:/bin/sh\n");
        assert_eq!(of(&root, &name, &[]).expect("read"), Some(655_360));
        write(
            "var/lib/sysctr/run/b-1/config.json",
            r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "user"}],
            "uidMappings": [{"containerID": 0, "hostID": 655360, "size": 65536}],
            "gidMappings": [{"containerID": 0, "hostID": 655360, "size": 65536}]}}"#,
        );
        assert_eq!(of(&root, &name, &[]).expect("read"), Some(720_896));
        assert_eq!(of(&root, &name, &[720_896]).expect("read"), Some(786_432));
    }
}
