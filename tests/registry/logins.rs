//! Logins: asked for, found, right or wrong.

use std::{fs, path::Path};

use serde_json::json;

use super::{
    bench::{Bench, digest_of, image_in},
    common::{self, Registry},
};

#[test]
fn a_login_is_needed_found_and_checked() {
    let bench = Bench::new();
    let registry = Registry::with_login(&bench.path("registry"), "admin", "secret word");
    let (layout, _) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let name = format!("{}/app:1", registry.host());
    let none = pull_with(&bench, &name, "{}");
    assert!(none.contains("asks for credentials") && none.contains(&registry.host()), "{none}");
    let wrong = pull_with(&bench, &name, &login(&registry, "wrong"));
    assert!(wrong.contains("refused the credentials of") && wrong.contains("auth.json"), "{wrong}");
    assert!(!wrong.contains("wrong") || !wrong.contains("secret"), "{wrong}");
    let broken = pull_with(&bench, &name, "{");
    assert!(broken.contains("auth.json"), "{broken}");
    let right = pull_with(&bench, &name, &login(&registry, "secret word"));
    assert!(right.contains("pulled sha256:"), "{right}");
}

/// An auth file's text.
pub fn login(registry: &Registry, password: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let auth = STANDARD.encode(format!("admin:{password}"));
    json!({"auths": {registry.host(): {"auth": auth}}}).to_string()
}

pub fn pull_with(bench: &Bench, image: &str, auth: &str) -> String {
    pull_among(bench, image, auth, &[])
}

/// Pulls in a child, because the environment that names the auth file and more is the process's own.
pub fn pull_among(bench: &Bench, image: &str, auth: &str, environment: &[(&str, &str)]) -> String {
    let auth_file = bench.work.path().join("auth.json");
    fs::write(&auth_file, auth).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "logins::pull_in_a_child", "--nocapture"])
        .env("REGISTRY_AUTH_FILE", &auth_file)
        .env("TEST_IMAGE", image)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Not a test of its own: those about logins run it.
#[test]
#[ignore = "run by another test"]
fn pull_in_a_child() {
    let Ok(image) = std::env::var("TEST_IMAGE") else { return };
    let bench = Bench::new();
    match bench.pull(&image) {
        Ok(stored) => println!("pulled {}", stored.digest),
        Err(error) => println!("refused: {error:#}"),
    }
}

/// A token server as the registry expects one: it signs with the key whose certificate the registry knows, for the right login only.
pub fn token_server(folder: &Path) -> (u16, String) {
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    use std::io::{Read, Write};
    let at = |name: &str| folder.join(name).display().to_string();
    let (key, certificate) = (at("key.pem"), at("certificate.pem"));
    let subject = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"];
    common::run("openssl", &[&subject[..], &["-keyout", &key, "-out", &certificate]].concat()).unwrap();
    let pem = fs::read_to_string(&certificate).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 8192];
            let length = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let line = request.lines().next().unwrap_or_default().to_owned();
            let right = format!("authorization: Basic {}", STANDARD.encode("admin:secret"));
            let allowed = request.to_lowercase().contains(&right.to_lowercase());
            // what is asked for is what is granted: pulling, or pushing to make the test's image
            let actions = if line.contains("push") { vec!["pull", "push"] } else { vec!["pull"] };
            let body = if allowed {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
                let claims = json!({"iss": "test", "sub": "admin", "aud": "registry", "exp": now + 60, "nbf": now - 60, "iat": now,
                    "jti": number.to_string(), "access": [{"type": "repository", "name": "app", "actions": actions}]});
                let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
                let (text, signature) =
                    (folder.join(format!("text-{number}")), folder.join(format!("signature-{number}")));
                fs::write(&text, &signed).unwrap();
                let files = ["-out", signature.to_str().unwrap(), text.to_str().unwrap()];
                common::run(
                    "openssl",
                    &[&["dgst", "-sha256", "-sign", folder.join("key.pem").to_str().unwrap()], &files[..]].concat(),
                )
                .unwrap();
                json!({"token": format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fs::read(&signature).unwrap()))})
                    .to_string()
            } else {
                "{}".to_owned()
            };
            let status = if allowed { "200 OK" } else { "401 Unauthorized" };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).ok();
        }
    });
    let auth = format!(
        "auth:\n  token:\n    realm: http://127.0.0.1:{port}/token\n    service: registry\n    issuer: test\n    rootcertbundle: {certificate}\n"
    );
    (port, auth)
}

