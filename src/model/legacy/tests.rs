//! Golden units of images in the old format, one for each rule of docs/legacy.md.

use oci_spec::image::ImageConfiguration;

use super::*;
use crate::model::{
    digest::Digest,
    other_runtime::RuntimePath,
    values::{Setting, Source, Values},
};

const CONFIG: &str = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
    "config": {"Entrypoint": ["/usr/bin/relay"], "Cmd": ["-v"]}}"#;
const UUID: &str = "11111111-2222-4333-8444-555555555555";
const LAUNCH: &str = "/usr/libexec/sysctr/sysctr-runtime run /var/lib/sysctr/containers/relay/deployments/1";
const TOOLS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image in the old format, as somebody installs it.
struct Old<'a> {
    exports: &'a [(&'a str, &'a str)],
    settings: &'a [&'a str],
    before: Option<&'a Values>,
    runtime: Option<&'a str>,
    config: &'a str,
}

fn old<'a>(exports: &'a [(&'a str, &'a str)]) -> Old<'a> {
    Old { exports, settings: &[], before: None, runtime: None, config: CONFIG }
}

impl Old<'_> {
    fn try_render(&self) -> Result<Rendered> {
        let runtime: Option<RuntimePath> = self.runtime.map(|path| path.parse().expect("a path"));
        let exports = self.exports.iter().map(|(file, text)| ((*file).to_owned(), text.as_bytes().to_vec())).collect();
        let settings: Vec<Setting> = self.settings.iter().map(|text| text.parse().expect("a setting")).collect();
        let config: ImageConfiguration = serde_json::from_str(self.config).expect("a config");
        render::render(&Inputs {
            name: &"relay".parse().expect("a name"),
            id: 1,
            image: "registry.example/old/relay:1",
            digest: &Digest::from_sha256([0xab; 32]),
            config: &config,
            exports: &exports,
            hostfs: &BTreeMap::new(),
            passwd: "",
            group: "",
            settings: &settings,
            before: self.before,
            runtime: runtime.as_ref(),
            range: None,
            overrides: &Default::default(),
            uuid: UUID,
            is_there: &|path| path.starts_with("/etc") || path.starts_with("/var/lib"),
        })
    }

    fn render(&self) -> Rendered {
        self.try_render().expect("files")
    }

    fn complaint(&self) -> String {
        format!("{:#}", self.try_render().expect_err("refused"))
    }
}

fn lines(rendered: &Rendered) -> Vec<&str> {
    rendered.files["relay.service"].lines().collect()
}

fn requests(rendered: &Rendered) -> Vec<&str> {
    rendered.requests.iter().map(String::as_str).collect()
}

/// A config.json as `runc spec` of then wrote it, but for what a test is about.
fn config(version: &str, process: &str, linux: &str, mounts: &str) -> String {
    format!(
        r#"{{"ociVersion": "{version}", "platform": {{"os": "linux", "arch": "amd64"}},
        "process": {{"terminal": false, "user": {{}}, "args": ["/bin/relay"], "env": ["PATH=/bin", "TERM=xterm"], "cwd": "/"{process}}},
        "root": {{"path": "rootfs", "readonly": true}}, "mounts": [{mounts}], "hooks": {{}},
        "linux": {{"namespaces": [{{"type": "pid"}}, {{"type": "ipc"}}, {{"type": "mount"}}]{linux}}}}}"#
    )
}

