//! Golden exports of Quadlet files, and refusals by key and line.

use super::*;
use crate::model::template::{self, Kind};

const CONFIG: &str = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
    "config": {"Entrypoint": ["/bin/entry"], "Cmd": ["cmd"]}}"#;

fn source(text: &str, beside: &[(&str, &str)]) -> Source {
    let beside = beside.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Source { file: "web.container".into(), text: text.into(), beside }
}

fn exports(text: &str, beside: &[(&str, &str)]) -> (Json, String, Vec<String>) {
    let quadlet = read(&source(text, beside), &"web".parse().expect("a name")).expect("read");
    let exports = quadlet.exports(&serde_json::from_str(CONFIG).expect("a config")).expect("exports");
    let text = |file: &str| String::from_utf8(exports[file].clone()).expect("text");
    crate::model::manifest::Manifest::parse(&text("manifest.json")).expect("a manifest of ours");
    (serde_json::from_str(&text("manifest.json")).expect("json"), text("service.hbs"), quadlet.notes)
}

#[test]
fn a_container_becomes_a_manifest_and_a_service() {
    let text = "[Unit]\nDescription=The web of db.container\nAfter=db.container network-online.target\n\n[Container]\nImage=registry.example/web:1\n\
        ContainerName=webby\nExec=serve --name \"a b\" %N\nEnvironment=A=b \"C=d e\"\nEnvironmentFile=/etc/web.env\nUser=5\nGroup=6\n\
        WorkingDir=/srv\nAddCapability=CAP_NET_ADMIN CAP_NET_RAW\nDropCapability=all\nAddDevice=/dev/net/tun\nReadOnly=yes\nTmpfs=/cache\n\
        Volume=/srv/www:/www:ro,Z\nVolume=data.volume:/data\nVolume=logs:/logs\nMount=type=bind,src=/etc/ssl,dst=/ssl,ro\n\
        Network=host.network\nNotify=true\nUserNS=auto\nHealthCmd=curl localhost\nHealthInterval=5s\nStopSignal=SIGINT\nStopTimeout=20\n\
        PidsLimit=50\nMemory=100m\nUlimit=nofile=10:20\nSeccompProfile=calls.json\nAutoUpdate=registry\n\n\
        [Service]\nRestart=always\n\n[Install]\nWantedBy=multi-user.target\n";
    let beside = [
        ("data.volume", "[Volume]\nVolumeName=webdata\n"),
        ("host.network", "[Network]\nNetworkName=host\n"),
        ("calls.json", "{}"),
    ];
    let (manifest, service, notes) = exports(text, &beside);
    let expected = json!({
        "version": "2.0",
        "container": {
            "args": ["/bin/entry", "serve", "--name", "a b", "web"],
            "capabilities": {"add": ["CAP_NET_ADMIN", "CAP_NET_RAW"], "drop": crate::model::spec::DEFAULT_CAPABILITIES},
            "devices": ["/dev/net/tun"],
            "env": {"A": "b", "C": "d e"},
            "mounts": [
                {"source": "/srv/www", "target": "/www", "options": ["ro"]},
                {"source": "/etc/ssl", "target": "/ssl", "options": ["ro"]}
            ],
            "network": "host",
            "notify": true,
            "readonly": true,
            "seccomp": "seccomp.json",
            "tmpfs": ["/cache"],
            "user": "5:6",
            "userns": "auto",
            "workdir": "/srv"
        },
        "state": {"folders": [
            {"path": "/var/lib/web/webdata", "target": "/data", "mode": "0755"},
            {"path": "/var/lib/web/logs", "target": "/logs", "mode": "0755"}
        ]},
        "health": {"exec": ["/bin/sh", "-c", "curl localhost"], "interval": "5s"}
    });
    assert_eq!(manifest, expected);
    let expected = "[Unit]\nDescription=The web of db.container\nAfter=db.service network-online.target\n[Service]\nRestart=always\n\
        [Install]\nWantedBy=multi-user.target\n[Service]\nExecStart={{exec_start}}\nEnvironmentFile=/etc/web.env\n\
        KillSignal=SIGINT\nTimeoutStopSec=20\nTasksMax=50\nMemoryMax=100M\nLimitNOFILE=10:20\n";
    assert_eq!(service, expected);
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[0].contains("web.container: line 7: ContainerName="), "{notes:?}");
    assert!(notes[1].contains("line 19: Volume=: Z means nothing here"), "{notes:?}");
}

