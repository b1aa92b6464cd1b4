//! The line to a machine in QEMU: a virtio port, spoken to through a socket. The other end is `machine/root/usr/local/sbin/vm-agent`.
//!
//! ```text
//! to it:    NUMBER SECONDS LENGTH \n  script
//! from it:  ready BOOT_ID \n           once a boot
//!           NUMBER EXIT LENGTH LENGTH \n  standard output, standard error
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::machine::Output;

/// An agent that has said that it is there.
pub struct Agent {
    reader: BufReader<UnixStream>,
    number: u64,
}

impl Agent {
    /// Connects as soon as there is a socket, and waits for the agent's first word. `alive` says whether QEMU still runs.
    pub fn connect(socket: &Path, limit: Duration, mut alive: impl FnMut() -> bool) -> Result<Self> {
        let end = Instant::now() + limit;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > end || !alive() => {
                    return Err(error).with_context(|| format!("connecting to {}", socket.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => bail!("the machine stopped before its agent spoke"),
                Ok(_) if line.starts_with(b"ready ") && line.ends_with(b"\n") => break,
                Ok(_) => bail!("the agent's first word was {:?}", String::from_utf8_lossy(&line)),
                Err(error) if waiting(&error) && Instant::now() < end && alive() => {}
                Err(error) => return Err(error).context("waiting for the machine's agent"),
            }
        }
        Ok(Self { reader, number: 0 })
    }

    /// Runs a script; the agent itself ends it at the limit, and a bit later we give up on the agent.
    pub fn run(&mut self, script: &str, limit: Duration) -> Result<Output> {
        self.number += 1;
        let header = format!("{} {} {}\n", self.number, limit.as_secs().max(1), script.len());
        let stream = self.reader.get_mut();
        stream.set_read_timeout(Some(limit + Duration::from_secs(60)))?;
        stream
            .write_all(header.as_bytes())
            .and_then(|()| stream.write_all(script.as_bytes()))
            .context("speaking to the agent")?;

        let mut line = String::new();
        self.reader.read_line(&mut line).with_context(|| format!("waiting for the end of `{script}`"))?;
        let fields: Vec<usize> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let &[number, code, out, err] = fields.as_slice() else {
            bail!("the agent answered `{script}` with {line:?}");
        };
        if number as u64 != self.number {
            bail!("the agent answered number {number} and not {}", self.number);
        }
        Ok(Output { code: i32::try_from(code)?, stdout: self.take(out)?, stderr: self.take(err)? })
    }

    fn take(&mut self, length: usize) -> Result<String> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).context("reading what a command said")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn waiting(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
