use std::collections::BTreeMap;

use super::{
    DEFAULT_TARGET, Graph, Load, Names, draw, finding, implied,
    parse::{self, Source},
    svg, unit_name,
};
use crate::model::unit::UnitFile;

/// A small machine as Debian has it, and what is added to it; `wanted` by multi-user.target.
fn graph(more: &[(&str, &str)], wanted: &[&str]) -> Graph {
    const MACHINE: [(&str, &str); 12] = [
        ("systemd-journald.socket", "[Unit]\nDefaultDependencies=no"),
        ("multi-user.target", "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=docker.service"),
        ("basic.target", "[Unit]\nRequires=sysinit.target\nWants=sockets.target\nAfter=sysinit.target sockets.target"),
        ("sysinit.target", "[Unit]\nWants=local-fs.target systemd-tmpfiles-setup.service\nAfter=local-fs.target"),
        ("local-fs.target", "[Unit]\nDefaultDependencies=no\nAfter=local-fs-pre.target"),
        ("sockets.target", ""),
        ("network.target", ""),
        ("network-online.target", "[Unit]\nAfter=network.target"),
        ("nss-lookup.target", ""),
        ("docker.service", "[Unit]\nAfter=network-online.target\nWants=network-online.target\n[Service]\nExecStart=/x"),
        (
            "systemd-tmpfiles-setup.service",
            "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\nBefore=sysinit.target\n[Service]\nType=oneshot",
        ),
        ("var.mount", "[Unit]\nBefore=local-fs.target\n[Mount]\nWhere=/var\nWhat=/dev/vdb"),
    ];
    let mut units = BTreeMap::new();
    for (name, text) in MACHINE.iter().chain(more) {
        let text = UnitFile::parse(name, text).expect(name);
        let mut source = Source { texts: vec![text], ..Source::default() };
        if *name == "multi-user.target" {
            source.aliases.insert(DEFAULT_TARGET.to_owned());
            source.wanted = wanted.iter().map(|name| (*name).to_owned()).collect();
        }
        units.insert((*name).to_owned(), parse::unit(name, &source));
    }
    implied::add(&mut units);
    Graph::new(units)
}

fn findings(more: &[(&str, &str)], wanted: &[&str]) -> Vec<String> {
    let own: Names = more.iter().map(|(name, _)| (*name).to_owned()).collect();
    let all = finding::find(&graph(more, wanted), &own, false);
    all.into_iter().map(|one| format!("{}: {}", one.unit, one.detail)).collect()
}

#[test]
fn names_of_units_are_systemds() {
    assert_eq!(unit_name::mount("/var/lib/my-app/.x"), "var-lib-my\\x2dapp-.x.mount");
    assert_eq!(unit_name::mount("/.x"), "\\x2ex.mount");
    assert_eq!(unit_name::mounts_above("/var/lib"), ["var.mount", "var-lib.mount"]);
    assert_eq!(unit_name::template("a@1.service").as_deref(), Some("a@.service"));
    assert_eq!(unit_name::template("a.service"), None);
    assert_eq!(unit_name::specifiers("x-%i-%p%%.service", "a@1.service").as_deref(), Some("x-1-a%.service"));
    assert_eq!(
        unit_name::folders("a-b@1.service", "d"),
        ["a-b@1.service.d", "a-b@.service.d", "a-@.service.d", "service.d"]
    );
}

#[test]
fn what_systemd_would_start_well_is_left_alone() {
    let etcd = "[Unit]\nDefaultDependencies=no\nBefore=docker.service\nRequiresMountsFor=/var/lib/sysctr\n\
        After=systemd-tmpfiles-setup.service\n[Service]\nExecStart=/x";
    assert_eq!(findings(&[("etcd.service", etcd)], &["etcd.service"]), Vec::<String>::new());
    let usual =
        "[Unit]\nAfter=network-online.target docker.service\nWants=network-online.target\n[Service]\nExecStart=/x";
    assert_eq!(findings(&[("web.service", usual)], &["web.service"]), Vec::<String>::new());
}

#[test]
fn a_cycle_is_told_with_the_jobs_that_systemd_may_drop() {
    let a = "[Unit]\nBefore=docker.service\nAfter=b.service\n[Service]\nExecStart=/x";
    let b = "[Unit]\nAfter=docker.service\n[Service]\nExecStart=/x";
    let found = findings(&[("a.service", a), ("b.service", b)], &["a.service", "b.service"]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("a.service after b.service after docker.service after a.service"), "{found:?}");
    assert!(found[0].contains("a.service, b.service or docker.service"), "{found:?}");

    // sysinit.target is required by what boots: only the container can go.
    let early = "[Unit]\nBefore=sysinit.target\nAfter=basic.target\n[Service]\nExecStart=/x";
    let own = Names::from(["c.service".to_owned()]);
    let graph = graph(&[("c.service", early)], &["c.service"]);
    let all = finding::find(&graph, &own, false);
    assert_eq!(
        (all.len(), all[0].kind, all[0].drops.as_slice()),
        (1, finding::Kind::Cycle, &["c.service".to_owned()][..])
    );
}

