//! A world for one test: it goes when the test does.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::{Options, World, record_of};
use crate::folder::{WorldFolder, WorldName};
use crate::process::ProcessIdentity;
use crate::progress::silent;

/// A world with a name of its own, taken down when dropped.
///
/// When the process is killed before, the next scratch world on the machine sweeps the orphan away. With `LAB_KEEP` set in the
/// environment the world stays, for a look at it.
#[derive(Debug)]
pub struct ScratchWorld {
    world: World,
}

/// What the names of scratch worlds begin with.
const PREFIX: &str = "scratch-";

impl WorldName {
    /// A name for a world that a test of this process makes and takes down by itself. Where the process is killed before, the
    /// next scratch world on the machine sweeps it away too.
    ///
    /// # Errors
    /// When `what` does not do as the end of a name.
    pub fn scratch(what: &str) -> Result<Self> {
        Self::parse(&format!("{PREFIX}{}-{what}", std::process::id()))
    }
}

impl ScratchWorld {
    /// Makes a world as `options` want it.
    ///
    /// # Errors
    /// As [`World::up`]; what has been made until then is taken down.
    pub fn up(mut options: Options) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let me = ProcessIdentity::of(std::process::id().cast_signed()).context("looking at this process")?;
        sweep()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = WorldName::scratch(&number.to_string())?;
        options.owner = Some(me);
        match World::up(&name, &options, &silent) {
            Ok(world) => Ok(Self { world }),
            Err(error) => {
                World::down(&name).context("taking the half-made world down")?;
                Err(error)
            }
        }
    }
}

impl Deref for ScratchWorld {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Drop for ScratchWorld {
    fn drop(&mut self) {
        if std::env::var_os("LAB_KEEP").is_some() {
            eprintln!("LAB_KEEP is set: world {} stays", self.world.name());
        } else if let Err(error) = World::down(self.world.name()) {
            eprintln!("{error:#}");
        }
    }
}

/// Takes down the scratch worlds whose process is gone.
fn sweep() -> Result<()> {
    for name in World::all().into_iter().filter(|name| name.as_str().starts_with(PREFIX)) {
        let record = record_of(&WorldFolder::new(name.clone())).ok().flatten();
        // Half made, or completed by an `up` that names no owner: its name says whose it is.
        let owner = record.and_then(|record| record.owner).or_else(|| owner_by_name(name.as_str()));
        if owner.is_none_or(|owner| !owner.is_alive()) {
            World::down(&name)?;
        }
    }
    Ok(())
}

fn owner_by_name(name: &str) -> Option<ProcessIdentity> {
    let pid = name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()?;
    ProcessIdentity::of(pid).ok()
}
