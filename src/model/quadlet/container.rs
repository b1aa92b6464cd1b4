//! The keys of `[Container]`.

use super::{
    mounts::{Given, Origin},
    *,
};

/// A profile of system calls that the file names, among the exports.
pub const SECCOMP: &str = "seccomp.json";

/// What the lines said so far.
pub struct Container {
    name: String,
    image: Option<String>,
    manifest: Map<String, Json>,
    env: Map<String, Json>,
    mounts: Vec<Json>,
    state: Vec<Json>,
    health: Map<String, Json>,
    service: Vec<(&'static str, String)>,
    seccomp: Option<String>,
    has_network: bool,
    pub notes: Vec<String>,
}

impl Container {
    pub fn new(name: &ContainerName) -> Container {
        Container {
            name: name.to_string(),
            image: None,
            // As Podman has it; what is written is forgotten at each stop here, as there.
            manifest: Map::from_iter([("readonly".to_owned(), json!(false))]),
            env: Map::new(),
            mounts: Vec::new(),
            state: Vec::new(),
            health: Map::new(),
            service: Vec::new(),
            seccomp: None,
            has_network: false,
            notes: Vec::new(),
        }
    }

    /// One line.
    pub fn take(&mut self, line: &Line, beside: &BTreeMap<String, String>) -> Result<()> {
        let value = self.specifiers(&line.value)?;
        let value = value.as_str();
        // To Podman it takes back what stands before it.
        let may_be_empty = matches!(line.key.as_str(), "Exec" | "UserNS");
        ensure!(may_be_empty || !value.is_empty(), "it is empty: leave it out, and what it takes back");
        match line.key.as_str() {
            "Image" => {
                ensure!(
                    !value.ends_with(".image") && !value.ends_with(".build"),
                    "{value} is not supported: name an image"
                );
                self.image = Some(value.to_owned());
            }
            "Exec" => self.set("args", json!(file::words(value)?)),
            "Entrypoint" => self.set("entrypoint", entrypoint(value)?),
            "Environment" => {
                for word in file::words(value)? {
                    let (key, value) = word.split_once('=').with_context(|| format!("{word:?} is no KEY=VALUE"))?;
                    self.env.insert(key.to_owned(), json!(value));
                }
            }
            "EnvironmentFile" => {
                ensure!(value.trim_start_matches('-').starts_with('/'), "{value}: write its absolute path");
                self.service.push(("EnvironmentFile", value.to_owned()));
            }
            "User" => self.set("user", json!(value)),
            "Group" => self.set("group", json!(value)),
            "WorkingDir" => self.set("workdir", json!(value)),
            "AddCapability" => self.push("add", value),
            "DropCapability" => self.push("drop", value),
            "AddDevice" => {
                let device = value.strip_prefix('-').unwrap_or(value).split(':').next().unwrap_or_default();
                ensure!(value == device, "only a plain /dev/... is supported");
                self.list("devices", json!(device));
            }
            "ReadOnly" => self.set("readonly", json!(boolean(value)?)),
            "ReadOnlyTmpfs" | "VolatileTmp" => {
                ensure!(boolean(value)?, "/run, /tmp and /var/tmp are in memory in any case");
            }
            "Tmpfs" => {
                ensure!(!value.contains(':'), "options of a tmpfs are not supported");
                self.list("tmpfs", json!(value));
            }
            "Volume" => {
                let mut given = mounts::volume(value, beside)?;
                let labels: Vec<String> =
                    given.options.extract_if(.., |option| matches!(option.as_str(), "z" | "Z")).collect();
                for label in labels {
                    self.notes.push(format!(
                        "line {}: Volume=: {label} means nothing here: labels are the host's to give",
                        line.number
                    ));
                }
                self.mount(given)?;
            }
            "Mount" => self.mount(mounts::mount(value, beside)?)?,
            "Network" => self.network(value, beside)?,
            "Notify" => {
                ensure!(
                    value != "healthy",
                    "healthy is not supported: the health test is tried after a start in any case"
                );
                self.set("notify", json!(boolean(value)?));
            }
            "UserNS" => match value {
                "auto" => self.set("userns", json!("auto")),
                "host" | "" => {}
                other => bail!("{other} is not supported, only auto and host"),
            },
            "SeccompProfile" if value == "unconfined" => self.set("seccomp", json!("unconfined")),
            "SeccompProfile" => {
                self.seccomp = Some(beside.get(value).cloned().with_context(|| format!("there is no {value}"))?);
                self.set("seccomp", json!(SECCOMP));
            }
            "NoNewPrivileges" => ensure!(boolean(value)?, "no program of a container gains privileges"),
            "HealthCmd" if value == "none" => bail!("none is not supported: a test of the image's own is kept"),
            "HealthCmd" => {
                let exec = match serde_json::from_str::<Vec<String>>(value) {
                    Ok(words) => words,
                    Err(_) => vec!["/bin/sh".to_owned(), "-c".to_owned(), value.to_owned()],
                };
                self.health.insert("exec".to_owned(), json!(exec));
            }
            "HealthInterval" => drop(self.health.insert("interval".to_owned(), json!(value))),
            "HealthTimeout" => drop(self.health.insert("timeout".to_owned(), json!(value))),
            "HealthStartPeriod" => drop(self.health.insert("startPeriod".to_owned(), json!(value))),
            "HealthRetries" => {
                drop(self.health.insert("retries".to_owned(), json!(value.parse::<u32>().context("no number")?)))
            }
            "StopSignal" => self.service.push(("KillSignal", signal(value)?)),
            "StopTimeout" => self.service.push(("TimeoutStopSec", value.to_owned())),
            "PidsLimit" => {
                self.service.push(("TasksMax", if value == "-1" { "infinity".to_owned() } else { value.to_owned() }))
            }
            "Memory" => self.service.push(("MemoryMax", value.to_ascii_uppercase())),
            "Ulimit" => self.limit(value)?,
            "LogDriver" => {
                ensure!(matches!(value, "journald" | "passthrough"), "{value} is not supported: the journal has it")
            }
            "RunInit" | "EnvironmentHost" | "SecurityLabelNested" => ensure!(!boolean(value)?, "not supported"),
            "ContainerName"
            | "Label"
            | "Annotation"
            | "Pull"
            | "AutoUpdate"
            | "HealthOnFailure"
            | "HealthLogDestination"
            | "HealthMaxLogCount"
            | "HealthMaxLogSize"
            | "SecurityLabelDisable"
            | "ExposeHostPort"
            | "CgroupsMode" => {
                let instead = match line.key.as_str() {
                    "AutoUpdate" => ": `update` in [container.NAME] of sysctr.toml says what happens by itself",
                    "HealthOnFailure" => ": an update that is not well goes back",
                    _ => "",
                };
                self.notes.push(format!("line {}: {}= means nothing here{instead}", line.number, line.key));
            }
            "PublishPort" => bail!("not supported: on the host's network what the program listens on is open there"),
            _ => bail!("not supported"),
        }
        Ok(())
    }

