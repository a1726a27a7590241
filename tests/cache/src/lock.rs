//! A file lock between checkouts and processes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use crate::folder::make_parent;

/// An exclusive lock on a file, released when it is dropped and every program started meanwhile has ended.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`, waiting as long as it takes; `waiting` is told who holds it, once.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn take(path: &Path, waiting: &mut dyn FnMut(&str)) -> Result<Self> {
        let problem = || format!("taking the lock {}", path.display());
        make_parent(path)?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).with_context(problem)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                waiting(&holder(&mut file));
                flock(&file, FlockOperation::LockExclusive).with_context(problem)?;
            }
            Err(error) => return Err(error).with_context(problem),
        }
        // Inherited on purpose: a build that outlives the process that started it still writes its draft.
        fcntl_setfd(&file, FdFlags::empty()).with_context(problem)?;
        file.set_len(0).with_context(problem)?;
        file.seek(SeekFrom::Start(0)).with_context(problem)?;
        write!(file, "process {}", process::id()).with_context(problem)?;
        Ok(Self { _file: file })
    }
}

/// Who holds the lock, as its file tells; the file may be empty for a moment.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(64).read_to_string(&mut text) {
        Ok(read) if read > 0 => text,
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_second_taker_waits_and_is_told_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/a.lock");
        let first = Lock::take(&path, &mut |_| panic!("nobody holds it")).unwrap();
        let (told, hears) = mpsc::channel();
        let second = thread::spawn({
            let path = path.clone();
            move || Lock::take(&path, &mut |holder| told.send(holder.to_owned()).unwrap()).map(drop)
        });
        assert_eq!(hears.recv().unwrap(), format!("process {}", process::id()));
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap().unwrap();
    }
}
