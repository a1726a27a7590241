//! The first process of a box, and the small servers that live in boxes: what the program `lab-init` does.
//!
//! A box is made in three steps, each an `exec` of the same program, because only a process with one thread may enter
//! new namespaces, and a new PID namespace begins with the next child:
//! `lab-init create` joins the box's cgroup and becomes `unshare … lab-init first`, which starts `lab-init init` as process 1
//! of the box, prints its number and ends. Process 1 does nothing until it is told to go on, so that whoever starts it can
//! write down its number first: a box that exists is always on record.

use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Hierarchy};

mod mounts;
mod server;

/// Everything that process 1 has to know, in a file beside the box.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BoxSpec {
    /// Host name.
    pub(crate) name: String,
    /// Lower layer of the overlay.
    pub(crate) tree: PathBuf,
    /// Empty folder on the machine on which the box's root is put together.
    pub(crate) mount_point: PathBuf,
    /// Folders of the machine that are seen inside.
    pub(crate) binds: Vec<Bind>,
    /// Files that the box begins with, over those of the tree.
    pub(crate) files: Vec<BoxFile>,
    /// Kernel settings of the whole machine that the box only believes to have: path below `/proc/sys`, value.
    pub(crate) pretended: Vec<(String, String)>,
    /// Kernel settings: path below `/proc/sys`, value.
    pub(crate) settings: Vec<(String, String)>,
    /// The machine's cgroup hierarchies.
    pub(crate) hierarchies: Vec<Hierarchy>,
    /// The group that the box sees as the root of each.
    pub(crate) group: String,
    /// Where process 1 listens for commands.
    pub(crate) socket: PathBuf,
}

/// A folder of the machine that is seen inside a box.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// Folder of the machine.
    pub(crate) source: PathBuf,
    /// Absolute path inside the box.
    pub(crate) target: String,
    /// Whether the box may only read it.
    pub(crate) read_only: bool,
}

/// A file that a box begins with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BoxFile {
    /// Absolute path inside the box.
    pub(crate) path: String,
    /// Content.
    pub(crate) content: String,
    /// Whether it is put behind what the tree has there.
    pub(crate) append: bool,
}

/// This program as its own processes start it once more.
pub(crate) const ITSELF: &str = "/proc/self/exe";

/// Joins a cgroup and becomes the program behind its name.
pub(crate) const ENTER: &str = "enter";

/// Runs the program `lab-init` with the arguments behind its name.
///
/// # Errors
/// What went wrong, for standard error.
pub fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["create", spec] => create(Path::new(spec)),
        ["first", spec] => first(Path::new(spec)),
        ["init", spec] => init(Path::new(spec)),
        [ENTER, group, program, rest @ ..] => enter(group, program, rest),
        ["echo"] => crate::echo::serve_caller_address(),
        ["web", text] => crate::echo::serve_page(text),
        _ => bail!(
            "lab-init is the first process of the laboratory's boxes; it is started by the crate `lab`, not by hand"
        ),
    }
}

/// Joins the box's cgroup and becomes `unshare`, which becomes `lab-init first`.
fn create(path: &Path) -> Result<()> {
    let spec = read(path)?;
    for hierarchy in &spec.hierarchies {
        cgroup::join(&hierarchy.mount.join(&spec.group))?;
    }
    let me = env::current_exe().context("finding lab-init itself")?;
    let error = Command::new("unshare")
        .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--"])
        .arg(me)
        .arg("first")
        .arg(path)
        .exec();
    Err(error).context("starting unshare (Debian package util-linux)")
}

/// Starts process 1 and says what number it has outside.
fn first(path: &Path) -> Result<()> {
    let me = env::current_exe().context("finding lab-init itself")?;
    // Not waited for: this process ends, and process 1 lives on.
    let child = Command::new(me).arg("init").arg(path).spawn().context("starting process 1 of the box")?;
    println!("{}", child.id());
    Ok(())
}

/// Process 1: waits for the word, puts the root together, then serves commands until it is killed.
fn init(path: &Path) -> Result<()> {
    ensure!(rustix::process::getpid().is_init(), "lab-init init must be the first process of a PID namespace");
    let spec = read(path)?;
    let mut word = String::new();
    io::stdin().lock().read_line(&mut word).context("waiting for the word to go on")?;
    if word != "go\n" {
        // Whoever made this box is gone before it was written down.
        return Ok(());
    }
    rustix::process::setsid().context("leaving the caller's session")?;
    let listener = server::listen(&spec.socket).with_context(|| format!("listening at {}", spec.socket.display()))?;
    rustix::system::sethostname(spec.name.as_bytes()).context("setting the host name")?;
    mounts::enter_root(&spec)?;
    for (setting, value) in &spec.settings {
        fs::write(Path::new("/proc/sys").join(setting), value).with_context(|| format!("setting {setting}={value}"))?;
    }
    let mut out = io::stdout();
    writeln!(out, "ready").and_then(|()| out.flush()).context("reporting readiness")?;
    mounts::detach_standard_streams().context("letting go of the caller's pipes")?;
    server::serve(listener)
}

/// Joins a cgroup of the box, made where it is missing, and becomes `program`.
fn enter(group: &str, program: &str, arguments: &[&str]) -> Result<()> {
    for hierarchy in cgroup::hierarchies()? {
        let folder = hierarchy.mount.join(group);
        fs::create_dir_all(&folder).with_context(|| format!("making the cgroup {}", folder.display()))?;
        cgroup::join(&folder)?;
    }
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("starting {program}"))
}

fn read(path: &Path) -> Result<BoxSpec> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
}
