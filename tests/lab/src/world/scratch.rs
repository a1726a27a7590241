//! A world for one test: it goes when the test does.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use super::{Options, World, record_of};
use crate::folder::{WorldFolder, WorldName};
use crate::process::ProcessIdentity;
use crate::progress::{Listener, silent};

/// A world with a name of its own, taken down when dropped.
///
/// When the process is killed before, the next scratch world on the machine sweeps the orphan away. With `LAB_KEEP` set in the
/// environment the world stays, for a look at it.
#[derive(Debug)]
pub struct ScratchWorld {
    world: World,
}

/// A world that a test made for itself, as it lies on the machine.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// Its name.
    pub name: WorldName,
    /// The process that takes it down at its end; none where that is gone, so that the world is an orphan.
    pub owner: Option<ProcessIdentity>,
}

/// What the names of scratch worlds begin with, before the number of the process that made them.
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
    pub fn up(options: Options) -> Result<Self> {
        Self::up_telling(options, &silent)
    }

    /// As [`ScratchWorld::up`], telling the listener what is done.
    ///
    /// # Errors
    /// As [`ScratchWorld::up`].
    pub fn up_telling(mut options: Options, listener: Listener<'_>) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let me = ProcessIdentity::of(std::process::id().cast_signed()).context("looking at this process")?;
        Self::sweep()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = WorldName::scratch(&number.to_string())?;
        options.owner = Some(me);
        match World::up(&name, &options, listener) {
            Ok(world) => Ok(Self { world }),
            Err(error) => {
                World::down(&name).context("taking the half-made world down")?;
                Err(error)
            }
        }
    }

    /// All scratch worlds on the machine.
    pub fn all() -> Vec<Scratch> {
        let folders = WorldFolder::all().into_iter().filter(|folder| owner_in(folder.name()).is_some());
        folders.map(|folder| Scratch::look(&folder)).collect()
    }

    /// Takes down the scratch worlds whose process is gone; names them.
    ///
    /// # Errors
    /// As [`World::down`].
    pub fn sweep() -> Result<Vec<WorldName>> {
        let orphans: Vec<WorldName> =
            Self::all().into_iter().filter(|scratch| scratch.owner.is_none()).map(|scratch| scratch.name).collect();
        orphans.iter().try_for_each(World::down)?;
        Ok(orphans)
    }
}

impl Scratch {
    fn look(folder: &WorldFolder) -> Self {
        let name = folder.name().clone();
        let record = record_of(folder).ok().flatten();
        // Half made, or completed by an `up` that names no owner: its name says whose it is.
        let owner = record.and_then(|record| record.owner).or_else(|| owner_by_name(&name));
        Self { name, owner: owner.filter(ProcessIdentity::is_alive) }
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

/// Refuses a name by which a world would be taken for one that a test has left behind.
pub(super) fn check_name(name: &WorldName) -> Result<()> {
    ensure!(
        owner_in(name).is_none() || owner_by_name(name).is_some(),
        "a world called {name} would be taken for what a test has left behind, and removed by the next: take another name"
    );
    Ok(())
}

/// The number of the process that a scratch world's name tells; none where the name is anybody's.
fn owner_in(name: &WorldName) -> Option<i32> {
    name.as_str().strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn owner_by_name(name: &WorldName) -> Option<ProcessIdentity> {
    ProcessIdentity::of(owner_in(name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_that_is_only_called_scratch_is_no_tests() {
        let name = |text: &str| WorldName::parse(text).unwrap();
        for of_people in ["scratch-pad", "scratch-pad-2", "scratch-7", "scratch", "demo"] {
            assert_eq!(owner_in(&name(of_people)), None, "{of_people}");
            check_name(&name(of_people)).unwrap();
        }
        assert_eq!(owner_in(&name("scratch-7-up")), Some(7));
    }

    #[test]
    fn a_name_by_which_a_world_would_be_swept_away_is_refused() {
        check_name(&WorldName::scratch("mine").unwrap()).unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let name = WorldName::parse(&format!("scratch-{}-pad", ended.id())).unwrap();
        assert!(check_name(&name).unwrap_err().to_string().contains("take another name"));
    }
}
