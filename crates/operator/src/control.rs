//! What the operator asks of a coordination server: keys to let devices in, and to remove devices.

mod rest;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::proxy::KeyHealth;

pub use rest::{Credentials, RestControl, RestSettings};

/// Keys that let devices in.
#[async_trait]
pub trait Keys: Send + Sync {
    /// Makes a key for one device with these tags. `description` is how the key is found again.
    async fn mint(&self, description: &str, tags: &[String]) -> Result<MintedKey, ControlError>;

    /// Whether a key still lets somebody in; one that is not known does not.
    async fn health(&self, id: &str) -> Result<KeyHealth, ControlError>;

    /// The ids of the keys with this description.
    async fn find(&self, description: &str) -> Result<Vec<String>, ControlError>;

    /// Takes a key away; one that is not known is away.
    async fn revoke(&self, id: &str) -> Result<(), ControlError>;
}

/// Devices of the tailnet.
#[async_trait]
pub trait Devices: Send + Sync {
    /// The tags of a device; `None` when there is none of that id.
    async fn tags(&self, id: &str) -> Result<Option<Vec<String>>, ControlError>;

    /// Removes a device; one that is not known is removed.
    async fn remove(&self, id: &str) -> Result<(), ControlError>;
}

/// A coordination server.
pub trait Control: Keys + Devices {}

impl<T: Keys + Devices> Control for T {}

/// A key that was just made.
#[derive(Clone, PartialEq, Eq)]
pub struct MintedKey {
    /// Its id.
    pub id: String,
    /// The key itself.
    pub secret: String,
    /// When it stops to work.
    pub expires: Option<Timestamp>,
}

impl std::fmt::Debug for MintedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why the server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// What happened, in a sentence.
    pub message: String,
    /// Whether the same may work later without any change.
    pub passing: bool,
}
