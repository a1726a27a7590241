//! A box: a computer of the laboratory, made of namespaces.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::process::ExitStatus;
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::command::{Command, CommandError, Output};
use crate::folder::{WorldFolder, read_record};
use crate::plan::BoxPlan;
use crate::process::ProcessIdentity;

mod creation;

pub(crate) use creation::{Materials, create, open_log, remove};

/// What is on record of a box.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BoxRecord {
    pub(crate) plan: BoxPlan,
    pub(crate) init: ProcessIdentity,
    /// Whether its links are plugged and configured.
    pub(crate) wired: bool,
}

/// A box that runs: commands are run in it, daemons started, files written, its network entered.
///
/// A value of this type is a name tag. Dropping it leaves the box as it is; [`World::down`](crate::World::down) ends it.
#[derive(Clone, Debug)]
pub struct LabBox {
    folder: WorldFolder,
    plan: BoxPlan,
    init: ProcessIdentity,
}

impl LabBox {
    /// Finds a box of a world by its record; `None` when there is none that runs.
    pub(crate) fn find(folder: &WorldFolder, name: &str) -> Result<Option<(Self, BoxRecord)>> {
        let record: Option<BoxRecord> = read_record(&folder.of_box(name).join("box.json"))?;
        Ok(record.filter(|record| record.init.is_alive()).map(|record| {
            let found = Self { folder: folder.clone(), plan: record.plan.clone(), init: record.init };
            (found, record)
        }))
    }

    /// Name of the box, which is its host name too.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Address of its first interface.
    pub fn address(&self) -> Ipv4Addr {
        self.plan.address()
    }

    /// Its part of the drawing.
    pub fn plan(&self) -> &BoxPlan {
        &self.plan
    }

    /// Its first process, which ends everything in the box when it ends.
    pub fn init(&self) -> ProcessIdentity {
        self.init
    }

    /// Whether the box still runs.
    pub fn is_alive(&self) -> bool {
        self.init.is_alive()
    }

