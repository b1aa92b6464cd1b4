//! Between the program and a real registry, something that breaks connections.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sysctr::host::source::this_architecture;

use super::{
    bench::{Bench, all_packings, blob},
    common::{Layout, Packing, Registry, file, tar_of},
};

/// What a proxy does with the answer to a question for a blob.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Hangs up when so much of it has gone through, of a hundred parts.
    CutAt(u64),
    /// The same, and never passes a range on.
    CutOnceWithoutRanges(u64),
    /// The same each time, so that nobody gets further.
    CutWithoutRanges(u64),
    /// Passes all of it on, in chunks, and hangs up where the last one says that it was the last.
    NeverEnds,
    /// Keeps the connection open and says nothing more.
    StallOnce(u64),
    /// Says 429 and `Retry-After: 1` to the first question of any kind.
    BusyOnce,
    /// Passes one byte on each time.
    Drip,
    /// Passes large blobs on to so many parts of a hundred, nothing of what is asked for after that, and says nothing more.
    HoldsAt(u64),
    /// Is gone for good when the first large blob has come so far.
    DiesAt(u64),
}

/// Bytes of a large blob, at least.
const LARGE: u64 = 1_000_000;

/// A proxy in front of a registry that does its worst. It counts what it let through of blobs, and the questions.
pub struct Proxy {
    pub host: String,
    pub passed: Arc<AtomicU64>,
    pub questions: Arc<AtomicU64>,
}

impl Proxy {
    pub fn start(registry: &Registry, fault: Fault) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (passed, questions) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let proxy = Proxy { host, passed: passed.clone(), questions: questions.clone() };
        let behind = registry.host();
        let dead = Arc::new(AtomicBool::new(false));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (behind, passed, questions, dead) =
                    (behind.clone(), passed.clone(), questions.clone(), dead.clone());
                std::thread::spawn(move || {
                    // a client that hangs up is no failure
                    let _ = serve(&client.unwrap(), &behind, fault, (&passed, &questions, &dead));
                });
            }
        });
        proxy
    }
}

/// A head up to its empty line.
fn head(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

fn serve(
    mut client: &TcpStream,
    behind: &str,
    fault: Fault,
    (passed, questions, dead): (&AtomicU64, &AtomicU64, &AtomicBool),
) -> std::io::Result<()> {
    let mut from_client = BufReader::new(client);
    // whoever begins with TLS is hung up on
    if from_client.fill_buf()?.first() != Some(&b'G') {
        return Ok(());
    }
    loop {
        let question = head(&mut from_client)?;
        if dead.load(Ordering::SeqCst) {
            return Ok(());
        }
        let first = questions.fetch_add(1, Ordering::SeqCst) == 0;
        if first && matches!(fault, Fault::BusyOnce) {
            client.write_all(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let mut registry = TcpStream::connect(behind)?;
        let mut lines: Vec<&str> = question.lines().filter(|line| !line.is_empty()).collect();
        lines.retain(|line| !line.to_lowercase().starts_with("connection:"));
        if matches!(fault, Fault::CutOnceWithoutRanges(_) | Fault::CutWithoutRanges(_)) {
            lines.retain(|line| !line.to_lowercase().starts_with("range:"));
        }
        registry.write_all((lines.join("\r\n") + "\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut from_registry = BufReader::new(registry);
        let answer = head(&mut from_registry)?;
        let length = answer.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: u64 = length.unwrap_or(0);
        let is_blob = question.contains("/blobs/");
        let mut answer = answer.replace("Connection: close\r\n", "");
        let unended = is_blob && length > 0 && matches!(fault, Fault::NeverEnds);
        if unended {
            let kept = answer.lines().filter(|line| !line.to_lowercase().starts_with("content-length:"));
            answer = kept.collect::<Vec<_>>().join("\r\n");
            answer = format!("{}\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n", answer.trim_end());
        }
        client.write_all(answer.as_bytes())?;
        let before = passed.load(Ordering::SeqCst);
        let limit = match fault {
            _ if !is_blob => length,
            Fault::CutAt(percent) | Fault::CutWithoutRanges(percent) => length * percent / 100 + 1,
            Fault::CutOnceWithoutRanges(percent) | Fault::StallOnce(percent) if before == 0 => length * percent / 100,
            Fault::Drip => 1,
            Fault::HoldsAt(_) if answer.starts_with("HTTP/1.1 206") => 0,
            Fault::HoldsAt(percent) | Fault::DiesAt(percent) if length > LARGE => length * percent / 100,
            _ => length,
        };
        let count = std::io::copy(&mut from_registry.take(limit.min(length)), &mut client)?;
        if is_blob {
            passed.fetch_add(count, Ordering::SeqCst);
        }
        if unended {
            return client.write_all(b"\r\n");
        }
        if count < length {
            match fault {
                Fault::StallOnce(_) | Fault::HoldsAt(_) => std::thread::sleep(Duration::from_secs(20)),
                Fault::DiesAt(_) => dead.store(true, Ordering::SeqCst),
                _ => {}
            }
            return Ok(());
        }
    }
}

/// An image with a large layer that does not compress and a small one, in a registry; how many bytes its blobs have, and the small layer.
pub fn large_image(bench: &Bench) -> (Registry, u64, u64) {
    let registry = Registry::start(&bench.path("registry"));
    let layout = Layout::new(&bench.path("layout"));
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(12_000_000)
    .collect();
    let [small, ..] = all_packings();
    let layers = [(tar_of(&[file("noise", 0o644, &noise)]), Packing::Gzip), small];
    let image = layout.image(this_architecture(), &layers);
    layout.index(&[(Some("1"), &image)]);
    layout.push("1", &registry, "app:1");
    let manifest: serde_json::Value = serde_json::from_slice(&blob(&layout, &image)).unwrap();
    let size = |descriptor: &serde_json::Value| descriptor["size"].as_u64().unwrap();
    let [large, small] = [0, 1].map(|at| size(&manifest["layers"][at]));
    (registry, large + small + size(&manifest["config"]), small)
}