#[test]
fn one_that_nothing_starts_closes_no_cycle() {
    let a = "[Unit]\nBefore=docker.service\nAfter=idle.service\n[Service]\nExecStart=/x";
    let idle = "[Unit]\nAfter=docker.service\n[Service]\nExecStart=/x";
    let own = Names::from(["a.service".to_owned()]);
    let graph = graph(&[("a.service", a), ("idle.service", idle)], &["a.service"]);
    assert!(finding::find(&graph, &own, false).is_empty());
}

#[test]
fn a_service_after_the_target_that_wants_it_is_none_before_it() {
    let settle = "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/x";
    assert_eq!(findings(&[("settle.service", settle)], &["settle.service"]), Vec::<String>::new());
    // An alias is the same target.
    let settle = "[Unit]\nAfter=default.target\n[Service]\nExecStart=/x";
    assert_eq!(findings(&[("settle.service", settle)], &["settle.service"]), Vec::<String>::new());
}

#[test]
fn what_is_early_and_waits_for_what_is_late_is_told_with_the_way() {
    for (unit, expected) in [
        (
            "DefaultDependencies=no\nAfter=network-online.target",
            "waits for the network: a.service after network-online.target",
        ),
        (
            "Before=docker.service\nAfter=helper.service",
            "before docker.service, and waits for name resolution: a.service after helper.service after nss-lookup.target",
        ),
        ("DefaultDependencies=no\nAfter=docker.service", "waits for a container engine"),
        (
            "DefaultDependencies=no\nRequiresMountsFor=/srv/x",
            "waits for what lies on another machine: a.service after srv.mount",
        ),
    ] {
        let text = format!("[Unit]\n{unit}\n[Service]\nExecStart=/x");
        let helper = "[Unit]\nAfter=nss-lookup.target\nWants=nss-lookup.target\n[Service]\nExecStart=/x";
        let srv = "[Unit]\nDefaultDependencies=no\n[Mount]\nWhere=/srv\nWhat=nas:/srv\nType=nfs";
        let more = [("a.service", text.as_str()), ("helper.service", helper), ("srv.mount", srv)];
        let own = Names::from(["a.service".to_owned()]);
        let all = finding::find(&graph(&more, &["a.service", "helper.service"]), &own, false);
        assert!(all.iter().any(|one| one.detail.contains(expected)), "{unit}: {all:?}");
    }
}

#[test]
fn what_is_not_there_is_told_as_bad_as_it_is() {
    let text = "[Unit]\nRequires=gone.service\nWants=nobody.service\nAfter=nobody.service late.service\nBefore=crio.service\n[Service]\nExecStart=/x";
    let own = Names::from(["a.service".to_owned()]);
    let all = finding::find(&graph(&[("a.service", text)], &["a.service"]), &own, false);
    let told: Vec<(finding::Level, &str)> = all.iter().map(|one| (one.level, one.units[0].as_str())).collect();
    assert_eq!(
        told,
        [
            (finding::Level::Error, "gone.service"),
            (finding::Level::Note, "late.service"),
            (finding::Level::Note, "nobody.service")
        ]
    );
    // Nor is it started by a boot, and so in nobody's way.
    assert!(!graph(&[("a.service", text)], &["a.service"]).jobs(&[DEFAULT_TARGET]).has("a.service"));
    let masked = Source { load: Load::Masked, ..Source::default() };
    assert_eq!(parse::unit("x.service", &masked).load, Load::Masked);
}

#[test]
fn the_drawing_has_each_unit_behind_what_it_waits_for() {
    let etcd = "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\n[Service]\nExecStart=/x";
    let flanneld = "[Unit]\nAfter=etcd.service\nBefore=docker.service\nWants=etcd.service\n[Service]\nExecStart=/x";
    let more = [("etcd.service", etcd), ("flanneld.service", flanneld)];
    let own: Names = more.iter().map(|(name, _)| (*name).to_owned()).collect();
    let steps = draw::boot(&graph(&more, &["flanneld.service"]), &own);
    let at = |unit: &str| steps.iter().position(|step| step.unit == unit).expect(unit);
    assert!(at("local-fs.target") < at("etcd.service") && at("etcd.service") < at("flanneld.service"));
    assert!(at("flanneld.service") < at("docker.service") && at("docker.service") < at("multi-user.target"));
    let docker = &steps[at("docker.service")];
    assert_eq!(docker.after, ["flanneld.service", "network-online.target"]);
    assert!(steps[at("etcd.service")].early && steps[at("flanneld.service")].early && !docker.early);
    let dot = draw::dot(&steps);
    assert!(dot.contains("\"etcd.service\" -> \"flanneld.service\";"), "{dot}");
    assert!(!dot.contains("\"etcd.service\" -> \"docker.service\""), "a way is drawn twice: {dot}");
    let picture = svg::picture(&steps);
    assert!(picture.starts_with("<svg ") && picture.matches("<text ").count() == steps.len());
}
