use std::net::IpAddr;
use std::sync::Arc;

use tailcfg::Node;

use crate::{Netmap, Preferences};

/// The exit node that the user wants, as far as the map knows it.
#[derive(Debug, Clone, PartialEq)]
pub enum ExitNode {
    /// None is wanted.
    None,
    /// One is wanted that the map does not have, or that offers no default route: nothing may leave the machine.
    Missing,
    /// It is this peer.
    Peer(Arc<Node>),
}

/// Why a text names no exit node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExitNodeError {
    /// No peer has this name, address or id.
    #[error("no peer is called {0:?}; `towline status` lists them")]
    Unknown(String),
    /// The peer doesn't offer it.
    #[error("{0} does not offer to be an exit node, or its offer is not approved")]
    NotOffered(String),
    /// Several peers have this name.
    #[error("more than one peer is called {0:?}; use the full name or the address")]
    Ambiguous(String),
}

impl ExitNode {
    /// Finds the exit node that the preferences name.
    pub(crate) fn of(netmap: &Netmap, preferences: &Preferences) -> Self {
        if !preferences.wants_exit_node() {
            return Self::None;
        }
        let by_id = || netmap.peers().values().find(|peer| peer.stable_id == preferences.exit_node_id);
        let found = match preferences.exit_node_ip {
            Some(address) if preferences.exit_node_id.0.is_empty() => netmap.node_at(address),
            _ => by_id(),
        };
        match found {
            Some(peer) if is_offered(peer) => Self::Peer(peer.clone()),
            _ => Self::Missing,
        }
    }

    /// Finds a peer that may be used as an exit node by its name, address or stable id.
    ///
    /// # Errors
    /// No such peer, several, or one that offers no default route.
    pub fn find(netmap: &Netmap, text: &str) -> Result<Arc<Node>, ExitNodeError> {
        let name = text.trim_end_matches('.');
        let is_named = |peer: &&Arc<Node>| {
            let full = peer.name.trim_end_matches('.');
            let first = full.split('.').next().unwrap_or_default();
            full.eq_ignore_ascii_case(name) || first.eq_ignore_ascii_case(name) || peer.stable_id.0 == text
        };
        let peer = match text.parse::<IpAddr>() {
            Ok(address) => netmap.node_at(address).filter(|node| node.id != netmap.node().id),
            Err(_) => {
                let mut named = netmap.peers().values().filter(is_named);
                let first = named.next();
                if named.next().is_some() {
                    return Err(ExitNodeError::Ambiguous(text.to_owned()));
                }
                first
            }
        };
        let peer = peer.ok_or_else(|| ExitNodeError::Unknown(text.to_owned()))?;
        if is_offered(peer) { Ok(peer.clone()) } else { Err(ExitNodeError::NotOffered(peer.name.clone())) }
    }

    /// Whether this is the exit node in use.
    pub(crate) fn is(&self, node: &Node) -> bool {
        matches!(self, Self::Peer(peer) if peer.id == node.id)
    }
}

/// Whether a peer offers a default route.
pub(crate) fn is_offered(node: &Node) -> bool {
    node.allowed_ips().iter().any(|prefix| prefix.prefix_len() == 0)
}
