//! Connections that break, stall and are told to wait, between the program and a real registry.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sysctr::{host::source::this_architecture, model::settings::Settings};

use super::{
    bench::{Bench, all_packings, digest_of, image_in},
    common::{Layout, Packing, Registry, file, tar_of},
};

/// What a proxy does with the answer to a question for a blob.
#[derive(Clone, Copy)]
enum Fault {
    /// Hangs up when so much of it has gone through, of a hundred parts.
    CutAt(u64),
    /// The same, and never passes a range on.
    CutOnceWithoutRanges(u64),
    /// The same each time, so that nobody gets further.
    CutWithoutRanges(u64),
    /// Keeps the connection open and says nothing more.
    StallOnce(u64),
    /// Says 429 and `Retry-After: 1` to the first question of any kind.
    BusyOnce,
    /// Passes one byte on each time.
    Drip,
}

/// A proxy in front of a registry that does its worst. It counts what it let through of blobs.
struct Proxy {
    host: String,
    passed: Arc<AtomicU64>,
    questions: Arc<AtomicU64>,
}

impl Proxy {
    fn start(registry: &Registry, fault: Fault) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (passed, questions) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let proxy = Proxy { host, passed: passed.clone(), questions: questions.clone() };
        let behind = registry.host();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (behind, passed, questions) = (behind.clone(), passed.clone(), questions.clone());
                std::thread::spawn(move || {
                    // a client that hangs up is no failure
                    let _ = serve(&client.unwrap(), &behind, fault, &passed, &questions);
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
    passed: &AtomicU64,
    questions: &AtomicU64,
) -> std::io::Result<()> {
    let mut from_client = BufReader::new(client);
    // whoever begins with TLS is hung up on
    if from_client.fill_buf()?.first() != Some(&b'G') {
        return Ok(());
    }
    loop {
        let question = head(&mut from_client)?;
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
        client.write_all(answer.replace("Connection: close\r\n", "").as_bytes())?;
        let is_blob = question.contains("/blobs/");
        let before = passed.load(Ordering::SeqCst);
        let limit = match fault {
            _ if !is_blob => length,
            Fault::CutAt(percent) | Fault::CutWithoutRanges(percent) => length * percent / 100 + 1,
            Fault::CutOnceWithoutRanges(percent) | Fault::StallOnce(percent) if before == 0 => length * percent / 100,
            Fault::Drip => 1,
            _ => length,
        };
        let count = std::io::copy(&mut from_registry.take(limit.min(length)), &mut client)?;
        if is_blob {
            passed.fetch_add(count, Ordering::SeqCst);
        }
        if count < length {
            if matches!(fault, Fault::StallOnce(_)) {
                std::thread::sleep(Duration::from_secs(20));
            }
            return Ok(());
        }
    }
}

/// An image with a large layer that does not compress, in a registry, and how many bytes its blobs have.
fn large_image(bench: &Bench) -> (Registry, u64) {
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
    let manifest: serde_json::Value = serde_json::from_slice(&super::bench::blob(&layout, &image)).unwrap();
    let size = |descriptor: &serde_json::Value| descriptor["size"].as_u64().unwrap();
    let bytes = manifest["layers"].as_array().unwrap().iter().map(size).sum::<u64>() + size(&manifest["config"]);
    (registry, bytes)
}

#[test]
fn with_every_connection_cut_at_nine_tenths_the_pull_ends_well_and_fetches_little_twice() {
    let bench = Bench::new();
    let (registry, bytes) = large_image(&bench);
    let proxy = Proxy::start(&registry, Fault::CutAt(90));
    let stored = bench.pull(&format!("{}/app:1", proxy.host)).unwrap();
    let direct = Bench::new().pull(&format!("{}/app:1", registry.host())).unwrap();
    assert_eq!(stored.commit, direct.commit);
    let passed = proxy.passed.load(Ordering::SeqCst);
    let twice = passed as f64 / bytes as f64 - 1.0;
    println!(
        "{passed} bytes came for {bytes}: {:.2} % twice, {} questions",
        twice * 100.0,
        proxy.questions.load(Ordering::SeqCst)
    );
    assert!((0.0..=0.15).contains(&twice), "{:.1} % were fetched twice", twice * 100.0);
    // and it was really cut, again and again
    assert!(proxy.questions.load(Ordering::SeqCst) > 10);
}

#[test]
fn a_registry_without_ranges_is_asked_for_all_of_it_again() {
    let bench = Bench::new();
    let (registry, bytes) = large_image(&bench);
    let proxy = Proxy::start(&registry, Fault::CutOnceWithoutRanges(50));
    bench.pull(&format!("{}/app:1", proxy.host)).unwrap();
    assert!(proxy.passed.load(Ordering::SeqCst) > bytes);
}

#[test]
fn a_registry_that_begins_anew_and_never_gets_further_is_given_up() {
    let mut bench = Bench::new();
    let (registry, _) = large_image(&bench);
    let proxy = Proxy::start(&registry, Fault::CutWithoutRanges(50));
    bench.settings = Settings::parse("[registry]\nretries = 1\n").unwrap();
    bench.refuses(&format!("{}/app:1", proxy.host), &["the registry broke off"]);
}

#[test]
fn a_connection_that_falls_silent_is_given_up_and_the_rest_comes_by_another() {
    let mut bench = Bench::new();
    let (registry, _) = large_image(&bench);
    let proxy = Proxy::start(&registry, Fault::StallOnce(50));
    bench.settings = Settings::parse("[registry]\nidle = 1\n").unwrap();
    let begun = Instant::now();
    bench.pull(&format!("{}/app:1", proxy.host)).unwrap();
    assert!(begun.elapsed() > Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_registry_that_asks_for_time_gets_it() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.path("registry"));
    let (layout, image) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let proxy = Proxy::start(&registry, Fault::BusyOnce);
    let begun = Instant::now();
    let stored = bench.pull(&format!("{}/app:1", proxy.host)).unwrap();
    assert_eq!(stored.digest.to_string(), digest_of(&image));
    assert!(begun.elapsed() >= Duration::from_secs(1), "it came back after {:?}", begun.elapsed());
}

#[test]
fn a_registry_that_is_gone_half_way_fails_the_pull_and_leaves_nothing() {
    let bench = Bench::new();
    let mut registry = Registry::start(&bench.path("registry"));
    let (layout, _) = image_in(&bench.path("layout"));
    layout.push("1", &registry, "app:1");
    let proxy = Proxy::start(&registry, Fault::Drip);
    let name = format!("{}/app:1", proxy.host);
    let questions = proxy.questions.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while questions.load(Ordering::SeqCst) < 6 {
                std::thread::sleep(Duration::from_millis(20));
            }
            registry.stop();
        });
        bench.refuses(&name, &[&proxy.host]);
    });
}
