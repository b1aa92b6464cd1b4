//! The table is whole, each refusal says what to do, and the document is made from it.

use super::*;

fn judged(text: &str) -> Vec<Finding> {
    let unit = UnitFile::parse("a.service", &format!("[Service]\n{text}\n")).expect("a unit");
    judge([&unit]).into_iter().map(|(_, finding)| finding).collect()
}

#[test]
fn each_directive_stands_in_the_table_once() {
    let mut names: Vec<&str> = all().map(|directive| directive.name).collect();
    let before = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), before);
}

#[test]
fn each_refused_directive_says_why_and_what_to_use_instead() {
    let refused: Vec<Directive> = all().filter(|directive| directive.class == Class::Refused).collect();
    assert!(refused.len() > 60, "{}", refused.len());
    for directive in refused {
        let found = judged(&format!("{}=yes", directive.name));
        let [finding] = found.as_slice() else { panic!("{}: {found:?}", directive.name) };
        assert_eq!(finding.verdict, Verdict::Refused);
        assert!(finding.what.contains(directive.name) && finding.what.contains(directive.why), "{finding:?}");
        assert!(finding.instead.len() > 5 && !finding.instead.contains("nothing"), "{finding:?}");
        assert!(!directive.free, "{}", directive.name);
    }
}

#[test]
fn what_is_switched_off_or_taken_back_is_nothing() {
    for text in ["PrivateTmp=no", "User=", "User=root", "ProtectSystem=false", "User=a\nUser=", "RootDirectory=/"] {
        assert_eq!(judged(text), [], "{text}");
    }
    assert_eq!(judged("User=\nUser=a").len(), 1);
    let first = UnitFile::parse("a", "[Service]\nUser=a\nGroup=b\n").expect("a unit");
    let second = UnitFile::parse("b", "[Service]\nUser=\nDynamicUser=yes\n[Unit]\nUser=x\n").expect("a unit");
    let found = judge([&first, &second]);
    let keys: Vec<(usize, &str)> = found.iter().map(|(number, finding)| (*number, finding.key.as_str())).collect();
    assert_eq!(keys, [(0, "Group"), (1, "DynamicUser")]);
}

#[test]
fn values_count_where_only_some_work() {
    for (text, verdict) in [
        ("NotifyAccess=main", Some(Verdict::Refused)),
        ("NotifyAccess=all", None),
        ("StandardInput=tty-force", Some(Verdict::Refused)),
        ("StandardInput=null", None),
        ("Retsart=always", Some(Verdict::Unknown)),
        ("X-Retsart=always", None),
        ("SystemCallFilter=~@swap", Some(Verdict::Caution)),
        ("SystemCallFilter=", None),
        ("MemoryMax=1G", None),
    ] {
        assert_eq!(judged(text).first().map(|finding| finding.verdict), verdict, "{text}");
    }
}

#[test]
fn the_document_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/directives.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, markdown()).expect("writing the document");
    }
    let stale = std::fs::read_to_string(path).expect("the document") != markdown();
    assert!(!stale, "docs/directives.md is not what the table says: UPDATE_DOCS=1 cargo test --lib directives");
}
