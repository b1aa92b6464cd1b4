//! Images pulled from a real registry, and every way in which that can fail: a clear line, and the store as before.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use common::{Layout, Packing, Registry, dir, file, tar_of};
use serde_json::{Value, json};
use sysctr::{
    host::{
        lock::StoreLock,
        ostree::{Store, StoredImage},
        pull::{self, Silent},
        source::this_architecture,
    },
    model::{
        fault::{Code, Fault},
        reference::ImageSource,
        settings::Settings,
    },
};
use tempfile::TempDir;

/// A root with an empty store, and a work folder beside it.
struct Bench {
    work: TempDir,
    lock: StoreLock,
    store: Store,
}

impl Bench {
    fn new() -> Bench {
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = work.path().join("root");
        fs::create_dir(&root).unwrap();
        let lock = StoreLock::acquire(&root, "pull", Duration::ZERO).unwrap();
        let store = Store::open_or_create(&lock).unwrap();
        Bench { work, lock, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.work.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn pull(&self, image: &str) -> anyhow::Result<StoredImage> {
        let source: ImageSource = image.parse()?;
        pull::pull(&self.lock, &self.store, &source, &Settings::default(), &mut Silent)
    }

    /// The pull fails, says each of these words on one line, and the store is as before.
    fn refuses(&self, image: &str, words: &[&str]) {
        let before = listing(self.store.path());
        let error = format!("{:#}", self.pull(image).err().unwrap_or_else(|| panic!("{image} was pulled")));
        for word in words {
            assert!(error.contains(word), "{image}: no {word:?} in: {error}");
        }
        assert!(!error.contains('\n') && error.len() < 600, "{error}");
        assert_eq!(listing(self.store.path()), before, "{image} left something");
    }
}

/// All files of the store but its lock.
fn listing(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                todo.push(path);
            } else if !path.ends_with("repo/.lock") {
                files.insert(path, meta.len());
            }
        }
    }
    files
}

fn layer(number: usize) -> Vec<u8> {
    let noise: Vec<u8> = (0..400_000usize).map(|at| ((at * at + number) % 251) as u8).collect();
    let name = format!("data/file-{number}");
    tar_of(&[dir("data/", 0o755), file(&name, 0o644, &noise), file("data/last", 0o600, name.as_bytes())])
}

fn all_packings() -> [(Vec<u8>, Packing); 3] {
    [(layer(1), Packing::Gzip), (layer(2), Packing::Zstd), (layer(3), Packing::Plain)]
}

fn image_in(folder: &Path) -> (Layout, Value) {
    let layout = Layout::new(folder);
    let image = layout.image(this_architecture(), &all_packings());
    layout.index(&[(Some("1"), &image)]);
    (layout, image)
}

#[test]
fn gzip_zstd_and_plain_layers_come_out_whole_and_a_second_pull_fetches_nothing() {
    let bench = Bench::new();
    let mut registry = Registry::start(&bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "team/app:1");
    let name = format!("{}/team/app:1", registry.host());
    let stored = bench.pull(&name).unwrap();
    assert_eq!(stored.digest.to_string(), image["digest"]);
    assert_eq!(stored.references, [name.parse().unwrap()]);
    assert_eq!(stored.created(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(stored.size, 3 * 400_000 + "data/file-3".len() as u64);
    for number in 1..=3 {
        let content =
            bench.store.read_file(&stored, Path::new(&format!("data/file-{number}")), u64::MAX).unwrap().unwrap();
        assert!(layer(number).windows(content.len()).any(|window| window == content), "layer {number}");
    }
    assert_eq!(bench.store.read_file(&stored, Path::new("data/last"), 100).unwrap().unwrap(), b"data/file-3");

    // by digest, with all blobs gone: nothing but the manifest is asked for
    for layer in stored.manifest.layers() {
        fs::remove_file(registry.blob_file(layer.digest().as_ref())).unwrap();
    }
    let again = bench.pull(&format!("{}/team/app@{}", registry.host(), stored.digest)).unwrap();
    assert_eq!(again.commit, stored.commit);
    assert_eq!(again.references.len(), 2);
    registry.stop();
    bench.refuses(&name, &["cannot be reached", &registry.host()]);
}

#[test]
fn an_index_gives_the_image_for_this_machine_or_says_what_it_has() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.path("registry"));
    let layout = Layout::new(&bench.path("layout"));
    let place = |mut descriptor: Value, architecture: &str| {
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    };
    let ours = layout.image(this_architecture(), &[(layer(1), Packing::Gzip)]);
    let foreign = place(layout.image("s390x", &[(layer(2), Packing::Gzip)]), "s390x");
    let other = place(layout.image("mips64le", &[(layer(3), Packing::Gzip)]), "mips64le");
    let index = |entries: &[&Value]| {
        let text =
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
        layout.blob("application/vnd.oci.image.index.v1+json", text.to_string().as_bytes())
    };
    let both = index(&[&foreign, &place(ours.clone(), this_architecture())]);
    let none = index(&[&foreign, &other]);
    layout.index(&[(Some("both"), &both), (Some("none"), &none), (Some("one"), &foreign)]);
    for tag in ["both", "none", "one"] {
        layout.push(tag, &registry, &format!("app:{tag}"));
    }
    let stored = bench.pull(&format!("{}/app:both", registry.host())).unwrap();
    assert_eq!(stored.digest.to_string(), ours["digest"]);
    // by the digest of the index too
    let by_index = bench.pull(&format!("{}/app@{}", registry.host(), both["digest"].as_str().unwrap())).unwrap();
    assert_eq!(by_index.commit, stored.commit);
    let wanted = format!("no image for {}: it has mips64le, s390x", this_architecture());
    bench.refuses(&format!("{}/app:none", registry.host()), &[&wanted]);
    bench.refuses(&format!("{}/app:one", registry.host()), &["no image for", "s390x"]);
    bench.refuses(&format!("oci:{}:none", layout.folder.display()), &[&wanted]);
}

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
fn login(registry: &Registry, password: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let auth = STANDARD.encode(format!("admin:{password}"));
    json!({"auths": {registry.host(): {"auth": auth}}}).to_string()
}