#[test]
fn what_a_file_and_its_image_say_comes_out_as_it_is() {
    let text = "[Unit]\nDescription={{name}}, 50%% of {{\n[Container]\nImage=a/b:1\nNetwork=none\nEnvironmentFile=/etc/50%%/{{x}}\n\
        Exec=--format {{.Name}} '{{{a}}} {\\\\{{{' 100%%\nEnvironment=A={{values.x}}\nHealthCmd=[\"/test\", \"{{#if x}}\"]\n\
        [Service]\nEnvironment=\"B=\\x5c{{c}}\"\n";
    let config = CONFIG.replace("/bin/entry\"", "/bin/entry\", \"\\\\{{exec_start}}\"");
    let quadlet = read(&source(text, &[]), &"web".parse().expect("a name")).expect("read");
    let exports = quadlet.exports(&serde_json::from_str(&config).expect("a config")).expect("exports");
    let text = |file: &str| std::str::from_utf8(&exports[file]).expect("text").to_owned();
    let filled = |kind, text: &str| {
        let ours = [("exec_start", "/run it".to_owned())];
        template::render(kind, "a text", text, &json!({"name": "web", "x": false}), &ours).expect(text)
    };
    let manifest: Json = serde_json::from_str(&text("manifest.json")).expect("json");
    let plain = |pointer: &str| filled(Kind::Plain, manifest.pointer(pointer).and_then(Json::as_str).expect(pointer));
    let args: Vec<String> = (0..6).map(|at| plain(&format!("/container/args/{at}"))).collect();
    assert_eq!(args, ["/bin/entry", "\\{{exec_start}}", "--format", "{{.Name}}", "{{{a}}} {\\{{{", "100%"]);
    assert_eq!(
        (plain("/container/env/A"), plain("/health/exec/1")),
        ("{{values.x}}".to_owned(), "{{#if x}}".to_owned())
    );
    let service = filled(Kind::Unit, &text("service.hbs"));
    for line in [
        "Description={{name}}, 50%% of {{",
        "EnvironmentFile=/etc/50%%/{{x}}",
        "Environment=\"B=\\x5c{{c}}\"",
        "ExecStart=/run it",
    ] {
        assert!(service.lines().any(|known| known == line), "{line} is not in\n{service}");
    }
}

#[test]
fn the_least_is_an_image_and_a_network() {
    let (manifest, service, _) =
        exports("[Container]\nImage=a/b:1\nNetwork=none\nEntrypoint=/bin/other -x\nExec=5$ a$b $$c\n", &[]);
    let container = json!({"args": ["/bin/other", "-x", "5$", "a$b", "$c"], "network": "private", "readonly": false});
    assert_eq!(manifest, json!({"version": "2.0", "container": container}));
    assert_eq!(service, "[Service]\nExecStart={{exec_start}}\n");
}

#[test]
fn what_cannot_be_done_is_refused_by_key_and_line() {
    let start = "[Container]\nImage=a/b:1\n";
    for (more, expected) in [
        ("", "web.container: [Container] has no Network="),
        ("Network=bridge", "web.container, line 3: Network=: bridge is not supported"),
        ("Network=host\nPublishPort=80:80", "line 4: PublishPort="),
        ("Pod=x.pod", "line 3: Pod=: not supported"),
        ("PodmanArgs=--x", "line 3: PodmanArgs="),
        ("Secret=x", "line 3: Secret="),
        ("NoSuchKey=x", "line 3: NoSuchKey="),
        ("Volume=/data", "line 3: Volume=: the anonymous volume"),
        ("Volume=x.volume:/data", "line 3: Volume=: there is no x.volume"),
        ("Volume=a:/data:ro", "line 3: Volume=: a volume is state"),
        ("Volume=./a:/data", "absolute path"),
        ("Tmpfs=/a:size=5", "line 3: Tmpfs="),
        ("UserNS=keep-id", "keep-id"),
        ("Notify=healthy", "line 3: Notify="),
        ("NoNewPrivileges=false", "line 3: NoNewPrivileges="),
        ("NoNewPrivileges=maybe", "line 3: NoNewPrivileges="),
        ("Exec=\"a", "line 3: Exec=: a quote"),
        ("Exec=%i", "%i"),
        ("Exec=sh -c \"echo ${HOME}\"", "line 3: Exec=: a variable of the unit is not supported"),
        ("Environment=\"$HOME=x\"", "line 3: Environment=: a variable"),
        ("Network=host\nGroup=5", "web.container: [Container] has Group= and no User="),
        ("Environment=A=b\nEnvironment=", "line 4: Environment=: it is empty"),
        ("AddCapability=", "line 3: AddCapability=: it is empty"),
        ("HealthCmd=none", "line 3: HealthCmd=: none is not supported"),
        ("Image=x.image", "line 3: Image="),
        ("[Service]\nExecStart=/bin/sh", "line 4: ExecStart="),
        ("[Kube]\nYaml=x", "the section [Kube]"),
    ] {
        let text = format!("{start}{more}\n");
        let error = format!("{:#}", read(&source(&text, &[]), &"web".parse().expect("a name")).expect_err(more));
        assert!(error.contains(expected), "{more}: {error}");
    }
    let beside = [("x.volume", "[Volume]\nDriver=image\n"), ("x.network", "[Network]\nSubnet=10.0.0.0/8\n")];
    for (more, expected) in
        [("Volume=x.volume:/a", "x.volume, line 2: Driver="), ("Network=x.network", "x.network, line 2: Subnet=")]
    {
        let text = format!("{start}{more}\n");
        let error = format!("{:#}", read(&source(&text, &beside), &"web".parse().expect("a name")).expect_err(more));
        assert!(error.contains(expected), "{more}: {error}");
    }
    assert!(
        name("/etc/containers/systemd/web.container").is_ok()
            && name("web@.container").is_err()
            && name("web.kube").is_err()
    );
}
