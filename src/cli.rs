//! The command line: text becomes types here and nowhere behind.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use sysctr::model::{
    name::ContainerName,
    other_runtime::RuntimePath,
    reference::{ImageName, ImageSource},
};

pub use self::{
    container::{ContainerArgs, ValueArgs},
    program::{ExecArgs, ProgramArgs, RunArgs, variable},
};

mod container;
mod program;

/// The heading of the options that every verb has.
const EVERYWHERE: &str = "With every command";

/// Install OCI images as systemd services, without a container engine
#[derive(Parser)]
#[command(name = "sysctr", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "IMAGE is REGISTRY/REPOSITORY[:TAG][@DIGEST], a short name that registries.conf knows, oci:DIR[:TAG], \
        oci-archive:FILE, docker-archive:FILE, docker-daemon:NAME, containers-storage:NAME or rootfs:DIR."
)]
pub struct Cli {
    /// Work on the system below this folder, without talking to systemd
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = EVERYWHERE)]
    pub root: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// Say more
    #[arg(short, long, global = true, action = ArgAction::SetTrue, help_heading = EVERYWHERE)]
    pub verbose: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// Wait while another sysctr is at work, as long as it takes or so many seconds
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds, help_heading = EVERYWHERE)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "infinity")]
    pub wait: Option<Duration>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Install an image as a service
    Install(InstallArgs),
    /// Update containers to the newest image; one that is not well goes back
    Update(UpdateArgs),
    /// Go back to an earlier deployment of a container
    Rollback(RollbackArgs),
    /// Stop, disable and remove containers; images and state stay
    Uninstall(UninstallArgs),
    /// List what is installed
    List,
    /// Show one container in full
    Show {
        /// The container
        name: ContainerName,
    },
    /// Show what differs between two deployments of a container, or what an update would bring
    Diff(DiffArgs),
    /// Run a program in a running container
    Exec(ExecArgs),
    /// Run a program in a container that is thrown away afterwards
    Run(Box<RunArgs>),
    /// Pull an image into the store
    Pull {
        /// Where it comes from, such as registry.example/team/app:1 or oci:DIR
        image: ImageName,
    },
    /// List the images in the store
    Images,
    /// Remove images from the store
    Remove {
        /// A name that `sysctr images` shows
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<ImageSource>,
    },
    /// Show what an image says about itself
    #[command(override_usage = "sysctr inspect [OPTIONS] <IMAGE | --schema>")]
    Inspect {
        /// In the store, or where it comes from
        #[arg(required_unless_present = "schema")]
        image: Option<ImageName>,
        /// Print the JSON Schema of /exports/manifest.json
        #[arg(long, conflicts_with = "image")]
        schema: bool,
    },
    /// Show the files of an image in the store in a folder, read-only
    Mount {
        /// A name that `sysctr images` shows
        image: ImageSource,
        /// A folder that is there
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// End what `mount` began
    Unmount {
        /// The folder
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Check the store and every file that was placed
    Verify(VerifyArgs),
    /// Start the /exports of an image: what it says about itself
    Init(InitArgs),
    /// Say which units would wait for each other, or for what comes too late
    Check(CheckArgs),
    /// Say what is wrong with an image's /exports, or with the unit of a container
    Lint(LintArgs),
    /// Drop images and leftovers that nothing needs
    Prune {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write all into a folder
    Man {
        /// Where a page for each command is written
        #[arg(value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// Finish or undo what was cut short (run at boot by sysctr-recover.service)
    #[command(hide = true)]
    Recover,
    /// See how what was updated or recovered is since (run by sysctr-settle.service and sysctr-failed@.service)
    #[command(hide = true)]
    Settle {
        /// This one failed
        #[arg(long, value_name = "NAME")]
        failed: Option<ContainerName>,
    },
}

#[derive(Args)]
#[command(override_usage = "sysctr install [OPTIONS] <IMAGE | --quadlet FILE.container>")]
pub struct InstallArgs {
    /// Where it comes from, such as registry.example/team/app:1 or oci:DIR
    #[arg(required_unless_present_any = ["quadlet", "rootfs"])]
    pub image: Option<ImageName>,
    /// Install what a Quadlet file of Podman describes
    #[arg(long, value_name = "FILE.container", value_hint = ValueHint::FilePath, conflicts_with = "image")]
    pub quadlet: Option<PathBuf>,
    /// Install an unpacked root file system, as it is now (the image rootfs:DIR)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["image", "quadlet"])]
    pub rootfs: Option<PathBuf>,
    /// Name of the container and of its unit [default: the last part of the repository]
    #[arg(long)]
    pub name: Option<ContainerName>,
    #[command(flatten)]
    pub values: ValueArgs,
    #[command(flatten)]
    pub container: ContainerArgs,
    /// Let this OCI runtime start it (crun, runc, youki) instead of the bundled one
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub runtime: Option<RuntimePath>,
    /// Accept what the image requests of the host without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Let its files for the host take the place of others; those are kept beside them (.sysctr-old)
    #[arg(long)]
    pub replace: bool,
    /// Also start it; when that fails the install is undone
    #[arg(long)]
    pub now: bool,
    /// Do not enable it at boot
    #[arg(long)]
    pub no_enable: bool,
    /// Say what would be done, and show the files, without doing it
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args)]
pub struct VerifyArgs {
    /// Only these containers
    #[arg(value_name = "NAME")]
    pub names: Vec<ContainerName>,
    /// Put right what is wrong; broken parts of an image are fetched again, while services run on
    #[arg(long)]
    pub repair: bool,
    /// Another place that has the image, to fetch from first
    #[arg(long, value_name = "IMAGE", requires = "repair")]
    pub from: Option<ImageSource>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match (text, text.parse()) {
        ("infinity", _) => Ok(Duration::MAX),
        (_, Ok(seconds)) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is no number of seconds")),
    }
}

#[derive(Args)]
pub struct InitArgs {
    /// Folder in which `exports` is made
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Image whose config says what there is to say; nothing is pulled
    pub image: Option<ImageName>,
}

#[derive(Args)]
#[command(after_help = "From the running systemd; with --root from files. The exit code is 1 if it finds an error.")]
pub struct CheckArgs {
    /// The whole boot: cycles of other units too, and a drawing of the containers in it
    #[arg(long)]
    pub boot: bool,
    /// Draw the boot for graphviz: `sysctr check --dot | dot -Tsvg`
    #[arg(long, conflicts_with = "json")]
    pub dot: bool,
    /// Draw the boot as a picture
    #[arg(long, conflicts_with_all = ["json", "dot"])]
    pub svg: bool,
}

#[derive(Args)]
pub struct LintArgs {
    /// A folder with exports in it, an image, or the name of a container
    #[arg(value_name = "DIR|IMAGE|NAME", value_hint = ValueHint::DirPath)]
    pub subject: String,
    /// Name that the container would have [default: the folder's or the last part of the repository]
    #[arg(long)]
    pub name: Option<ContainerName>,
    #[command(flatten)]
    pub values: ValueArgs,
}

#[derive(Args)]
#[command(override_usage = "sysctr update [OPTIONS] <NAME... | --all | --auto>")]
pub struct UpdateArgs {
    /// The containers
    #[arg(value_name = "NAME", required_unless_present_any = ["all", "auto"])]
    pub names: Vec<ContainerName>,
    /// All that are installed, but those on hold
    #[arg(long, conflicts_with_all = ["names", "ValueArgs", "unset", "ContainerArgs", "revert"])]
    pub all: bool,
    /// All, each as its policy in sysctr.toml says: what sysctr-update.timer does
    #[arg(long, conflicts_with_all = ["names", "all", "to", "ValueArgs", "unset", "ContainerArgs", "revert", "yes", "replace", "check", "no_restart", "no_rollback"])]
    pub auto: bool,
    /// Another image than the newest of the same reference
    #[arg(long, value_name = "IMAGE", conflicts_with = "all")]
    pub to: Option<ImageName>,
    #[command(flatten)]
    pub values: ValueArgs,
    /// Let a value that was given before be the image's default again
    #[arg(long, value_name = "KEY")]
    pub unset: Vec<String>,
    #[command(flatten)]
    pub container: ContainerArgs,
    /// First drop what --mount, --env and the like gave before
    #[arg(long)]
    pub revert: bool,
    /// Accept what the new image requests of the host without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Let its files for the host take the place of others; those are kept beside them (.sysctr-old)
    #[arg(long)]
    pub replace: bool,
    /// Only say what there is
    #[arg(long)]
    pub check: bool,
    /// All of them or none: if one is not well, all go back
    #[arg(long, conflicts_with_all = ["no_rollback", "check"])]
    pub together: bool,
    /// Do not restart anything: the next start is of the new deployment
    #[arg(long)]
    pub no_restart: bool,
    /// Keep the new deployment even if the service is not well with it
    #[arg(long)]
    pub no_rollback: bool,
}

#[derive(Args)]
#[command(after_help = "The exit code is 0 whether or not they differ.")]
#[command(override_usage = "sysctr diff [OPTIONS] <NAME> [A [B] | --available | --to IMAGE]")]
pub struct DiffArgs {
    /// The container
    pub name: ContainerName,
    /// Number of the older deployment, as `sysctr show` lists them [default: the one before that in force]
    #[arg(value_name = "A")]
    pub from: Option<u32>,
    /// Number of the newer one [default: the one in force]
    #[arg(value_name = "B")]
    pub to: Option<u32>,
    /// What an update would bring: pulls the newest image of the same reference, and changes nothing else
    #[arg(long, conflicts_with_all = ["from", "to", "image"])]
    pub available: bool,
    /// The same of another image
    #[arg(long = "to", value_name = "IMAGE", conflicts_with_all = ["from", "to"])]
    pub image: Option<ImageName>,
    /// List every file that differs
    #[arg(long)]
    pub files: bool,
}

#[derive(Args)]
pub struct RollbackArgs {
    /// The container
    pub name: ContainerName,
    /// Number of the deployment, as `sysctr show` lists them [default: the one before]
    #[arg(long, value_name = "N")]
    pub to: Option<u32>,
}

#[derive(Args)]
pub struct UninstallArgs {
    /// The containers
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<ContainerName>,
    /// Also delete the state that the image declared
    #[arg(long)]
    pub purge: bool,
    /// Only say what would go
    #[arg(long)]
    pub dry_run: bool,
}
