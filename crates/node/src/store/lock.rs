use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::StoreError;

/// A state that this daemon has to itself. It is given back with the value, and by the kernel however the process ends.
///
/// The lock is on a file beside the state: the state's own is another one after each write.
#[derive(Debug)]
pub(super) struct StateLock {
    file: PathBuf,
    _lock: File,
}

impl StateLock {
    /// Takes the state at a path, whose folder must be there.
    pub(super) fn take(state: &Path) -> Result<Self, StoreError> {
        let failed = |what, source| StoreError::File { path: state.to_owned(), what, source };
        let file = beside(state);
        // Where no file can be made, none can be written either.
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&file);
        let lock = lock.map_err(|source| failed("written", source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { file, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: state.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("locked", source)),
        }
    }

    /// Gives back a state that is there no more, and takes its lock's file away.
    pub(super) fn retire(self) -> std::io::Result<()> {
        std::fs::remove_file(&self.file)
    }
}

fn beside(state: &Path) -> PathBuf {
    let mut name: OsString = state.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    state.with_file_name(name)
}
