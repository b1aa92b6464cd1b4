//! A program in a container: `exec` and `run`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use sysctr::model::{
    given_mount::GivenMount,
    name::{ContainerName, ServiceName},
    reference::ImageName,
    spec,
};

use super::ValueArgs;

/// What `exec` and `run` let one choose about the program.
#[derive(Args, Default)]
pub struct ProgramArgs {
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Run it as this user [default: the container's own]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Start it in this folder [default: the container's own]
    #[arg(short, long, value_name = "DIR", value_parser = folder)]
    pub workdir: Option<PathBuf>,
    /// Set a variable, or pass ours on (all that begin so: KEY*); may be repeated
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = variable)]
    pub env: Vec<String>,
    /// The same from a file, a line each; those of --env come after it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub env_file: Vec<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "It ends as the program does; 125: it could not be run, 126: not executable, 127: not found.")]
pub struct ExecArgs {
    #[command(flatten)]
    pub program: ProgramArgs,
    /// The container, or one instance of its template unit
    #[arg(value_name = "NAME[@INSTANCE]")]
    pub name: ServiceName,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl RunArgs {
    /// For an image that is run once.
    pub fn once(image: ImageName, name: ContainerName, values: ValueArgs, yes: bool) -> RunArgs {
        RunArgs {
            program: ProgramArgs::default(),
            name: Some(name),
            values,
            yes,
            mounts: Vec::new(),
            volumes: Vec::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            entrypoint: None,
            rm: true,
            image,
            command: Vec::new(),
        }
    }
}

#[derive(Args)]
#[command(after_help = "It ends as the program does; 125: it could not be run, 126: not executable, 127: not found.")]
pub struct RunArgs {
    #[command(flatten)]
    pub program: ProgramArgs,
    /// Name of the container while it runs [default: after the image]
    #[arg(long)]
    pub name: Option<ContainerName>,
    #[command(flatten)]
    pub values: ValueArgs,
    /// Accept what the image requests of the host without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Show it a folder or file of the host, or a new tmpfs: type=bind,source=PATH,target=PATH[,ro]
    /// or type=tmpfs,target=DIR; may be repeated
    #[arg(long = "mount", value_name = "MOUNT")]
    pub mounts: Vec<GivenMount>,
    /// The short form of a bind mount; may be repeated
    #[arg(long = "volume", value_name = "PATH:PATH[:ro]", value_parser = GivenMount::of_volume)]
    pub volumes: Vec<GivenMount>,
    /// Let it have a capability, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = capability)]
    pub cap_add: Vec<String>,
    /// Take a capability away, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = capability)]
    pub cap_drop: Vec<String>,
    /// Program in the place of the image's Entrypoint; its Cmd goes, too
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// For those used to it: it always is
    #[arg(long, hide = true)]
    pub rm: bool,
    /// In the store, or where it comes from
    pub image: ImageName,
    /// What takes the place of the image's Cmd; its Entrypoint stays
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

fn folder(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') { Ok(text.into()) } else { Err(format!("{text:?} is no absolute path in the container")) }
}

/// A variable as `--env` takes it.
pub fn variable(text: &str) -> Result<String, String> {
    let good = !text.is_empty() && !text.starts_with('=') && !text.contains('\0');
    if good { Ok(text.to_owned()) } else { Err(format!("{text:?} is no variable: KEY=VALUE or KEY")) }
}

fn capability(text: &str) -> Result<String, String> {
    let name = if text.eq_ignore_ascii_case("all") { Ok("ALL".to_owned()) } else { spec::capability(text) };
    name.map_err(|error| error.to_string())
}
