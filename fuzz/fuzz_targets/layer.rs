//! Layers are merged or refused; what is merged has only names that can stand in a folder.
//!
//! The first byte says what follows: a layer as it is, compressed or not, or words of which layers with sound headers are made, since no
//! fuzzer guesses a checksum.
#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use sysctr::host::{
    blob::decompressed,
    layer::{self, Attributes, Importer, ObjectId, Room},
    tree::{Node, Tree},
};

/// Keeps nothing but the length.
struct Nowhere;

impl Importer for Nowhere {
    fn file(&mut self, _: &Attributes, _: i64, size: u64, content: &mut dyn Read) -> anyhow::Result<ObjectId> {
        let mut short = content.take(size);
        std::io::copy(&mut short, &mut std::io::sink())?;
        Ok([size as u8; 32])
    }

    fn folder(&mut self, _: &Attributes) -> anyhow::Result<()> {
        Ok(())
    }

    fn symlink(&mut self, _: &Attributes, target: &str) -> anyhow::Result<ObjectId> {
        assert!(!target.is_empty() && !target.chars().any(char::is_control), "{target:?}");
        Ok([0; 32])
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let layers = if first % 2 == 0 { vec![rest.to_vec()] } else { made(rest) };
    let mut tree = Tree::new(1000);
    let room = Room::of(1 << 20);
    for layer in layers {
        let Ok(plain) = decompressed(Cursor::new(layer)) else { return };
        let mut pieces = Vec::new();
        let read = layer::read(&mut plain.take(1 << 21), &mut Nowhere, &room, &mut |piece| {
            pieces.push(Ok(piece));
            Ok(())
        });
        if let Err(error) = tree.apply(pieces.into_iter().chain(read.err().map(Err))) {
            assert!(!format!("{error:#}").contains('\n'), "{error:#}");
            return;
        }
    }
    let mut left = 0;
    walk(&tree, Tree::ROOT, 0, &mut left);
    assert!(left <= 1000);
    assert!(tree.objects().count() <= left);
    let _ = (tree.size(), tree.warnings());
});

fn walk(tree: &Tree, id: u32, depth: usize, left: &mut usize) {
    assert!(depth < 256, "libostree follows no deeper");
    let mut before = "";
    for (name, child) in tree.children(id) {
        *left += 1;
        assert!(!matches!(name, "" | "." | "..") && !name.contains('/') && name.len() < 256, "{name:?}");
        assert!(!name.starts_with(".wh.") && !name.chars().any(char::is_control), "{name:?}");
        assert!(before < name, "{before:?} and {name:?}");
        before = name;
        if let Node::Dir(_) = tree.node(child) {
            walk(tree, child, depth + 1, left);
        }
    }
}

/// Entries of a kind, a name, a link, an extension and a content, each with a length before it; another kind begins the next layer.
fn made(mut words: &[u8]) -> Vec<Vec<u8>> {
    let mut layers = vec![Vec::new()];
    let mut word = |most: usize| -> Option<Vec<u8>> {
        let (length, rest) = words.split_first()?;
        let length = usize::from(*length).min(most).min(rest.len());
        let (word, rest) = rest.split_at(length);
        words = rest;
        Some(word.to_vec())
    };
    while let (Some(kind), Some(name), Some(link), Some(pax)) = (word(1), word(100), word(100), word(255)) {
        let Some(layer) = layers.last_mut() else { break };
        let kind = kind.first().copied().unwrap_or(b'0');
        if kind == b'n' {
            layers.push(Vec::new());
            continue;
        }
        if !pax.is_empty() {
            layer.extend(block(b'x', b"pax", b"", &pax));
        }
        let content = if kind == b'0' { word(255).unwrap_or_default() } else { Vec::new() };
        layer.extend(block(kind, &name, &link, &content));
    }
    layers
}

fn block(kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..name.len()].copy_from_slice(name);
    for (at, text) in [(100, &b"0000755"[..]), (108, b"0000000"), (116, b"0000000"), (136, b"00000000000")] {
        bytes[at..at + text.len()].copy_from_slice(text);
    }
    bytes[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    bytes[156] = kind;
    bytes[157..157 + link.len()].copy_from_slice(link);
    bytes[257..263].copy_from_slice(b"ustar\0");
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}
