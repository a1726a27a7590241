use std::collections::BTreeSet;
use std::sync::Arc;

use crypto::{MachinePublic, NodePublic};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tailcfg::{CapabilityVersion, Hostinfo, NodeId, StableNodeId, UserId};

use crate::address::Addresses;
use crate::name::Label;
use crate::secret::KeyId;
use crate::tag::Tag;

/// A device of a tailnet, as far as it is kept for good; where it is right now is its [`crate::Presence`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its number; never used again, and no user of the server has the same.
    pub id: NodeId,
    /// Its id for programs.
    pub stable_id: StableNodeId,
    /// The machine that proved itself when it joined; every request for the node must come from it.
    pub machine_key: MachinePublic,
    /// The node key in use.
    pub node_key: NodePublic,
    /// Whose it is.
    pub owner: Owner,
    /// Its name; unique in the tailnet.
    pub name: Label,
    /// Whether an administrator gave it the name; otherwise the name follows the machine's.
    pub named_by_hand: bool,
    /// Its addresses; unique on the server.
    pub addresses: Addresses,
    /// When it joined.
    pub created: Timestamp,
    /// When its node key expires; `None` is never.
    pub key_expiry: Option<Timestamp>,
    /// Whether an administrator said that its key does not expire.
    pub key_expiry_disabled: bool,
    /// Whether it is deleted once it is gone for a while.
    pub ephemeral: bool,
    /// Whether it was let in, where an administrator decides.
    pub authorized: bool,
    /// Routes that it may serve, if it offers them.
    pub approved_routes: BTreeSet<IpNet>,
    /// Routes that were taken back from it by hand: policy doesn't approve them again for as long as it offers them.
    #[serde(default)]
    pub revoked_routes: BTreeSet<IpNet>,
    /// What it says of itself, without what it measures of its network.
    pub hostinfo: Arc<Hostinfo>,
    /// What its client understands.
    pub cap: CapabilityVersion,
    /// The auth key that it joined with.
    pub joined_with: Option<KeyId>,
}

/// Whose a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// A person's.
    User(UserId),
    /// Nobody's: it is what its tags say. Never empty.
    Tags(BTreeSet<Tag>),
}

impl Owner {
    /// The person, unless it is tagged.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::User(id) => Some(*id),
            Self::Tags(_) => None,
        }
    }

    /// The tags; none when it is a person's.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        match self {
            Self::User(_) => None,
            Self::Tags(tags) => Some(tags),
        }
        .into_iter()
        .flatten()
    }

    /// Whether it has tags.
    pub fn is_tagged(&self) -> bool {
        matches!(self, Self::Tags(_))
    }
}

impl Node {
    /// Whether its node key counts no more.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.key_expiry.is_some_and(|expiry| expiry <= now)
    }

    /// Routes that it offers and may serve, exit routes among them.
    pub fn served_routes(&self) -> impl Iterator<Item = IpNet> {
        self.hostinfo.routable_ips.iter().copied().filter(|route| self.approved_routes.contains(route))
    }

    /// Routes that it offers and policy may approve: not those that were taken back by hand.
    pub(crate) fn routes_for_policy(&self) -> impl Iterator<Item = IpNet> {
        self.hostinfo.routable_ips.iter().copied().filter(|route| !self.revoked_routes.contains(route))
    }

    /// Whether it says of itself what another one says, or itself at another time.
    pub(crate) fn describes_itself_as(&self, other: &Self) -> bool {
        self.cap == other.cap && self.hostinfo == other.hostinfo
    }

    /// Whether it may be an exit node: it offers a default route and may serve it.
    pub fn is_exit_node(&self) -> bool {
        self.served_routes().any(|route| is_exit_route(&route))
    }
}

/// Whether a route leads everywhere.
pub(crate) fn is_exit_route(route: &IpNet) -> bool {
    route.prefix_len() == 0
}
