//! systemd's side of sd_notify(3): a real datagram socket that answers barriers by closing their descriptor.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tempfile::TempDir;

pub struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

/// One message, and the descriptor that came with it: dropping it answers a barrier.
pub struct Message {
    pub text: String,
    #[allow(dead_code)] // held open, not read
    pub barrier: Option<OwnedFd>,
}

impl Manager {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("notify")
    }

    /// The next message; panics where none comes.
    pub fn next(&self) -> Message {
        self.try_next().expect("a message within the time-out")
    }

    /// True where nothing comes for a while.
    pub fn is_silent(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let silent = self.try_next().is_none();
        self.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        silent
    }

    /// The next message, which must be a barrier; answers it.
    pub fn answer_barrier(&self) {
        let message = self.next();
        assert!(message.text == "BARRIER=1" && message.barrier.is_some(), "{:?}", message.text);
    }

    /// The next message, which must name the main process.
    pub fn main_pid(&self) -> i32 {
        let text = self.next().text;
        text.strip_prefix("MAINPID=").unwrap_or_else(|| panic!("{text:?}")).parse().unwrap()
    }

    #[allow(unsafe_code)] // takes over the descriptor that the kernel has just made
    fn try_next(&self) -> Option<Message> {
        let mut buffer = [0; 4096];
        let mut control = cmsg_space!([i32; 1]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
        let barrier = message.cmsgs().unwrap().find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(unsafe { OwnedFd::from_raw_fd(fds[0]) }),
            _ => None,
        });
        let length = message.bytes;
        Some(Message { text: String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned(), barrier })
    }
}
