//! Files into a machine and out of it, over the one line that each kind of machine has: a script and what it says.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use crate::machine::Machine;

/// One argument of execve(2) has room for 128 KiB.
const CHUNK: usize = 100_000;

/// Writes files (path, mode, content) below a folder.
pub fn into(machine: &mut dyn Machine, folder: &str, files: &[(String, u32, Vec<u8>)]) -> Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        archive.append_data(&mut header, path, content.as_slice())?;
    }
    let text = BASE64_STANDARD.encode(archive.into_inner()?.finish()?);
    machine.run(&format!("mkdir -p {folder} && rm -f {folder}/.coming"))?;
    for chunk in text.as_bytes().chunks(CHUNK) {
        machine.run(&format!("printf %s '{}' >>{folder}/.coming", String::from_utf8_lossy(chunk)))?;
    }
    machine.run(&format!("cd {folder} && base64 -d .coming | tar -xz && rm .coming")).context("unpacking").map(drop)
}

/// All files of a folder, by name.
pub fn out_of(machine: &mut dyn Machine, folder: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let text = machine.run(&format!("tar -C {folder} -cz . | base64 -w 0"))?;
    let packed = BASE64_STANDARD.decode(text)?;
    let mut archive = tar::Archive::new(GzDecoder::new(packed.as_slice()));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            files.insert(path, content);
        }
    }
    Ok(files)
}
