use serde_json::json;

use super::*;
use crate::model::manifest::Manifest;

fn section(health: Json) -> Result<HealthTest> {
    let manifest = Manifest::parse(&json!({"version": "2.0", "health": health}).to_string())?;
    manifest.health.expect("a test").resolve(&|_, text| Ok(text.replace("{{port}}", "81")))
}

fn complaint(health: Json) -> String {
    format!("{:#}", section(health.clone()).expect_err(&health.to_string()))
}

#[test]
fn a_test_is_read_with_its_defaults() {
    let test = section(json!({"http": "http://127.0.0.1:{{port}}/x?y=1"})).expect("a test");
    let http = Http { address: "127.0.0.1:81".parse().expect("one"), path: "/x?y=1".into(), status: (200, 399) };
    assert_eq!(test.probe, Probe::Http(http));
    assert_eq!((test.interval, test.timeout, test.retries, test.start_period), (INTERVAL, TIMEOUT, 3, Duration::ZERO));
    let test = section(
        json!({"exec": ["/a", "{{port}}"], "interval": "500ms", "timeout": "1min", "retries": 1, "startPeriod": "2"}),
    );
    let test = test.expect("a test");
    assert_eq!(test.probe, Probe::Exec(vec!["/a".into(), "81".into()]));
    assert_eq!((test.interval, test.timeout), (Duration::from_millis(500), Duration::from_secs(60)));
    assert_eq!((test.retries, test.start_period), (1, Duration::from_secs(2)));
}

