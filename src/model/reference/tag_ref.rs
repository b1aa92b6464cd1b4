//! The OSTree refs that keep images under their references.

use super::ImageSource;

const TAG_PREFIX: &str = "sysctr/tag/";
/// A ref is a file in the repository, so a part of it may not be longer than a file's name.
const REF_PART: usize = 200;

impl ImageSource {
    /// The OSTree ref that keeps the image under this reference. No two references share one, and none is a folder of another.
    pub fn tag_ref(&self) -> String {
        let mut escaped = String::new();
        for byte in self.to_string().bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => escaped.push(byte as char),
                _ => escaped.push_str(&format!("_{byte:02X}")),
            }
        }
        let mut parts = Vec::new();
        let mut rest = escaped.as_str();
        while rest.len() > REF_PART {
            let (part, more) = rest.split_at(REF_PART);
            parts.push(format!("{part}_"));
            rest = more;
        }
        // As file names these two would be folders.
        let last = if matches!(rest, "." | "..") { rest.replace('.', "_2E") } else { rest.to_owned() };
        parts.push(last);
        format!("{TAG_PREFIX}{}", parts.join("/"))
    }

    /// The reference that [`ImageSource::tag_ref`] made this ref of; none for other refs.
    pub fn from_tag_ref(name: &str) -> Option<ImageSource> {
        let escaped = name.strip_prefix(TAG_PREFIX)?.replace("_/", "");
        let mut bytes = Vec::with_capacity(escaped.len());
        let mut rest = escaped.as_bytes();
        while let [first, more @ ..] = rest {
            rest = more;
            if *first != b'_' {
                bytes.push(*first);
                continue;
            }
            let hex = more.get(..2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = &more[2..];
        }
        String::from_utf8(bytes).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::parsed, *};

    #[test]
    fn refs_come_back_as_references_and_never_nest() {
        let long = format!("oci:/{}:3", "very/deep_folder/".repeat(40));
        let longer = format!("{long}.1");
        // 200 signs in a file's name, and one or two more
        let [dot, dots] = [".", ".."].map(|end| format!("oci:/{}{end}", "x".repeat(REF_PART - "oci_3A_2F".len())));
        let texts = ["localhost:5000/a/b:1", "oci:/img", "oci:/img/x", "oci:/é ü:t", &long, &longer, &dot, &dots];
        let refs: Vec<String> = texts.iter().map(|text| parsed(text).tag_ref()).collect();
        for (text, name) in texts.iter().zip(&refs) {
            assert_eq!(ImageSource::from_tag_ref(name).expect(name), parsed(text));
            assert!(name.split('/').all(|part| !part.is_empty() && part.len() <= 255 && !part.starts_with('.')));
            let folder = format!("{name}/");
            assert!(refs.iter().all(|other| !other.starts_with(&folder)), "{name} is a folder of another");
        }
        assert_eq!(ImageSource::from_tag_ref("sysctr/image/sha256/00"), None);
        assert_eq!(ImageSource::from_tag_ref("sysctr/tag/a_Z"), None);
    }
}
