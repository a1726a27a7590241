use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;
use crypto::MachinePrivate;

use crate::files;

/// The folder that a server keeps everything in, held so that no second server uses it.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// Its lock ends with the process, however that ends.
    _lock: File,
}

impl DataFolder {
    /// Opens the folder of a server that was set up.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let folder = Self::lock(path)?;
        anyhow::ensure!(
            folder.database().exists(),
            "there is no server in {path:?}: set one up with `towline control init --data {}`",
            path.display()
        );
        Ok(folder)
    }

    /// Takes a folder in which a server is to be set up, or whose setting up was cut off.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        files::private_folder(path)?;
        Self::lock(path)
    }

    /// Whether another process has the folder: a server that runs, or one that is being set up.
    pub(crate) fn is_in_use(path: &Path) -> bool {
        File::open(path.join("lock")).is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    fn lock(path: &Path) -> anyhow::Result<Self> {
        let file = path.join("lock");
        let lock = File::create(&file)
            .with_context(|| format!("can't use the folder {path:?}; is it there, and may this user write to it?"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("another server uses the folder {path:?}: stop it first, or give this one another folder")
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("can't lock {file:?}")),
        }
    }

    /// Where the database of a folder is.
    pub(crate) fn database_in(folder: &Path) -> PathBuf {
        folder.join("control.db")
    }

    /// What is in a folder from the first step of setting a server up to the last, so that a run that was cut off is known.
    pub(crate) fn mark_in(folder: &Path) -> PathBuf {
        folder.join("init.unfinished")
    }

    /// What belongs to the database of a folder and to no other.
    pub(crate) fn secrets_in(folder: &Path) -> [PathBuf; 2] {
        [folder.join("noise.key"), folder.join("authority")]
    }

    /// Where the database is.
    pub(crate) fn database(&self) -> PathBuf {
        Self::database_in(&self.path)
    }

    /// Where the certificate authority is.
    pub(crate) fn authority(&self) -> PathBuf {
        let [_, authority] = Self::secrets_in(&self.path);
        authority
    }

    /// Where the server's Noise key is.
    pub(crate) fn key_file(&self) -> PathBuf {
        let [key, _] = Self::secrets_in(&self.path);
        key
    }

    /// The server's Noise key.
    pub(crate) fn machine_key(&self) -> anyhow::Result<MachinePrivate> {
        let path = self.key_file();
        let bytes = zeroize::Zeroizing::new(files::read_private(&path)?);
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        MachinePrivate::from_text(text).with_context(|| format!("the file {path:?} holds no Noise key"))
    }
}
