use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::AllowedIps;
use roaring::RoaringTreemap;
use tailcfg::{DnsConfig, Node as WireNode, NodeId, UserId, UserProfile};

/// What a map stream was last sent, as far as the next message depends on it.
///
/// Peers are remembered as a set; how each was, the tailnet's stamps tell.
#[derive(Debug, Clone)]
pub struct Viewer {
    node: NodeId,
    /// The tailnet's tick up to which everything was sent; zero before the first message.
    pub(super) seen: u64,
    pub(super) visible: RoaringTreemap,
    /// What it was told of the addresses of peers that have, for it, more or less than their own.
    pub(super) special: BTreeMap<NodeId, AllowedIps>,
    pub(super) self_node: Option<WireNode>,
    pub(super) chunks: BTreeSet<String>,
    /// The hash of the policy of SSH that it was sent, which may be long. None before the first that has rules: a client that
    /// was never sent a policy refuses everybody.
    pub(super) ssh: Option<[u8; 32]>,
    pub(super) profiles: BTreeMap<UserId, Arc<UserProfile>>,
    pub(super) dns: Option<DnsConfig>,
}

impl Viewer {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            seen: 0,
            visible: RoaringTreemap::new(),
            special: BTreeMap::new(),
            self_node: None,
            chunks: BTreeSet::new(),
            ssh: None,
            profiles: BTreeMap::new(),
            dns: None,
        }
    }

    /// The device whose stream this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How many peers it was told of.
    pub fn peers(&self) -> u64 {
        self.visible.len()
    }

    /// Whether nothing was sent yet.
    pub(super) fn is_first(&self) -> bool {
        self.seen == 0
    }
}
