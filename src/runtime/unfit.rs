//! Why the kernel would not execute a file, in words: it says little more than "no such file" of a missing interpreter.

use std::ffi::CStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// No interpreter is named further into a file than this.
const HEAD: usize = 4096;

/// The cause of a failed execve(2). Runs in the container, as the user that the program was to run as.
pub fn why(program: &CStr, error: Errno) -> String {
    let head = head(program);
    let script = head.as_deref().and_then(interpreter_of_script);
    let named = script.clone().or_else(|| head.as_deref().and_then(loader_of_elf));
    let shown = |path: &Path| format!("{:?}", path.display().to_string());
    match (error, head.as_deref()) {
        (Errno::ENOENT, _) => match named {
            Some(path) if !path.exists() => {
                let what = if script.is_some() { "interpreter" } else { "dynamic loader" };
                format!("the {what} {} that it names is missing in the image", shown(&path))
            }
            Some(path) => format!("what its interpreter {} names is missing in the image", shown(&path)),
            None => "the interpreter that it names is missing in the image".to_owned(),
        },
        (Errno::ENOEXEC, Some(head)) => match machine(head) {
            Some(other) if other != std::env::consts::ARCH => {
                format!("it is a program for {other}, and this machine is {}", std::env::consts::ARCH)
            }
            Some(_) => "it is a damaged ELF program".to_owned(),
            None if head.is_empty() => "the file is empty".to_owned(),
            None => "it is neither an ELF program nor a script with an interpreter in its first line".to_owned(),
        },
        (Errno::ENOEXEC, None) => "it is no program for this machine".to_owned(),
        (Errno::EACCES, _) => match named {
            Some(path) => format!("permission denied, for it or for {} that it names", shown(&path)),
            None => "permission denied: its file system may be mounted noexec".to_owned(),
        },
        (error, _) => format!("{} ({error})", error.desc()),
    }
}

fn head(program: &CStr) -> Option<Vec<u8>> {
    let file = File::open(std::ffi::OsStr::from_bytes(program.to_bytes())).ok()?;
    let mut head = vec![0; HEAD];
    let length = file.read_at(&mut head, 0).ok()?;
    head.truncate(length);
    Some(head)
}

fn interpreter_of_script(head: &[u8]) -> Option<PathBuf> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let path = line.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t')).next()?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// PT_INTERP of a 64-bit little-endian ELF file, see elf(5).
fn loader_of_elf(head: &[u8]) -> Option<PathBuf> {
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = head.get(at..at.checked_add(size)?)?;
        usize::try_from(bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))).ok()
    };
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for entry in 0..count.min(64) {
        let at = table.checked_add(entry * size)?;
        if number(at, 4)? == 3 {
            let (offset, length) = (number(at + 8, 8)?, number(at + 0x20, 8)?);
            let path = CStr::from_bytes_until_nul(head.get(offset..offset.checked_add(length)?)?).ok()?;
            return Some(PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes())));
        }
    }
    None
}

/// Which machine an ELF file is for, by the names that Rust has for them.
fn machine(head: &[u8]) -> Option<String> {
    let (class, order) = (*head.strip_prefix(b"\x7fELF")?.first()?, *head.get(5)?);
    let bytes = [*head.get(18)?, *head.get(19)?];
    let number = if order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    Some(match (number, class, order) {
        (3, ..) => "x86".to_owned(),
        (62, ..) => "x86_64".to_owned(),
        (40, ..) => "arm".to_owned(),
        (183, ..) => "aarch64".to_owned(),
        (243, 2, _) => "riscv64".to_owned(),
        (21, _, 1) => "powerpc64le".to_owned(),
        (21, ..) => "powerpc64".to_owned(),
        (22, ..) => "s390x".to_owned(),
        (258, ..) => "loongarch64".to_owned(),
        (8, ..) => "mips".to_owned(),
        (other, ..) => format!("ELF machine {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn of(bytes: &[u8], error: Errno) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        why(&CString::new(file.path().as_os_str().as_bytes()).unwrap(), error)
    }

    fn elf(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(64, 0);
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        head
    }

    #[test]
    fn each_cause_is_told_in_its_own_words() {
        let mut dynamic = elf(62);
        dynamic[0x20] = 64;
        dynamic[0x36] = 56;
        dynamic[0x38] = 1;
        dynamic.resize(64 + 56, 0);
        (dynamic[64], dynamic[64 + 8], dynamic[64 + 0x20]) = (3, 120, 8);
        dynamic.extend(b"/no/ld1\0");
        for (bytes, error, words) in [
            (elf(183), Errno::ENOEXEC, "it is a program for aarch64, and this machine is"),
            (elf(999), Errno::ENOEXEC, "for ELF machine 999,"),
            (b"echo hello\n".to_vec(), Errno::ENOEXEC, "neither an ELF program nor a script"),
            (Vec::new(), Errno::ENOEXEC, "the file is empty"),
            (b"#! /no/sh -e\n".to_vec(), Errno::ENOENT, "the interpreter \"/no/sh\" that it names is missing"),
            (dynamic, Errno::ENOENT, "the dynamic loader \"/no/ld1\" that it names is missing"),
        ] {
            let told = of(&bytes, error);
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[test]
    fn a_file_that_ends_anywhere_is_read_without_harm() {
        let mut whole = elf(62);
        whole[0x20..0x28].copy_from_slice(&u64::MAX.to_le_bytes());
        (whole[0x36], whole[0x38]) = (255, 255);
        for length in 0..whole.len() {
            of(&whole[..length], Errno::ENOEXEC);
            of(&whole[..length], Errno::ENOENT);
        }
    }
}