fn pull_with(bench: &Bench, image: &str, auth: &str) -> String {
    pull_among(bench, image, auth, &[])
}

/// Pulls in a child, because the environment that names the auth file and more is the process's own.
fn pull_among(bench: &Bench, image: &str, auth: &str, environment: &[(&str, &str)]) -> String {
    let auth_file = bench.work.path().join("auth.json");
    fs::write(&auth_file, auth).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "pull_in_a_child", "--nocapture"])
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

#[test]
fn what_is_not_there_or_broken_is_said_in_one_line_and_changes_nothing() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let host = registry.host();
    bench.refuses(&format!("{host}/nothing:1"), &["404", "nothing:1"]);
    bench.refuses(&format!("{host}/app:2"), &["404", "app:2"]);
    let unknown = bench.pull(&format!("{host}/app:2")).err().unwrap();
    assert_eq!(unknown.downcast_ref::<Fault>().map(Fault::code), Some(Code::NotFound));
    bench.refuses(&format!("127.0.0.1:{}/app:1", common::free_port()), &["cannot be reached", "refused"]);
    bench.refuses(&format!("{host}/app@sha256:{}", "0".repeat(64)), &["404"]);

    // each blob and the manifest, one byte flipped, then cut
    let manifest: Value = serde_json::from_slice(&blob(&layout, &image)).unwrap();
    let mut digests: Vec<String> = manifest["layers"].as_array().unwrap().iter().map(digest_of).collect();
    digests.push(digest_of(&manifest["config"]));
    for digest in &digests {
        let path = registry.blob_file(digest);
        let whole = fs::read(&path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            bench.refuses(&format!("{host}/app:1"), &["is corrupted", &digest[7..19]]);
        }
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        bench.refuses(&format!("{host}/app:1"), &["is cut short"]);
        fs::remove_file(&path).unwrap();
        bench.refuses(&format!("{host}/app:1"), &["404"]);
        fs::write(&path, &whole).unwrap();
    }
    bench.pull(&format!("{host}/app:1")).unwrap();
}

fn blob(layout: &Layout, descriptor: &Value) -> Vec<u8> {
    fs::read(layout.folder.join("blobs/sha256").join(&digest_of(descriptor)[7..])).unwrap()
}

fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

