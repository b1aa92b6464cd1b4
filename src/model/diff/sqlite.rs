//! Reads a table of an SQLite database that an image brought, as [its format](https://www.sqlite.org/fileformat2.html) says, and nothing
//! else of it: no index, no query, no code of SQLite's. Whatever the bytes say, each page is read once and no more is given than there is.

use anyhow::{Context, Result, bail, ensure};

const MAGIC: &[u8] = b"SQLite format 3\0";
const SCHEMA: u32 = 1;
const INTERIOR: u8 = 0x05;
const LEAF: u8 = 0x0d;

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    Integer(i64),
    /// Text or a blob.
    Bytes(&'a [u8]),
    Other,
}

/// A database, whole in memory.
pub struct Database<'a> {
    bytes: &'a [u8],
    page_size: usize,
    /// Of each page, what is not reserved at its end.
    usable: usize,
}

impl<'a> Database<'a> {
    /// Looks at the header.
    pub fn open(bytes: &'a [u8]) -> Result<Database<'a>> {
        ensure!(bytes.starts_with(MAGIC), "it is no SQLite database");
        let page_size = match number(bytes, 16, 2)? {
            1 => 65536,
            size => size as usize,
        };
        ensure!(page_size >= 512 && page_size.is_power_of_two(), "its page size is {page_size}");
        let usable = page_size.saturating_sub(number(bytes, 20, 1)? as usize);
        ensure!(usable >= 480, "its pages have no room");
        Ok(Database { bytes, page_size, usable })
    }

    /// Hears each row of a table.
    pub fn rows(&self, table: &str, mut each: impl FnMut(&[Value]) -> Result<()>) -> Result<()> {
        let mut root = None;
        self.walk(SCHEMA, &mut |row| {
            if let [Value::Bytes(b"table"), Value::Bytes(name), _, Value::Integer(page), ..] = row
                && *name == table.as_bytes()
            {
                root = Some(u32::try_from(*page).context("a page's number")?);
            }
            Ok(())
        })?;
        self.walk(root.with_context(|| format!("it has no table {table}"))?, &mut each)
    }

    fn page(&self, number: u32) -> Result<&'a [u8]> {
        let start = (number as usize).checked_sub(1).and_then(|at| at.checked_mul(self.page_size));
        let page = start.and_then(|start| self.bytes.get(start..start.checked_add(self.page_size)?));
        page.with_context(|| format!("page {number} lies outside"))
    }

    fn walk(&self, root: u32, each: &mut dyn FnMut(&[Value]) -> Result<()>) -> Result<()> {
        let mut seen = vec![false; self.bytes.len() / self.page_size + 1];
        // No honest database has more in its rows than it is long.
        let mut budget = self.bytes.len();
        let mut todo = vec![root];
        while let Some(number_of_page) = todo.pop() {
            let page = self.page(number_of_page)?;
            ensure!(!std::mem::replace(&mut seen[number_of_page as usize - 1], true), "its pages go in circles");
            let header = if number_of_page == 1 { 100 } else { 0 };
            let kind = number(page, header, 1)? as u8;
            let cells = number(page, header + 3, 2)? as usize;
            let pointers = header + if kind == INTERIOR { 12 } else { 8 };
            for cell in 0..cells {
                let at = number(page, pointers + 2 * cell, 2)? as usize;
                match kind {
                    INTERIOR => todo.push(number(page, at, 4)? as u32),
                    LEAF => {
                        let payload = self.payload(page, at, &mut budget)?;
                        each(&record(&payload)?)?;
                    }
                    other => bail!("page {number_of_page} is of the kind {other}"),
                }
            }
            if kind == INTERIOR {
                todo.push(number(page, header + 8, 4)? as u32);
            }
        }
        Ok(())
    }

    /// What a leaf's cell holds, with what lies on overflow pages.
    fn payload(&self, page: &[u8], at: usize, budget: &mut usize) -> Result<Vec<u8>> {
        let (length, at) = varint(page, at)?;
        let (_row, at) = varint(page, at)?;
        let length = usize::try_from(length).context("a row's length")?;
        *budget = budget.checked_sub(length).context("its rows are longer than the file")?;
        let most = self.usable - 35;
        let local = if length <= most {
            length
        } else {
            let least = (self.usable - 12) * 32 / 255 - 23;
            let rest = least + (length - least) % (self.usable - 4);
            if rest <= most { rest } else { least }
        };
        let mut payload = slice(page, at, local)?.to_vec();
        let mut next = if local < length { number(page, at + local, 4)? as u32 } else { 0 };
        while payload.len() < length {
            let page = self.page(next)?;
            let part = (length - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(slice(page, 4, part)?);
            next = number(page, 0, 4)? as u32;
        }
        Ok(payload)
    }
}

fn record(payload: &[u8]) -> Result<Vec<Value<'_>>> {
    let (header, mut at) = varint(payload, 0)?;
    let header = usize::try_from(header).context("a row's header")?;
    let mut body = header;
    let mut values = Vec::new();
    while at < header {
        let (kind, after) = varint(payload, at)?;
        at = after;
        let length = match kind {
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            0 | 8 | 9 => 0,
            12.. => usize::try_from((kind - 12) / 2).context("a value's length")?,
            _ => bail!("a value of the kind {kind}"),
        };
        let bytes = slice(payload, body, length)?;
        body += length;
        values.push(match kind {
            // Big-endian, and its first bit is the sign.
            1..=6 => {
                let sign = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
                Value::Integer(bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte)))
            }
            8 | 9 => Value::Integer(kind - 8),
            12.. => Value::Bytes(bytes),
            _ => Value::Other,
        });
    }
    Ok(values)
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    at.checked_add(length).and_then(|end| bytes.get(at..end)).context("it is cut short")
}

fn number(bytes: &[u8], at: usize, length: usize) -> Result<u64> {
    Ok(slice(bytes, at, length)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Seven bits a byte, the first bit says that there is more; a ninth byte has eight.
fn varint(bytes: &[u8], mut at: usize) -> Result<(i64, usize)> {
    let mut value: i64 = 0;
    for count in 1..=9 {
        let byte = slice(bytes, at, 1)?[0];
        at += 1;
        if count == 9 {
            return Ok((value << 8 | i64::from(byte), at));
        }
        value = value << 7 | i64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok((value, at))
}
