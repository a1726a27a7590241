//! Programs of the cache, and those that run.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use cache::Cache;

/// A program of the cache by its path there, such as `bin/kubectl`.
///
/// # Errors
/// When it was not fetched, with the command that does.
pub fn program(path: &str) -> Result<PathBuf> {
    let found = Cache::locate()?.root().join(path);
    if !found.is_file() {
        bail!("{} is not there: run `cargo xtask fetch`", found.display());
    }
    Ok(found)
}

/// A program that is ended when this is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a program that also ends with this thread, and writes what it says into a file.
    pub(crate) fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        Ok(Self(child.with_context(|| format!("starting {}", program.display()))?))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }
}

impl From<Child> for Running {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}