#[test]
fn archives_hold_the_same_image_and_a_cut_one_is_refused() {
    let bench = Bench::new();
    let (layout, image) = image_in(&bench.path("layout"));
    let tar = bench.work.path().join("image.tar");
    layout.tar(&tar);
    let from_folder = bench.pull(&format!("oci:{}", layout.folder.display())).unwrap();
    let from_file = bench.pull(&format!("oci-archive:{}:1", tar.display())).unwrap();
    assert_eq!((from_file.digest.to_string(), &from_file.commit), (digest_of(&image), &from_folder.commit));
    bench.refuses(&format!("oci-archive:{}:2", tar.display()), &["no image \"2\"", "\"1\""]);
    bench.refuses("oci-archive:/nowhere.tar", &["/nowhere.tar", "No such file"]);
    bench.refuses(&format!("oci:{}", tar.display()), &["is not a folder"]);
    bench.refuses(&format!("docker-archive:{}", tar.display()), &["not a docker archive"]);

    // what `docker save` writes, made by a tool of its own
    let saved = bench.work.path().join("saved.tar");
    let docker_layout = Layout::new(&bench.path("docker-layout"));
    let gzip = all_packings().map(|(tar, _)| (tar, Packing::Gzip));
    docker_layout.index(&[(Some("1"), &docker_layout.image(this_architecture(), &gzip))]);
    let from = format!("oci:{}:1", docker_layout.folder.display());
    common::run("skopeo", &["copy", "-q", &from, &format!("docker-archive:{}:localhost/app:1", saved.display())])
        .unwrap();
    let docker = bench.pull(&format!("docker-archive:{}", saved.display())).unwrap();
    assert_eq!(docker.size, from_folder.size);
    assert_eq!(docker.references[0].repository_name(), "saved");
    let named = bench.pull(&format!("docker-archive:{}:localhost/app:1", saved.display())).unwrap();
    assert_eq!(named.digest, docker.digest);
    bench.refuses(&format!("docker-archive:{}:localhost/app:2", saved.display()), &["localhost/app:1"]);
    common::run("gzip", &["-k", saved.to_str().unwrap()]).unwrap();
    assert_eq!(bench.pull(&format!("docker-archive:{}.gz", saved.display())).unwrap().digest, docker.digest);

    // all but the last two blocks, which only mark the end
    let whole = fs::read(&tar).unwrap();
    let fresh = Bench::new();
    let cut = fresh.work.path().join("cut.tar");
    for percent in [1, 30, 60, 90] {
        fs::write(&cut, &whole[..whole.len() * percent / 100 - 7]).unwrap();
        fresh.refuses(&format!("oci-archive:{}", cut.display()), &["cut.tar"]);
    }
}

