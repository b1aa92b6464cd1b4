//! What rpm's database knows: the headers of the installed packages, each a blob in one table
//! ([format](https://rpm-software-management.github.io/rpm/manual/format_header.html)).

use anyhow::{Context, Result};

use super::{
    packages::Packages,
    sqlite::{Database, Value},
};

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const INT32: u32 = 4;
const STRING: u32 = 6;
/// Keys for signatures stand among the packages.
const KEY: &str = "gpg-pubkey";

impl Packages {
    /// Adds what an `rpmdb.sqlite` says.
    pub fn add_rpm(&mut self, database: &[u8]) -> Result<()> {
        self.databases.insert("rpm");
        Database::open(database)?.rows("Packages", |row| {
            let Some(Value::Bytes(header)) = row.last() else { return Ok(()) };
            let header = Header::open(header).context("the header of a package")?;
            let text = |tag| header.text(tag).unwrap_or_default();
            let (name, epoch) = (text(NAME), header.number(EPOCH).map(|epoch| format!("{epoch}:")).unwrap_or_default());
            if !name.is_empty() && name != KEY {
                self.add(&name, &format!("{epoch}{}-{}", text(VERSION), text(RELEASE)));
            }
            Ok(())
        })
    }
}

/// An index of tags, each of which says where in `data` its value begins.
struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn open(bytes: &'a [u8]) -> Result<Header<'a>> {
        let entries = word(bytes, 0).context("it is cut short")? as usize;
        let index = entries.checked_mul(16).and_then(|length| length.checked_add(8));
        let index = index.filter(|end| *end <= bytes.len()).context("its index is cut short")?;
        Ok(Header { index: &bytes[8..index], data: &bytes[index..] })
    }

    /// Where the value of a tag begins.
    fn find(&self, tag: u32, kind: u32) -> Option<&'a [u8]> {
        let entry = self.index.chunks_exact(16).find(|entry| word(entry, 0) == Some(tag))?;
        (word(entry, 4)? == kind).then_some(())?;
        self.data.get(word(entry, 8)? as usize..)
    }

    fn text(&self, tag: u32) -> Option<String> {
        let bytes = self.find(tag, STRING)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn number(&self, tag: u32) -> Option<u32> {
        word(self.find(tag, INT32)?, 0)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
