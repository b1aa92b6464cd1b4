//! `sysctr exec NAME[@INSTANCE] -- CMD...`: one more program in a running container.

use std::{os::unix::process::CommandExt, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};

use super::Context;
use crate::cli::{self, ExecArgs, ProgramArgs};
use sysctr::{
    host::{enter, process, state},
    model::{
        fault::{Code, Fault},
        layout,
        process::{Exec, Wishes},
    },
};

/// Becomes the launcher that waits for the program; returns only where it cannot.
pub fn run(context: &Context, args: &ExecArgs) -> Result<()> {
    let name = &args.name;
    let (_, current) = state::installed(&context.folder()?, &name.container)?;
    let wishes = wishes(&args.program, &args.command)?;
    let running = || format!("running {:?} in {name}", args.command.first().map_or("", String::as_str));
    let Some(manager) = context.manager()? else { bail!("{}: systemd does not run this system", running()) };
    let unit = name.unit();
    let Some((main, group)) = manager.main_process(&unit).with_context(running)? else {
        let state = manager.state(&unit).with_context(running)?;
        if let (Some(template), "not-found") = (name.template_unit(), state.load.as_str()) {
            let message = format!("{}: there is no {template} to make instances of", running());
            bail!(Fault::new(Code::NotRun, message));
        }
        let message = format!("{}: the container does not run, it is {}", running(), state.active);
        bail!(Fault::new(Code::NotRun, message).hint(format!("`systemctl start {name}` starts it")));
    };
    let inside = process::of_service(main, &group).with_context(running)?;
    // The launcher's own group is where the mark is: with DelegateSubgroup= it is one below the unit's.
    let marked = [&inside.cgroup, &group].into_iter().find_map(|group| process::deployment(&name.container, group));
    let id = marked.unwrap_or(current.id);
    let request = Exec {
        container: name.to_string(),
        deployment: PathBuf::from(format!("/{}", layout::deployment(&name.container, id))),
        cgroup: inside.cgroup,
        wishes,
    };
    let mut entering = enter::prepare(&inside.pidfd, &request)?;
    Err(replace(&mut entering.command))
}

/// Becomes another program; the error says why not.
pub fn replace(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    anyhow!(error).context(format!("running {}", command.get_program().display()))
}

/// What the command line says of a program. A variable without a value is ours, and left out where we have none.
pub fn wishes(args: &ProgramArgs, command: &[String]) -> Result<Wishes> {
    let terminal = args.tty.then(|| own("TERM").pop().unwrap_or_else(|| "TERM=xterm".to_owned()));
    let mut env: Vec<String> = terminal.into_iter().collect();
    for file in &args.env_file {
        let reading = || format!("reading {}", file.display());
        let text = std::fs::read_to_string(file).with_context(reading)?;
        // A line is as it is: no quotes, no comment behind a value (podman-run(1), --env-file).
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let given = cli::variable(line).map_err(|why| anyhow!(why)).with_context(reading)?;
            env.extend(variable(&given));
        }
    }
    env.extend(args.env.iter().flat_map(|given| variable(given)));
    Ok(Wishes {
        args: command.to_vec(),
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        env,
        terminal: args.tty,
        interactive: args.interactive,
    })
}

fn variable(given: &str) -> Vec<String> {
    if given.contains('=') { vec![given.to_owned()] } else { own(given) }
}

/// Ours of that name; with a `*` at its end all that begin so.
fn own(name: &str) -> Vec<String> {
    let wanted = |key: &str| name.strip_suffix('*').map_or(key == name, |start| key.starts_with(start));
    let ours =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    ours.filter(|(key, _)| wanted(key)).map(|(key, value)| format!("{key}={value}")).collect()
}
