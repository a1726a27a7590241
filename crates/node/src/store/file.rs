use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;

use super::lock::StateLock;
use super::{StateChange, StateStore, StoreError};

/// The largest state file that is read.
const MAX_FILE: u64 = 16 << 20;

/// State in one file: a JSON object of base64, readable by its owner only, as the stock client keeps it.
///
/// A change is written beside the file, flushed to the disk and moved over it: a crash at any moment leaves the old or the
/// new state, whole. Nobody else has the state for as long as the value lives.
pub struct FileStore {
    path: PathBuf,
    _lock: StateLock,
    values: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl FileStore {
    /// Opens the state at a path, which need not exist yet; makes its folder.
    ///
    /// # Errors
    /// A file that another daemon has, that others may read, that is no state, or that can't be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::File { path: path.to_owned(), what: "read", source };
        make_folder(path).map_err(failed)?;
        let lock = StateLock::take(path)?;
        let values = match File::open(path) {
            Ok(file) => read(path, file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { path: path.to_owned(), _lock: lock, values: Mutex::new(values) })
    }

    /// Moves the state that an earlier version kept elsewhere to its path, with what lies beside it by the same name. Where
    /// there is none, or state at the path already, nothing is done.
    ///
    /// # Errors
    /// A file that can't be moved, or that another daemon has.
    pub(crate) fn adopt(earlier: &Path, path: &Path) -> Result<(), StoreError> {
        if path.exists() || !earlier.exists() {
            return Ok(());
        }
        let failed = |source| StoreError::File { path: earlier.to_owned(), what: "moved", source };
        make_folder(path).map_err(failed)?;
        let lock = StateLock::take(earlier)?;
        // The state goes last: until it has, the next start begins again.
        for extension in ["netmap", "state"] {
            match std::fs::rename(earlier.with_extension(extension), path.with_extension(extension)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        lock.retire().and_then(|()| sync_folder(path)).and_then(|()| sync_folder(earlier)).map_err(failed)?;
        tracing::info!(from = %earlier.display(), to = %path.display(), "moved the state to its new place");
        Ok(())
    }

    fn write_now(&self, change: &StateChange) -> Result<(), StoreError> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = values.clone();
        merge(&mut next, change);
        let texts: BTreeMap<&String, String> =
            next.iter().map(|(name, value)| (name, STANDARD.encode(value))).collect();
        let json = serde_json::to_vec_pretty(&texts).map_err(|error| StoreError::Other(error.to_string()))?;
        replace(&self.path, &json).map_err(|source| StoreError::File {
            path: self.path.clone(),
            what: "written",
            source,
        })?;
        *values = next;
        Ok(())
    }
}

impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StateStore for FileStore {
    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let value = self.values.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        Box::pin(async move { Ok(value) })
    }

    fn write<'a>(&'a self, change: &'a StateChange) -> BoxFuture<'a, Result<(), StoreError>> {
        // A few kilobytes, rarely: not worth a thread of its own.
        let written = self.write_now(change);
        Box::pin(async move { written })
    }
}

/// Applies a change.
pub(super) fn merge(values: &mut BTreeMap<String, Vec<u8>>, change: &StateChange) {
    for (name, value) in change {
        match value {
            Some(value) => drop(values.insert(name.clone(), value.clone())),
            None => drop(values.remove(name)),
        }
    }
}

/// Puts new content in place of a file, whole or not at all, readable by its owner only.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    // A file left by a crash keeps its mode when it is opened again.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // The old state is untouched; what is left of the new one would only be in the way.
        let _ = std::fs::remove_file(&beside);
        return Err(error);
    }
    std::fs::rename(&beside, path)?;
    sync_folder(path)
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Makes the folder of a file, for its owner only. Folders above it may lead to what belongs to others.
fn make_folder(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    if let Some(above) = folder.parent() {
        std::fs::create_dir_all(above)?;
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn read(path: &Path, file: File) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let failed = |source| StoreError::File { path: path.to_owned(), what: "read", source };
    let malformed = |reason: String| StoreError::Malformed { path: path.to_owned(), reason };
    let about = file.metadata().map_err(failed)?;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(malformed(format!("it is larger than {MAX_FILE} bytes")));
    }
    let texts: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    let decoded = texts.into_iter().map(|(name, text)| match STANDARD.decode(text) {
        Ok(value) => Ok((name, value)),
        Err(error) => Err(malformed(format!("{name} is no base64: {error}"))),
    });
    decoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, value: Option<&str>) -> StateChange {
        [(name.to_owned(), value.map(|value| value.as_bytes().to_vec()))].into()
    }

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/node.state");
        FileStore::open(&path).unwrap().write(&change("_machinekey", Some("secret"))).await.unwrap();
        assert_eq!(mode_of(&path), 0o600);
        let store = FileStore::open(&path).unwrap();
        assert_eq!(store.read("_machinekey").await.unwrap(), Some(b"secret".to_vec()));
        assert_eq!(store.read("other").await.unwrap(), None);
        store.write(&change("_machinekey", None)).await.unwrap();
        drop(store);
        assert_eq!(FileStore::open(&path).unwrap().read("_machinekey").await.unwrap(), None);
    }

    #[test]
    fn only_the_files_own_folder_is_closed_to_others() {
        let home = tempfile::tempdir().unwrap();
        FileStore::open(&home.path().join("towline/node/node.state")).unwrap();
        assert_eq!(mode_of(&home.path().join("towline/node")), 0o700);
        assert_eq!(mode_of(&home.path().join("towline")) & 0o005, 0o005);
    }

    #[tokio::test]
    async fn state_that_an_earlier_version_kept_elsewhere_is_moved_once() {
        let home = tempfile::tempdir().unwrap();
        let (earlier, path) = (home.path().join("node.state"), home.path().join("node/node.state"));
        FileStore::adopt(&earlier, &path).unwrap();
        assert!(!path.exists());
        FileStore::open(&earlier).unwrap().write(&change("a", Some("1"))).await.unwrap();
        std::fs::write(earlier.with_extension("netmap"), "a map").unwrap();
        FileStore::adopt(&earlier, &path).unwrap();
        assert_eq!(FileStore::open(&path).unwrap().read("a").await.unwrap(), Some(b"1".to_vec()));
        assert_eq!(std::fs::read_to_string(path.with_extension("netmap")).unwrap(), "a map");
        // Nothing of it is left there.
        let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["node"]);
        // Whatever comes there later is not this node's.
        FileStore::open(&earlier).unwrap().write(&change("a", Some("2"))).await.unwrap();
        FileStore::adopt(&earlier, &path).unwrap();
        assert_eq!(FileStore::open(&path).unwrap().read("a").await.unwrap(), Some(b"1".to_vec()));
    }

    #[tokio::test]
    async fn a_state_is_one_daemons_until_that_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.state");
        let store = FileStore::open(&path).unwrap();
        // Each write makes another file of the state.
        store.write(&change("a", Some("1"))).await.unwrap();
        for _ in 0..2 {
            let error = FileStore::open(&path).unwrap_err();
            assert!(matches!(&error, StoreError::InUse { path: named } if *named == path), "{error}");
        }
        // Another state in the same folder is nobody's.
        FileStore::open(&folder.path().join("other.state")).unwrap();
        store.write(&change("a", Some("2"))).await.unwrap();
        drop(store);
        assert_eq!(FileStore::open(&path).unwrap().read("a").await.unwrap(), Some(b"2".to_vec()));
    }

    #[tokio::test]
    async fn a_state_that_a_daemon_uses_is_not_moved_from_under_it() {
        let home = tempfile::tempdir().unwrap();
        let (earlier, path) = (home.path().join("node.state"), home.path().join("node/node.state"));
        let store = FileStore::open(&earlier).unwrap();
        store.write(&change("a", Some("1"))).await.unwrap();
        let error = FileStore::adopt(&earlier, &path).unwrap_err();
        assert!(matches!(&error, StoreError::InUse { path } if *path == earlier), "{error}");
        assert!(earlier.exists() && !path.exists());
        drop(store);
        FileStore::adopt(&earlier, &path).unwrap();
        assert_eq!(FileStore::open(&path).unwrap().read("a").await.unwrap(), Some(b"1".to_vec()));
    }

    #[test]
    fn a_folder_that_takes_no_file_is_told_as_one_that_no_state_can_be_written_in() {
        // Nobody makes files there, not even root.
        let error = FileStore::open(Path::new("/proc/self/node.state")).unwrap_err();
        assert!(matches!(&error, StoreError::File { what: "written", .. }), "{error}");
        assert!(error.to_string().starts_with("the state in /proc/self/node.state can't be written: "), "{error}");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.state");
        for mode in [0o666, 0o640, 0o604] {
            std::fs::write(&path, "{}").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = FileStore::open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
    }

    #[tokio::test]
    async fn a_truncated_file_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.state");
        FileStore::open(&path).unwrap().write(&change("_machinekey", Some("secret"))).await.unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = FileStore::open(&path).unwrap_err();
            assert!(matches!(error, StoreError::Malformed { .. }), "{length}: {error}");
            assert_eq!(std::fs::read(&path).unwrap(), &whole[..length]);
        }
    }

    #[tokio::test]
    async fn a_write_that_fails_keeps_the_old_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.state");
        let store = FileStore::open(&path).unwrap();
        store.write(&change("a", Some("1"))).await.unwrap();
        // A folder of the name of the file that is written first is in the way even of root.
        std::fs::create_dir(folder.path().join("node.state.new")).unwrap();
        assert!(matches!(store.write(&change("a", Some("2"))).await, Err(StoreError::File { what: "written", .. })));
        assert_eq!(store.read("a").await.unwrap(), Some(b"1".to_vec()));
        drop(store);
        assert_eq!(FileStore::open(&path).unwrap().read("a").await.unwrap(), Some(b"1".to_vec()));
    }

    #[tokio::test]
    async fn what_a_crash_left_half_written_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.state");
        FileStore::open(&path).unwrap().write(&change("a", Some("1"))).await.unwrap();
        std::fs::write(folder.path().join("node.state.new"), "{\"a\":").unwrap();
        let store = FileStore::open(&path).unwrap();
        assert_eq!(store.read("a").await.unwrap(), Some(b"1".to_vec()));
        store.write(&change("a", Some("2"))).await.unwrap();
        assert_eq!(mode_of(&path), 0o600);
    }
}
