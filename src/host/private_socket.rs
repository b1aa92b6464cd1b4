//! The manager's private socket as a transport for zbus.
//!
//! systemd writes its well-known name as the sender of what it says there; D-Bus wants a unique name in that field and zbus refuses
//! anything else. So the name is exchanged, for one of the same length, in each message's header before zbus reads it.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use zbus::connection::socket::{BoxedSplit, ReadHalf, Split, WriteHalf};

/// The header field SENDER (7) with its variant's signature and the string's length (D-Bus specification, "Message Format").
const SENDER: &[u8] = b"\x07\x01s\0\x18\0\0\0org.freedesktop.systemd1\0";
const UNIQUE: &[u8] = b"\x07\x01s\0\x18\0\0\0:rg.freedesktop.systemd1\0";

/// The fixed part of a header: lengths of the body and of the fields are at 4 and at 12.
const FIXED: usize = 16;
/// D-Bus' own limit for a message.
const MAX_MESSAGE: usize = 128 << 20;

/// Connects to the socket.
pub async fn connect(path: &Path) -> io::Result<BoxedSplit> {
    let (read, write) = UnixStream::connect(path).await?.into_split();
    let read: Box<dyn ReadHalf> = Box::new(Reader { socket: read, inbox: Vec::new(), ready: Vec::new() });
    let write: Box<dyn WriteHalf> = Box::new(Writer { socket: write });
    Ok(Split::new(read, write))
}

#[derive(Debug)]
struct Reader {
    socket: OwnedReadHalf,
    /// As it came.
    inbox: Vec<u8>,
    /// Whole messages, or lines of the authentication, to hand out.
    ready: Vec<u8>,
}

#[async_trait::async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        while self.ready.is_empty() {
            match next(&self.inbox)? {
                Some(length) => {
                    self.ready = self.inbox.drain(..length).collect();
                    exchange(&mut self.ready);
                }
                None => {
                    if self.socket.read_buf(&mut self.inbox).await? == 0 {
                        return Ok((0, Vec::new()));
                    }
                }
            }
        }
        let length = buffer.len().min(self.ready.len());
        buffer[..length].copy_from_slice(&self.ready[..length]);
        self.ready.drain(..length);
        Ok((length, Vec::new()))
    }
}

/// The length of the message or line at the start of these bytes; none while it is not whole.
fn next(bytes: &[u8]) -> io::Result<Option<usize>> {
    let number = |at: usize| -> usize {
        let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        (if bytes[0] == b'l' { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }) as usize
    };
    match bytes.first() {
        None => Ok(None),
        Some(b'l' | b'B') if bytes.len() < FIXED => Ok(None),
        Some(b'l' | b'B') => {
            let length = (FIXED + number(12)).next_multiple_of(8).saturating_add(number(4));
            if length > MAX_MESSAGE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message longer than D-Bus allows"));
            }
            Ok((bytes.len() >= length).then_some(length))
        }
        Some(_) => Ok(bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1)),
    }
}

fn exchange(message: &mut [u8]) {
    if message.len() < FIXED || message[0] != b'l' {
        return;
    }
    let fields = u32::from_le_bytes([message[12], message[13], message[14], message[15]]) as usize;
    let end = (FIXED + fields).min(message.len());
    if let Some(at) = message[..end].windows(SENDER.len()).position(|window| window == SENDER) {
        message[at..at + UNIQUE.len()].copy_from_slice(UNIQUE);
    }
}

#[derive(Debug)]
struct Writer {
    socket: OwnedWriteHalf,
}

#[async_trait::async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.socket.write(buffer).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_and_lines_as_lines() {
        assert_eq!(next(b"OK abc\r\nl").expect("a line"), Some(8));
        assert_eq!(next(b"OK abc").expect("part of a line"), None);
        let mut message = vec![b'l', 2, 0, 1, 3, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0];
        assert_eq!(next(&message).expect("part of a message"), None);
        message.extend([0; 8 + 3]);
        assert_eq!(next(&message).expect("a message"), Some(16 + 8 + 3));
        assert!(next(b"l\x02\x00\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0").is_err());
    }

    #[test]
    fn only_the_sender_in_the_header_is_exchanged() {
        let mut message = vec![b'l', 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, SENDER.len() as u8, 0, 0, 0];
        message.extend(SENDER);
        let body = message.len();
        message.extend(SENDER);
        exchange(&mut message);
        assert_eq!(&message[FIXED..body], UNIQUE);
        assert_eq!(&message[body..], SENDER);
    }
}
