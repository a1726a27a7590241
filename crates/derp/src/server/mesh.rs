//! Several relays of one region that forward to each other.
//!
//! Every relay is a client of every other: it asks to watch the other's connections, remembers which keys are there, and
//! sends packets for them as `ForwardPacket`. A forwarded packet is delivered or dropped, never forwarded again.

mod peer;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crypto::NodePublic;

pub(crate) use peer::keep_meshed;

use super::hub::Connection;
use super::outbox::Outbox;

/// The secret that the relays of a mesh share: 32 bytes, as 64 hex digits on the wire and in files.
#[derive(Clone)]
pub struct MeshKey {
    text: String,
    /// What is compared: how long it takes tells nothing of the key.
    digest: [u8; 32],
}

/// A mesh key is not 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a mesh key must be 64 hex digits; make one with `openssl rand -hex 32`")]
pub struct MeshKeyError;

impl MeshKey {
    /// Reads 64 hex digits; white space around them is ignored.
    pub fn from_text(text: &str) -> Result<Self, MeshKeyError> {
        let text = text.trim().to_ascii_lowercase();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(MeshKeyError);
        }
        Ok(Self { digest: crypto::sha256(text.as_bytes()), text })
    }

    /// Whether a client that presents `text` belongs to the mesh.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.digest == crypto::sha256(text.to_ascii_lowercase().as_bytes())
    }

    /// The 64 hex digits, secret as they are.
    pub(crate) fn expose_text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey")
    }
}

/// The relays that want to know who comes and goes here.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    connections: RwLock<Vec<Arc<Connection>>>,
}

impl Watchers {
    pub(crate) fn add(&self, watcher: Arc<Connection>) {
        self.connections.write().unwrap_or_else(PoisonError::into_inner).push(watcher);
    }

    pub(crate) fn remove(&self, watcher: &Connection) {
        self.connections.write().unwrap_or_else(PoisonError::into_inner).retain(|other| other.id != watcher.id);
    }

    pub(crate) fn tell(&self, key: NodePublic) {
        for watcher in self.connections.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if watcher.key != key {
                watcher.outbox.push_change(key);
            }
        }
    }
}

/// Another relay of the mesh, and what waits to be sent to it.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    pub(crate) outbox: Outbox,
}

/// Which keys are clients of which other relays.
#[derive(Debug, Default)]
pub(crate) struct Forwarders {
    ways: RwLock<HashMap<NodePublic, Vec<Arc<Remote>>>>,
}

impl Forwarders {
    /// A relay that has this client; with several, the one that had it first.
    pub(crate) fn find(&self, client: &NodePublic) -> Option<Arc<Remote>> {
        self.ways.read().unwrap_or_else(PoisonError::into_inner).get(client)?.first().cloned()
    }

    pub(crate) fn add(&self, client: NodePublic, remote: &Arc<Remote>) {
        let mut ways = self.ways.write().unwrap_or_else(PoisonError::into_inner);
        let remotes = ways.entry(client).or_default();
        if !remotes.iter().any(|other| Arc::ptr_eq(other, remote)) {
            remotes.push(remote.clone());
        }
    }

    pub(crate) fn remove(&self, client: &NodePublic, remote: &Arc<Remote>) {
        let mut ways = self.ways.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(remotes) = ways.get_mut(client) {
            remotes.retain(|other| !Arc::ptr_eq(other, remote));
            if remotes.is_empty() {
                ways.remove(client);
            }
        }
    }

    /// Forgets a relay whose connection ended.
    pub(crate) fn remove_all(&self, remote: &Arc<Remote>) {
        self.ways.write().unwrap_or_else(PoisonError::into_inner).retain(|_, remotes| {
            remotes.retain(|other| !Arc::ptr_eq(other, remote));
            !remotes.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: NodePublic = NodePublic::from_bytes([1; 32]);

    #[test]
    fn a_mesh_key_is_64_hex_digits_and_never_shown() {
        let text = "0123456789abcdef".repeat(4);
        let key = MeshKey::from_text(&format!(" {text}\n")).unwrap();
        assert!(key.is(&text) && key.is(&text.to_uppercase()));
        assert!(!format!("{key:?}").contains("0123"));
        for bad in ["", "0123", &text[1..], &format!("{text}0"), &"g".repeat(64)] {
            assert_eq!(MeshKey::from_text(bad).err(), Some(MeshKeyError));
            assert!(!key.is(bad));
        }
    }

    #[test]
    fn drp_08_any_difference_of_a_mesh_key_is_found_without_comparing_the_key_itself() {
        let text = "0123456789abcdef".repeat(4);
        let key = MeshKey::from_text(&text).unwrap();
        for at in 0..64 {
            let mut other = text.clone();
            other.replace_range(at..=at, if &text[at..=at] == "0" { "1" } else { "0" });
            assert!(!key.is(&other));
        }
    }

    #[test]
    fn a_client_is_reached_by_the_relay_that_has_it_until_that_goes() {
        let forwarders = Forwarders::default();
        let (a, b) = (Arc::new(Remote::default()), Arc::new(Remote::default()));
        forwarders.add(CLIENT, &a);
        forwarders.add(CLIENT, &b);
        forwarders.add(CLIENT, &b);
        assert!(Arc::ptr_eq(&forwarders.find(&CLIENT).unwrap(), &a));
        forwarders.remove_all(&a);
        assert!(Arc::ptr_eq(&forwarders.find(&CLIENT).unwrap(), &b));
        forwarders.remove(&CLIENT, &b);
        assert!(forwarders.find(&CLIENT).is_none());
    }
}
