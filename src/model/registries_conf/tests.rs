use super::*;

fn conf(texts: &[&str]) -> RegistriesConf {
    let mut conf = RegistriesConf::default();
    texts.iter().for_each(|text| conf.extend(text).expect(text));
    conf
}

fn places(conf: &RegistriesConf, image: &str) -> String {
    let places = conf.places(&image.parse().expect(image)).expect(image);
    let Some(places) = places else { return "blocked".into() };
    let shown = places.iter().map(|at| format!("{}{}", at.reference, if at.insecure { "!" } else { "" }));
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_longest_prefix_decides_where_an_image_is() {
    let conf = conf(&[r#"
        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example.net/bar"
        [[registry.mirror]]
        location = "mirror-0.local/for-foo"
        [[registry.mirror]]
        location = "mirror-1.local:5000/foo/"
        insecure = true
        [[registry]]
        location = "registry.com"
        [[registry.mirror]]
        location = "mirror.registry.com"
        [[registry]]
        prefix = "example.com/foo/blocked"
        blocked = true
        [[registry]]
        prefix = "example.com/foo/image:2"
        location = "two.net/image:3"
        [[registry]]
        prefix = "*.wild.org"
        insecure = true
        [[registry]]
        prefix = "*.deep.wild.org"
        location = "other.net/wild"
        [[registry]]
        location = "port.com:5000"
        insecure = true
    "#]);
    let digest = format!("@sha256:{}", "a".repeat(64));
    for (image, expected) in [
        (
            "example.com/foo/image:1",
            "mirror-0.local/for-foo/image:1 mirror-1.local:5000/foo/image:1! internal.example.net/bar/image:1",
        ),
        ("example.com/foo/image:2", "two.net/image:3"),
        ("example.com/foo/blocked/x:1", "blocked"),
        (
            "example.com/foo/blockedly:1",
            "mirror-0.local/for-foo/blockedly:1 mirror-1.local:5000/foo/blockedly:1! internal.example.net/bar/blockedly:1",
        ),
        ("example.com/foobar:1", "example.com/foobar:1"),
        ("registry.com/image:1", "mirror.registry.com/image:1 registry.com/image:1"),
        ("registry.com:5000/image:1", "registry.com:5000/image:1"),
        ("port.com:5000/x:1", "port.com:5000/x:1!"),
        ("port.com/x:1", "port.com/x:1"),
        ("a.b.wild.org/x:1", "a.b.wild.org/x:1!"),
        ("wild.org/x:1", "wild.org/x:1"),
        ("notwild.org/x:1", "notwild.org/x:1"),
        ("a.wild.org.evil.com/x:1", "a.wild.org.evil.com/x:1"),
        ("evil.com/a.wild.org/x:1", "evil.com/a.wild.org/x:1"),
        ("x.deep.wild.org/y:1", "other.net/wild/y:1"),
        (
            &format!("registry.com/image{digest}"),
            &format!("mirror.registry.com/image{digest} registry.com/image{digest}"),
        ),
    ] {
        assert_eq!(places(&conf, image), expected, "{image}");
    }
}

#[test]
fn a_mirror_is_asked_for_what_it_is_for() {
    let digest = format!("r.com/x@sha256:{}", "a".repeat(64));
    let hosts = |conf: &RegistriesConf, image: &str| {
        let places = conf.places(&image.parse().expect(image)).expect(image).expect("not blocked");
        places.iter().map(|place| place.reference.registry().to_owned()).collect::<Vec<_>>()
    };
    let all = conf(&[
        "[[registry]]\nlocation = 'r.com'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm.com'\n",
    ]);
    assert_eq!(hosts(&all, "r.com/x:1"), ["r.com"]);
    assert_eq!(hosts(&all, &digest), ["m.com", "r.com"]);
    let each = conf(&["[[registry]]\nlocation = 'r.com'\n\
        [[registry.mirror]]\nlocation = 'd.com'\npull-from-mirror = 'digest-only'\n\
        [[registry.mirror]]\nlocation = 't.com'\npull-from-mirror = 'tag-only'\n\
        [[registry.mirror]]\nlocation = 'a.com'\npull-from-mirror = 'all'\n"]);
    assert_eq!(hosts(&each, "r.com/x:1"), ["t.com", "a.com", "r.com"]);
    assert_eq!(hosts(&each, &digest), ["d.com", "a.com", "r.com"]);
}

#[test]
fn later_files_replace_what_they_name() {
    let conf = conf(&[
        "unqualified-search-registries = ['a.io', 'b.io']\nshort-name-mode = 'enforcing'\n[[registry]]\nlocation = 'r.com'\nblocked = true\n[aliases]\n'x' = 'a.io/x'\n'y' = 'a.io/y'\n",
        "credential-helpers = ['secretservice']\n[[registry]]\nprefix = 'r.com'\nlocation = 'other.com'\n[aliases]\n'x' = ''\n'team/z' = 'z.io/z'\n",
    ]);
    assert_eq!(places(&conf, "r.com/i:1"), "other.com/i:1");
    assert_eq!(conf.mode(), Mode::Enforcing);
    assert_eq!(conf.credential_helpers(), ["secretservice"]);
    assert_eq!(conf.long_names("x:1"), ["a.io/x:1", "b.io/x:1"]);
    assert_eq!(conf.long_names("y:1"), ["a.io/y:1"]);
    assert_eq!(conf.long_names("team/z@sha256:00"), ["z.io/z@sha256:00"]);
    assert_eq!(RegistriesConf::default().credential_helpers(), ["containers-auth.json"]);
    assert!(RegistriesConf::default().long_names("x").is_empty());
}

#[test]
fn the_first_version_is_read_too() {
    let conf = conf(&[
        "[registries.search]\nregistries = ['one.com', 'two.com']\n[registries.insecure]\nregistries = ['three.com']\n[registries.block]\nregistries = ['bad.com']\n",
    ]);
    assert_eq!(conf.long_names("x"), ["one.com/x", "two.com/x"]);
    assert_eq!(places(&conf, "three.com/x:1"), "three.com/x:1!");
    assert_eq!(places(&conf, "bad.com/x:1"), "blocked");
}

#[test]
fn what_means_nothing_is_refused() {
    for (text, why) in [
        ("[[registry]]\nblocked = true\n", "neither prefix nor location"),
        ("[[registry]]\nprefix = 'a.*.com'\n", "a.*.com"),
        ("[[registry]]\nprefix = '*.a.com/x'\n", "*.a.com/x"),
        ("[[registry]]\nlocation = 'a.com'\n[[registry.mirror]]\ninsecure = true\n", "no location"),
        (
            "[[registry]]\nlocation = 'a.com'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm.com'\npull-from-mirror = 'tag-only'\n",
            "both",
        ),
        (
            "[[registry]]\nlocation = 'a.com'\n[[registry.mirror]]\nlocation = 'm.com'\npull-from-mirror = 'some'\n",
            "some",
        ),
        ("short-name-mode = 'maybe'\n", "maybe"),
        ("[aliases]\n'a.com/x' = 'b.com/x'\n", "a.com/x"),
        ("[aliases]\n'x:1' = 'b.com/x'\n", "x:1"),
        ("[aliases]\n'x' = 'y'\n", "does not name its registry"),
        ("[[registry]]\nblocked = 'yes'\n", "line 2"),
        ("unqualified-search-registries = []\n[registries.search]\nregistries = []\n", "mixes"),
    ] {
        let error = format!("{:#}", RegistriesConf::default().extend(text).expect_err(text));
        assert!(error.contains(why), "{text}: {error}");
    }
    let conf = conf(&["[[registry]]\nprefix = 'a.com'\nlocation = 'nohost'\n"]);
    let error = format!("{:#}", conf.places(&"a.com/x:1".parse().expect("a reference")).expect_err("no host"));
    assert!(error.contains("nohost/x:1"), "{error}");
}
