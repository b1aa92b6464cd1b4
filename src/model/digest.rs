//! A content digest as the OCI image specification writes it
//! ([descriptor.md, "Digests"](https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests)).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `sha256:` and 64 lower-case hex digits. Other algorithms are refused: no image in the field uses them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Text that is not a digest.
#[derive(Debug, thiserror::Error)]
#[error("invalid digest {0:?}: expected \"sha256:\" and 64 hex digits")]
pub struct BadDigest(String);

impl Digest {
    const ALGORITHM: &'static str = "sha256:";

    /// The digest whose hash is these 32 bytes.
    pub fn from_sha256(hash: [u8; 32]) -> Digest {
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Digest(format!("{}{hex}", Self::ALGORITHM))
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        &self.0[Self::ALGORITHM.len()..]
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The OSTree ref that keeps the image with this manifest digest.
    pub fn commit_ref(&self) -> String {
        format!("sysctr/image/sha256/{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Digest, BadDigest> {
        let bad = || BadDigest(text.to_owned());
        let hex = text.strip_prefix(Self::ALGORITHM).ok_or_else(bad)?;
        let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() == 64 && is_hex { Ok(Digest(text.to_owned())) } else { Err(bad()) }
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;

    fn try_from(text: String) -> Result<Digest, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_sha256_digests_parse() {
        let good = format!("sha256:{}", "a1".repeat(32));
        assert_eq!(good.parse::<Digest>().expect("a digest").to_string(), good);
        for bad in ["", "sha256:", "sha256:abc", "sha512:00", &good.to_uppercase(), &format!("{good}0"), &good[7..]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was taken");
        }
    }
}
