//! Login servers that would have a password for themselves, or never end.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;

use super::{bench::Bench, common::tls_files, logins::pull_among, network::address};

/// Bytes of a token that never ends, if nobody hangs up.
const ENDLESS: u64 = 64 << 20;

/// A registry with TLS that gives these answers to what begins with these paths; its host and its certificate's file. `HOST` is itself.
fn registry(address: &str, folder: &Path, answers: &[(&'static str, String)]) -> (String, PathBuf) {
    let (key, certificate) = tls_files(address, folder);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_file(&certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&key).unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind((address, 0)).unwrap();
    let host = format!("{address}:{}", listener.local_addr().unwrap().port());
    let answers: Vec<_> = answers.iter().map(|(path, text)| (*path, text.replace("HOST", &host))).collect();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let mut request = vec![0; 8192];
            let length = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = answers.iter().find(|(begin, _)| path.starts_with(begin)).map(|(_, answer)| answer.as_str());
            let head = answer.unwrap_or("404 Not Found");
            let _ = write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (host, certificate)
}

/// Counts who comes, and gives all the same answer.
fn eavesdropper() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://127.0.0.1:{}/token", listener.local_addr().unwrap().port());
    let heard = Arc::new(AtomicU64::new(0));
    let count = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 8192]);
            let body = r#"{"token": "x"}"#;
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    (url, heard)
}

#[test]
fn a_password_goes_nowhere_without_tls_whatever_the_registry_says() {
    let Some(address) = address() else { return };
    let asks = |realm: &str| format!("401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"{realm}\"");
    let (listens, heard) = eavesdropper();
    let sends_on = format!("307 Temporary Redirect\r\nLocation: {listens}");
    let table = [
        (vec![("/v2/", asks(&listens))], "names a login server without TLS"),
        // one realm for the image, another where a client might ask anew
        (
            vec![
                ("/v2/app/", asks("https://HOST/token")),
                ("/v2/", asks(&listens)),
                ("/token", "403 Forbidden".into()),
            ],
            "refused the credentials of",
        ),
        (vec![("/v2/", asks("https://HOST/token")), ("/token", sends_on)], "redirects to an address without TLS"),
    ];
    for (number, (answers, words)) in table.into_iter().enumerate() {
        let bench = Bench::new();
        let (host, certificate) = registry(&address, &bench.path(&format!("registry-{number}")), &answers);
        // admin:secret
        let auth = json!({"auths": {&host: {"auth": "YWRtaW46c2VjcmV0"}}}).to_string();
        let name = format!("{host}/app:1");
        let said = pull_among(&bench, &name, &auth, &[("SSL_CERT_FILE", certificate.to_str().unwrap())]);
        assert!(said.contains(words), "{number}: {said}");
        assert_eq!(heard.load(Ordering::SeqCst), 0, "{number}: {said}");
    }
}

#[test]
fn a_token_that_never_ends_is_not_read_to_its_end() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (sent, realm) = (Arc::new(AtomicU64::new(0)), format!("http://{host}/token"));
    let count = sent.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 8192];
            let length = stream.read(&mut request).unwrap_or_default();
            if request[..length].starts_with(b"GET /token") {
                let piece = [b'a'; 65536];
                let mut going_on = write!(stream, "HTTP/1.1 200 OK\r\n\r\n{{\"token\": \"").is_ok();
                while going_on && count.fetch_add(piece.len() as u64, Ordering::SeqCst) < ENDLESS {
                    going_on = stream.write_all(&piece).is_ok();
                }
            } else if request[..length].starts_with(b"GET /") {
                let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\"");
                let _ = write!(stream, "HTTP/1.1 401 Unauthorized\r\n{challenge}\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    Bench::new().refuses(&format!("{host}/app:1"), &["its login server gave no token"]);
    // what the buffers of the connection hold was sent, too
    assert!(sent.load(Ordering::SeqCst) < ENDLESS / 2, "{} bytes", sent.load(Ordering::SeqCst));
}
