use std::collections::{BTreeMap, BTreeSet};

use crypto::NodePublic;
use tailcfg::{MapResponse, Node, NodeId};

use super::Netmap;

/// The most peers that a node holds.
const MAX_PEERS: usize = 100_000;
/// The most endpoints that one node may have.
const MAX_ENDPOINTS: usize = 256;
/// The most addresses and routes that one node may have.
const MAX_PREFIXES: usize = 4_096;
/// The most users that a node remembers.
pub(super) const MAX_USERS: usize = 200_000;
/// The most chunks that a packet filter may be sent in.
const MAX_CHUNKS: usize = 4_096;
/// The most warnings that are kept.
const MAX_WARNINGS: usize = 256;
/// The most relay regions.
const MAX_REGIONS: usize = 1_024;

/// Why a map message was not taken. The last good map stays; the whole map is to be asked for again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The first message of a stream must hold the node itself.
    #[error("the coordination server's first map lacked the node itself")]
    NoNode,
    /// A node without a number or a key.
    #[error("the map has a node without {0}")]
    Incomplete(&'static str),
    /// One number stands twice in one list.
    #[error("the map names node {0} twice")]
    Duplicate(NodeId),
    /// Two nodes have one node key.
    #[error("nodes {0} and {1} of the map have the same node key")]
    SharedKey(NodeId, NodeId),
    /// The map would be larger than a node holds.
    #[error("the map has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many may be.
        limit: usize,
    },
}

/// Checks a message against the map that it is to be merged into.
pub(super) fn message(netmap: &Netmap, message: &MapResponse) -> Result<(), MapError> {
    if let Some(node) = &message.node {
        self::node(node)?;
    }
    for list in [&message.peers, &message.peers_changed] {
        let mut seen = BTreeSet::new();
        for peer in list {
            node(peer)?;
            if !seen.insert(peer.id) {
                return Err(MapError::Duplicate(peer.id));
            }
        }
    }
    for patch in &message.peers_changed_patch {
        limit(patch.endpoints.as_ref().map_or(0, Vec::len), MAX_ENDPOINTS, "endpoints of one node")?;
        if patch.key.is_some_and(|key| key.is_zero()) {
            return Err(MapError::Incomplete("a node key"));
        }
    }
    limit(message.packet_filters.len() + netmap.filter.len(), MAX_CHUNKS, "chunks of the packet filter")?;
    limit(message.user_profiles.len() + netmap.users.len(), MAX_USERS, "users")?;
    limit(message.health.as_ref().map_or(0, Vec::len), MAX_WARNINGS, "warnings")?;
    limit(message.display_messages.len() + netmap.messages.len(), MAX_WARNINGS, "warnings")?;
    let regions = message.derp_map.as_ref().and_then(|map| map.regions.as_ref());
    limit(regions.map_or(0, std::collections::BTreeMap::len), MAX_REGIONS, "relay regions")?;
    peers(netmap, message)
}

/// Checks one node by itself.
pub(super) fn node(node: &Node) -> Result<(), MapError> {
    if node.id == NodeId::default() {
        return Err(MapError::Incomplete("a number"));
    }
    if node.key.is_zero() {
        return Err(MapError::Incomplete("a node key"));
    }
    limit(node.endpoints.len(), MAX_ENDPOINTS, "endpoints of one node")?;
    limit(node.addresses.len() + node.allowed_ips().len(), MAX_PREFIXES, "addresses and routes of one node")
}

/// Checks that the peers that come of a message are not too many and have a key each of their own.
fn peers(netmap: &Netmap, message: &MapResponse) -> Result<(), MapError> {
    let touches_keys = message.peers_changed_patch.iter().any(|patch| patch.key.is_some());
    if message.peers.is_empty() && message.peers_changed.is_empty() && !touches_keys {
        return Ok(());
    }
    let mut keys: BTreeMap<NodeId, NodePublic> = if message.peers.is_empty() {
        netmap.peers.values().map(|peer| (peer.id, peer.key)).collect()
    } else {
        BTreeMap::new()
    };
    for id in &message.peers_removed {
        keys.remove(id);
    }
    keys.extend(message.peers.iter().chain(&message.peers_changed).map(|peer| (peer.id, peer.key)));
    for patch in &message.peers_changed_patch {
        if let (Some(key), Some(known)) = (patch.key, keys.get_mut(&patch.node_id)) {
            *known = key;
        }
    }
    limit(keys.len(), MAX_PEERS, "peers")?;
    let mut owners = BTreeMap::new();
    for (id, key) in keys {
        if let Some(other) = owners.insert(key, id) {
            return Err(MapError::SharedKey(other, id));
        }
    }
    Ok(())
}

fn limit(count: usize, limit: usize, what: &'static str) -> Result<(), MapError> {
    if count > limit { Err(MapError::TooMany { what, limit }) } else { Ok(()) }
}
