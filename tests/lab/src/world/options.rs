//! What a caller wants of a world.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use cache::Cache;

use crate::plan::Plan;
use crate::process::ProcessIdentity;

/// What a world is to be made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where programs, tree and images are.
    pub cache: Cache,
    /// The program `lab-init`, which is built with this crate.
    pub init: PathBuf,
    /// The drawing without the cluster.
    pub plan: Plan,
    /// Whether the Kubernetes cluster and its registry are part of the world.
    pub cluster: bool,
    /// A process whose end makes the world an orphan, which the next scratch world sweeps away.
    pub(crate) owner: Option<ProcessIdentity>,
}

impl Options {
    /// The walkthrough's boxes and network without its cluster: up in a second or two.
    ///
    /// # Errors
    /// When the cache or the program `lab-init` cannot be located.
    pub fn boxes() -> Result<Self> {
        Self::started_by(locate_init()?)
    }

    /// As [`Options::boxes`], with the program `lab-init` at `init`.
    ///
    /// # Errors
    /// When the cache cannot be located.
    pub fn started_by(init: PathBuf) -> Result<Self> {
        Ok(Self { cache: Cache::locate()?, init, plan: Plan::walkthrough(), cluster: false, owner: None })
    }

    /// The walkthrough's whole world.
    ///
    /// # Errors
    /// As [`Options::boxes`].
    pub fn whole() -> Result<Self> {
        Ok(Self { cluster: true, ..Self::boxes()? })
    }
}

/// Finds the program `lab-init`: `$LAB_INIT`, else beside the running program, as Cargo lays them.
///
/// # Errors
/// When it is not there; the message says how to build it.
pub fn locate_init() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LAB_INIT").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let me = env::current_exe().context("finding the running program")?;
    // Tests lie one folder deeper than programs.
    let beside = me.ancestors().skip(1).take(2).map(|folder| folder.join("lab-init"));
    beside.into_iter().find(|path| path.is_file()).with_context(|| {
        format!("no lab-init beside {}: run `cargo build --package lab`, or set LAB_INIT", me.display())
    })
}
