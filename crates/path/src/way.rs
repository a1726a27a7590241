use std::net::SocketAddr;
use std::time::Duration;

use crypto::NodePublic;

use crate::RegionId;

/// How one datagram comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// By UDP, from or to this address.
    Udp(SocketAddr),
    /// Through a relay region, from or to the node that holds this key.
    Relay {
        /// The region.
        region: RegionId,
        /// The node at the other end.
        node: NodePublic,
    },
}

impl Way {
    /// The same without the node.
    pub(crate) fn via(&self) -> Via {
        match *self {
            Self::Udp(address) => Via::Direct(address),
            Self::Relay { region, .. } => Via::Relay(region),
        }
    }
}

/// How a known peer is reached, or was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// By UDP at this address.
    Direct(SocketAddr),
    /// Through this relay region.
    Relay(RegionId),
}

/// Where the next packet for a peer goes: all that a data thread must know about paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathChoice {
    /// No way is known: the packet is dropped.
    #[default]
    Nowhere,
    /// By UDP only.
    Direct(SocketAddr),
    /// By relay only.
    Relay(RegionId),
    /// The same packet both ways: a direct path is known, but has not proven itself lately.
    Both {
        /// The direct path.
        direct: SocketAddr,
        /// The relay's region.
        relay: RegionId,
    },
}

impl PathChoice {
    pub(crate) fn new(direct: Option<(SocketAddr, bool)>, relay: Option<RegionId>) -> Self {
        match (direct, relay) {
            (Some((direct, true)), _) | (Some((direct, false)), None) => Self::Direct(direct),
            (Some((direct, false)), Some(relay)) => Self::Both { direct, relay },
            (None, Some(relay)) => Self::Relay(relay),
            (None, None) => Self::Nowhere,
        }
    }

    /// The UDP address to send to, if any.
    pub fn direct(&self) -> Option<SocketAddr> {
        match *self {
            Self::Direct(direct) | Self::Both { direct, .. } => Some(direct),
            Self::Relay(_) | Self::Nowhere => None,
        }
    }

    /// The relay region to send through, if any.
    pub fn relay(&self) -> Option<RegionId> {
        match *self {
            Self::Relay(relay) | Self::Both { relay, .. } => Some(relay),
            Self::Direct(_) | Self::Nowhere => None,
        }
    }
}

/// A sealed disco packet that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub way: Way,
    /// The whole packet.
    pub payload: Vec<u8>,
}

/// Which address families this node has a socket and a route for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// Whether IPv4 datagrams can be sent.
    pub v4: bool,
    /// Whether IPv6 datagrams can be sent.
    pub v6: bool,
}

impl Families {
    /// Both families.
    pub const ALL: Self = Self { v4: true, v6: true };

    /// Whether datagrams to this address can be sent.
    pub fn reach(&self, address: &SocketAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// What became of a ping that a user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// How the pong came.
    pub via: Via,
    /// From ping to pong.
    pub latency: Duration,
    /// This node's address as the peer saw it; `None` by relay.
    pub observed: Option<SocketAddr>,
}
