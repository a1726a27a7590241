//! Who spoke with whom: mesh flows, inside the tunnels, and physical flows, which carry them.

mod log;
mod recorder;

use std::net::SocketAddr;
use std::time::SystemTime;

use crypto::NodePublic;
use path::Via;

pub(crate) use log::FlowLog;
pub(crate) use recorder::{Batch, Direction, Ends, Recorder};

/// A flow, with all that it moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// Between addresses of the mesh.
    Mesh(MeshFlow),
    /// Between this machine and another, or a relay.
    Physical(PhysicalFlow),
}

/// A flow inside a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshFlow {
    /// The peer at the other end of the tunnel.
    pub peer: NodePublic,
    /// The IP protocol number; 0 where the flows of a peer that were idle longest have become one.
    pub protocol: u8,
    /// The end on this side of the tunnel; port 0 for protocols without ports.
    pub local: SocketAddr,
    /// The end on the peer's side.
    pub remote: SocketAddr,
    /// Which side's packet was seen first.
    pub initiator: Initiator,
    /// What went to the peer.
    pub sent: Volume,
    /// What came from the peer and was let in.
    pub received: Volume,
    /// What came from the peer and the filter refused.
    pub refused: Refused,
    /// When its first packet was seen.
    pub first: SystemTime,
    /// When its last packet was seen, give or take the time between two looks.
    pub last: SystemTime,
}

/// A flow that carries messages of one peer's tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysicalFlow {
    /// The peer.
    pub peer: NodePublic,
    /// The UDP address, or the relay.
    pub via: Via,
    /// What was sent, in WireGuard messages.
    pub sent: Volume,
    /// What was received and authentic, in WireGuard messages.
    pub received: Volume,
    /// When its first message was seen.
    pub first: SystemTime,
    /// When its last message was seen, give or take the time between two looks.
    pub last: SystemTime,
}

/// Which side began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Initiator {
    /// This node, or who is behind it.
    Local,
    /// The peer, or who is behind it.
    Remote,
}

/// How much passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Volume {
    /// Packets, as they are on the link: not super-packets.
    pub packets: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
}

/// How much the filter refused, and why the last of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// How much.
    pub volume: Volume,
    /// Why the last.
    pub reason: Option<filter::Refusal>,
}
