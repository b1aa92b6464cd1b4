//! Layers merged by the rules, without a store: contents are kept as their first byte.

use super::*;

/// Remembers nothing but a number made of the content.
struct Memory;

impl Importer for Memory {
    fn file(&mut self, attributes: &Attributes, size: u64, content: &mut dyn Read) -> Result<ObjectId> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, size);
        let mut id = [0; 32];
        id[0] = bytes.first().copied().unwrap_or_default();
        id[1..3].copy_from_slice(&(attributes.mode as u16).to_be_bytes());
        Ok(id)
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
        let Node::Dir(_, children) = tree.node(id) else { return };
        for (name, child) in children {
            let path = format!("{path}{name}");
            match tree.node(*child) {
                Node::Dir(..) => {
                    into.push(format!("{path}/"));
                    walk(tree, *child, &format!("{path}/"), into);
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
