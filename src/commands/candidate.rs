//! A deployment that may come: an image rendered for a container, what it requests of the host, and how it is staged. The part of
//! `install` and `update` that changes nothing.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail};

use super::Context;
use crate::output::one_line;
use sysctr::{
    host::{
        self,
        dir::Folder,
        host_files::InTheWay,
        lock::StoreLock,
        ostree::{Store, StoredImage},
        owned, secrets, settings,
        space::{self, Need},
        state,
        transaction::{Parts, Staged},
        units::{self, Reading},
    },
    model::{
        deployment::{Deployment, Record},
        fault::{Code, Fault},
        health::HealthTest,
        host_files::{self, Content},
        id_range, layout,
        name::ContainerName,
        other_runtime::RuntimePath,
        overrides::Overrides,
        quadlet,
        reference::ImageSource,
        render::{self, Rendered},
        request::Requests,
        rules, spec,
        values::{Setting, Source, Values},
    },
};

/// Bytes of a passwd(5) or group(5) that are still believed.
const ACCOUNTS_LIMIT: u64 = 1 << 20;

/// Everything decided; nothing written but the image in the store.
pub struct Candidate {
    pub name: ContainerName,
    pub id: u32,
    pub replaces: Option<u32>,
    /// As it was named, and as it will be resolved again by an update.
    pub reference: String,
    pub image: StoredImage,
    pub rendered: Rendered,
    /// What starts it in the bundled runtime's place.
    pub runtime: Option<RuntimePath>,
    /// The first number of the range of the host's that its users have, if it has users of its own.
    pub range: Option<u32>,
    /// What stands in the place of the image's `/exports`.
    pub quadlet: Option<quadlet::Source>,
    /// What the admin gave it beyond what the image says.
    pub overrides: Overrides,
}

/// What a deployment is made of beside its image.
pub struct Wanted<'a> {
    pub root: &'a Folder,
    pub name: &'a ContainerName,
    pub id: u32,
    /// As the image was named.
    pub source: &'a ImageSource,
    pub settings: &'a [Setting],
    /// Values that are to be the image's default again.
    pub unset: &'a [String],
    /// The deployment that it is to replace.
    pub before: Option<&'a Deployment>,
    pub runtime: Option<&'a RuntimePath>,
    /// What the admin gives it beyond what the image says.
    pub overrides: &'a Overrides,
    /// The first number of a range of the host's for users of its own.
    pub range: Option<u32>,
    /// What stands in the place of the image's `/exports`.
    pub quadlet: Option<&'a quadlet::Source>,
}

