//! Where a world keeps what it must remember: one folder in memory, one on disk, and a lock.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::plan::is_label;

/// Where worlds have their folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ground {
    /// Parent of all worlds' folders of records, sockets and keys.
    records: &'static str,
    /// Parent of all worlds' folders of logs, container storage and programs.
    disk: &'static str,
}

/// The laboratory's own: whatever lies here is a world's.
const OWN: Ground = Ground { records: "/run/towline-lab", disk: "/var/lib/towline-lab" };

/// Where earlier builds made worlds: among what the product keeps on a machine that it is installed on.
const SHARED: Ground = Ground { records: "/run/towline", disk: "/var/lib/towline" };

/// Name of a world: also the name of its folders and cgroups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorldName(String);

impl WorldName {
    /// Parses a name: at most 32 of `a-z`, `0-9` and inner `-`.
    ///
    /// # Errors
    /// When it is none; it would not do as a folder's name.
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(is_label(text, 32), "world name {text:?}: take 1 to 32 of a-z, 0-9 and - (not first or last)");
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for WorldName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Both folders of one world.
#[derive(Clone, Debug)]
pub(crate) struct WorldFolder {
    name: WorldName,
    ground: Ground,
}

impl WorldFolder {
    pub(crate) fn new(name: WorldName) -> Self {
        Self { name, ground: OWN }
    }

    /// The folders that an earlier build has made for a world of this name, where there are any: it can only be taken down.
    pub(crate) fn earlier(name: &WorldName) -> Option<Self> {
        let folder = Self { name: name.clone(), ground: SHARED };
        // A server or node of the product on this machine has neither.
        let is_world = folder.records().join("lock").exists() || folder.own_programs().join("lab-init").exists();
        is_world.then_some(folder)
    }

    pub(crate) fn name(&self) -> &WorldName {
        &self.name
    }

    /// All worlds that have left a folder on this machine, in the order of their names; those of earlier builds too.
    pub(crate) fn all() -> Vec<Self> {
        let names_in = |parent: &str| {
            let entries = fs::read_dir(parent).into_iter().flatten().flatten();
            entries.filter_map(|entry| WorldName::parse(entry.file_name().to_str()?).ok()).collect::<BTreeSet<_>>()
        };
        let own = &names_in(OWN.records) | &names_in(OWN.disk);
        let shared = &names_in(SHARED.records) | &names_in(SHARED.disk);
        let mut all: Vec<Self> = own.into_iter().map(Self::new).collect();
        all.extend(shared.iter().filter_map(Self::earlier));
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    pub(crate) fn records(&self) -> PathBuf {
        Path::new(self.ground.records).join(self.name.as_str())
    }

    pub(crate) fn disk(&self) -> PathBuf {
        Path::new(self.ground.disk).join(self.name.as_str())
    }

    /// Parents of all worlds' folders.
    pub(crate) fn parents(&self) -> [&'static str; 2] {
        [self.ground.records, self.ground.disk]
    }

    /// What is this world's on disk: its whole folder, and where somebody else may use that too, only what worlds make.
    pub(crate) fn removed_from_disk(&self) -> Vec<PathBuf> {
        match self.ground == OWN {
            true => vec![self.disk()],
            false => ["boxes", "log", "own"].iter().map(|name| self.disk().join(name)).collect(),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.records().exists() || self.disk().exists()
    }

    pub(crate) fn of_box(&self, name: &str) -> PathBuf {
        self.records().join("boxes").join(name)
    }

    pub(crate) fn disk_of_box(&self, name: &str) -> PathBuf {
        self.disk().join("boxes").join(name)
    }

    pub(crate) fn log(&self, name: &str, daemon: &str) -> PathBuf {
        self.disk().join("log").join(name).join(format!("{daemon}.log"))
    }

    /// Programs of this world that do not come from the cache; boxes see them as `/opt/towline/own`.
    pub(crate) fn own_programs(&self) -> PathBuf {
        self.disk().join("own")
    }

    /// Takes the world's lock and makes its folders; waits at most `limit` for another holder.
    ///
    /// # Errors
    /// When another process holds the world for longer than `limit`, or a folder cannot be made.
    pub(crate) fn lock(&self, limit: Duration) -> Result<WorldLock> {
        let deadline = Instant::now() + limit;
        let path = self.records().join("lock");
        loop {
            create_private(&self.records())?;
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = match opened {
                // The last holder took the world down just now, folder and all.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("opening {}", path.display()))?,
            };
            // The kernel has no lock with a time-out that could be waited for: a short pause it is.
            while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                if Instant::now() >= deadline {
                    bail!("world {} is being changed by another process; try again when it is done", self.name);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            // A folder taken down and made anew has another lock file.
            let held = file.metadata().context("looking at the lock")?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == held) {
                create_private(&self.disk())?;
                return Ok(WorldLock { _file: file });
            }
        }
    }
}

/// The exclusive right to change a world; ends when dropped, or with the process.
#[derive(Debug)]
pub(crate) struct WorldLock {
    _file: File,
}

/// Makes a folder that only root may enter, because keys lie in it.
pub(crate) fn create_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("making {} (is this root?)", path.display()))
}

/// Writes a record so that a reader, or a crash, meets the old one or the new one and never half of it.
pub(crate) fn write_record(path: &Path, record: &impl Serialize) -> Result<()> {
    let what = || format!("writing {}", path.display());
    write_whole(path, &serde_json::to_vec_pretty(record).with_context(what)?, 0o600)
}

/// Writes a file as a whole, by way of a neighbour that takes its name.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let what = || format!("writing {}", path.display());
    if let Some(folder) = path.parent() {
        create_private(folder)?;
    }
    let mut neighbour = path.as_os_str().to_owned();
    neighbour.push(".new");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&neighbour).with_context(what)?;
    file.write_all(content).with_context(what)?;
    fs::rename(&neighbour, path).with_context(what)
}

/// Reads a record; `None` when there is none.
pub(crate) fn read_record<R: DeserializeOwned>(path: &Path) -> Result<Option<R>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_cannot_be_called_like_a_path() {
        assert!(WorldName::parse("demo").is_ok());
        for wrong in ["", ".", "..", "a/b", "Demo", "a_b"] {
            assert!(WorldName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_record_is_replaced_as_a_whole() {
        let folder = std::env::temp_dir().join(format!("lab-record-{}", std::process::id()));
        let path = folder.join("record.json");
        assert_eq!(read_record::<Vec<u32>>(&path).unwrap(), None);
        write_record(&path, &[1, 2, 3]).unwrap();
        write_record(&path, &[4]).unwrap();
        assert_eq!(read_record::<Vec<u32>>(&path).unwrap(), Some(vec![4]));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
