use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kubeapi::{ConfigError, NodeConfig};
use telemetry::Shutdown;
use tokio::sync::watch;

mod changes;

use changes::Changes;

/// The longest configuration file that is read, in bytes: a Secret is no longer.
const MAX_FILE: u64 = 1 << 20;
/// How often the folder is looked at when nothing tells that it changed.
const LOOK: Duration = Duration::from_secs(10);

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("the configuration folder {} can't be read: {source}; is the config Secret mounted there?", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("{} has no file cap-N.hujson; has the operator written the config Secret?", path.display())]
    Empty { path: PathBuf },
    #[error(
        "{} has configuration for version {oldest} and later only, and this program is of version {own}; use a newer image",
        path.display()
    )]
    TooNew { path: PathBuf, oldest: u32, own: u32 },
    #[error("the configuration {} can't be read: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the configuration {} is longer than {MAX_FILE} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Content { path: PathBuf, source: ConfigError },
}

/// Reads the configuration that is meant for programs of version `own`.
pub(crate) fn read(folder: &Path, own: u32) -> Result<NodeConfig, SettingsError> {
    let unreadable = |source| SettingsError::Folder { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        names.extend(entry.map_err(unreadable)?.file_name().into_string());
    }
    let version = pick(names.iter().map(String::as_str), own).map_err(|oldest| match oldest {
        Some(oldest) => SettingsError::TooNew { path: folder.to_owned(), oldest, own },
        None => SettingsError::Empty { path: folder.to_owned() },
    })?;
    let path = folder.join(format!("cap-{version}.hujson"));
    let unreadable = |source| SettingsError::File { path: path.clone(), source };
    let mut text = Vec::new();
    File::open(&path).map_err(unreadable)?.take(MAX_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(SettingsError::TooLong { path });
    }
    NodeConfig::read(&text).map_err(|source| SettingsError::Content { path, source })
}

/// The highest version among `cap-N.hujson` that is not above `own`; else the lowest there is, if any.
fn pick<'a>(names: impl Iterator<Item = &'a str>, own: u32) -> Result<u32, Option<u32>> {
    let versions: Vec<u32> = names.filter_map(version).collect();
    versions.iter().copied().filter(|version| *version <= own).max().ok_or_else(|| versions.iter().copied().min())
}

fn version(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("cap-")?.strip_suffix(".hujson")?;
    // A sign or a leading zero would be another file than the one that is opened.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

/// Follows the configuration: what it says, as it changes, and nothing before it could be read once.
///
/// A configuration that can't be read changes nothing: the last good one stays in force.
pub(crate) fn follow(folder: PathBuf, own: u32, shutdown: &Shutdown) -> watch::Receiver<Option<Arc<NodeConfig>>> {
    let (sender, receiver) = watch::channel(None);
    let ends = shutdown.token();
    tokio::spawn(async move {
        let mut changes = Changes::of(&folder);
        let mut complaint = String::new();
        loop {
            take(&folder, own, &sender, &mut complaint);
            tokio::select! {
                () = ends.cancelled() => return,
                () = sender.closed() => return,
                () = changes.next() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    });
    receiver
}

fn take(folder: &Path, own: u32, sender: &watch::Sender<Option<Arc<NodeConfig>>>, complaint: &mut String) {
    match read(folder, own) {
        Ok(config) => {
            complaint.clear();
            sender.send_if_modified(|current| {
                let differs = current.as_deref() != Some(&config);
                if differs {
                    tracing::info!(%config, "the configuration was read");
                    *current = Some(Arc::new(config));
                }
                differs
            });
        }
        Err(error) => {
            let error = error.to_string();
            if error != *complaint {
                tracing::warn!(%error, "there is no new configuration");
                *complaint = error;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const OWN: u32 = 131;

    fn config(hostname: &str) -> Vec<u8> {
        NodeConfig::of_proxy("https://control.example.com", hostname).write()
    }

    /// Lays files out as kubelet does: each a link through `..data`, which is swapped as a whole.
    fn publish(folder: &Path, generation: &str, files: &[(&str, &[u8])]) {
        std::fs::create_dir(folder.join(generation)).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(generation).join(name), text).unwrap();
            if !folder.join(name).exists() {
                symlink(format!("..data/{name}"), folder.join(name)).unwrap();
            }
        }
        symlink(generation, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }

    #[test]
    fn the_highest_version_that_is_not_above_ours_is_picked() {
        let names = ["cap-95.hujson", "cap-107.hujson", "cap-131.hujson", "cap-200.hujson", "cap-x.hujson", "..data"];
        assert_eq!(pick(names.into_iter(), OWN), Ok(131));
        assert_eq!(pick(names.into_iter(), 106), Ok(95));
        assert_eq!(pick(names.into_iter(), 94), Err(Some(95)));
        assert_eq!(
            pick(["cap-+95.hujson", "cap-095.hujson", "cap-.hujson", "cap-99999999999.hujson"].into_iter(), OWN),
            Err(None)
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = |own| read(folder.path(), own).unwrap_err().to_string();
        assert!(error(OWN).contains("has no file cap-N.hujson"), "{}", error(OWN));
        publish(folder.path(), "..1", &[("cap-200.hujson", &config("a"))]);
        assert!(error(OWN).contains("for version 200 and later only"), "{}", error(OWN));
        std::fs::write(folder.path().join("cap-95.hujson"), "{").unwrap();
        assert!(error(OWN).contains("cap-95.hujson: the configuration is not one"), "{}", error(OWN));
        let missing = read(&folder.path().join("none"), OWN).unwrap_err().to_string();
        assert!(missing.contains("is the config Secret mounted there?"), "{missing}");
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/dev/zero", folder.path().join("cap-95.hujson")).unwrap();
        assert!(matches!(read(folder.path(), OWN), Err(SettingsError::TooLong { .. })));
    }

    #[tokio::test]
    async fn a_swap_of_the_folder_is_followed_and_a_broken_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let mut settings = follow(folder.path().to_owned(), OWN, &shutdown);
        assert!(settings.borrow().is_none());
        // Every wait is for an event of inotify, far below the time of LOOK.
        let mut published = async |generation: &str, text: &[u8]| {
            publish(folder.path(), generation, &[("cap-95.hujson", text)]);
            tokio::time::timeout(LOOK / 2, settings.changed()).await.ok()?.ok()?;
            settings.borrow_and_update().as_ref()?.hostname.clone()
        };
        assert_eq!(published("..1", &config("a")).await.as_deref(), Some("a"));
        assert_eq!(published("..2", &config("b")).await.as_deref(), Some("b"));
        publish(folder.path(), "..3", &[("cap-95.hujson", b"{")]);
        let mut published = async |generation: &str, text: &[u8]| {
            publish(folder.path(), generation, &[("cap-95.hujson", text)]);
            tokio::time::timeout(LOOK / 2, settings.changed()).await.ok()?.ok()?;
            settings.borrow_and_update().as_ref()?.hostname.clone()
        };
        assert_eq!(published("..4", &config("c")).await.as_deref(), Some("c"));
        shutdown.request();
    }
}