#[test]
fn the_same_image_makes_the_same_commit_and_hostile_ones_make_none() {
    let (one, two) = (Bench::new(), Bench::new());
    let (layout, _) = image_in(&one.path("layout"));
    let name = format!("oci:{}:1", layout.folder.display());
    assert_eq!(one.pull(&name).unwrap().commit, two.pull(&name).unwrap().commit);

    let hostile: &[(&[common::Entry<'_>], &str)] = &[
        (&[file("data/fine", 0o644, b"x"), file("../../../../escaped", 0o644, b"x")], "escaped"),
        (&[common::link("out", "../../.."), file("out/escaped", 0o644, b"x")], "leads out"),
        (&[common::hardlink("h", "/etc/shadow")], "absolute"),
        (&[file("a\nb", 0o644, b"x")], "control characters"),
    ];
    for (entries, why) in hostile {
        let layout = Layout::new(&two.path("hostile"));
        let image = layout.image(this_architecture(), &[(tar_of(entries), Packing::Gzip)]);
        layout.index(&[(None, &image)]);
        two.refuses(&format!("oci:{}", layout.folder.display()), &["layer entry", why]);
    }
    // a config that promises other content than the layer has
    let layout = Layout::new(&two.path("lying"));
    let image = layout.image(this_architecture(), &[(layer(1), Packing::Gzip)]);
    let mut manifest: Value = serde_json::from_slice(&blob(&layout, &image)).unwrap();
    manifest["layers"] = json!([layout.blob("application/vnd.oci.image.layer.v1.tar", &layer(2))]);
    let image = layout.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    layout.index(&[(None, &image)]);
    two.refuses(&format!("oci:{}", layout.folder.display()), &["promises"]);
}

#[test]
fn policy_is_asked_before_anything_is_fetched() {
    let bench = Bench::new();
    let policy = bench.lock.root().join("etc/containers/policy.json");
    fs::create_dir_all(policy.parent().unwrap()).unwrap();
    fs::write(&policy, r#"{"default": [{"type": "reject"}]}"#).unwrap();
    // no registry listens there: a refusal says that none was asked
    let name = format!("127.0.0.1:{}/app:1", common::free_port());
    bench.refuses(&name, &["policy refuses", "default is rejected"]);
}

/// A token server as the registry expects one: it signs with the key whose certificate the registry knows, for the right login only.
fn token_server(folder: &Path) -> (u16, String) {
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

#[test]
fn another_machine_is_talked_to_with_tls_and_a_known_authority_only() {
    let addresses = common::run("hostname", &["-I"]).unwrap();
    let Some(address) = addresses.split_whitespace().find(|address| address.contains('.')) else {
        eprintln!("this machine has no address but loopback: nothing to test");
        return;
    };
    let bench = Bench::new();
    let (registry, certificate) = Registry::with_tls(address, &bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let name = format!("{}/app:1", registry.host());
    let unknown = pull_with(&bench, &name, "{}");
    assert!(unknown.contains("cannot be reached") && unknown.contains("certificate"), "{unknown}");
    let known = pull_among(&bench, &name, "{}", &[("SSL_CERT_FILE", certificate.to_str().unwrap())]);
    assert!(known.contains(&format!("pulled {}", digest_of(&image))), "{known}");
    // without TLS it is refused unless the settings say otherwise
    let plain = Registry::plain(address, &bench.path("plain"));
    layout.push("1", &plain, "app:1");
    let name = format!("{}/app:1", plain.host());
    bench.refuses(&name, &["cannot be reached"]);
    let mut settings = Settings::default();
    settings.registry.insecure.push(plain.host());
    let source = name.parse().unwrap();
    pull::pull(&bench.lock, &bench.store, &source, &settings, &mut Silent).unwrap();
}

#[test]
fn the_environments_proxies_are_not_for_this_machine() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let nobody = format!("http://127.0.0.1:{}", common::free_port());
    let proxies = ["http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, nobody.as_str()));
    for host in [registry.host(), format!("localhost:{}", registry.port)] {
        let pulled = pull_among(&bench, &format!("{host}/app:1"), "{}", &proxies);
        assert!(pulled.contains(&format!("pulled {}", digest_of(&image))), "{pulled}");
    }
    let pulled = pull_among(&bench, "registry.invalid/app:1", "{}", &proxies);
    assert!(pulled.contains("cannot be reached: Connection refused"), "{pulled}");
}

/// A registry that gives the same answer to all that is asked of it, but at its login, where NTH counts, and to the second token.
fn strange_registry(answer: &'static str, to_login: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let realm = format!("http://{host}/login");
    std::thread::spawn(move || {
        let mut logins = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 8192];
            let length = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            // whoever begins with TLS is hung up on
            if request.starts_with("get /") {
                let at_login = request.starts_with("get /login");
                logins += usize::from(at_login);
                let text = match at_login {
                    true => to_login,
                    false if request.contains("authorization: bearer 2\r") => "200 OK|second token",
                    false => answer,
                };
                let text = text.replace("REALM", &realm).replace("NTH", &logins.to_string());
                let (head, body) = text.split_once('|').unwrap_or((&text, ""));
                let reply = format!("HTTP/1.1 {}\r\nConnection: close\r\n\r\n{body}", head.replace('\n', "\r\n"));
                stream.write_all(reply.as_bytes()).ok();
            }
        }
    });
    host
}

#[test]
fn what_a_strange_registry_says_comes_out_as_one_line() {
    let bench = Bench::new();
    let challenge = "401 Unauthorized\nWWW-Authenticate: Bearer realm=\"REALM\",service=\"x\"|";
    let table = [
        ("500 Internal Server Error|disk\nfull \u{1b}[31m", "", "answered 500 disk full"),
        ("404 Not Found|<html>", "", "404"),
        ("403 Forbidden|{\"errors\": [{\"code\": \"DENIED\"}]}", "", "asks for credentials"),
        ("429 Too Many|{\"errors\": [{\"code\": \"TOOMANYREQUESTS\", \"message\": \"slow\\ndown\"}]}", "", "slow down"),
        ("200 OK\nContent-Length: 9|{}", "", "broke off: end of file"),
        ("200 OK|nonsense", "", "not JSON"),
        ("200 OK\nDocker-Content-Digest: sha256:00|{}", "", "Invalid digest"),
        (challenge, "503 Service Unavailable|out\nfor lunch", "out for lunch"),
        (challenge, "200 OK|{\"token\": \"a\\nb\"}", "does not fit into a header"),
        (challenge, "200 OK|{}", "token"),
        // one that has run out is had anew
        (challenge, "200 OK|{\"token\": \"NTH\"}", "not JSON"),
        (challenge, "200 OK|{\"token\": \"wrong\"}", "asks for credentials"),
        (
            "401 Unauthorized\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:1\"|",
            "",
            "http://127.0.0.1:1 cannot be reached",
        ),
        ("401 Unauthorized\nWWW-Authenticate: Negotiate|", "", "asks for credentials"),
    ];
    for (answer, to_login, words) in table {
        bench.refuses(&format!("{}/app:1", strange_registry(answer, to_login)), &[words]);
    }
}
