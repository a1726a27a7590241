//! What relays are told: whose traffic they carry.

use std::time::Duration;

use crypto::NodePublic;
use serde::Serialize;

use super::Coordination;

/// The keys that relays admit, as they read it.
#[derive(Debug, Serialize)]
pub(crate) struct AdmissionSet {
    version: u64,
    nodes: Vec<NodePublic>,
}

impl Coordination {
    /// The keys of all devices that take part, as soon as they differ from a version that the relay has.
    ///
    /// `None` when nothing changed for as long as the relay wants to wait.
    pub(crate) async fn admission_since(&self, known: Option<u64>, wait: Duration) -> Option<AdmissionSet> {
        let mut versions = self.admission.subscribe();
        let changed = versions.wait_for(|version| Some(*version) != known);
        tokio::select! {
            version = changed => drop(version.ok()?),
            () = tokio::time::sleep(wait) => return None,
            () = self.stop.cancelled() => return None,
        }
        // The version is read before the keys: a change in between is told again, never missed.
        let version = *self.admission.borrow();
        let server = self.server();
        let mut nodes: Vec<_> = server.tailnets().flat_map(tailnet::Tailnet::admitted_keys).collect();
        nodes.sort_unstable();
        Some(AdmissionSet { version, nodes })
    }

    /// Whether a relay that asks about a single device may let it in.
    pub(crate) fn admits(&self, key: &NodePublic) -> bool {
        let server = self.server();
        let Some((tailnet, node)) = server.registry().node_by_key(key) else { return false };
        server.tailnet(tailnet).is_some_and(|tailnet| tailnet.is_admitted(node))
    }
}
