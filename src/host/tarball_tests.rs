//! Archives, sound, cut and altered.

use super::*;

fn archive(add: impl FnOnce(&mut tar::Builder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut builder = tar::Builder::new(&mut bytes);
    add(&mut builder);
    builder.finish().expect("an archive in memory");
    drop(builder);
    bytes
}

fn file(name: &str, content: &[u8], builder: &mut tar::Builder<&mut Vec<u8>>) {
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o4755);
    header.set_uid(7);
    header.set_gid(8);
    builder.append_data(&mut header, name, content).expect("an entry in memory");
}

#[test]
fn long_names_binary_attributes_and_contents_come_back() {
    let long = "d/".repeat(120) + "file";
    let bytes = archive(|builder| {
        file(&long, b"content", builder);
        let value: &[u8] = b"\x01\n\x00=\xff";
        builder.append_pax_extensions([("SCHILY.xattr.security.capability", value)]).expect("in memory");
        file("second", b"", builder);
    });
    let mut reader = TarReader::new(&bytes[..]);
    let first = reader.next_entry().expect("sound").expect("an entry");
    assert_eq!((first.path.as_slice(), first.mode, first.uid, first.gid), (long.as_bytes(), 0o4755, 7, 8));
    let mut content = Vec::new();
    reader.read_to_end(&mut content).expect("sound");
    assert_eq!(content, b"content");
    let second = reader.next_entry().expect("sound").expect("an entry");
    assert_eq!(second.xattrs[&b"security.capability"[..]], b"\x01\n\x00=\xff");
    assert!(reader.next_entry().expect("sound").is_none());
}

#[test]
fn the_headers_of_one_entry_are_bounded_together() {
    let value = vec![b'v'; 600 * 1024];
    let bytes = archive(|builder| {
        for key in ["one", "two", "three"] {
            builder.append_pax_extensions([(key, &value[..])]).expect("in memory");
        }
        file("name", b"", builder);
    });
    let Err(error) = TarReader::new(&bytes[..]).next_entry() else { panic!("not refused") };
    assert!(error.to_string().contains("bytes of headers"), "{error:#}");
}

#[test]
fn a_cut_or_altered_archive_is_an_error_and_never_a_panic() {
    let whole = archive(|builder| {
        file("one", &[7; 700], builder);
        file(&"n".repeat(200), b"x", builder);
    });
    let read_all = |bytes: &[u8]| -> Result<usize> {
        let mut reader = TarReader::new(bytes);
        let mut count = 0;
        while reader.next_entry()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    assert_eq!(read_all(&whole).expect("sound"), 2);
    for cut in [1, 511, 513, 1000, 1211, 1600, 2100] {
        assert!(read_all(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..512 {
        let mut altered = whole.clone();
        altered[at] ^= 0x41;
        assert!(read_all(&altered).is_err(), "byte {at}");
    }
}

#[test]
fn a_header_that_claims_gigabytes_gets_no_memory() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let error = TarReader::new(&header.as_bytes()[..]).next_entry().expect_err("too large").to_string();
    assert!(error.contains("too large"), "{error}");
}
