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

    /// Takes a folder for a server that is to be set up.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        files::private_folder(path)?;
        let folder = Self::lock(path)?;
        for file in [folder.database(), folder.key_file(), folder.authority()] {
            anyhow::ensure!(!file.exists(), "there is a server in {path:?} already ({file:?} exists)");
        }
        Ok(folder)
    }

    /// Whether a server was set up in a folder.
    pub(crate) fn is_taken(path: &Path) -> bool {
        database(path).exists()
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

    /// Where the database is.
    pub(crate) fn database(&self) -> PathBuf {
        database(&self.path)
    }

    /// Where the certificate authority is.
    pub(crate) fn authority(&self) -> PathBuf {
        self.path.join("authority")
    }

    /// Where the server's Noise key is.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.path.join("noise.key")
    }

    /// The server's Noise key.
    pub(crate) fn machine_key(&self) -> anyhow::Result<MachinePrivate> {
        let path = self.key_file();
        let bytes = zeroize::Zeroizing::new(files::read_private(&path)?);
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        MachinePrivate::from_text(text).with_context(|| format!("the file {path:?} holds no Noise key"))
    }
}

fn database(folder: &Path) -> PathBuf {
    folder.join("control.db")
}