impl Candidate {
    /// Renders an image of the store as a deployment of a container.
    pub fn render(store: &Store, image: StoredImage, wanted: &Wanted) -> Result<Candidate> {
        let &Wanted { root, name, id, source, settings, unset, before, runtime, overrides, range, quadlet } = wanted;
        let read = quadlet.map(|source| quadlet::read(source, name)).transpose()?;
        let exports: BTreeMap<String, Vec<u8>> = match &read {
            Some(read) => read.exports(&image.config)?,
            None => {
                let exports = store.read_exports(&image)?;
                exports.into_iter().map(|(path, bytes)| (path.to_string_lossy().into_owned(), bytes)).collect()
            }
        };
        let hostfs = store.read_hostfs(&image)?;
        let account = |path| -> Result<String> {
            let bytes = store.read_file(&image, Path::new(path), ACCOUNTS_LIMIT)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let reference = source.to_string();
        let uuid = random_uuid().context("making a UUID")?;
        // What an earlier deployment let systemd-tmpfiles make, this one still needs.
        let made = units::tmpfiles(root, name)?;
        let is_there = |path: &str| {
            let is_made = made.lines().any(|line| line.split_ascii_whitespace().nth(1) == Some(path));
            !is_made && root.kind(path.trim_start_matches('/')).is_ok_and(|kind| kind.is_some())
        };
        let mut carried = before.map(|before| secrets::put_back(root, before)).transpose()?;
        carried.iter_mut().for_each(|values| values.retain(|name, _| !unset.contains(name)));
        let inputs = render::Inputs {
            name,
            id,
            image: &reference,
            digest: &image.digest,
            config: &image.config,
            exports: &exports,
            hostfs: &hostfs,
            passwd: &account("etc/passwd")?,
            group: &account("etc/group")?,
            settings,
            before: carried.as_ref(),
            runtime,
            range,
            overrides,
            uuid: &uuid,
            is_there: &is_there,
        };
        let mut rendered = render::render(&inputs).with_context(|| format!("rendering {source}"))?;
        if rendered.health.is_none() {
            let of_image = HealthTest::of_image(&image.config_json);
            rendered.health = of_image.with_context(|| format!("rendering {source}: the image's config"))?;
        }
        rendered.notes.extend(read.into_iter().flat_map(|read| read.notes));
        let replaces = before.map(|before| before.id);
        // An image's own configuration may have made nothing of it.
        let range = range.filter(|first| id_range::chosen(&rendered.spec) == Some(*first));
        let (name, runtime, overrides) = (name.clone(), runtime.cloned(), overrides.clone());
        let quadlet = quadlet.cloned();
        Ok(Candidate { name, id, replaces, reference, image, rendered, runtime, range, overrides, quadlet })
    }

    /// Whether it is what this deployment is, but for its number.
    pub fn is(&self, old: &Deployment, root: &Folder) -> Result<bool> {
        // Who gave a value does not matter, as long as it is the same.
        let plain = |values: &Values| {
            let given = values.iter().filter(|(_, value)| value.source != Source::Made);
            given.map(|(name, value)| (name.clone(), value.value.clone())).collect::<Vec<_>>()
        };
        Ok(self.image.digest == old.digest
            && plain(&self.rendered.values) == plain(&old.values)
            && self.runtime == old.runtime
            && self.overrides == old.overrides
            && self.quadlet == old.quadlet
            && self.rendered.secrets == secrets::of(root, old)?)
    }

    /// Leaves out, or lets the admin replace, what lies where its files for the host would; refuses what the settings do not allow.
    pub fn settle_host_files(&mut self, root: &Folder, replace: bool) -> Result<()> {
        let places = settings::load(root)?.host.files();
        let own = host::host_files::own_places(root, &self.name)?;
        let (mut files, mut taken) = (Vec::new(), Vec::new());
        for mut file in std::mem::take(&mut self.rendered.host_files) {
            if !host_files::is_allowed(&file.path, &places) {
                let message =
                    format!("{} is for no file of an image: only below {} they may be", file.path, places.join(", "));
                bail!(
                    Fault::new(Code::Refused, message)
                        .hint("`files` in [host] of /etc/sysctr/sysctr.toml allows other places")
                );
            }
            host::host_files::refuse_images_links(root, &file.path)?;
            match host::host_files::in_the_way(root, &own, &file)? {
                InTheWay::Nothing => {}
                InTheWay::Foreign | InTheWay::Never(_) if file.optional => {
                    self.rendered.notes.push(format!("{} is there already, and stays as it is", file.path));
                    self.rendered.requests.remove(&file.request());
                    continue;
                }
                InTheWay::Foreign if replace => file.replaces = true,
                InTheWay::Foreign => taken.push(file.path.clone()),
                InTheWay::Never(why) => bail!("the image has a file for {}, which cannot be placed: {why}", file.path),
            }
            files.push(file);
        }
        if !taken.is_empty() {
            let message =
                format!("the image has a file for {}, which is there already and not sysctr's", taken.join(", "));
            bail!(
                Fault::new(Code::Failed, message)
                    .hint("--replace puts the image's in its place, and keeps that one beside it (.sysctr-old)")
            );
        }
        self.rendered.host_files = files;
        Ok(())
    }

    /// Says what was changed to bring an old image up to date.
    pub fn tell(&self, context: &Context) {
        self.rendered.notes.iter().for_each(|words| context.output.note(words));
    }

    /// The requests of the texts, and those that depend on what lies on this host.
    pub fn requests(&self, root: &Folder) -> Result<Requests> {
        let Candidate { name, rendered, .. } = self;
        let mut requests = rendered.requests.clone();
        let (homes, before) = (rendered.homes(name), self.homes_before(root)?);
        for source in rendered.spec.mounts().iter().flatten().filter_map(|mount| mount.source().as_ref()?.to_str()) {
            owned::refuse_links(root, name, source)?;
        }
        for folder in rendered.state.iter().map(|folder| &folder.path).chain(&homes) {
            if !before.contains(folder) && owned::is_foreign(root, name, folder)? {
                requests.insert(rules::FOREIGN.ask(&[folder]));
            }
        }
        Ok(requests)
    }

    /// Folders that the deployment before has: what lies there is the container's, whoever made it.
    fn homes_before(&self, root: &Folder) -> Result<Vec<String>> {
        let Some(id) = self.replaces else { return Ok(Vec::new()) };
        let record = state::deployment(root, &self.name, id)?;
        let files = units::set_texts(root, &self.name, id)?;
        // Of one that is damaged less is known: what it had is asked for once more.
        let spec = state::config(root, &record).ok();
        let mut homes = spec.map_or_else(Vec::new, |spec| render::homes(&self.name, &spec, &record.state, &files));
        homes.extend(record.state.into_iter().map(|folder| folder.path));
        Ok(homes)
    }

    /// Shows the requests, and asks unless they are accepted already: by the settings, by `--yes`, or `before` by an earlier
    /// deployment. `doing` is what is refused where they are not.
    pub fn accept(&self, context: &Context, root: &Folder, before: &Requests, yes: bool, doing: &str) -> Result<()> {
        let accepted = settings::load(root)?.requests.accept;
        let requests = self.requests(root)?;
        let known = |request: &&String| accepted.contains(*request) || before.contains(*request);
        let open: Vec<&String> = requests.iter().filter(|request| !known(request)).collect();
        if open.is_empty() {
            return Ok(());
        }
        // Who is not asked finds them in the error, or has accepted them.
        if context.output.can_ask() || (yes && !context.output.quiet && !context.output.json) {
            eprintln!("{} requests what an image may not do unasked:", self.reference);
            open.iter().for_each(|request| eprintln!("  {}", one_line(request)));
        }
        if yes || context.output.confirm("Accept?")? {
            return Ok(());
        }
        let list = open.iter().map(|request| request.as_str()).collect::<Vec<_>>().join("; ");
        let message = format!("{doing} {}: its requests were not accepted: {list}", self.name);
        bail!(Fault::new(Code::Refused, message).hint("--yes accepts them"))
    }

    /// Writes the deployment beside what is in force. [`read_units`] is what comes next.
    pub fn stage<'a>(
        self,
        context: &Context,
        root: &'a Folder,
        lock: &StoreLock,
        store: &Store,
    ) -> Result<(Staged<'a>, Deployment)> {
        let accepted = self.requests(root)?;
        let Candidate { name, id, replaces, reference, image, rendered, runtime, range, overrides, quadlet } = self;
        let staging = || format!("staging {name}");
        let is_file = |source: &str| is_file(&context.root.join(source.trim_start_matches('/')));
        let mount_points = spec::mount_points(&name, &rendered.spec, is_file);
        let labels = image.config.config().as_ref().and_then(|config| config.labels().clone()).unwrap_or_default();
        let before = replaces.map(|id| state::deployment(root, &name, id)).transpose()?;
        let mut host_files = host::host_files::records(&rendered.host_files);
        let mut host_folders = host::host_files::missing_folders(root, &rendered.host_files)?;
        if let Some(before) = before {
            for file in &mut host_files {
                file.replaces |= before.host_files.iter().any(|other| other.is_same_place(file) && other.replaces);
            }
            host_folders.extend(before.host_folders);
            host_folders.sort();
            host_folders.dedup();
        }
        let record = Deployment {
            version: Deployment::VERSION,
            name: name.clone(),
            id,
            replaces,
            image: reference,
            digest: image.digest.clone(),
            commit: image.commit.clone(),
            image_version: labels.get("org.opencontainers.image.version").cloned(),
            created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            values: rendered.values,
            accepted,
            units: rendered
                .files
                .keys()
                .filter(|file| layout::is_unit(file) && !layout::is_template(file))
                .cloned()
                .collect(),
            state: rendered.state,
            epoch: rendered.epoch,
            quadlet,
            host_files,
            host_folders,
            mount_points: Vec::new(),
            runtime,
            range,
            overrides,
            notify: spec::notifies(&rendered.spec),
            health: rendered.health,
        };
        let config_json = spec::to_text(&rendered.spec)?;
        let checkout = Need::file(0).times(image.folders + mount_points.len() as u64);
        let units: Need = rendered.files.values().map(|text| Need::file(text.len()).times(2)).sum();
        let mut texts: Vec<Need> = rendered.secrets.values().map(|text| Need::file(text.len())).collect();
        texts.push(Need::file(config_json.len()));
        texts.extend(rendered.host_files.iter().map(|file| match &file.content {
            Content::File { bytes, .. } => Need::file(bytes.len()),
            Content::Link { .. } | Content::Folder { .. } => Need::file(0),
        }));
        let back = if replaces.is_some() { Need::reserve() } else { Need::default() };
        let (state, settings) = ([checkout, back].into_iter().chain(texts).sum(), [units, back].into_iter().sum());
        space::check(root, &[(layout::STATE, state), (layout::CONTAINERS, settings)]).with_context(staging)?;
        let Rendered { files, secrets, host_files, .. } = rendered;
        let parts =
            Parts { image: &image, record: record.clone(), config_json, files, secrets, mount_points, host_files };
        let staged = Staged::write(root, lock, store, parts).with_context(staging)?;
        Ok((staged, record))
    }
}

/// Lets systemd read the units of deployments that are staged and not yet in force.
pub fn read_units(context: &Context, root: &Folder, staged: &[&Deployment]) -> Result<()> {
    let sets: Vec<_> = staged.iter().map(|one| (&one.name, one.id)).collect();
    if let Reading::Unread(why) = units::verify(root, &sets, !context.offline())? {
        let names: Vec<_> = staged.iter().map(|one| one.name.as_str()).collect();
        context.output.note(format!("systemd itself has not read the units of {}, because {why}", names.join(", ")));
    }
    Ok(())
}

/// Of the kernel's (random(4)).
fn random_uuid() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// Whether what is to be mounted needs a file to be mounted upon: a socket and a device do, too.
pub fn is_file(source: &Path) -> bool {
    source.metadata().is_ok_and(|about| !about.is_dir())
}
