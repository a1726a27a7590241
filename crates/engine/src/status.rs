use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use std::collections::BTreeMap;

use crypto::NodePublic;
use path::{Endpoint, NatKind, PathChoice, RegionId, Report, Via};
use tailcfg::NetInfo;

use crate::{Counters, Problem};

/// How the whole engine stands.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Every peer of the view.
    pub peers: BTreeMap<NodePublic, PeerStatus>,
    /// The relay region where this node waits.
    pub home: Option<RegionId>,
    /// The UDP port of the IPv4 socket; `None` when there is none.
    pub v4_port: Option<u16>,
    /// The UDP port of the IPv6 socket; `None` when there is none.
    pub v6_port: Option<u16>,
    /// Where this node can be reached, the most promising first.
    pub endpoints: Vec<Endpoint>,
    /// What does not work at the moment.
    pub problems: Vec<Problem>,
    /// What was dropped, and what batching is in use.
    pub counters: Counters,
}

/// How one peer stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerStatus {
    /// Where its packets go.
    pub path: PathChoice,
    /// Round trip of the direct path; `None` by relay.
    pub latency: Option<Duration>,
    /// Whether packets were sent to it in the last 45 s.
    pub active: bool,
    /// Whether there is a session to send on.
    pub established: bool,
    /// The relay region where it waits.
    pub home: Option<RegionId>,
    /// All addresses that would be tried.
    pub candidates: Vec<SocketAddr>,
    /// Bytes of WireGuard messages received from it since the engine started.
    pub received_bytes: u64,
    /// Bytes of WireGuard messages sent to it since the engine started.
    pub sent_bytes: u64,
    /// When the last handshake was completed.
    pub last_handshake: Option<SystemTime>,
    /// When a packet was last sent to it, give or take half a second.
    pub last_sent: Option<SystemTime>,
    /// When it was last heard, give or take half a second.
    pub last_heard: Option<SystemTime>,
}

/// What a ping goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingKind {
    /// A disco ping: tells the path, no session needed.
    Disco,
    /// A TSMP ping: through the tunnel, answered by the peer's engine whatever its filter says.
    Tsmp,
    /// An ICMP echo: through the tunnel and the peer's filter, answered by its IP stack.
    Icmp,
}

/// What a ping found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// From ping to answer.
    pub latency: Duration,
    /// The path of the answer; for pings through the tunnel the path in use when the answer came.
    pub via: Option<Via>,
    /// The address that answered, for pings through the tunnel.
    pub address: Option<IpAddr>,
    /// This node's address as the peer saw it, when a disco ping was answered by UDP.
    pub observed: Option<SocketAddr>,
    /// Where the peer's PeerAPI listens, when a TSMP ping was answered and it has one.
    pub peer_api_port: Option<u16>,
}

/// Why there was no pong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// The key is no peer's.
    #[error("no such peer")]
    UnknownPeer,
    /// The peer has no address of a family that this node has.
    #[error("the peer has no address that this node could ping")]
    NoAddress,
    /// No disco ping can be sent.
    #[error(transparent)]
    Refused(#[from] path::paths::PingRefused),
    /// Nothing came back in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Too many pings wait for an answer.
    #[error("too many pings wait for an answer; try again in some seconds")]
    TooMany,
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The engine has stopped, and answers nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data plane has stopped")]
pub struct Stopped;

/// What the network around this node is like.
#[derive(Debug, Clone)]
pub struct Netcheck {
    /// What was measured.
    pub report: Report,
    /// What stands between this node and the IPv4 internet.
    pub nat: NatKind,
    /// The same as the coordination server is told.
    pub net_info: NetInfo,
}
