//! Defences that a test can take out, to show that its probe would notice: `SYSCTR_WITHOUT=seal,folder` names them.
//!
//! Only a binary built with the cargo feature `controls` reads that variable; it is never shipped. Everywhere else
//! [`without`] is constantly false, and what would be left undone is not even compiled in.

/// One defence, with all its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defence {
    /// the launcher's own file on a read-only mount
    Seal,
    /// /proc's magic links as the program
    Program,
    /// /proc's magic links as the working directory
    Folder,
    /// descriptors that were open already
    Descriptors,
    /// init cannot be looked into
    Dumpable,
    /// masks are made of the host's /dev/null
    Null,
    /// linux.maskedPaths
    Masks,
    /// linux.readonlyPaths
    ReadOnlyPaths,
    /// sysctls are written through a /proc of our own
    OwnProc,
    /// the host's /dev/null does not come in as a standard stream
    Streams,
    /// which sysctls there may be
    SysctlNames,
    /// destinations are resolved inside the root, made on new file systems alone, and every source is opened before any is mounted
    Destinations,
    /// no link of the image at /proc, /sys and /dev
    KernelLinks,
    /// no link below a source that the container may write
    Sources,
    /// root.path stays below the deployment
    RootPath,
    /// the image's files read-only
    ReadOnlyRoot,
    /// no set-user-ID of the image
    NoSuid,
    /// no device of the image
    NoDev,
    /// no_new_privs
    NoNewPrivileges,
    /// the launcher's supplementary groups
    Groups,
    /// the launcher's inheritable capabilities
    Inheritable,
    /// the bounding set
    Bounding,
    /// a session keyring of its own
    Keyring,
    /// a terminal comes from a devpts, and from nothing else that has its name
    Console,
    /// the cgroup read-only
    Cgroup,
    /// mounts of the new namespace do not reach the host
    CutOff,
    /// nor do those that are made below a bind mount
    Propagation,
    /// the old root is let go
    OldRoot,
    /// pivot_root(2), not chroot(2)
    Pivot,
}

/// True where a test took this defence out.
#[cfg(not(feature = "controls"))]
pub const fn without(_: Defence) -> bool {
    false
}

/// True where a test took this defence out.
#[cfg(feature = "controls")]
pub fn without(defence: Defence) -> bool {
    let named = std::env::var("SYSCTR_WITHOUT").unwrap_or_default();
    named.split(',').any(|name| name == format!("{defence:?}"))
}