#[test]
fn addresses_are_of_one_host_and_one_port() {
    for (text, address, path) in [
        ("http://127.0.0.1", "127.0.0.1:80", "/"),
        ("http://localhost:8080/a/b", "127.0.0.1:8080", "/a/b"),
        ("http://[::1]:8080?a", "[::1]:8080", "/?a"),
        ("http://[::1]/", "[::1]:80", "/"),
        ("http://192.0.2.1:1/", "192.0.2.1:1", "/"),
        ("8080", "127.0.0.1:8080", "/"),
        ("8080/ready", "127.0.0.1:8080", "/ready"),
        ("[::1]:8080/ready", "[::1]:8080", "/ready"),
    ] {
        let Probe::Http(http) = section(json!({"http": text})).expect(text).probe else { panic!("{text}") };
        assert_eq!((http.address.to_string().as_str(), http.path.as_str()), (address, path), "{text}");
    }
    assert_eq!(section(json!({"tcp": "22"})).expect("a port").probe, Probe::Tcp("127.0.0.1:22".parse().expect("one")));
    for text in [
        "",
        "http://",
        "http://example.org/",
        "http://a@127.0.0.1/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:+1/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\u{7f}",
        "http://127.0.0.1/#a",
        "http://::1/",
        "http://[127.0.0.1]/",
        "ftp://127.0.0.1/",
        "https://127.0.0.1/",
        "http://127.0.0.1\\@x/",
        "/health",
        "http://0x7f.1/",
    ] {
        assert!(complaint(json!({"http": text})).contains("health.http: "), "{text:?}");
    }
    for text in ["", "127.0.0.1", "host:1", "127.0.0.1:http", "1:2:3"] {
        assert!(complaint(json!({"tcp": text})).contains("health.tcp: "), "{text:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (health, words) in [
        (json!({}), "one of exec, http and tcp"),
        (json!({"tcp": "1", "http": "1"}), "one of exec, http and tcp"),
        (json!({"exec": []}), "health.exec: empty"),
        (json!({"exec": "true"}), "expected a sequence at line 1"),
        (json!({"tcp": "1", "intervall": "1s"}), "intervall"),
        (json!({"tcp": "1", "interval": "often"}), "health.interval: \"often\""),
        (json!({"tcp": "1", "interval": "0"}), "health.interval"),
        (json!({"tcp": "1", "timeout": "0ms"}), "health.timeout"),
        (json!({"tcp": "1", "startPeriod": "-1"}), "health.startPeriod"),
        (json!({"tcp": "1", "startPeriod": "99999999999999999999d"}), "health.startPeriod"),
        (json!({"tcp": "1", "retries": 0}), "health.retries"),
        (json!({"tcp": "1", "retries": 4294967295u32}), "an hour is the most"),
        (json!({"tcp": "1", "startPeriod": "61min"}), "an hour is the most"),
        (json!({"tcp": "1", "status": 200}), "health.status"),
        (json!({"http": "1", "status": 99}), "health.status: 99"),
        (json!({"http": "1", "status": "300-200"}), "health.status"),
        (json!({"http": "1", "status": [200]}), "health.status"),
    ] {
        let said = complaint(health.clone());
        assert!(said.contains(words), "{health}: {said}");
    }
    for (given, range) in [(json!(204), (204, 204)), (json!("200-499"), (200, 499)), (json!("503"), (503, 503))] {
        let Probe::Http(http) = section(json!({"http": "1", "status": given})).expect("a test").probe else { panic!() };
        assert_eq!(http.status, range);
    }
}

#[test]
fn dockers_healthcheck_is_a_test() {
    let of = |check: Json, shell: Json| {
        HealthTest::of_image(json!({"config": {"Healthcheck": check, "Shell": shell}}).to_string().as_bytes())
    };
    let args = |check: Json, shell: Json| match of(check, shell).expect("read").map(|test| test.probe) {
        Some(Probe::Exec(args)) => args.join(" "),
        None => "none".to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(args(json!({"Test": ["CMD", "/a", "b"]}), json!(null)), "/a b");
    assert_eq!(args(json!({"Test": ["CMD-SHELL", "a || b"]}), json!(null)), "/bin/sh -c a || b");
    assert_eq!(args(json!({"Test": ["CMD-SHELL", "a"]}), json!(["/bin/bash", "-c"])), "/bin/bash -c a");
    for none in [json!(null), json!({}), json!({"Test": null}), json!({"Test": []}), json!({"Test": ["NONE"]})] {
        assert_eq!(args(none, json!(null)), "none");
    }
    for (check, words) in [
        (json!({"Test": ["CMD"]}), "Healthcheck.Test: CMD"),
        (json!({"Test": ["CMD-SHELL", "a", "b"]}), "Healthcheck.Test: CMD-SHELL"),
        (json!({"Test": ["true"]}), "\"true\""),
        (json!({"Test": ["CMD", "a"], "Interval": -1}), "Healthcheck.Interval: -1"),
        (json!({"Test": ["CMD", "a"], "Retries": -1}), "Healthcheck.Retries: -1"),
        (json!({"Test": "CMD a"}), "config.Healthcheck"),
    ] {
        let said = format!("{:#}", of(check.clone(), json!(null)).expect_err("refused"));
        assert!(said.contains(words), "{check}: {said}");
    }
    let plain = of(json!({"Test": ["CMD", "a"]}), json!(null)).expect("read").expect("a test");
    assert_eq!((plain.interval, plain.timeout, plain.retries), (Duration::from_secs(30), Duration::from_secs(30), 3));
    let patient =
        json!({"Test": ["CMD", "a"], "Interval": i64::MAX, "Timeout": 1, "StartPeriod": i64::MAX, "Retries": 99});
    let patient = of(patient, json!(null)).expect("read").expect("a test");
    assert!(patient.longest() <= LONGEST && patient.timeout == Duration::from_millis(1), "{patient:?}");
    assert_eq!(HealthTest::of_image(b"{\"config\": null}").expect("read"), None);
}

/// Goes through the tries of a service that is never well; each takes `try_time`. Gives when they began, and the end.
fn tries(test: &HealthTest, try_time: Duration) -> (Vec<Duration>, Duration) {
    let (mut began, mut now) = (Vec::new(), Duration::ZERO);
    loop {
        began.push(now);
        let start = now;
        now += try_time;
        match test.next(began.len() as u32, start, now) {
            Next::TryAfter(wait) => now += wait,
            Next::GiveUp => return (began, now),
        }
    }
}

#[test]
fn a_service_has_its_time_and_no_more() {
    let of = |interval: &str, retries: u32, start: &str, timeout: &str| {
        let health =
            json!({"tcp": "1", "interval": interval, "retries": retries, "startPeriod": start, "timeout": timeout});
        section(health).expect("a test")
    };
    for test in [
        of("5s", 3, "0", "5s"),
        of("1s", 1, "0", "1s"),
        of("1ms", 5, "0", "1s"),
        of("30s", 3, "1min", "30s"),
        of("2s", 10, "100ms", "3s"),
    ] {
        for try_time in [Duration::ZERO, Duration::from_millis(10), test.timeout] {
            let (began, end) = tries(&test, try_time);
            let last = *began.last().expect("a try");
            assert!(began.len() >= test.retries as usize && last >= test.grace(), "{test:?}: {began:?}");
            assert!(end <= test.longest(), "{test:?}: it took {end:?}");
            // A service that comes up late is not kept waiting.
            let longest = began.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default();
            assert!(longest <= PACE + try_time, "{test:?}: {longest:?} between two tries");
        }
    }
    let (began, end) = tries(&of("1s", 1, "0", "1s"), Duration::ZERO);
    assert_eq!((began.len(), end), (1, Duration::ZERO), "one try is one try");
    // Nothing counts before the start period is over.
    let (began, _) = tries(&of("1s", 1, "10s", "1s"), Duration::ZERO);
    assert_eq!(began.last(), Some(&Duration::from_secs(10)), "{began:?}");
}

#[test]
fn a_record_gives_the_test_back() {
    for health in [
        json!({"exec": ["/a"], "interval": "1500ms"}),
        json!({"http": "http://[::1]:80/", "status": 204}),
        json!({"tcp": "22", "startPeriod": "1min"}),
    ] {
        let test = section(health).expect("a test");
        let text = serde_json::to_string(&test).expect("written");
        assert_eq!(serde_json::from_str::<HealthTest>(&text).expect(&text), test);
    }
}

#[test]
fn verdicts_say_what_was_judged() {
    let stayed = Duration::from_secs(5);
    for (by, words) in [
        (By::Test("GET x answered 200".into()), "GET x answered 200, and it stayed up for 5 s"),
        (By::Readiness, "it said that it is ready, and stayed up for 5 s"),
        (By::StayingUp, "it stayed up for 5 s; the image has no health test"),
        (By::Ending, "it ran to its end"),
    ] {
        assert_eq!(Verdict { by, stayed }.to_string(), words);
    }
    for (millis, words) in [(0, "0 s"), (1500, "1.5 s"), (960, "1 s"), (12_300, "12 s"), (60_000, "60 s")] {
        assert_eq!(seconds(Duration::from_millis(millis)), words);
    }
}

#[test]
fn health_is_known_from_signs_alone() {
    let of = |active: (&str, &str), notify, well, pending| {
        let (active, sub) = active;
        Known::of(Signs { active, sub, notify, well, pending }).word()
    };
    for (found, expected) in [
        (of(("activating", "start"), true, Some(true), false), "starting"),
        (of(("activating", "auto-restart"), true, Some(true), false), "unhealthy"),
        (of(("active", "running"), true, None, false), "healthy"),
        (of(("active", "running"), true, None, true), "starting"),
        (of(("active", "running"), false, None, false), "unknown"),
        (of(("active", "running"), false, Some(true), false), "healthy"),
        (of(("active", "running"), true, Some(false), false), "unhealthy"),
        (of(("failed", "failed"), true, Some(true), false), "unhealthy"),
        (of(("inactive", "dead"), true, Some(true), false), "none"),
        (of(("deactivating", "stop"), true, None, false), "none"),
    ] {
        assert_eq!(found, expected);
    }
}
