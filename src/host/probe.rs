//! One try of a health test: a program in the container, or a connection from the container's own network.
//!
//! The image is hostile: its program gets what the service's own has, what it says is cut, and it is ended when its time is up; a
//! connection is made from an address to that same address, so it reaches nobody but the container and, on the host's network, the host;
//! and it is the container's user's, whom a firewall may tell from root.

use std::{
    fs,
    io::{self, PipeReader, Read},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use nix::{
    sched::{CloneFlags, setns},
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::{Gid, Pid, Uid, setfsgid, setfsuid},
};
use tokio::net::{TcpSocket, TcpStream};

use super::{
    enter,
    process::{self, Inside},
    systemd::Manager,
};
use crate::model::{
    deployment::Deployment,
    health::{HealthTest, Http, Probe, seconds},
    layout,
    process::{Exec, Wishes},
};

const POLL: Duration = Duration::from_millis(20);
/// What is kept of what a program says.
const SAID: usize = 4096;
/// What is shown of it.
const SHOWN: usize = 160;
/// An answer's status and headers are never larger.
const HEAD_LIMIT: usize = 16 << 10;

/// Tries once. Gives in words what was well, or fails in words with what was not.
pub fn attempt(manager: &Manager, deployment: &Deployment, test: &HealthTest) -> Result<String> {
    let unit = deployment.name.service_unit();
    let (main, group) = manager.main_process(&unit)?.with_context(|| format!("{unit} has no main process"))?;
    let inside = process::of_service(main, &group).context("entering the container")?;
    match &test.probe {
        Probe::Exec(args) => run(deployment, &inside, &group, args, test)?,
        Probe::Http(http) => {
            let answer = in_its_network(&inside, test.timeout, get(http));
            let status = answer.map_err(|error| anyhow!("{} got no answer: {error:#}", test.probe))?;
            let (low, high) = http.status;
            ensure!((low..=high).contains(&status), "{} answered {status}", test.probe);
            return Ok(format!("{} answered {status}", test.probe));
        }
        Probe::Tcp(address) => {
            let connected = in_its_network(&inside, test.timeout, connect(*address));
            connected.map_err(|error| anyhow!("{} was not made: {error:#}", test.probe))?;
            return Ok(format!("{} was made", test.probe));
        }
    }
    Ok(format!("{} ended with 0", test.probe))
}

/// Runs a future where the container's network is, as its user. Only a thread of its own goes there.
fn in_its_network<T: Send>(
    inside: &Inside,
    limit: Duration,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let there = || -> Result<T> {
        setns(&inside.pidfd, CloneFlags::CLONE_NEWNET).context("entering the container's network")?;
        let (uid, gid) = inside.user;
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        // They do not say whether they worked; asked for nobody's, they say what is.
        let now = setfsuid(Uid::from_raw(u32::MAX));
        ensure!(now.as_raw() == uid, "becoming user {uid}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worked = runtime.block_on(async { tokio::time::timeout(limit, work).await });
        worked.map_err(|_| anyhow!("{} are over", seconds(limit)))?
    };
    thread::scope(|scope| scope.spawn(there).join()).map_err(|_| anyhow!("the try broke off"))?
}

/// Connects from the address itself: what is no address of this network is not reached.
async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(plain)?;
    socket.bind(SocketAddr::new(address.ip(), 0)).map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => anyhow!("{} is no address of the container's network", address.ip()),
        _ => plain(error),
    })?;
    let stream = socket.connect(address).await.map_err(plain)?;
    // TCP lets a port that nobody listens on connect to itself.
    ensure!(stream.local_addr()? != stream.peer_addr()?, "nobody listens");
    Ok(stream)
}

async fn get(http: &Http) -> Result<u16> {
    let stream = connect(http.address).await?;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD_LIMIT).handshake(TokioIo::new(stream)).await.map_err(said)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(&http.path)
        .header(header::HOST, http.address.to_string())
        .header(header::USER_AGENT, "sysctr")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await.map_err(said)?;
    // The body is nobody's concern.
    connection.abort();
    Ok(answer.status().as_u16())
}

/// The cause alone, without the number that Rust adds.
fn plain(error: io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(number) => anyhow!("{}", nix::errno::Errno::from_raw(number).desc().to_lowercase()),
        None => anyhow!("{error}"),
    }
}

fn said(error: hyper::Error) -> anyhow::Error {
    if error.is_parse() { anyhow!("that is not HTTP ({error})") } else { anyhow!("{error}") }
}