    /// All of it; `service` is the text of the unit so far.
    pub fn finish(mut self, mut service: String) -> Result<Quadlet> {
        let image = self.image.take().context("[Container] has no Image=")?;
        ensure!(
            self.has_network,
            "[Container] has no Network=, which to Podman is a bridge with addresses of its own: say Network=host or Network=none"
        );
        if let Some(group) = self.manifest.remove("group") {
            let user =
                self.manifest.get("user").and_then(Json::as_str).context("[Container] has Group= and no User=")?;
            let both = format!("{user}:{}", group.as_str().unwrap_or_default());
            self.manifest.insert("user".to_owned(), json!(both));
        }
        let drops_all = self.manifest.get("capabilities").and_then(|sets| sets.get("drop")).and_then(Json::as_array);
        if drops_all.is_some_and(|list| {
            list.iter().any(|name| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case("all")))
        }) {
            self.manifest["capabilities"]["drop"] = json!(crate::model::spec::DEFAULT_CAPABILITIES);
        }
        let list = |value: Option<Json>| value.and_then(|value| serde_json::from_value::<Vec<String>>(value).ok());
        let (entrypoint, mut command) = (list(self.manifest.remove("entrypoint")), list(self.manifest.remove("args")));
        if let Some(entrypoint) = entrypoint {
            let args = [entrypoint, command.take().unwrap_or_default()].concat();
            self.manifest.insert("args".to_owned(), json!(args));
        }
        if !self.env.is_empty() {
            self.manifest.insert("env".to_owned(), Json::Object(std::mem::take(&mut self.env)));
        }
        if !self.mounts.is_empty() {
            self.manifest.insert("mounts".to_owned(), json!(self.mounts));
        }
        let mut manifest = json!({ "version": "2.0", "container": self.manifest });
        if !self.state.is_empty() {
            manifest["state"] = json!({ "folders": self.state });
        }
        if self.health.contains_key("exec") {
            manifest["health"] = Json::Object(self.health);
        }
        for (key, value) in &self.service {
            // A specifier was filled in; what is left of `%` is one.
            service.push_str(&template::verbatim(&format!("{key}={}\n", value.replace('%', "%%"))));
        }
        Ok(Quadlet { image, notes: self.notes, manifest, command, service, seccomp: self.seccomp })
    }

    fn set(&mut self, key: &str, value: Json) {
        self.manifest.insert(key.to_owned(), value);
    }

    fn list(&mut self, key: &str, value: Json) {
        if let Some(list) = self.manifest.entry(key).or_insert(json!([])).as_array_mut() {
            list.push(value);
        }
    }

    fn push(&mut self, kind: &str, value: &str) {
        let sets = self.manifest.entry("capabilities").or_insert(json!({}));
        let mut names = sets.get(kind).and_then(Json::as_array).cloned().unwrap_or_default();
        names.extend(value.split_whitespace().map(|name| json!(name)));
        sets[kind] = json!(names);
    }

