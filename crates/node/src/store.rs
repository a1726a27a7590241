use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use futures_util::future::BoxFuture;

mod file;
mod lock;
mod memory;

pub use file::FileStore;
pub(crate) use file::replace;
pub use memory::MemoryStore;

/// What is to become of some keys: a value, or none any more.
pub type StateChange = BTreeMap<String, Option<Vec<u8>>>;

/// Where a node keeps what it must not lose: its keys and its settings, by name.
///
/// The names and values are those of the stock client, so that the state of one can be taken over by the other.
pub trait StateStore: Send + Sync + fmt::Debug {
    /// What is kept under a name; `None` when nothing is.
    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>>;

    /// Changes some names at once: after a crash either all of it is there or nothing.
    fn write<'a>(&'a self, change: &'a StateChange) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// Why a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be read, written or moved.
    #[error("the state in {} can't be {what}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read`, `written`, `moved` or `locked`.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is there and is not what it should be. It is left as it is.
    #[error("{} holds no state: {reason}; move it away to start with new keys (the node has to log in again then)", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Others than the file's owner may read the keys in it.
    #[error(
        "{} holds private keys and others may read it (mode {mode:03o}); make it private: chmod 600 {}",
        path.display(),
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another daemon keeps its state there.
    #[error(
        "another daemon uses the state in {}: with one state two daemons would be one device, and each would write over what the other keeps; stop the other one, or give this one a --state of its own",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Another kind of store failed.
    #[error("{0}")]
    Other(String),
}
