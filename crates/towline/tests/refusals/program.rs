//! The binary, run as a user runs it, in a folder of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A command line of the binary, with nothing of this machine's settings.
pub(crate) fn towline(home: &Path) -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_towline")), home)
}

/// Gives a command a home and nothing of this machine's settings.
pub(crate) fn clean(mut command: Command, home: &Path) -> Command {
    command
        .env_clear()
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn run<I: AsRef<OsStr>>(home: &Path, arguments: impl IntoIterator<Item = I>) -> Outcome {
    towline(home).args(arguments).output().unwrap().into()
}

/// A process that runs until this is dropped, and what it writes.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until `look` finds something; the process must not end meanwhile.
    pub(crate) fn until<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?} before {what}:\n{}", self.log());
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}:\n{}", self.log());
            // tidy: sleep, another process tells nobody when it is ready
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the log says something, and checks that the process stays.
    pub(crate) fn until_says(&mut self, part: &str) {
        let log = self.log.clone();
        self.until(&format!("its log to say {part:?}"), || {
            std::fs::read_to_string(&log).unwrap().contains(part).then_some(())
        });
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is at a path of a plain server on this machine: head and body, or nothing while nobody answers.
pub(crate) fn fetch(port: u16, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