    fn mount(&mut self, given: Given) -> Result<()> {
        let mut options = Vec::new();
        for option in given.options {
            match option.as_str() {
                "ro" | "rw" | "noexec" => options.push(option),
                // What everything that is mounted has.
                "nosuid" | "nodev" | "rbind" | "private" | "rprivate" => {}
                other => bail!("the option {other:?} is not supported"),
            }
        }
        let target = given.target;
        match given.from {
            Origin::Host(source) => {
                ensure!(source.starts_with('/'), "{source}: write its absolute path");
                self.mounts.push(json!({ "source": source, "target": target, "options": options }));
            }
            Origin::Volume(volume) => {
                ensure!(options.iter().all(|option| option == "rw"), "a volume is state, which is written to");
                self.state.push(
                    json!({ "path": format!("/var/lib/{}/{volume}", self.name), "target": target, "mode": "0755" }),
                );
            }
            Origin::Tmpfs => self.list("tmpfs", json!(target)),
        }
        Ok(())
    }

    fn network(&mut self, value: &str, beside: &BTreeMap<String, String>) -> Result<()> {
        ensure!(!self.has_network, "more than one network is not supported");
        let mut kind = value.to_owned();
        if value.ends_with(".network") {
            let text = beside.get(value).with_context(|| format!("there is no {value} beside it"))?;
            for line in file::lines(value, text)? {
                match (line.section.as_str(), line.key.as_str()) {
                    ("Network", "NetworkName" | "Driver") if matches!(line.value.as_str(), "host" | "none") => {
                        kind = line.value
                    }
                    ("Network", "Label") | ("Unit" | "Install" | "Service" | "Quadlet", _) => {}
                    _ => bail!(
                        "{value}, line {}: {}={} is not supported: only host and none are",
                        line.number,
                        line.key,
                        line.value
                    ),
                }
            }
        }
        let network = match kind.as_str() {
            "host" => "host",
            "none" => "private",
            other => bail!("{other} is not supported: only host and none are"),
        };
        self.has_network = true;
        self.set("network", json!(network));
        Ok(())
    }

    fn limit(&mut self, value: &str) -> Result<()> {
        const LIMITS: &str =
            "CPU FSIZE DATA STACK CORE RSS NOFILE AS NPROC MEMLOCK LOCKS SIGPENDING MSGQUEUE NICE RTPRIO";
        let (name, limits) = value.split_once('=').with_context(|| format!("{value:?} is no NAME=SOFT[:HARD]"))?;
        let upper = name.to_ascii_uppercase();
        let known = LIMITS.split_whitespace().find(|known| *known == upper);
        let known = known.with_context(|| format!("{name} is no limit"))?;
        let key = match known {
            "NOFILE" => "LimitNOFILE",
            "NPROC" => "LimitNPROC",
            "CORE" => "LimitCORE",
            "MEMLOCK" => "LimitMEMLOCK",
            "STACK" => "LimitSTACK",
            _ => bail!("{name} is not supported: set Limit{known}= in [Service]"),
        };
        self.service.push((key, limits.replace("-1", "infinity")));
        Ok(())
    }

    /// What systemd would put in at each start: specifiers that are known now, and no variables. Podman's command line has all of these
    /// values in it, and systemd reads that (systemd.service(5), "Command Lines").
    fn specifiers(&self, value: &str) -> Result<String> {
        let (mut text, mut chars, mut begins) = (String::new(), value.chars().peekable(), true);
        while let Some(c) = chars.next() {
            let word_begins = std::mem::replace(&mut begins, c.is_whitespace() || matches!(c, '"' | '\''));
            if c == '$' {
                let is_name = |c: &char| c.is_ascii_alphabetic() || *c == '_';
                let is_variable = chars.peek().is_some_and(|next| *next == '{' || (word_begins && is_name(next)));
                ensure!(!is_variable, "a variable of the unit is not supported; a plain dollar sign is written $$");
                chars.next_if_eq(&'$');
            }
            if c != '%' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => text.push('%'),
                Some('N' | 'p') => text.push_str(&self.name),
                Some('n') => text.push_str(&format!("{}.service", self.name)),
                Some('t') => text.push_str("/run"),
                Some('S') => text.push_str("/var/lib"),
                Some('h') => text.push_str("/root"),
                Some('T') => text.push_str("/tmp"),
                other => bail!("the specifier %{} is not supported", other.map_or(String::new(), String::from)),
            }
        }
        Ok(text)
    }
}

fn entrypoint(value: &str) -> Result<Json> {
    Ok(match serde_json::from_str::<Vec<String>>(value) {
        Ok(words) => json!(words),
        Err(_) => json!(file::words(value)?),
    })
}

fn boolean(value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => bail!("{value:?} is neither true nor false"),
    }
}

fn signal(value: &str) -> Result<String> {
    let good = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'-');
    ensure!(good, "{value:?} is no signal");
    Ok(value.to_owned())
}
