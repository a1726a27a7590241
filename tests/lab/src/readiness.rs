//! When a daemon counts as ready: an event that is waited for, never a time that is slept.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};

use crate::lab_box::LabBox;
use crate::process::{Process, timespec};

/// What must be seen before a daemon counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ready {
    /// Nothing: it is ready as soon as it has started.
    AtOnce,
    /// Somebody accepts TCP connections at this address of the box.
    Tcp(SocketAddr),
    /// The box has something at this path: a socket, a file.
    File(String),
    /// Its log holds this text.
    Log(String),
    /// This command, run in the box, ends well.
    Command(Vec<String>),
}

/// How long a probing command may take.
const PROBE: Duration = Duration::from_secs(5);

/// Waits until the daemon `process`, whose log begins at `offset` of `log`, is ready.
///
/// # Errors
/// When it ends before, or is not ready after `limit`; says what was missing.
pub(crate) fn wait(
    lab_box: &LabBox,
    ready: &Ready,
    process: &Process,
    log: &Path,
    offset: u64,
    limit: Duration,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).context("inotify")?;
    inotify::add_watch(&events, log, inotify::WatchFlags::MODIFY).context("watching the log")?;
    let mut pause = Duration::from_millis(4);
    loop {
        let Err(missing) = check(lab_box, ready, log, offset) else { return Ok(()) };
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "not ready after {} s: {missing:#}", limit.as_secs_f32());
        let mut fds = [PollFd::new(process, PollFlags::IN), PollFd::new(&events, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(pause.min(left)))) {
            Ok(_) if !fds[0].revents().is_empty() => bail!("it ended before it was ready"),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the daemon"),
        }
        // A word in the log often comes with the event that is waited for; it is no more than an occasion to look.
        let _ = rustix::io::read(&events, &mut [0; 1024]);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Looks once whether the daemon is ready.
///
/// # Errors
/// Says what is missing.
pub(crate) fn check(lab_box: &LabBox, ready: &Ready, log: &Path, offset: u64) -> Result<()> {
    match ready {
        Ready::AtOnce => Ok(()),
        Ready::Tcp(address) => lab_box
            .in_network(|| TcpStream::connect_timeout(address, Duration::from_secs(1)))?
            .map(drop)
            .with_context(|| format!("nobody accepts connections at {address}")),
        Ready::File(path) => {
            ensure!(lab_box.has(path), "there is no {path}");
            Ok(())
        }
        Ready::Log(text) => {
            let mut said = Vec::new();
            let mut file = File::open(log).with_context(|| format!("opening {}", log.display()))?;
            file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_to_end(&mut said)).context("reading the log")?;
            ensure!(String::from_utf8_lossy(&said).contains(text), "its log does not say {text:?}");
            Ok(())
        }
        Ready::Command(arguments) => {
            lab_box.command(arguments.iter().cloned()).within(PROBE).run()?;
            Ok(())
        }
    }
}