/// Runs a program of the image, as `sysctr exec` would.
fn run(deployment: &Deployment, inside: &Inside, group: &str, args: &[String], test: &HealthTest) -> Result<()> {
    let id = process::deployment(&deployment.name, group).unwrap_or(deployment.id);
    let request = Exec {
        container: deployment.name.to_string(),
        deployment: PathBuf::from(format!("/{}", layout::deployment(&deployment.name, id))),
        cgroup: inside.cgroup.clone(),
        wishes: Wishes { args: args.to_vec(), ..Wishes::default() },
    };
    let mut entering = enter::prepare(&inside.pidfd, &request)?;
    let (reader, writer) = io::pipe().context("making a pipe")?;
    let command = entering.command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("running {}", layout::RUNTIME))?;
    // Its ends of the pipe; ours would keep the reader waiting.
    drop(entering);
    let reader = thread::spawn(move || last_words(reader));
    let ended = wait(&mut child, test.timeout);
    let words = reader.join().unwrap_or_default();
    let words = if words.is_empty() { words } else { format!(" ({words})") };
    match ended? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(anyhow!("{} {}{words}", test.probe, ending(status))),
        None => Err(anyhow!("{} did not end within {}{words}", test.probe, seconds(test.timeout))),
    }
}

fn ending(status: ExitStatus) -> String {
    status.code().map_or_else(|| "was killed".to_owned(), |code| format!("ended with {code}"))
}

/// How it ended; none where its time was up, and then nothing of it runs any more.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            end_all(child);
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Ends the program with everything in its session's first group, and whoever waits for it. While that one is held, its children keep
/// their numbers.
fn end_all(child: &mut Child) {
    let Ok(number) = i32::try_from(child.id()) else { return };
    let waiter = Pid::from_raw(number);
    let held = kill(waiter, Signal::SIGSTOP).and_then(|()| {
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(waiter), flags)
    });
    if held.is_ok() {
        let children = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap_or_default();
        for program in children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw) {
            // The program leads a group once it is born; before, there is none of that number.
            let _ = killpg(program, Signal::SIGKILL);
            let _ = kill(program, Signal::SIGKILL);
        }
    }
    // Its end ends what it has started, should it have come to no more than that.
    let _ = child.kill();
    let _ = child.wait();
}

/// The last line that is not empty, cut, without control characters.
fn last_words(mut reader: PipeReader) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; SAID]);
    while let Ok(length @ 1..) = reader.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..length]);
        let surplus = kept.len().saturating_sub(SAID);
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, net::TcpListener};

    /// Asks a server that says `words`, again and again where `endless`.
    fn asked(words: &'static [u8], endless: bool, limit: Duration) -> Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let http = Http { address: listener.local_addr().expect("its address"), path: "/x".into(), status: (200, 399) };
        thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            while stream.write_all(words).is_ok() && endless {}
            thread::sleep(Duration::from_secs(5));
            Ok::<_, io::Error>(())
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let asked = runtime.block_on(async { tokio::time::timeout(limit, get(&http)).await });
        asked.map_err(|_| anyhow!("too slow"))?
    }

    #[test]
    fn a_hostile_answer_takes_neither_memory_nor_time() {
        let second = Duration::from_secs(2);
        assert_eq!(asked(b"HTTP/1.1 204 x\r\n\r\n", false, second).expect("an answer"), 204);
        // The body is not waited for.
        assert_eq!(asked(b"HTTP/1.1 503 x\r\ncontent-length: 9\r\n\r\n", false, second).expect("an answer"), 503);
        let said = |words, endless| asked(words, endless, second).expect_err("no answer").to_string();
        assert!(said(b"SSH-2.0-x\r\n", false).contains("that is not HTTP"));
        assert!(said(b"HTTP/1.1 200 x\r\na: ", false).contains("too slow"));
        assert!(said(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true).contains("that is not HTTP"));
        let headers = said(b"HTTP/1.1 100 x\r\n\r\n", true);
        assert!(headers.contains("too slow") || headers.contains("that is not HTTP"), "{headers}");
    }

    #[test]
    fn only_an_own_address_is_reached() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let refused = |address: &str| {
            runtime.block_on(connect(address.parse().expect("an address"))).expect_err(address).to_string()
        };
        assert!(refused("192.0.2.1:80").contains("no address of the container's network"));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        assert!(refused(&format!("127.0.0.1:{port}")).contains("connection refused"));
    }

    #[test]
    fn what_a_program_says_is_cut() {
        let words = |text: &[u8]| {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            let text = text.to_vec();
            thread::spawn(move || writer.write_all(&text));
            last_words(reader)
        };
        assert_eq!(words(b"first\nlast\x1b[31m\n\n"), "last[31m");
        assert_eq!(words(&b"x".repeat(1 << 20)).len(), SHOWN);
        assert_eq!(words(b""), "");
    }

    #[test]
    fn a_program_is_ended_with_its_group_at_its_time() {
        // In the launcher's place: a waiter whose child leads a session of its own, and has a child itself.
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "setsid sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!; wait' & wait"]);
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut child = command.stdout(writer).spawn().expect("a shell");
        drop(command);
        let began = Instant::now();
        assert!(wait(&mut child, Duration::from_millis(500)).expect("waited").is_none());
        let sleeper = last_words(reader);
        assert!(began.elapsed() < Duration::from_secs(10) && !sleeper.is_empty());
        let alive = fs::read_to_string(format!("/proc/{sleeper}/stat")).is_ok_and(|stat| !stat.contains(" Z "));
        assert!(!alive, "process {sleeper} runs on");
    }
}