#[test]
fn a_token_is_had_for_the_login_and_refused_for_another() {
    let bench = Bench::new();
    let folder = bench.path("registry");
    let (_, auth) = token_server(&folder);
    let registry = Registry::with_auth(&folder, Some(("admin".into(), "secret".into())), &auth);
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let name = format!("{}/app:1", registry.host());
    let none = pull_with(&bench, &name, "{}");
    assert!(none.contains("asks for credentials"), "{none}");
    let wrong = pull_with(&bench, &name, &login(&registry, "other"));
    assert!(wrong.contains("refused the credentials of"), "{wrong}");
    let right = pull_with(&bench, &name, &login(&registry, "secret"));
    assert!(right.contains(&format!("pulled {}", digest_of(&image))), "{right}");
}

/// A folder with `docker-credential-sysctr-test`, which knows one login and writes down what it was asked.
fn helper(bench: &Bench) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let folder = bench.path("helpers");
    let text = format!(
        "#!/bin/sh\nserver=$(cat)\necho \"$1 $server\" >> {}/asked\ncase $server in\n\
         127.0.0.1:*) echo '{{\"ServerURL\": \"x\", \"Username\": \"admin\", \"Secret\": \"secret word\"}}' ;;\n\
         broken.*) echo no such luck; exit 1 ;;\n\
         *) echo credentials not found in native keychain; exit 1 ;;\nesac\n",
        folder.display()
    );
    let program = folder.join("docker-credential-sysctr-test");
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_helper_is_asked_for_the_login() {
    let bench = Bench::new();
    let registry = Registry::with_login(&bench.path("registry"), "admin", "secret word");
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let name = format!("{}/app:1", registry.host());
    let folder = helper(&bench);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let pull = |auth: serde_json::Value, more: &[(&str, &str)]| {
        pull_among(&bench, &name, &auth.to_string(), &[&[("PATH", path.as_str())], more].concat())
    };
    let pulled = format!("pulled {}", digest_of(&image));
    let own = pull(json!({"auths": {registry.host(): {}}, "credHelpers": {registry.host(): "sysctr-test"}}), &[]);
    assert!(own.contains(&pulled), "{own}");
    let all = pull(json!({"credsStore": "sysctr-test"}), &[]);
    assert!(all.contains(&pulled), "{all}");
    let asked = fs::read_to_string(folder.join("asked")).unwrap();
    assert_eq!(asked, format!("get {}\n", registry.host()).repeat(2));
    // registries.conf may name one in the files' place
    let conf = bench.work.path().join("registries.conf");
    fs::write(&conf, "credential-helpers = ['sysctr-test']\n").unwrap();
    let named = pull(json!({}), &[("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap())]);
    assert!(named.contains(&pulled), "{named}");
    let absent = pull(json!({"credsStore": "sysctr-none"}), &[]);
    assert!(absent.contains("asking docker-credential-sysctr-none for") && absent.contains("auth.json"), "{absent}");
    let unknown = pull_among(&bench, "registry.invalid/app:1", r#"{"credsStore": "sysctr-test"}"#, &[("PATH", &path)]);
    assert!(unknown.contains("registry.invalid cannot be reached"), "{unknown}");
    let broken = pull_among(&bench, "broken.invalid/app:1", r#"{"credsStore": "sysctr-test"}"#, &[("PATH", &path)]);
    assert!(broken.contains("it said \"no such luck\""), "{broken}");
}
