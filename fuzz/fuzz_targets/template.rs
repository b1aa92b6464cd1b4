//! A template is rendered or refused; a value in it never makes a line of its own.
//!
//! The first byte says the kind of file; a NUL ends the value, the template follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sysctr::model::template::{Kind, render};

fuzz_target!(|input: &str| {
    let mut signs = input.chars();
    let kind = match signs.next() {
        Some('u') => Kind::Unit,
        Some('j') => Kind::Json,
        Some('t') => Kind::Tmpfiles,
        Some('s') => Kind::Sysusers,
        _ => Kind::Plain,
    };
    let Some((value, template)) = signs.as_str().split_once('\0') else { return };
    let data = serde_json::json!({"name": value, "values": {"x": value, "list": [value, value]}});
    if let Ok(rendered) = render(kind, "fuzz.hbs", template, &data, &[("exec_start", "/bin/true".to_owned())]) {
        assert!(!value.contains(['\n', '\r', '\0']), "{value:?} became {rendered:?}");
    }
});
