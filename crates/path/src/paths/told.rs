use std::time::Duration;

use crypto::NodePublic;
use packet::disco::OpenError;

use crate::{Answer, PathChoice};

/// A user's ping, to tell its outcome from that of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserPing(pub(super) u64);

/// What the node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Packets for a peer go another way from now on. Told once for several changes in a row.
    PathChanged {
        /// The peer.
        node: NodePublic,
        /// The new way.
        choice: PathChoice,
        /// Round trip of the direct path, if one is known.
        latency: Option<Duration>,
    },
    /// A peer is to be told this node's endpoints, and they may be out of date: run STUN, then
    /// [`crate::Paths::handle_own_endpoints`], changed or not.
    EndpointsWanted,
    /// A user's ping was answered.
    PingAnswered {
        /// Which ping.
        ping: UserPing,
        /// The peer that answered.
        node: NodePublic,
        /// How it answered.
        answer: Answer,
    },
    /// A user's ping was not answered within 5 s, or its peer left.
    PingUnanswered {
        /// Which ping.
        ping: UserPing,
        /// The peer that was pinged.
        node: NodePublic,
    },
}

/// Why a disco packet was dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No node of the netmap has that disco key.
    #[error("disco packet from a key that no peer has")]
    UnknownSender,
    /// It came through a relay from a node that does not have that disco key.
    #[error("disco packet through a relay from a node that does not hold its key")]
    ForeignRelay,
    /// It does not open, or can't be read.
    #[error(transparent)]
    Unreadable(#[from] OpenError),
    /// A pong that no ping waits for.
    #[error("pong without a ping")]
    StrayPong,
    /// A call-me-maybe by UDP: only a relay knows who really sent it.
    #[error("call-me-maybe that did not come by relay")]
    DirectCall,
    /// A message between nodes and peer relays, which this node does not take part in.
    #[error("disco message of a peer relay")]
    PeerRelay,
}

/// Why a user's ping was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PingRefused {
    /// No peer has that key.
    #[error("no such peer")]
    UnknownPeer,
    /// The peer speaks WireGuard only.
    #[error("the peer does not speak disco and can't be pinged this way")]
    NotDisco,
    /// Neither an address nor a relay is known.
    #[error("no way to the peer is known: it has no endpoints, no home relay, or no disco key")]
    NoWay,
    /// Too many pings to this peer wait for an answer.
    #[error("too many pings to this peer wait for an answer")]
    TooMany,
}

/// What was sent and refused since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pings sent.
    pub pings_sent: u64,
    /// Pongs sent.
    pub pongs_sent: u64,
    /// Call-me-maybes sent.
    pub calls_sent: u64,
    /// Disco packets refused.
    pub refused: u64,
    /// Packets dropped because nobody fetched those before.
    pub dropped: u64,
}