    /// Begins a command: program (found by the box's `PATH`) and arguments.
    pub fn command<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Command<'_> {
        Command::new(self, arguments.into_iter().map(Into::into).collect())
    }

    /// Runs a command to its end, which must be exit status 0.
    ///
    /// # Errors
    /// [`CommandError`], whose message names box, command, how it ended and its last words.
    pub fn run<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Output, CommandError> {
        self.command(arguments).run()
    }

    /// Runs a line of shell to its end, which must be exit status 0.
    ///
    /// # Errors
    /// As [`LabBox::run`].
    pub fn shell(&self, line: &str) -> Result<Output, CommandError> {
        self.run(["bash", "-c", line])
    }

    /// Runs a command on the caller's terminal, an interactive shell where `words` are none, and tells how it ended.
    ///
    /// # Errors
    /// When `nsenter` (Debian package util-linux) cannot be started; how the command ended is no error.
    pub fn interactive(&self, words: &[OsString]) -> Result<ExitStatus> {
        // In the caller's session, not as a child of the box's first process: else the terminal would not be its own.
        let mut command = std::process::Command::new("nsenter");
        command.args([
            "--target",
            &self.init.pid.to_string(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
        ]);
        // The folder that the caller is in means nothing in the box.
        // Not a login shell: those take their `PATH` from the box's profile, which knows nothing of the laboratory's programs.
        command.args(["--", "/usr/bin/env", "--chdir=/root"]);
        if words.is_empty() {
            command.arg("/bin/bash")
        } else {
            command.args(words)
        };
        let terminal = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
        command.env_clear().envs(crate::command::usual_environment()).env("TERM", terminal);
        command.status().context("starting nsenter (Debian package util-linux)")
    }

    /// Runs `work` on a thread that is in the box's network: sockets it opens are the box's.
    ///
    /// Only the network is the box's; files, processes and name look-ups stay the caller's. Threads started by `work` are in
    /// the box's network too.
    ///
    /// # Errors
    /// When the box is gone.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let network = self.namespace("net")?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || -> Result<T> {
                move_into_link_name_space(rustix::fd::AsFd::as_fd(&network), Some(LinkNameSpaceType::Network))
                    .context("entering the box's network (is this root?)")?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .with_context(|| format!("box {}", self.name()))
    }

    /// Reads a file of the box.
    ///
    /// # Errors
    /// When the box is gone or the file cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let what = || format!("box {}: reading {path}", self.name());
        let mut content = Vec::new();
        let opened = self.open(path, OFlags::RDONLY, Mode::empty()).with_context(what)?;
        File::from(opened).read_to_end(&mut content).with_context(what)?;
        Ok(content)
    }

    /// Writes a file of the box as a whole, making the folders above it; a file that is so already is not touched, because
    /// some programs watch theirs.
    ///
    /// # Errors
    /// When the box is gone or the file cannot be written.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let what = || format!("box {}: writing {path}", self.name());
        if self.holds(path, content.as_ref(), mode) {
            return Ok(());
        }
        if let Some(parent) = Path::new(path).parent() {
            self.create_folder(parent).with_context(what)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = File::from(self.open(path, flags, Mode::from_raw_mode(mode)).with_context(what)?);
        // The mode of an existing file would stay, and the mask of this process is not the box's business.
        file.set_permissions(fs::Permissions::from_mode(mode)).with_context(what)?;
        file.write_all(content.as_ref()).with_context(what)
    }

    /// Whether the box has something at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.open(path, OFlags::PATH, Mode::empty()).is_ok()
    }

    /// Kills the box: everything in it dies with its first process, and its links fall out.
    ///
    /// # Errors
    /// When the kernel refuses, or something in the box cannot die within ten seconds.
    pub fn kill(&self) -> Result<()> {
        let Some(init) = self.init.open() else { return Ok(()) };
        init.signal(Signal::KILL).with_context(|| format!("killing box {}", self.name()))?;
        let dead = init.wait(std::time::Duration::from_secs(10));
        ensure!(dead, "box {}: its first process {} does not die", self.name(), self.init.pid);
        Ok(())
    }

    pub(crate) fn folder(&self) -> &WorldFolder {
        &self.folder
    }

    /// Opens a connection to the box's first process.
    pub(crate) fn connect(&self) -> io::Result<OwnedFd> {
        let address = SocketAddrUnix::new(self.folder.of_box(self.name()).join("socket"))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &address)?;
        Ok(socket)
    }

    /// Opens one of the box's namespaces: `net`, `mnt`, …
    pub(crate) fn namespace(&self, kind: &str) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/{kind}", self.init.pid);
        let opened = File::open(&path).with_context(|| format!("box {}: opening {path}", self.name()))?;
        ensure!(self.is_alive(), "box {} is gone", self.name());
        Ok(opened.into())
    }

    /// Opens a path as the box sees it: links, absolute ones too, stay within the box.
    fn open(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let root = self.root()?;
        Ok(openat2(&root, path, flags | OFlags::CLOEXEC, mode, ResolveFlags::IN_ROOT)?)
    }

    fn holds(&self, path: &str, content: &[u8], mode: u32) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let Ok(opened) = self.open(path, OFlags::RDONLY, Mode::empty()) else { return false };
        let mut file = File::from(opened);
        let same_mode = file.metadata().is_ok_and(|found| found.permissions().mode() & 0o7777 == mode);
        let mut found = Vec::new();
        same_mode && file.read_to_end(&mut found).is_ok() && found == content
    }

    fn root(&self) -> Result<File> {
        let path = format!("/proc/{}/root", self.init.pid);
        let root = OpenOptions::new().read(true).open(&path).with_context(|| format!("opening {path}"))?;
        ensure!(self.is_alive(), "box {} is gone", self.name());
        Ok(root)
    }

    fn create_folder(&self, path: &Path) -> Result<()> {
        let root = self.root()?;
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        };
        let mut reached = PathBuf::from("/");
        for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
            let parent = open(&reached)?;
            match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => reached.push(part),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
