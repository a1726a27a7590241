use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lab::World;

use crate::progress::Progress;
use crate::world::option;

/// How far the last `up` of a world came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// To its end.
    Whole,
    /// It is still at work.
    AtWork,
    /// It was cut off, or failed.
    CutOff,
}

impl Course {
    /// Looks how far the last `up` came.
    ///
    /// # Errors
    /// When its lock can't be looked at.
    pub(crate) fn of(world: &World) -> Result<Self> {
        Self::look(&world.records())
    }

    fn look(records: &Path) -> Result<Self> {
        let lock = lock_path(records);
        let is_held = match File::open(&lock) {
            Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(error).with_context(|| format!("looking at {}", lock.display())),
        };
        Ok(match (is_held, mark_path(records).exists()) {
            (true, _) => Self::AtWork,
            (false, true) => Self::Whole,
            (false, false) => Self::CutOff,
        })
    }

    /// What is to be said of a world that is not whole, with the next step.
    pub(crate) fn problem(self, name: &str) -> Option<String> {
        let option = option(name);
        match self {
            Self::Whole => None,
            Self::AtWork => Some(format!("`cargo xtask up{option}` is at work on this world: it is not complete yet.")),
            Self::CutOff => Some(format!(
                "This world is not complete: its `cargo xtask up` was cut off, or failed. Run it again, it goes on from there:\n  \
                 cargo xtask up{option}"
            )),
        }
    }
}

/// One `up` of a world: others of the same world wait for its end.
pub(super) struct Turn {
    mark: PathBuf,
    _lock: File,
}

impl Turn {
    /// Waits for another `up` of the same world to end. Until this one has come to its end too, the world counts as cut off.
    pub(super) fn begin(world: &World, progress: &Progress) -> Result<Self> {
        let path = lock_path(&world.records());
        let what = || format!("locking {}", path.display());
        let lock = File::create(&path).with_context(what)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.line(&format!("waiting for another `cargo xtask up` of world {}", world.name()));
                lock.lock().with_context(what)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(what),
        }
        let mark = mark_path(&world.records());
        match fs::remove_file(&mark) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", mark.display()))
            }
            _ => Ok(Self { mark, _lock: lock }),
        }
    }

    /// Notes that the world is whole.
    pub(super) fn end(self) -> Result<()> {
        fs::write(&self.mark, "").with_context(|| format!("writing {}", self.mark.display()))
    }
}

fn lock_path(records: &Path) -> PathBuf {
    records.join("up.lock")
}

fn mark_path(records: &Path) -> PathBuf {
    records.join("up.done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_whole_once_its_up_has_come_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let look = || Course::look(folder.path()).unwrap();
        assert_eq!(look(), Course::CutOff, "it was cut off before it could lock anything");
        let lock = File::create(lock_path(folder.path())).unwrap();
        lock.lock().unwrap();
        assert_eq!(look(), Course::AtWork);
        lock.unlock().unwrap();
        assert_eq!(look(), Course::CutOff);
        fs::write(mark_path(folder.path()), "").unwrap();
        assert_eq!(look(), Course::Whole);
    }

    #[test]
    fn a_half_made_world_is_told_with_the_next_step() {
        assert_eq!(Course::Whole.problem("demo"), None);
        assert!(Course::CutOff.problem("demo").unwrap().ends_with("\n  cargo xtask up"));
        assert!(Course::CutOff.problem("other").unwrap().ends_with("\n  cargo xtask up --world other"));
    }
}