#[test]
fn every_name_of_the_old_tool_is_filled_in() {
    let service = "[Unit]\nDescription=$NAME from ${IMAGE_NAME} $$HOME\n\n[Service]\nExecStartPre=$EXEC_STARTPRE\nExecStart=$EXEC_START\n\
        ExecStop=$EXEC_STOP\nExecStopPost=$EXEC_STOPPOST\nWorkingDirectory=$DESTDIR\nRestart=on-crash\nRuntimeDirectory=${NAME}\n\
        X-All=$HOST_UID:$HOST_GID $IMAGE_ID $RUN_DIRECTORY $STATE_DIRECTORY $CONF_DIRECTORY $UUID $PIDFILE $RUNTIME $ATOMIC\n\n\
        [Install]\nWantedBy=multi-user.target\n";
    let rendered = old(&[("service.template", service)]).render();
    let hex = "ab".repeat(32);
    let expected = format!(
        "[Unit]
Description=relay from registry.example/old/relay:1 $HOME
After=sysctr-recover.service
Requires=sysctr-recover.service
RequiresMountsFor=/var/lib/sysctr/containers/relay/deployments/1

[Service]
ExecStartPre=
ExecStart={LAUNCH}
ExecStop=
ExecStopPost=
Restart=on-failure
RuntimeDirectory=relay
X-All=0:0 {hex} /run /var/lib /etc {UUID} /run/container-relay.pid /usr/libexec/sysctr/sysctr-runtime sysctr
Type=notify
NotifyAccess=all
Delegate=yes
KillMode=mixed
OOMPolicy=stop
UnsetEnvironment={}
SyslogIdentifier=relay
LogExtraFields=SYSCTR_IMAGE=registry.example/old/relay:1
LogExtraFields=SYSCTR_DIGEST=sha256:{hex}

[Install]
WantedBy=multi-user.target
",
        render::LOADERS_VARIABLES
    );
    assert_eq!(rendered.files["relay.service"], expected);
    assert_eq!(requests(&rendered), Vec::<&str>::new());
    assert_eq!(rendered.notes.len(), 1, "{:?}", rendered.notes);
    assert!(rendered.notes[0].contains("service.template") && rendered.notes[0].contains("on-crash"));
    assert_eq!(rendered.values["UUID"].source, Source::Made);
}

#[test]
fn an_image_without_a_unit_and_a_configuration_gets_both() {
    let rendered = old(&[("manifest.json", "{}")]).render();
    let lines = lines(&rendered);
    for line in
        ["Description=relay", &format!("ExecStart={LAUNCH}"), "Restart=on-failure", "WantedBy=multi-user.target"]
    {
        assert!(lines.contains(&line), "{line} is missing in {lines:#?}");
    }
    let process = rendered.spec.process().as_ref().expect("a process");
    assert_eq!(process.args().as_deref(), Some(&["/usr/bin/relay".to_owned(), "-v".to_owned()][..]));
    assert_eq!(requests(&rendered), Vec::<&str>::new());
    // The old tool's program of an image that names none.
    let nameless = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}"#;
    let rendered = Old { config: nameless, ..old(&[("manifest.json", "{}")]) }.render();
    let process = rendered.spec.process().as_ref().expect("a process");
    assert_eq!(process.args().as_deref(), Some(&["run.sh".to_owned()][..]));
}

#[test]
fn values_have_the_old_tools_order() {
    let manifest = r#"{"version": "1.0", "defaultValues": {"PORT": 8081, "WHO": "World", "STATE_DIRECTORY": "/srv", "NAME": "no"}}"#;
    let service = "[Service]\nExecStart=$EXEC_START\nX-A=$PORT $WHO $STATE_DIRECTORY $NAME $RUN_DIRECTORY $PIDFILE\n";
    let exports = [("manifest.json", manifest), ("service.template", service)];
    let rendered = old(&exports).render();
    // What the tool knows comes before the image's default; what it sets, before anything.
    assert!(lines(&rendered).contains(&"X-A=8081 World /var/lib relay /run /run/container-relay.pid"));
    let keys: Vec<&str> = rendered.values.keys().map(String::as_str).collect();
    assert_eq!(keys, ["PORT", "WHO"]);
    let given = ["PORT=9", "STATE_DIRECTORY=/mnt", "NAME=other", "RUN_DIRECTORY=/r", "WHOM=x"];
    let rendered = Old { settings: &given, ..old(&exports) }.render();
    assert!(lines(&rendered).contains(&"X-A=9 World /mnt relay /r /r/container-relay.pid"), "{:#?}", lines(&rendered));
    let said = rendered.notes.join("\n");
    assert!(said.contains("--set NAME changes nothing") && said.contains("--set WHOM: nothing"), "{said}");
}

