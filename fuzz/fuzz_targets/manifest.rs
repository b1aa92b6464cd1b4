//! A manifest is read or refused, in one line; one that was read reads back from what it is written as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sysctr::model::manifest::Manifest;

fuzz_target!(|text: &str| {
    match Manifest::parse(text) {
        Ok(manifest) => {
            let written = serde_json::to_string(&manifest).expect("a manifest is JSON");
            let again = Manifest::parse(&written).unwrap_or_else(|error| panic!("{error:#}\n{written}"));
            assert_eq!(serde_json::to_string(&again).expect("JSON"), written);
        }
        Err(error) => assert!(!format!("{error:#}").contains('\n'), "{error:#}"),
    }
});
