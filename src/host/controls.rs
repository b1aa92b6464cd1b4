//! What a test can take out, to show that a power cut then does harm: each sync by its place in the source, and the commit's being one step.
//!
//! Only a build with the cargo feature `controls` reads these variables; it is never shipped. Everywhere else nothing of this is
//! compiled in.
//!
//! ```text
//! SYSCTR_SYNCS=FILE            each sync adds a line with its name
//! SYSCTR_WITHOUT_SYNC=NAME     the sync with this name is left out
//! SYSCTR_SPLIT_COMMIT=1        `active` is written in place: emptied, then filled
//! ```

/// Whether to leave a sync out: `kind`, and where the caller stands, name it.
#[cfg(feature = "controls")]
#[track_caller]
pub fn without_sync(kind: &str) -> bool {
    use std::io::Write;
    let caller = std::panic::Location::caller();
    let name = format!("{kind} {}:{}", caller.file(), caller.line());
    if let Some(path) = std::env::var_os("SYSCTR_SYNCS") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
    }
    std::env::var("SYSCTR_WITHOUT_SYNC").is_ok_and(|without| without == name)
}

/// Whether to leave a sync out.
#[cfg(not(feature = "controls"))]
pub const fn without_sync(_: &str) -> bool {
    false
}

/// Whether the commit is to be two steps.
pub fn split_commit() -> bool {
    cfg!(feature = "controls") && std::env::var_os("SYSCTR_SPLIT_COMMIT").is_some()
}
