//! What takes the host's rights: the container's root is put together and entered.

use std::{
    ffi::OsString,
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::unistd::sethostname;
use oci_spec::runtime::{Linux, Mount, Process};
use rustix::fs::{Mode, OFlags};

use super::super::{
    builder::Builder,
    console::Console,
    controls::{Defence, without},
    credentials::Credentials,
    deployment::Deployment,
    dev,
    environment::Places,
    exit,
    hooks::Stage,
    labels,
    mounts::{self, Detached},
    pressure, process, protect,
    rootfs::{self, RootFs},
    sys, sysctl,
    users::{self, Users},
};
use super::{BUILT, Init, NOTIFY, NOTIFY_PLACE, SETUID};

impl Init {
    /// Everything that takes the host's rights: `builder` is who has them, and init's number, where init has not. Gives what lies
    /// elsewhere in the container than on the host, and the program's terminal.
    pub fn make(
        &self,
        process: &Process,
        linux: &Linux,
        umask: Mode,
        builder: Option<(&Builder, i32)>,
    ) -> Result<(Places, Option<Console>)> {
        let spec = &self.deployment.spec;
        self.stage.set(exit::OOM_ADJUST);
        if let Some(score) = process.oom_score_adj() {
            let init = builder.map_or("self".to_owned(), |(builder, _)| builder.init_on_host());
            process::set_oom_score(&init, score)?;
        }
        self.stage.set(exit::NAMESPACE);
        if let Some(name) = spec.hostname() {
            let setting = || format!("setting the hostname {name:?}: does the unit have ProtectHostname=yes?");
            sethostname(name).with_context(setting)?;
        }
        if let Some(name) = spec.domainname() {
            sys::set_domainname(name).with_context(|| format!("setting the domainname {name:?}"))?;
        }
        let init = builder.map_or_else(std::process::id, |(_, init)| init as u32);
        self.build_root(linux, umask, builder.map(|(builder, _)| &builder.users), init)
    }

    /// Puts the root together and enters it.
    fn build_root(
        &self,
        linux: &Linux,
        umask: Mode,
        users: Option<&Users>,
        init: u32,
    ) -> Result<(Places, Option<Console>)> {
        users.map_or(Ok(()), Users::own_new_files)?;
        let Deployment { dir, spec, .. } = &self.deployment;
        let path = spec.root().as_ref().map_or(Path::new("rootfs"), |root| root.path());
        let null = protect::null()?;
        let socket = match &self.passed.notify_socket {
            Some(path) if self.deployment.annotated(NOTIFY) => {
                Some((PathBuf::from(path), mounts::of_host(path.as_ref())?))
            }
            _ => None,
        };
        let user = spec.process().as_ref().map(Process::user).cloned().unwrap_or_default();
        let credentials = match &self.passed.credentials {
            Some(path) => {
                self.stage.set(exit::CREDENTIALS);
                Some(Credentials::of_host(path, &user, users).context("taking the unit's credentials")?)
            }
            None => None,
        };
        self.stage.set(exit::NAMESPACE);
        let label = labels::of_mounts(linux)?;
        let label = label.as_deref();
        let setuid = self.deployment.annotated(SETUID);
        let own = RootFs::detached(dir, path, setuid, users)?;
        let mut detached = Vec::new();
        let wanted = self.passed.directories.among(spec.mounts().as_deref().unwrap_or_default(), &own, users.is_some());
        let wanted = &wanted.map_err(|(code, error)| {
            self.stage.set(code);
            error
        })?;
        let writable = &mounts::writable_sources(wanted, dir);
        let maker = mounts::Maker { dir, writable, label, users };
        if !wanted.iter().any(|mount| mount.destination() == Path::new("/dev")) {
            detached.extend(maker.make(&default_dev())?);
        }
        for mount in wanted.iter().filter(|_| !without(Defence::Destinations)) {
            detached.extend(maker.make(mount)?);
        }
        rootfs::cut_off()?;

        let mut root = RootFs::attached(own, dir, path)?;
        if spec.root().as_ref().and_then(|root| root.readonly()) != Some(true) {
            root.make_writable(setuid, label)?;
        }
        mounts::attach(&mut root, detached)?;
        for mount in wanted.iter().filter(|_| without(Defence::Destinations)) {
            mounts::attach(&mut root, maker.make(mount)?.into_iter().collect())?;
        }
        dev::fill(&root, linux.devices().as_deref().unwrap_or_default(), users)?;
        let terminal = self.session.as_ref().is_some_and(|session| session.terminal);
        let console = terminal.then(|| attach_console(&root).context("making the terminal")).transpose()?;
        if let Some(credentials) = credentials {
            self.stage.set(exit::CREDENTIALS);
            credentials.attach(&mut root)?;
            self.stage.set(exit::NAMESPACE);
        }
        let ids = users::owner(users, (user.uid(), user.gid()))?;
        let pressure = self.passed.pressure.as_ref().and_then(|file| pressure::watch(&root, file, ids));
        let notify = socket.map(|(path, mount)| attach_notify(&mut root, path, mount)).transpose()?;
        sysctl::set(linux, &root)?;
        protect::read_only(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
        protect::mask(&root, linux.masked_paths().as_deref().unwrap_or_default(), &null)?;
        self.run_hooks_before_entry(umask, init)?;
        root.enter(linux.rootfs_propagation().as_deref())?;
        Ok((Places { notify, pressure }, console))
    }

    fn run_hooks_before_entry(&self, umask: Mode, init: u32) -> Result<()> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        if hooks.any_before_entry() {
            (&self.report).write_all(&[BUILT])?;
            if !self.let_go() {
                std::process::exit(1); // the launcher is gone, or one of its hooks failed, and it has said so
            }
        }
        // What they make on the host is no more open than what the launcher's own hooks make.
        let none = rustix::process::umask(umask);
        hooks.run(Stage::CreateContainer, init, None)?;
        rustix::process::umask(none);
        Ok(())
    }
}

fn default_dev() -> Mount {
    let options = ["nosuid", "strictatime", "mode=755", "size=65536k"].map(str::to_owned).to_vec();
    let mut mount = Mount::default();
    mount.set_destination("/dev".into()).set_typ(Some("tmpfs".into())).set_options(Some(options));
    mount
}

/// The program's terminal, which is /dev/console too.
fn attach_console(root: &RootFs) -> Result<Console> {
    let devpts = root.open(Path::new("/dev/pts"), OFlags::DIRECTORY).context("opening /dev/pts")?;
    let console = Console::open(&devpts)?;
    let place = root.mount_point(Path::new("/dev/console"), false)?;
    root.attach_over(&mounts::copy(console.file(&devpts)?)?, &place).context("mounting /dev/console")?;
    Ok(console)
}

fn attach_notify(root: &mut RootFs, path: PathBuf, mount: OwnedFd) -> Result<OsString> {
    let dev = root.open(Path::new("/dev"), OFlags::DIRECTORY)?;
    let destination = if root.is_ours(&dev)? { PathBuf::from(NOTIFY_PLACE) } else { path };
    let place = destination.clone().into_os_string();
    root.attach(Detached { mount, destination, ours: false, seal: false, copy_up: false })
        .context("mounting the notification socket")?;
    Ok(place)
}