#[test]
fn an_update_keeps_what_the_admin_gave_and_the_uuid() {
    let manifest = r#"{"defaultValues": {"PORT": "1", "WHO": "World"}}"#;
    let service = "[Service]\nExecStart=$EXEC_START\nX-A=$PORT $WHO $UUID\n";
    let exports = [("manifest.json", manifest), ("service.template", service)];
    let mut before = Old { settings: &["PORT=5", "GONE=x"], ..old(&exports) }.render().values;
    before.get_mut("UUID").expect("made").value = "an earlier one".into();
    let newer = r#"{"defaultValues": {"PORT": "2", "WHO": "Moon"}}"#;
    let exports = [("manifest.json", newer), ("service.template", service)];
    let rendered = Old { before: Some(&before), ..old(&exports) }.render();
    assert!(lines(&rendered).contains(&"X-A=5 Moon an earlier one"), "{:#?}", lines(&rendered));
    assert_eq!(rendered.gone, ["GONE"]);
}

#[test]
fn what_nobody_gives_is_named_with_its_file_and_line() {
    let template = config("1.0.0", "", "", "").replace("TERM=xterm", "\nWHO=$WHO_NOT_GIVEN");
    let complaint = old(&[("config.json.template", &template)]).complaint();
    for word in ["/exports/config.json.template, line 3", "WHO_NOT_GIVEN", "missing"] {
        assert!(complaint.contains(word), "{complaint}");
    }
    let complaint = old(&[("service.template", "[Service]\nExecStart=$ EXEC_START\n")]).complaint();
    assert!(complaint.contains("/exports/service.template, line 2, column 11"), "{complaint}");
    let complaint = old(&[("config.json.template", "{\n\"process\": $NAME}")]).complaint();
    assert!(complaint.contains("/exports/config.json.template") && complaint.contains("line 2"), "{complaint}");
}

