//! A reference is read or refused; one that was read is the same again from its text and from its name in the store.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sysctr::model::reference::ImageSource;

fuzz_target!(|text: &str| {
    let Ok(source) = text.parse::<ImageSource>() else { return };
    let shown = source.to_string();
    let again: ImageSource = shown.parse().unwrap_or_else(|error| panic!("{text:?} became {shown:?}: {error}"));
    assert_eq!(again.to_string(), shown);
    let tag = source.tag_ref();
    assert!(tag.split('/').all(|part| !matches!(part, "" | "." | "..")), "{text:?}: {tag}");
    assert_eq!(ImageSource::from_tag_ref(&tag).map(|source| source.to_string()), Some(shown), "{tag}");
});
