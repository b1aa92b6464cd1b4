//! Messages between the launcher and its children, with descriptors where they go along.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Result;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use super::sys;

/// Longer than any error's text.
const LIMIT: usize = 16 << 10;

/// Two ends that take whole messages.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends a message.
pub fn send(socket: &OwnedFd, text: &[u8], files: &[&OwnedFd]) -> Result<()> {
    let files: Vec<i32> = files.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&files)];
    let control = if files.is_empty() { &[][..] } else { &rights };
    let text = [IoSlice::new(&text[..text.len().min(LIMIT)])];
    sendmsg::<()>(socket.as_raw_fd(), &text, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one; none once nobody has the other end open.
pub fn receive(socket: &OwnedFd) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut text = vec![0; LIMIT];
    let mut control = nix::cmsg_space!([i32; 3]);
    let (length, files) = {
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let files = message.cmsgs()?.filter_map(|control| match control {
            ControlMessageOwned::ScmRights(files) => Some(files),
            _ => None,
        });
        (message.bytes, files.flatten().collect::<Vec<_>>())
    };
    text.truncate(length);
    let files = files.into_iter().map(sys::take).collect::<std::io::Result<Vec<_>>>()?;
    Ok((length > 0).then_some((text, files)))
}
