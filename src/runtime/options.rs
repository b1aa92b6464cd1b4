//! The options of a mount in config.json, sorted into what the kernel's mount calls take.

use anyhow::{Result, bail};

use super::sys::MountAttr;

const RDONLY: u64 = libc::MS_RDONLY; // the first four MOUNT_ATTR_* have the numbers of their MS_*
const NOSUID: u64 = libc::MS_NOSUID;
const NODEV: u64 = libc::MS_NODEV;
const NOEXEC: u64 = libc::MS_NOEXEC;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x0020_0000;

/// MOUNT_ATTR_RDONLY
pub const READ_ONLY: MountAttr = setting(RDONLY);
/// MOUNT_ATTR_NOSUID
pub const NO_SUID: MountAttr = setting(NOSUID);
/// MOUNT_ATTR_NODEV
pub const NO_DEV: MountAttr = setting(NODEV);
/// Read-only, no devices: how an image's files are mounted where setuid was accepted.
pub const IMAGE_SETUID: MountAttr = setting(RDONLY | NODEV);
/// Read-only, no set-user-ID, no devices: how an image's files are mounted.
pub const IMAGE: MountAttr = setting(RDONLY | NODEV | NOSUID);
/// As [`IMAGE`], for a root that is written to.
pub const WRITABLE_IMAGE: MountAttr = setting(NODEV | NOSUID);
/// As [`IMAGE_SETUID`], for a root that is written to.
pub const WRITABLE_IMAGE_SETUID: MountAttr = setting(NODEV);
/// The empty folder that hides another.
pub const MASK: MountAttr = MountAttr::of(RDONLY | NODEV | NOSUID | NOEXEC, 0, libc::MS_PRIVATE);
/// A device on its own: /dev/null where it hides a file.
pub const DEVICE: MountAttr = MountAttr::of(RDONLY | NOSUID | NOEXEC, 0, libc::MS_PRIVATE);

const fn setting(set: u64) -> MountAttr {
    MountAttr::of(set, 0, 0)
}

/// The options of one mount.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// a bind mount; with true, of everything below too
    pub bind: Option<bool>,
    /// attributes of the mount itself
    pub own: MountAttr,
    /// attributes of it and of every mount below it (`rro` and its like)
    pub all: MountAttr,
    /// what happens to the mount's propagation, and whether below it too
    pub propagation: Option<(u64, bool)>,
    /// true where `rw` stands there in so many words
    pub read_write: bool,
    /// the source of a bind mount may be missing, as in fstab(5)
    pub nofail: bool,
    /// a bind mount whose files are shown under other numbers; with true, those of everything below too
    pub idmap: Option<bool>,
    /// a tmpfs begins with what the image has there
    pub copy_up: bool,
    /// parameters for the file system itself, `key` or `key=value`
    pub parameters: Vec<String>,
}

impl Options {
    /// Sorts options; later ones win, as in mount(8).
    ///
    /// Names: <https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options>
    pub fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            parsed.take(option)?;
        }
        Ok(parsed)
    }

    fn take(&mut self, option: &str) -> Result<()> {
        match option {
            "nofail" => self.nofail = true,
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            "defaults" | "async" | "norelatime" | "nostrictatime" | "loud" | "silent" | "nolazytime" | "nomand"
            | "noiversion" | "rnorelatime" | "rnostrictatime" | "" => {}
            "private" | "slave" | "shared" | "unbindable" => self.propagation = Some((propagation(option), false)),
            "rprivate" | "rslave" | "rshared" | "runbindable" => {
                self.propagation = Some((propagation(&option[1..]), true));
            }
            "tmpcopyup" => self.copy_up = true,
            "remount" => {
                bail!("the mount option \"remount\" is not supported: name all options where the mount is made")
            }
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            _ => match (attribute(option), option.strip_prefix('r').and_then(attribute)) {
                (Some(change), _) => {
                    apply(&mut self.own, change);
                    self.read_write = option == "rw" || (self.read_write && option != "ro");
                }
                (None, Some(change)) => apply(&mut self.all, change),
                (None, None) => self.parameters.push(option.to_owned()),
            },
        }
        Ok(())
    }
}

/// (set, clear) of a per-mount option.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (RDONLY, 0),
        "rw" => (0, RDONLY),
        "nosuid" => (NOSUID, 0),
        "suid" => (0, NOSUID),
        "nodev" => (NODEV, 0),
        "dev" => (0, NODEV),
        "noexec" => (NOEXEC, 0),
        "exec" => (0, NOEXEC),
        "nodiratime" => (NODIRATIME, 0),
        "diratime" => (0, NODIRATIME),
        "nosymfollow" => (NOSYMFOLLOW, 0),
        "symfollow" => (0, NOSYMFOLLOW),
        // The kernel wants the whole field cleared to set another of these; relatime is 0 in it.
        "relatime" | "atime" => (0, ATIME),
        "noatime" => (NOATIME, ATIME),
        "strictatime" => (STRICTATIME, ATIME),
        _ => return None,
    })
}

fn apply(attr: &mut MountAttr, (set, clear): (u64, u64)) {
    attr.set = (attr.set & !clear) | set;
    attr.clear = (attr.clear & !set) | clear;
    if set & ATIME != 0 {
        attr.clear |= ATIME;
    }
}

fn propagation(name: &str) -> u64 {
    match name {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => libc::MS_PRIVATE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn options_go_where_the_kernel_takes_them() {
        let options = parse("rbind,rslave,ro,nosuid,noatime,rnodev");
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.propagation, Some((libc::MS_SLAVE, true)));
        assert_eq!(options.own, MountAttr::of(RDONLY | NOSUID | NOATIME, ATIME, 0));
        assert_eq!(options.all, MountAttr::of(NODEV, 0, 0));
        assert_eq!(parse("nosuid,strictatime,mode=755,size=64k").parameters, ["mode=755", "size=64k"]);
    }

    #[test]
    fn the_later_option_wins() {
        assert_eq!(parse("ro,rw").own, MountAttr::of(0, RDONLY, 0));
        assert_eq!(parse("rw,ro").own, MountAttr::of(RDONLY, 0, 0));
        assert!(parse("ro,rw").read_write && !parse("rw,ro").read_write);
        assert_eq!(parse("noatime,relatime").own, MountAttr::of(0, ATIME, 0));
    }
}
