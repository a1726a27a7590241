use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use crypto::NodePublic;

use super::Refusal;
use super::document::{Document, Kept};

/// The keys that may use the relay, as the coordination server told them last.
#[derive(Debug)]
pub(crate) struct AdmissionSet {
    file: PathBuf,
    /// `None` until one was ever received: nobody is admitted then.
    admitted: RwLock<Option<Admitted>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Admitted {
    /// `None` when a change did not fit: the keys still count, and all of them are asked for.
    version: Option<u64>,
    nodes: HashSet<NodePublic>,
}

/// A change does not start from the version that the relay has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the change starts from version {since}, which is not the one that the relay has")]
pub(crate) struct WrongVersion {
    since: u64,
}

impl AdmissionSet {
    /// The set that is kept in `file`; none when there is no such file.
    ///
    /// A file that can't be read admits nobody, and is reported: it is not the same as no restriction.
    pub(crate) fn load(file: PathBuf) -> Self {
        let admitted = match read(&file) {
            Ok(admitted) => admitted,
            Err(error) => {
                tracing::error!(
                    file = %file.display(), %error,
                    "the kept admission set can't be read: nobody is admitted until the coordination server answers"
                );
                None
            }
        };
        Self { file, admitted: RwLock::new(admitted) }
    }

    pub(crate) fn admits(&self, key: &NodePublic) -> Result<(), Refusal> {
        match self.admitted.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => Err(Refusal::NoSet),
            Some(admitted) if admitted.nodes.contains(key) => Ok(()),
            Some(_) => Err(Refusal::NotAdmitted),
        }
    }

    /// The version of the set, once there is one.
    pub(crate) fn version(&self) -> Option<u64> {
        self.admitted.read().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|admitted| admitted.version)
    }

    /// Has the whole set asked for next, while the keys go on to count.
    pub(crate) fn forget_version(&self) {
        if let Some(admitted) = self.admitted.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            admitted.version = None;
        }
    }

    /// Whether a set was ever received.
    pub(crate) fn is_known(&self) -> bool {
        self.admitted.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// How many keys are admitted.
    pub(crate) fn len(&self) -> usize {
        self.admitted.read().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |admitted| admitted.nodes.len())
    }

    /// Takes what the server said, and hands out the keys that are not admitted any more.
    pub(crate) fn apply(&self, document: Document) -> Result<Vec<NodePublic>, WrongVersion> {
        let mut admitted = self.admitted.write().unwrap_or_else(PoisonError::into_inner);
        match document {
            Document::Whole { version, nodes } => {
                let nodes: HashSet<NodePublic> = nodes.into_iter().collect();
                let before = admitted.take().map(|admitted| admitted.nodes).unwrap_or_default();
                let removed = before.difference(&nodes).copied().collect();
                *admitted = Some(Admitted { version: Some(version), nodes });
                Ok(removed)
            }
            Document::Change { version, since, add, remove } => {
                let current = admitted.as_mut().filter(|current| current.version == Some(since));
                let current = current.ok_or(WrongVersion { since })?;
                current.version = Some(version);
                current.nodes.extend(add);
                Ok(remove.into_iter().filter(|key| current.nodes.remove(key)).collect())
            }
        }
    }

    /// Writes the set to its file, so that a crash at any moment leaves the old or the new one.
    pub(crate) fn keep(&self) -> io::Result<()> {
        let json = {
            let admitted = self.admitted.read().unwrap_or_else(PoisonError::into_inner);
            // Without a version a restart could take a later change for one to what is kept.
            let Some((admitted, version)) = admitted.as_ref().and_then(|it| Some((it, it.version?))) else {
                return Ok(());
            };
            let mut nodes: Vec<&NodePublic> = admitted.nodes.iter().collect();
            nodes.sort_unstable();
            serde_json::to_vec(&Kept { version, nodes })?
        };
        let parent = self.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let new = self.file.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&json)?;
        file.sync_all()?;
        fs::rename(&new, &self.file)?;
        File::open(parent)?.sync_all()
    }
}

fn read(file: &Path) -> io::Result<Option<Admitted>> {
    let json = match fs::read(file) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice(&json)? {
        Document::Whole { version, nodes } => {
            Ok(Some(Admitted { version: Some(version), nodes: nodes.into_iter().collect() }))
        }
        Document::Change { .. } => Err(io::Error::new(io::ErrorKind::InvalidData, "it is a change, not a set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> NodePublic {
        NodePublic::from_bytes([byte; 32])
    }

    fn empty(directory: &tempfile::TempDir) -> AdmissionSet {
        AdmissionSet::load(directory.path().join("admission.json"))
    }

    fn whole(version: u64, bytes: &[u8]) -> Document {
        Document::Whole { version, nodes: bytes.iter().copied().map(key).collect() }
    }

    #[test]
    fn drp_01_nobody_is_admitted_before_a_set_was_received() {
        let directory = tempfile::tempdir().unwrap();
        let set = empty(&directory);
        assert_eq!(set.admits(&key(1)), Err(Refusal::NoSet));
        set.apply(whole(1, &[1])).unwrap();
        assert_eq!(set.admits(&key(1)), Ok(()));
        assert_eq!(set.admits(&key(2)), Err(Refusal::NotAdmitted));
    }

    #[test]
    fn a_change_tells_who_lost_their_place() {
        let directory = tempfile::tempdir().unwrap();
        let set = empty(&directory);
        set.apply(whole(1, &[1, 2])).unwrap();
        let change = |since, remove: &[u8]| Document::Change {
            version: since + 1,
            since,
            add: vec![key(3)],
            remove: remove.iter().copied().map(key).collect(),
        };
        assert_eq!(set.apply(change(1, &[2, 9])), Ok(vec![key(2)]));
        assert_eq!((set.version(), set.len()), (Some(2), 2));
        assert_eq!(set.apply(change(1, &[1])), Err(WrongVersion { since: 1 }));
        assert_eq!(set.admits(&key(1)), Ok(()));
        assert_eq!(set.apply(whole(1, &[3])), Ok(vec![key(1)]));
    }

    #[test]
    fn after_a_change_that_did_not_fit_the_keys_count_on_and_all_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let set = empty(&directory);
        set.apply(whole(7, &[1])).unwrap();
        set.forget_version();
        assert_eq!((set.version(), set.is_known(), set.admits(&key(1))), (None, true, Ok(())));
        set.keep().unwrap();
        assert!(!directory.path().join("admission.json").exists());
    }

    #[test]
    fn a_change_without_a_set_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let change = Document::Change { version: 1, since: 0, add: vec![key(1)], remove: Vec::new() };
        assert!(empty(&directory).apply(change).is_err());
    }

    #[test]
    fn the_set_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let set = empty(&directory);
        set.apply(whole(7, &[1, 2])).unwrap();
        set.keep().unwrap();
        let again = empty(&directory);
        assert_eq!((again.version(), again.len()), (Some(7), 2));
        assert_eq!(again.admits(&key(1)), Ok(()));
    }

    #[test]
    fn drp_01_a_kept_set_that_is_cut_at_any_byte_admits_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let set = empty(&directory);
        set.apply(whole(7, &[1])).unwrap();
        set.keep().unwrap();
        let file = directory.path().join("admission.json");
        let json = fs::read(&file).unwrap();
        for length in 0..json.len() {
            fs::write(&file, &json[..length]).unwrap();
            assert_eq!(empty(&directory).admits(&key(1)), Err(Refusal::NoSet));
        }
    }
}
