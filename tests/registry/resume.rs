//! Connections that break, stall and are told to wait, between the program and a real registry.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use sysctr::model::settings::Settings;

use super::{
    bench::{Bench, digest_of, image_in},
    common::Registry,
    proxy::{Fault, Proxy, large_image},
};

#[test]
fn with_every_connection_cut_at_nine_tenths_the_pull_ends_well_and_fetches_little_twice() {
    let bench = Bench::new();
    let (registry, bytes, _) = large_image(&bench);
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
    let (registry, bytes, _) = large_image(&bench);
    let proxy = Proxy::start(&registry, Fault::CutOnceWithoutRanges(50));
    bench.pull(&format!("{}/app:1", proxy.host)).unwrap();
    assert!(proxy.passed.load(Ordering::SeqCst) > bytes);
}

#[test]
fn a_blob_that_came_whole_is_asked_for_no_more_of_though_its_end_is_missing() {
    let bench = Bench::new();
    let (registry, bytes, _) = large_image(&bench);
    let proxy = Proxy::start(&registry, Fault::NeverEnds);
    bench.pull(&format!("{}/app:1", proxy.host)).unwrap();
    assert_eq!(proxy.passed.load(Ordering::SeqCst), bytes);
}

#[test]
fn a_registry_that_begins_anew_and_never_gets_further_is_given_up() {
    let mut bench = Bench::new();
    let (registry, ..) = large_image(&bench);
    let proxy = Proxy::start(&registry, Fault::CutWithoutRanges(50));
    bench.settings = Settings::parse("[registry]\nretries = 1\n").unwrap();
    bench.refuses(&format!("{}/app:1", proxy.host), &["the registry broke off"]);
}

#[test]
fn a_connection_that_falls_silent_is_given_up_and_the_rest_comes_by_another() {
    let mut bench = Bench::new();
    let (registry, ..) = large_image(&bench);
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
