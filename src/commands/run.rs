//! `sysctr run IMAGE -- CMD...`: a container that is thrown away after its program ended.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    Context,
    candidate::{self, Candidate, Wanted},
    exec, image, install,
};
use crate::cli::RunArgs;
use sysctr::{
    host::{apply, id_ranges, ostree::Store, policy, runs, settings, value_files},
    model::{
        given_mount::GivenMount,
        host_lines, layout, legacy,
        overrides::Overrides,
        request::{self, Requests},
        spec,
        throwaway::{self, Given},
        user::User,
    },
};

/// Bytes of a passwd(5) or group(5) that are still believed.
const ACCOUNTS_LIMIT: u64 = 1 << 20;

/// Becomes the launcher that waits for the container; returns only where it cannot.
pub fn run(context: &Context, args: &RunArgs) -> Result<()> {
    if context.offline() {
        bail!("running {}: only the running system can, without --root", args.image);
    }
    let wishes = exec::wishes(&args.program, &args.command)?;
    let given = given(args)?;
    let source = context.named(&args.image)?;
    let name = install::name(args.name.as_ref(), &source)?;
    let (root, lock) = context.begin("run")?;
    runs::sweep(&root, &lock)?;
    let store = Store::open_or_create(&lock)?;
    policy::check(&context.root, &source)?;
    let image = match store.find(&source)? {
        Some(image) => image,
        None => image::pull(context, &lock, &store, &source, &settings::load(&root)?)?,
    };
    let account = |path| -> Result<String> {
        let bytes = store.read_file(&image, Path::new(path), ACCOUNTS_LIMIT)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let user = match &args.program.user {
        Some(user) => Some(User::resolve(user, &account("etc/passwd")?, &account("etc/group")?)?),
        None => None,
    };
    let wanted = Wanted {
        root: &root,
        name: &name,
        id: 1,
        source: &source,
        settings: &value_files::gather(&args.values.settings, &args.values.set_file, &args.values.values_files)?,
        unset: &[],
        before: None,
        runtime: None,
        overrides: &Overrides::default(),
        range: id_ranges::another(&root)?,
        quadlet: None,
    };
    let mut candidate = Candidate::render(&store, image, &wanted)?;
    if let Some(secret) = candidate.rendered.secrets.keys().next() {
        bail!("running {}: the value {secret} is a secret, which only a service is handed", args.image);
    }
    let rendered = &mut candidate.rendered;
    let (config, entrypoint) = (&candidate.image.config, given.entrypoint.as_ref());
    throwaway::throw_away(&mut rendered.spec, config, &rendered.state, &wishes, user.as_ref(), entrypoint)?;
    // No unit is placed and no state is kept: what is left to ask for is what the program may do.
    rendered.requests = request::of_spec(&rendered.spec, &[], &[]).context("config.json")?;
    // An old image that is run once counts on its folders.
    let folders =
        legacy::is_run_once(&candidate.image.config).then(|| rendered.files.remove(layout::TMPFILES)).flatten();
    if let Some(folders) = &folders {
        rendered.requests.extend(host_lines::of_tmpfiles("/exports/tmpfiles.template", folders, &name)?);
    }
    (rendered.files, rendered.state, rendered.host_files) = Default::default();
    candidate.tell(context);
    candidate.accept(context, &root, &Requests::new(), args.yes, "running")?;
    throwaway::give(&mut candidate.rendered.spec, &given)?;

    let staging = || format!("running {source}");
    let is_file = |source: &str| candidate::is_file(Path::new(source));
    let mount_points = spec::mount_points(&candidate.name, &candidate.rendered.spec, is_file);
    let config_json = spec::to_text(&candidate.rendered.spec)?;
    let staged = runs::Staged::new(&root, &lock, &name, args.name.is_some()).with_context(staging)?;
    folders.map_or(Ok(()), |folders| apply::tmpfiles_once(&folders)).with_context(staging)?;
    staged.fill(&lock, &store, &candidate.image, &config_json, &mount_points).with_context(staging)?;
    if let Some(manager) = context.manager()? {
        let unit = format!("sysctr-run-{}.scope", staged.id());
        manager.start_scope(&unit, &format!("sysctr run {source}")).with_context(staging)?;
    }
    drop(lock);
    let mut command = Command::new(layout::RUNTIME);
    command.arg("run").arg(staged.hand_over()?).args(["--session", "--remove"]);
    if args.program.interactive {
        command.arg("--interactive");
    }
    Err(exec::replace(&mut command))
}

/// What the command line gives it, with sources that are there: nothing is pulled for a mount that cannot be.
fn given(args: &RunArgs) -> Result<Given> {
    let there = |mount: &GivenMount| -> Result<GivenMount> {
        let Some(source) = mount.source() else { return Ok(mount.clone()) };
        let path = source.canonicalize().with_context(|| format!("mounting {}", source.display()))?;
        let path = path.into_os_string().into_string().map_err(|path| anyhow!("mounting {path:?}: it is no text"))?;
        Ok(mount.clone().with_source(path))
    };
    Ok(Given {
        mounts: args.mounts.iter().chain(&args.volumes).map(there).collect::<Result<_>>()?,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        entrypoint: args.entrypoint.clone(),
    })
}
