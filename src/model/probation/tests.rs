use super::*;

fn at(boot: &str, wall: i64, uptime: u64) -> Moment {
    Moment { boot: boot.to_owned(), wall, uptime, monotonic: uptime.saturating_mul(1_000_000) }
}

fn begun() -> Probation {
    let mut probation = Probation::new(2, 1, 600, 3);
    probation.begin(&at("one", 10_000, 50), None);
    probation
}

#[test]
fn in_one_boot_a_changed_wall_clock_neither_ends_nor_prolongs_it() {
    let probation = begun();
    for (now, over) in [
        (at("one", 10_599, 649), false),
        (at("one", 10_600, 650), true),
        (at("one", 99_999, 649), false),
        (at("one", 0, 650), true),
    ] {
        assert_eq!(probation.is_over(&now), over, "{now:?}");
    }
}

#[test]
fn a_boot_within_it_goes_on_with_what_is_left_and_one_behind_it_ends_it() {
    let mut probation = begun();
    assert_eq!(probation.boot(&at("two", 10_100, 5)), AtBoot::GoesOn);
    assert_eq!((probation.boots, probation.left(&at("two", 10_100, 5))), (1, 500));
    assert!(!probation.is_new_boot(&at("two", 10_100, 5)));
    assert_eq!(probation.boot(&at("three", 10_600, 5)), AtBoot::Over);
}

#[test]
fn a_clock_that_starts_in_1970_gives_the_whole_time_again_but_not_for_ever() {
    let mut probation = begun();
    assert_eq!(probation.boot(&at("two", 3, 5)), AtBoot::GoesOn);
    assert_eq!(probation.left(&at("two", 3, 5)), 600);
    assert_eq!(probation.boot(&at("three", 3, 5)), AtBoot::GoesOn);
    assert_eq!(probation.boot(&at("four", 3, 5)), AtBoot::TooMany);
}

fn service(state: &str, sub: &str, restarts: u32) -> Service {
    let (state, sub, result) = (state.to_owned(), sub.to_owned(), "exit-code".to_owned());
    Service { state, sub, result, restarts, started: 10, left_active: 21, program_ended: 20 }
}

/// Within its time.
fn soon() -> Moment {
    at("one", 10_100, 150)
}

#[test]
fn a_failure_within_its_time_counts_however_late_it_is_told() {
    let late = at("one", 11_000, 1050);
    let failed = |second: u64| Service {
        left_active: second * 1_000_000,
        program_ended: second * 1_000_000,
        ..service("failed", "failed", 0)
    };
    assert!(matches!(begun().look(&failed(649), &late), AtFailure::GoBack(_)));
    assert_eq!(begun().look(&failed(651), &late), AtFailure::Over);
    assert_eq!(begun().look(&service("active", "running", 0), &late), AtFailure::Over);
    // of a boot that is not counted yet
    assert_eq!(begun().look(&failed(3), &at("two", 99_000, 5)), AtFailure::Over);
}

#[test]
fn what_another_deployment_left_or_still_runs_is_no_failure_of_it() {
    let mut failed = service("failed", "failed", 5);
    failed.started = 49_000_000;
    let mut probation = Probation::new(2, 1, 600, 3);
    probation.begin(&at("one", 10_000, 50), Some(&failed));
    assert_eq!(probation.look(&failed, &soon()), AtFailure::Nothing);
    assert_eq!(
        probation.look(&Service { started: 49_000_000, ..service("activating", "auto-restart", 5) }, &soon()),
        AtFailure::Nothing
    );
    // its own: the first restart was of the other
    let own = Service { started: 60_000_000, ..service("activating", "auto-restart", 6) };
    assert_eq!(probation.look(&own, &soon()), AtFailure::Counted);
    assert_eq!(probation.crashes, 1);
}

#[test]
fn each_failure_is_counted_once_however_often_and_late_it_is_told() {
    let mut probation = begun();
    for (service, crashes) in [
        (service("activating", "auto-restart", 0), 1),
        (service("activating", "auto-restart", 0), 1),
        (service("active", "running", 1), 1),
        (service("activating", "auto-restart", 1), 2),
        // started by hand
        (service("active", "running", 0), 2),
    ] {
        let verdict = probation.look(&service, &soon());
        assert!(!matches!(verdict, AtFailure::GoBack(_)), "{service:?}");
        assert_eq!(probation.crashes, crashes, "{service:?}");
    }
    let cause = "it failed 3 times within its probation".to_owned();
    assert_eq!(probation.look(&service("activating", "auto-restart", 0), &soon()), AtFailure::GoBack(cause));
    // told of two at once
    let mut probation = begun();
    assert_eq!(probation.look(&service("active", "running", 2), &soon()), AtFailure::Counted);
    assert_eq!(probation.crashes, 2);
}

#[test]
fn what_no_one_restarts_goes_back_at_its_first_failure() {
    let AtFailure::GoBack(cause) = begun().look(&service("failed", "failed", 0), &soon()) else { panic!("it stays") };
    assert_eq!(cause, "it failed once within its probation (exit-code) and is not restarted");
    let watchdog = Service { result: "watchdog".into(), program_ended: 22, ..service("failed", "failed", 0) };
    assert!(matches!(begun().look(&watchdog, &soon()), AtFailure::GoBack(_)), "systemd stopped it for its failure");
    let never_up = Service { started: 30, left_active: 0, program_ended: 40, ..service("failed", "failed", 0) };
    assert!(matches!(begun().look(&never_up, &soon()), AtFailure::GoBack(_)));
}

#[test]
fn a_stop_and_a_failed_dependency_are_no_failure() {
    let stopped = Service { program_ended: 22, ..service("failed", "failed", 0) };
    for service in [stopped, service("inactive", "dead", 0), service("active", "running", 0)] {
        let mut probation = begun();
        assert_eq!(probation.look(&service, &soon()), AtFailure::Nothing, "{service:?}");
        assert_eq!(probation.crashes, 0);
    }
}

#[test]
fn below_another_root_it_begins_with_the_first_boot() {
    let mut probation = Probation::new(2, 1, 600, 3);
    assert!(!probation.is_over(&at("any", i64::MAX, u64::MAX)));
    assert_eq!(probation.boot(&at("one", 10_000, 5)), AtBoot::GoesOn);
    assert_eq!((probation.boots, probation.until, probation.left(&at("one", 0, 5))), (0, 10_600, 600));
}
