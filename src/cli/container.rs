//! What an admin gives a container: the values that its image asks for, and more than its image says.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use sysctr::model::{
    given_mount::GivenMount,
    overrides::{Capability, Device, Memory, Overrides, Variable},
    values::Setting,
};

/// The heading of what an admin gives a container.
const GIVEN: &str = "Beyond what the image says (stays over updates)";

/// The values that an image asks for.
#[derive(Args, Clone)]
pub struct ValueArgs {
    /// Give a value that the image asks for; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<Setting>,
    /// The same from a file: best for a secret, which others may see on a command line
    #[arg(long = "set-file", value_name = "KEY=FILE", value_hint = ValueHint::FilePath)]
    pub set_file: Vec<Setting>,
    /// Many values from a table in TOML or JSON; --set wins over it
    #[arg(long = "values", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub values_files: Vec<PathBuf>,
}

/// What a container gets beyond what its image says; it stays over updates.
#[derive(Args)]
pub struct ContainerArgs {
    /// Show it a folder or file of the host, or a new tmpfs: type=bind,source=PATH,target=PATH[,ro]
    /// or type=tmpfs,target=DIR
    #[arg(long = "mount", value_name = "MOUNT", help_heading = GIVEN)]
    pub mounts: Vec<GivenMount>,
    /// The short form of a bind mount
    #[arg(long = "volume", value_name = "PATH:PATH[:ro]", value_parser = GivenMount::of_volume, help_heading = GIVEN)]
    pub volumes: Vec<GivenMount>,
    /// Set a variable
    #[arg(long, value_name = "KEY=VALUE", help_heading = GIVEN)]
    pub env: Vec<Variable>,
    /// Let it have a capability
    #[arg(long, value_name = "NAME", help_heading = GIVEN)]
    pub cap_add: Vec<Capability>,
    /// Do not let it have a capability
    #[arg(long, value_name = "NAME", help_heading = GIVEN)]
    pub cap_drop: Vec<Capability>,
    /// Let it open a device of the host
    #[arg(long = "device", value_name = "PATH", help_heading = GIVEN)]
    pub devices: Vec<Device>,
    /// Limit its memory, such as 512M (the unit's MemoryMax=)
    #[arg(long, value_name = "SIZE", help_heading = GIVEN)]
    pub memory: Option<Memory>,
}

impl ContainerArgs {
    /// As one. A path of the host is meant from here, and stays that one.
    pub fn overrides(&self) -> anyhow::Result<Overrides> {
        let absolute = |mount: &GivenMount| match mount.source() {
            None => Ok(mount.clone()),
            Some(source) => {
                let source = std::path::absolute(source)?;
                Ok(mount.clone().with_source(source.to_string_lossy().into_owned()))
            }
        };
        Ok(Overrides {
            mounts: self.mounts.iter().chain(&self.volumes).map(absolute).collect::<std::io::Result<_>>()?,
            env: self.env.iter().map(|one| (one.key.clone(), one.value.clone())).collect(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            devices: self.devices.clone(),
            memory: self.memory.clone(),
        })
    }
}
