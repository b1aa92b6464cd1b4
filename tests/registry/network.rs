//! TLS, proxies, and registries that answer strangely.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sysctr::{
    host::pull::{self, Silent},
    model::settings::Settings,
};

use super::{
    bench::{Bench, digest_of, image_in},
    common::{self, Registry},
    logins::{pull_among, pull_with},
};

#[test]
fn another_machine_is_talked_to_with_tls_and_a_known_authority_only() {
    let Some(address) = address() else { return };
    let bench = Bench::new();
    let (registry, certificate) = Registry::with_tls(&address, &bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let name = format!("{}/app:1", registry.host());
    let unknown = pull_with(&bench, &name, "{}");
    assert!(unknown.contains("cannot be reached") && unknown.contains("certificate"), "{unknown}");
    let known = pull_among(&bench, &name, "{}", &[("SSL_CERT_FILE", certificate.to_str().unwrap())]);
    assert!(known.contains(&format!("pulled {}", digest_of(&image))), "{known}");
    // without TLS it is refused unless the settings say otherwise
    let plain = Registry::plain(&address, &bench.path("plain"));
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
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
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
        ("200 OK\nDocker-Content-Digest: sha256:00|{}", "", "invalid digest"),
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

/// An address of this machine that is not loopback.
pub fn address() -> Option<String> {
    let addresses = common::run("hostname", &["-I"]).unwrap();
    let found = addresses.split_whitespace().find(|address| address.contains('.')).map(str::to_owned);
    if found.is_none() {
        eprintln!("this machine has no address but loopback: nothing to test");
    }
    found
}

#[test]
fn the_files_of_certs_d_vouch_for_a_registry_and_are_shown_to_it() {
    let Some(address) = address() else { return };
    let bench = Bench::new();
    let folder = bench.path("registry");
    let (registry, client, key) = Registry::with_mutual_tls(&address, &folder);
    let certs = bench.lock.root().join("etc/containers/certs.d").join(registry.host());
    fs::create_dir_all(&certs).unwrap();
    fs::copy(folder.join("tls.pem"), certs.join("ca.crt")).unwrap();
    let (layout, image) = image_in(&bench.path("layout"));
    let name = format!("{}/app:1", registry.host());
    let refused = format!("{:#}", bench.pull(&name).err().unwrap());
    assert!(refused.contains(&registry.host()) && refused.contains("ertificate"), "{refused}");
    fs::copy(&client, certs.join("me.cert")).unwrap();
    bench.refuses(&name, &["me.cert has no key beside it"]);
    fs::copy(&key, certs.join("me.key")).unwrap();
    let from = format!("oci:{}:1", layout.folder.display());
    let to = format!("docker://{name}");
    common::run(
        "skopeo",
        &["copy", "-q", "--preserve-digests", "--dest-cert-dir", certs.to_str().unwrap(), &from, &to],
    )
    .unwrap();
    assert_eq!(bench.pull(&name).unwrap().digest.to_string(), digest_of(&image));
    fs::write(certs.join("me.key"), "no key").unwrap();
    let broken = format!("{:#}", bench.pull(&name).err().unwrap());
    assert!(broken.contains("reading the client certificate in"), "{broken}");
}

/// A proxy that connects whoever asks to one registry, whatever they ask for; it counts them.
fn proxy(registry: &Registry) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (host, asked) = (registry.host(), Arc::new(AtomicU64::new(0)));
    let count = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, host, count) = (client.unwrap(), host.clone(), count.clone());
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                count.fetch_add(1, Ordering::SeqCst);
                let mut registry = TcpStream::connect(host).unwrap();
                if head.starts_with(b"CONNECT ") {
                    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                } else {
                    registry.write_all(&head).unwrap();
                }
                let (mut from, mut to) = (client.try_clone().unwrap(), registry.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                std::io::copy(&mut registry, &mut client).ok();
            });
        }
    });
    (url, asked)
}

#[test]
fn the_environments_proxies_are_used_for_other_machines_unless_it_says_no() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let (url, asked) = proxy(&registry);
    let conf = bench.work.path().join("registries.conf");
    fs::write(&conf, "[[registry]]\nlocation = 'registry.invalid'\ninsecure = true\n").unwrap();
    let conf = ("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap());
    // no machine has that name, so that only the proxy can have answered
    let name = "registry.invalid/app:1";
    let by_proxy = pull_among(&bench, name, "{}", &[conf, ("HTTP_PROXY", &url), ("HTTPS_PROXY", "http://127.0.0.1:1")]);
    assert!(by_proxy.contains(&format!("pulled {}", digest_of(&image))), "{by_proxy}");
    assert!(asked.load(Ordering::SeqCst) > 0);
    let before = asked.load(Ordering::SeqCst);
    let proxies =
        [conf, ("HTTP_PROXY", url.as_str()), ("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "example.org,.invalid")];
    let without = pull_among(&bench, name, "{}", &proxies);
    assert!(without.contains("cannot be reached"), "{without}");
    assert_eq!(asked.load(Ordering::SeqCst), before);
}

#[test]
fn a_registry_with_tls_is_reached_through_a_proxy_without_showing_it_anything() {
    let Some(address) = address() else { return };
    let bench = Bench::new();
    let (registry, certificate) = Registry::with_tls(&address, &bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let (url, asked) = proxy(&registry);
    let known = ("SSL_CERT_FILE", certificate.to_str().unwrap());
    let name = format!("{}/app:1", registry.host());
    let pulled = pull_among(&bench, &name, "{}", &[known, ("HTTPS_PROXY", &url)]);
    assert!(pulled.contains(&format!("pulled {}", digest_of(&image))), "{pulled}");
    assert!(asked.load(Ordering::SeqCst) > 0);
}
