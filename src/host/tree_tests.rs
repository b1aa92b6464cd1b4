//! Layers merged by the rules, without a store: contents are kept as their first byte.

use std::io::Read;

use super::{
    super::layer::{Importer, Room, read},
    *,
};

/// Remembers nothing but a number made of the content.
struct Memory;

impl Importer for Memory {
    fn file(&mut self, attributes: &Attributes, _: i64, size: u64, content: &mut dyn Read) -> Result<ObjectId> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, size);
        let mut id = [0; 32];
        id[0] = bytes.first().copied().unwrap_or_default();
        id[1..3].copy_from_slice(&(attributes.mode as u16).to_be_bytes());
        Ok(id)
    }

    fn folder(&mut self, _: &Attributes) -> Result<()> {
        Ok(())
    }

    fn symlink(&mut self, _: &Attributes, _: &str) -> Result<ObjectId> {
        Ok([0; 32])
    }
}

#[derive(Clone, Copy)]
enum Item<'a> {
    Dir(&'a str),
    File(&'a str, &'a str),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Fifo(&'a str),
}
use Item::{Dir, Fifo, File, Hard, Link};

/// Paths go in as they are: `tar::Builder` would refuse the bad ones.
fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        let (path, kind, link, content) = match *item {
            Dir(path) => (path, tar::EntryType::Directory, "", ""),
            File(path, content) => (path, tar::EntryType::Regular, "", content),
            Link(path, target) => (path, tar::EntryType::Symlink, target, ""),
            Hard(path, target) => (path, tar::EntryType::Link, target, ""),
            Fifo(path) => (path, tar::EntryType::Fifo, "", ""),
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn merge(layers: &[&[Item<'_>]]) -> Result<Tree> {
    let mut tree = Tree::new(1000);
    let room = Room::of(1000);
    for items in layers {
        let mut pieces = Vec::new();
        let end = read(&mut &layer(items)[..], &mut Memory, &room, &mut |piece| {
            pieces.push(Ok(piece));
            Ok(())
        });
        tree.apply(pieces.into_iter().chain(end.err().map(Err)))?;
    }
    Ok(tree)
}

/// `path` for a folder, `path=c` for a file that starts with `c`, `path->target` for a link.
fn paths(tree: &Tree) -> Vec<String> {
    fn walk(tree: &Tree, id: NodeId, path: &str, into: &mut Vec<String>) {
        for (name, child) in tree.children(id) {
            let path = format!("{path}{name}");
            match tree.node(child) {
                Node::Dir(..) => {
                    into.push(format!("{path}/"));
                    walk(tree, child, &format!("{path}/"), into);
                }
                Node::File(id, _) => into.push(format!("{path}={}", char::from(id[0]))),
                Node::Symlink(_, target) => into.push(format!("{path}->{target}")),
            }
        }
    }
    let mut into = Vec::new();
    walk(tree, Tree::ROOT, "", &mut into);
    into
}

fn merged(layers: &[&[Item<'_>]]) -> Vec<String> {
    paths(&merge(layers).expect("sound layers"))
}

#[test]
fn whiteouts_hide_lower_layers_only_whatever_their_order() {
    let lower: &[Item<'_>] = &[Dir("d"), File("d/old", "o"), File("d/kept", "k"), File("gone", "g")];
    for upper in [
        &[File("d/.wh.old", ""), File("d/new", "n"), File(".wh.gone", "")][..],
        &[File(".wh.gone", ""), File("d/new", "n"), File("d/.wh.old", "")],
    ] {
        assert_eq!(merged(&[lower, upper]), ["d/", "d/kept=k", "d/new=n"]);
    }
    // the same name hidden below and brought anew above
    for upper in [&[File("d/.wh.old", ""), File("d/old", "n")][..], &[File("d/old", "n"), File("d/.wh.old", "")]] {
        assert_eq!(merged(&[lower, upper]), ["d/", "d/kept=k", "d/old=n", "gone=g"]);
    }
}

#[test]
fn an_opaque_folder_keeps_what_its_own_layer_brings() {
    let lower: &[Item<'_>] = &[Dir("d"), File("d/old", "o"), Dir("d/sub"), File("d/sub/old", "o")];
    for upper in [
        &[Dir("d"), File("d/.wh..wh..opq", ""), File("d/new", "n"), File("d/sub/new", "n")][..],
        &[File("d/new", "n"), File("d/sub/new", "n"), Dir("d"), File("d/.wh..wh..opq", "")],
    ] {
        assert_eq!(merged(&[lower, upper]), ["d/", "d/new=n", "d/sub/", "d/sub/new=n"]);
    }
    assert_eq!(merged(&[lower, &[File(".wh.d", ""), Dir("d")]]), ["d/"]);
    assert_eq!(merged(&[lower, &[File("d/.wh.sub", ""), File(".wh..wh.plnk", "x")]]), ["d/", "d/old=o"]);
}

#[test]
fn a_name_changes_its_type_between_layers() {
    let lower: &[Item<'_>] = &[Dir("a"), File("a/x", "x"), File("b", "b"), Link("c", "a"), Dir("d"), File("d/x", "x")];
    let upper: &[Item<'_>] = &[File("a", "f"), Dir("b"), File("b/y", "y"), Dir("c"), Link("d", "b")];
    assert_eq!(merged(&[lower, upper]), ["a=f", "b/", "b/y=y", "c/", "d->b"]);
}

#[test]
fn a_path_over_links_lands_where_they_lead() {
    let lower: &[Item<'_>] =
        &[Dir("usr"), Dir("usr/lib"), Link("lib", "usr/lib"), Link("abs", "/lib/../lib"), Link("var", "lib")];
    let upper: &[Item<'_>] = &[File("lib/a", "a"), File("abs/b", "b"), File("var/sub/c", "c")];
    let tree = merged(&[lower, upper]);
    assert_eq!(tree[4..], ["usr/lib/a=a", "usr/lib/b=b", "usr/lib/sub/", "usr/lib/sub/c=c", "var->lib"]);
    assert_eq!(merged(&[lower, &[File("lib/a", "a")], &[File("lib/.wh.a", "")]]).len(), 5);
}

#[test]
fn hard_links_reach_lower_layers() {
    let lower: &[Item<'_>] = &[Dir("usr"), File("usr/f", "f"), Link("u", "usr"), Link("l", "usr/f")];
    let upper: &[Item<'_>] = &[Hard("g", "usr/f"), Hard("h", "./u/f"), Hard("m", "l")];
    assert_eq!(merged(&[lower, upper])[..3], ["g=f", "h=f", "l->usr/f"]);
}

#[test]
fn what_is_not_a_file_is_left_out_and_said() {
    let tree = merge(&[&[Fifo("run/pipe"), File("f", "f"), Fifo("a"), Fifo("dev/null"), Fifo("b"), Fifo("c")]])
        .expect("sound");
    assert_eq!(paths(&tree), ["f=f"]);
    // in one line; nobody misses what /dev covers
    let said = r#"left out "run/pipe", "a", "b" and 1 more: devices, fifos and sockets are not installed"#;
    assert_eq!(tree.warnings(), [said]);
    assert!(merge(&[&[Fifo("dev/null")]]).expect("sound").warnings().is_empty());
}

#[test]
fn what_is_left_out_hides_what_it_replaces_and_takes_its_hard_links_along() {
    let lower: &[Item<'_>] = &[File("f", "f"), Dir("d"), File("d/x", "x"), File("kept", "k"), Fifo("pipe")];
    let upper: &[Item<'_>] =
        &[Fifo("f"), Fifo("d"), Fifo("new/pipe"), Hard("one", "f"), Hard("two", "./one"), Hard("kept", "pipe")];
    let tree = merge(&[lower, upper]).expect("sound");
    assert_eq!(paths(&tree), [""; 0]);
    let said = tree.warnings().join("");
    assert!(said.starts_with(r#"left out "pipe", "f", "d" and 4 more"#), "{said}");
    // a file that has the name now is linked to
    assert_eq!(merged(&[&[Fifo("a")], &[File("a", "1"), Hard("b", "a")]]), ["a=1", "b=1"]);
    // and what the layer itself brings stays
    assert_eq!(merged(&[&[Dir("d"), File("d/x", "x")], &[File("d/y", "y"), Fifo("d")]]), ["d/", "d/y=y"]);
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let deep = "d/".repeat(49);
    let table: &[(&[Item<'_>], &str)] = &[
        (&[File("/etc/passwd", "x")], "absolute"),
        (&[File("a/../../x", "x")], "'..'"),
        (&[Link("out", "../../etc"), File("out/passwd", "x")], "leads out"),
        (&[Link("loop", "loop"), File("loop/x", "x")], "too many links"),
        (&[File("f", "x"), File("f/x", "x")], "not a folder"),
        (&[Hard("h", "nowhere")], "not there"),
        (&[Dir("d"), Hard("h", "d")], "folder"),
        (&[Hard("h", "/etc/shadow")], "absolute"),
        (&[Hard("h", "../etc/shadow")], "'..'"),
        (&[File("new\nline", "x")], "control"),
        (&[Link("l", "a\u{1}")], "control"),
        (&[File(".wh.a/b", "x")], "whiteout"),
        (&[File(".wh.", "x")], "whiteout"),
        (&[File("d/.wh...", "x"), Dir("d"), File("d/.wh...", "x")], "whiteout"),
        (&[Link(".", "etc")], "root"),
        (&[File("big", &"x".repeat(1001))], "larger than the free space"),
        (&[Link("d/d", "x"), Link("a", &deep), Link("b", "a")], ""),
    ];
    for (items, why) in table {
        let result = merge(&[items]);
        if why.is_empty() {
            continue;
        }
        let error = format!("{:#}", result.err().unwrap_or_else(|| panic!("{why}: was taken")));
        assert!(error.contains(why) && error.starts_with("layer entry"), "{why}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn many_short_attributes_of_folders_count_for_what_they_take() {
    let folder = |number: u64| Piece {
        path: format!("d{number}").into_bytes(),
        kind: Kind::Dir,
        link: Vec::new(),
        size: 0,
        attributes: Attributes {
            xattrs: (0..1000u64).map(|at| (format!("user.{number}.{at}").into_bytes(), Vec::new())).collect(),
            ..Attributes::implied()
        },
        left_out: Vec::new(),
        object: None,
    };
    let error = Tree::new(1000).apply((0..500).map(|number| Ok(folder(number)))).expect_err("too many");
    let error = format!("{error:#}");
    // 1000 pairs each, of some 140 bytes
    assert!(error.starts_with("layer entry \"d120\"") && error.contains("bytes of attributes"), "{error}");
}

#[test]
fn many_entries_and_deep_folders_end_in_an_error() {
    let names: Vec<String> = (0..1001).map(|number| format!("f{number}")).collect();
    let items: Vec<Item<'_>> = names.iter().map(|name| File(name, "")).collect();
    assert!(format!("{:#}", merge(&[&items]).err().expect("too many")).contains("entries"));
    // links make a deep folder of short paths
    let step = "d/".repeat(45);
    let links: Vec<(String, String)> = (1..7)
        .map(|at| (format!("l{at}"), format!("{}{step}", if at > 1 { format!("l{}/", at - 1) } else { String::new() })))
        .collect();
    let mut items: Vec<Item<'_>> = links.iter().map(|(name, target)| Link(name, target)).collect();
    items.push(File("l6/x", "x"));
    assert!(format!("{:#}", merge(&[&items]).err().expect("too deep")).contains("deep"));
}

#[test]
fn what_the_layer_has_twice_is_refused_but_for_folders() {
    assert_eq!(merged(&[&[Dir("d"), File("d/x", "x"), Dir("d")]]), ["d/", "d/x=x"]);
    for twice in [
        &[File("a", "1"), File("./a", "2")][..],
        &[File("a", "1"), Link("a", "b")],
        &[File("a", "1"), File("h", "1"), Hard("h", "a")],
        &[Dir("d"), File("d", "x")],
        &[File("d/x", "x"), File("d", "x")],
        &[File("d", "x"), Dir("d")],
        &[Dir("usr"), Link("lib", "usr"), File("lib/x", "1"), File("usr/x", "2")],
    ] {
        let error = format!("{:#}", merge(&[twice]).err().expect("refused"));
        assert!(error.starts_with("layer entry") && error.contains("twice"), "{error}");
    }
    assert_eq!(merged(&[&[File("a", "1")], &[File("a", "2")]]), ["a=2"]);
}

/// What layer.md says, word by word: whiteouts first and upon lower layers, then what the layer brings.
mod model {
    use std::collections::BTreeMap;

    /// Paths of folders (none) and of files, by their content.
    pub type Files = BTreeMap<String, Option<char>>;

    #[derive(Clone, Debug)]
    pub struct Layer {
        pub whiteouts: Vec<String>,
        pub opaque: Vec<String>,
        pub brings: Files,
    }

    pub fn merge(layers: &[Layer]) -> Vec<String> {
        let mut files = Files::new();
        for layer in layers {
            for path in &layer.whiteouts {
                drop_below(&mut files, path);
                files.remove(path);
            }
            for path in &layer.opaque {
                drop_below(&mut files, path);
            }
            for (path, content) in &layer.brings {
                if content.is_some() || files.get(path).is_some_and(Option::is_some) {
                    drop_below(&mut files, path);
                }
                files.insert(path.clone(), *content);
            }
        }
        let shown = files.into_iter().map(|(path, content)| match content {
            Some(content) => format!("{path}={content}"),
            None => format!("{path}/"),
        });
        shown.collect()
    }

    fn drop_below(files: &mut Files, path: &str) {
        let below = format!("{path}/");
        files.retain(|name, _| !name.starts_with(&below));
    }
}

#[test]
fn random_layers_merge_as_the_specification_says() {
    // xorshift: enough of a dice, and the same everywhere
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut dice = move |sides: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % sides
    };
    for round in 0..3000 {
        let mut layers = Vec::new();
        for _ in 0..1 + dice(4) {
            let mut layer = model::Layer { whiteouts: Vec::new(), opaque: Vec::new(), brings: model::Files::new() };
            for _ in 0..dice(8) {
                let names: Vec<&str> = (0..1 + dice(3)).map(|_| ["a", "b", "c"][dice(3) as usize]).collect();
                let path = names.join("/");
                let mut parents = (1..names.len()).map(|end| names[..end].join("/"));
                let free = |path: &String| layer.brings.get(path).is_none_or(Option::is_none);
                match dice(4) {
                    0 => layer.whiteouts.push(path),
                    1 => layer.opaque.push(path),
                    kind if parents.clone().all(|parent| free(&parent)) && !layer.brings.contains_key(&path) => {
                        let is_parent = layer.brings.keys().any(|other| other.starts_with(&format!("{path}/")));
                        layer.brings.extend(parents.by_ref().map(|parent| (parent, None)));
                        let content = (kind == 2 && !is_parent).then_some(char::from(b'p' + dice(8) as u8));
                        layer.brings.insert(path, content);
                    }
                    _ => {}
                }
            }
            layers.push(layer);
        }
        // whiteouts anywhere in the archive; folders before what is in them
        let mut archives: Vec<Vec<(String, Option<String>)>> = Vec::new();
        for layer in &layers {
            let brings = layer.brings.iter().map(|(path, content)| (path.clone(), content.map(String::from)));
            let mut entries: Vec<_> = brings.collect();
            let hides = layer.whiteouts.iter().map(|path| match path.rsplit_once('/') {
                Some((parent, name)) => format!("{parent}/.wh.{name}"),
                None => format!(".wh.{path}"),
            });
            for path in hides.chain(layer.opaque.iter().map(|path| format!("{path}/.wh..wh..opq"))) {
                entries.insert(dice(entries.len() as u64 + 1) as usize, (path, Some(String::new())));
            }
            archives.push(entries);
        }
        let items: Vec<Vec<Item<'_>>> = archives
            .iter()
            .map(|entries| {
                let item = entries.iter().map(|(path, content)| match content {
                    Some(content) => File(path, content),
                    None => Dir(path),
                });
                item.collect()
            })
            .collect();
        let slices: Vec<&[Item<'_>]> = items.iter().map(Vec::as_slice).collect();
        let mut ours = merged(&slices);
        ours.sort();
        let mut theirs = model::merge(&layers);
        theirs.sort();
        assert_eq!(ours, theirs, "round {round}: {layers:#?}");
    }
}
