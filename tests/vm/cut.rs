//! What a power cut at some moment leaves of a machine in QEMU. The machine stands still while its disk is copied, and goes on: what its
//! kernel and QEMU had not written yet is not in the copy. That boots in systemd-nspawn, which is a matter of seconds.

use std::process::Command;

use anyhow::Result;

use crate::image::{self, Payload, Tree};
use crate::nspawn::Nspawn;
use crate::process::run;
use crate::qemu::Qemu;

/// The disk, mounted.
pub struct Cut {
    _folder: tempfile::TempDir,
    tree: Tree,
}

impl Cut {
    /// Takes the power away from a copy of the machine.
    pub fn of(machine: &Qemu, name: &str) -> Result<Self> {
        let folder = image::run_folder(name)?;
        let (overlay, disk) = (folder.path().join("overlay"), folder.path().join("disk"));
        machine.copy_disk(&overlay)?;
        run(Command::new("qemu-img").args(["convert", "-O", "raw"]).args([&overlay, &disk]))?;
        std::fs::remove_file(overlay)?;
        let cut = Self { tree: Tree::at(folder.path()), _folder: folder };
        std::fs::create_dir(cut.tree.path())?;
        run(Command::new("mount").args(["-o", "loop"]).arg(disk).arg(cut.tree.path()))?;
        Ok(cut)
    }

    /// Whether a file was there.
    pub fn has(&self, path: &str) -> bool {
        self.tree.path().join(path).exists()
    }

    /// Boots it. What is done there does not reach the disk.
    pub fn boot(&self, name: &str, payload: &Payload) -> Result<Nspawn> {
        Nspawn::boot(name, &self.tree, payload)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // where it was not mounted there is nothing to do
        let _ = Command::new("umount").arg("--quiet").arg(self.tree.path()).status();
    }
}