#[test]
fn a_configuration_of_then_becomes_one_of_today() {
    let linux = r#", "capabilities": ["CAP_KILL", "CAP_NET_ADMIN", "CAP_NO_SUCH"], "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 10, "soft": 5}],
        "apparmorProfile": "", "selinuxProcessLabel": "", "rootfsPropagation": "", "resources": {"pids": {"limit": 9},
        "devices": [{"allow": false, "access": "rwm"}], "oomScoreAdj": 5}, "seccomp": {}"#;
    let mounts = r#"{"destination": "/proc", "type": "proc", "source": "proc", "options": ["private"]},
        {"destination": "/var/lib/relay/", "source": "/var/lib/relay/", "options": ["rbind", "rw", "mode=755"]}"#;
    let text = config("0.3.0", "", linux, mounts);
    let service = "[Service]\nExecStart=$EXEC_START\n";
    let rendered = old(&[("config.json.template", &text), ("service.template", service)]).render();
    let spec: serde_json::Value = serde_json::from_str(&spec::to_text(&rendered.spec).expect("text")).expect("json");
    assert_eq!(spec["ociVersion"], "1.0.2");
    assert_eq!(spec.get("platform"), None);
    let process = &spec["process"];
    assert_eq!(process["capabilities"]["bounding"], json!(["CAP_KILL", "CAP_NET_ADMIN"]));
    assert_eq!(process["capabilities"]["permitted"], json!(["CAP_KILL", "CAP_NET_ADMIN"]));
    assert_eq!(process["rlimits"], json!([{"type": "RLIMIT_NOFILE", "hard": 10, "soft": 5}]));
    assert_eq!((&process["user"]["uid"], &process["oomScoreAdj"]), (&json!(0), &json!(5)));
    assert_eq!(spec["linux"].get("seccomp"), None);
    assert_eq!(spec["mounts"][1]["destination"], "/var/lib/relay");
    assert_eq!(spec["mounts"][1]["options"], json!(["rbind", "rw"]));
    assert!(lines(&rendered).contains(&"TasksMax=9"));
    let said = rendered.notes.join("\n");
    for word in [
        "0.3.0",
        "linux.capabilities",
        "CAP_NO_SUCH",
        "linux.rlimits",
        "TasksMax=9",
        "linux.seccomp is empty",
        "mode=755",
    ] {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    assert_eq!(
        requests(&rendered),
        [
            "capability CAP_NET_ADMIN",
            "gain privileges through setuid programs",
            "run without a filter of system calls (seccomp)",
            "see and write the kernel's settings below /proc and /sys",
            "share the host's host name",
            "share the host's view of control groups",
        ]
    );
    // As it is: no name in it is one.
    let text = text.replace("TERM=xterm", "TERM=$TERM");
    let rendered = old(&[("config.json", &text), ("config.json.template", "$NOBODY")]).render();
    let env = rendered.spec.process().as_ref().and_then(|process| process.env().clone()).expect("variables");
    assert!(env.contains(&"TERM=$TERM".to_owned()));
}

#[test]
fn what_the_old_configuration_leaves_out_is_put_in() {
    let rendered = old(&[("config.json", r#"{"process": {"args": null}, "hostname": "x", "mounts": [{"destination": "a", "type": "bind", "source": "/srv"}]}"#)]).render();
    let spec = serde_json::to_value(&rendered.spec).expect("json");
    assert_eq!(spec["process"]["args"], json!(["/usr/bin/relay", "-v"]));
    assert_eq!(spec["process"]["env"], json!([format!("PATH={TOOLS}")]));
    assert_eq!(spec["process"]["capabilities"]["bounding"], json!([]));
    assert_eq!(spec["linux"]["namespaces"], json!([{"type": "mount"}]));
    assert_eq!(spec["mounts"][0]["destination"], "/a");
    assert_eq!(spec["mounts"][0]["options"], json!(["bind"]));
    assert_eq!(spec.get("hostname"), None);
    assert_eq!(spec["root"]["readonly"], json!(false));
    let complaint = old(&[("config.json", r#"{"root": {"path": "/"}}"#)]).complaint();
    assert!(complaint.contains("/exports/config.json") && complaint.contains("root.path"), "{complaint}");
}

#[test]
fn a_program_that_notifies_itself_is_waited_for() {
    let text = config("1.0.0", "", "", "");
    let service = "[Service]\nType=notify\nNotifyAccess=all\nExecStart=$EXEC_START\n";
    let rendered = old(&[("config.json.template", &text), ("service.template", service)]).render();
    assert!(spec::notifies(&rendered.spec));
    assert!(requests(&rendered).iter().any(|words| words.starts_with("report readiness as root")));
    let service = "[Service]\nExecStart=$EXEC_START\n";
    let rendered = old(&[("config.json.template", &text), ("service.template", service)]).render();
    assert!(!spec::notifies(&rendered.spec));
}

#[test]
fn a_forking_unit_with_a_pid_file_is_told_the_main_process() {
    let service = "[Service]\nType=forking\nPIDFile=$PIDFILE\nExecStart=$EXEC_START\nExecStopPost=$EXEC_STOPPOST\n";
    let rendered = Old { runtime: Some("/usr/bin/crun"), ..old(&[("service.template", service)]) }.render();
    let lines = lines(&rendered);
    assert!(lines.contains(&"Type=notify") && !lines.iter().any(|line| line.starts_with("PIDFile=")), "{lines:#?}");
    assert!(lines.contains(&"ExecStart=/usr/libexec/sysctr/sysctr-runtime run-with /usr/bin/crun /var/lib/sysctr/containers/relay/deployments/1"));
    assert_eq!(requests(&rendered), Vec::<&str>::new());
}

#[test]
fn commands_of_the_host_are_asked_for_and_their_unit_is_left_as_it_is() {
    let service = "[Service]\nExecStart=/usr/bin/python $DESTDIR/rootfs/agent\nWorkingDirectory=${DESTDIR}/rootfs\nRestart=always\n";
    let rendered = old(&[("service.template", service)]).render();
    let folder = "/var/lib/sysctr/containers/relay/deployments/1/rootfs";
    let lines = lines(&rendered);
    assert!(
        lines.contains(&format!("WorkingDirectory={folder}").as_str())
            && !lines.iter().any(|line| line.starts_with("Type="))
    );
    assert_eq!(
        requests(&rendered),
        [
            &format!("WorkingDirectory={folder} (relay.service)"),
            &format!("run on the host: ExecStart=/usr/bin/python {folder}/agent (relay.service)")
        ]
    );
}

#[test]
fn an_old_image_holds_up_no_boot_unasked() {
    let install = "[Install]\nWantedBy=multi-user.target\n";
    for (start, expected) in [("$EXEC_START", 1), ("/usr/bin/true", 2)] {
        let service = format!("[Service]\nExecStart={start}\nTimeoutStartSec=infinity\n{install}");
        let rendered = old(&[("service.template", &service)]).render();
        let asked = "hold up the boot for as long as it takes: TimeoutStartSec=infinity (relay.service)";
        assert!(requests(&rendered).contains(&asked), "{:?}", requests(&rendered));
        assert_eq!(rendered.requests.len(), expected, "{:?}", rendered.requests);
    }
    let service = format!("[Service]\nType=oneshot\nExecStart=$EXEC_START\n{install}");
    let rendered = old(&[("service.template", &service)]).render();
    assert!(lines(&rendered).contains(&"TimeoutStartSec=90"), "{:?}", lines(&rendered));
    let service = "[Service]\nExecStart=$EXEC_START\n[Install]\nRequiredBy=multi-user.target\n";
    let complaint = old(&[("service.template", service)]).complaint();
    assert!(complaint.contains("relay.service: RequiredBy=multi-user.target"), "{complaint}");
}

#[test]
fn folders_are_made_as_the_old_tool_made_them() {
    let tmpfiles = "d ${STATE_DIRECTORY}/relay 0700 ${HOST_UID} ${HOST_GID} - -\nd /var/run/${NAME} - - - - -\nd /var/run - - - - -\n";
    let rendered = old(&[("tmpfiles.template", tmpfiles)]).render();
    assert_eq!(rendered.files[layout::TMPFILES], "d /var/lib/relay 0700 0 0 - -\nd /run/relay - - - - -\n");
    assert_eq!(requests(&rendered), Vec::<&str>::new());
    // Without a template: what the container mounts and the host lacks.
    let mounts = r#"{"destination": "/etc", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]},
        {"destination": "/srv", "type": "bind", "source": "/srv/relay", "options": ["rbind", "rw"]}"#;
    let text = config("1.0.0", "", "", mounts);
    let rendered = old(&[("config.json", &text)]).render();
    assert_eq!(rendered.files[layout::TMPFILES], "d /srv/relay :0700 :0 :0 -\n");
    assert!(
        requests(&rendered)
            .contains(&"make or change on the host: d /srv/relay :0700 :0 :0 - (/exports/tmpfiles.template)")
    );
    let complaint = old(&[("tmpfiles.template", "d /etc/systemd/system/x.service.d\n")]).complaint();
    assert!(complaint.contains("/exports/tmpfiles.template") && complaint.contains("/etc/systemd"), "{complaint}");
}

#[test]
fn an_image_of_files_alone_has_no_unit() {
    let manifest = r#"{"version": "1.0", "noContainerService": true}"#;
    let rendered = old(&[("manifest.json", manifest), ("service.template", "[Service]\nExecStart=$NOBODY\n")]).render();
    assert_eq!(rendered.files.len(), 0, "{:?}", rendered.files);
    assert_eq!(requests(&rendered), Vec::<&str>::new());
}

#[test]
fn whole_hosts_are_mounted_once_it_is_accepted() {
    let mounts = r#"{"destination": "/host", "type": "bind", "source": "/", "options": ["rbind", "rslave", "rw"]},
        {"destination": "/var/lib", "type": "bind", "source": "/var/lib", "options": ["rbind", "rshared", "rw"]},
        {"destination": "/var/lib/other", "type": "bind", "source": "/var/lib/other", "options": ["rbind", "rslave"]},
        {"destination": "/data", "type": "bind", "source": "/var/lib/relay", "options": ["rbind", "rw"]}"#;
    let rendered = old(&[("config.json", &config("1.0.0-rc3", "", "", mounts))]).render();
    let requests = requests(&rendered);
    assert!(requests.contains(&"read and write / of the host (as /host)"), "{requests:#?}");
    assert!(requests.contains(&"read and write, and mount on, /var/lib of the host (as /var/lib)"), "{requests:#?}");
    // It would be mounted on the host, and is there already.
    assert!(!requests.iter().any(|words| words.contains("/var/lib/other")), "{requests:#?}");
}
